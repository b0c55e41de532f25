package fleet

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
)

// revoke revokes a level of a package in the store.
func (s *store) revoke(name string, level specs.Level) {
	for i := range s.entries {
		if e := &s.entries[i]; e.Package == name && e.Level == level {
			e.Revoked = &registry.Revocation{Reason: "it crashes", Time: time.Unix(1e9, 0).UTC()}
		}
	}
}

func patch(id specs.BuildID, level specs.Level) specs.PatchID {
	return specs.PatchID{BuildID: id, Series: "default", Level: level}
}

// TestRevoked: a revoked level goes out, for the highest one that is not
// revoked if there is one, and does not come back.
func TestRevoked(t *testing.T) {
	for name, c := range map[string]struct {
		levels, revoked []specs.Level
		had             specs.Level // 0 is none
		want            []specs.PatchID
		commits         int
	}{
		"the only one":     {[]specs.Level{1}, []specs.Level{1}, 1, nil, 0},
		"for a lower one":  {[]specs.Level{1, 2, 3}, []specs.Level{3}, 3, []specs.PatchID{patch(idA, 2)}, 1},
		"two are":          {[]specs.Level{1, 2, 3}, []specs.Level{2, 3}, 3, []specs.PatchID{patch(idA, 1)}, 1},
		"for a higher one": {[]specs.Level{1, 2, 3}, []specs.Level{2}, 2, []specs.PatchID{patch(idA, 3)}, 1},
		"a lower one":      {[]specs.Level{1, 2, 3}, []specs.Level{2}, 3, []specs.PatchID{patch(idA, 3)}, 0},
		"a new process":    {[]specs.Level{1, 2}, []specs.Level{2}, 0, []specs.PatchID{patch(idA, 1)}, 1},
		"nothing left":     {[]specs.Level{1, 2}, []specs.Level{1, 2}, 0, nil, 0},
		"another's level":  {[]specs.Level{1, 2}, []specs.Level{2}, 4, []specs.PatchID{patch(idA, 4)}, 0},
	} {
		var s store
		for _, l := range c.levels {
			s.publish(t, "first", "default", l, idA)
		}
		for _, l := range c.revoked {
			s.revoke("first", l)
		}
		m := machine{10: {ids: []specs.BuildID{idA}}}
		if c.had > 0 {
			m[10].applied = []specs.PatchID{patch(idA, c.had)}
		}
		state := t.TempDir()
		r := pass(t, m, &s, func(o *Options) { o.State = state })
		if !slices.Equal(m[10].applied, c.want) || m[10].commits != c.commits || len(r.Errors) != 0 {
			t.Errorf("%s: %v in %d commits, want %v in %d; %+v", name, m[10].applied, m[10].commits, c.want, c.commits, r.Errors)
		}
		had := slices.Contains(c.revoked, c.had)
		if had != (len(r.Revoked) == 1) || had && (!r.Revoked[0].Out || r.Revoked[0].Reason != "it crashes" || r.Revoked[0].Patch.Level != c.had) {
			t.Errorf("%s: told %+v", name, r.Revoked)
		}
		again := pass(t, m, &s, func(o *Options) { o.State = state })
		if m[10].commits != c.commits || len(again.Revoked) != 0 || !slices.Equal(m[10].applied, c.want) {
			t.Errorf("%s: a second pass: %v, %+v", name, m[10].applied, again.Revoked)
		}
		list, err := ReadRevoked(state)
		if err != nil || len(list) != len(c.revoked) || list[0].Package != "first" || list[0].Reason != "it crashes" {
			t.Errorf("%s: remembered %+v, %v", name, list, err)
		}
	}
}

// TestRevokedFails: what cannot go out is told, and what replaces it goes in
// when it is out.
func TestRevokedFails(t *testing.T) {
	var s store
	s.publish(t, "first", "default", 1, idA)
	s.publish(t, "first", "default", 2, idA)
	s.revoke("first", 2)
	new := func(change func(*proc)) machine {
		p := &proc{ids: []specs.BuildID{idA}, applied: []specs.PatchID{patch(idA, 2)}}
		change(p)
		return machine{10: p}
	}
	m := new(func(p *proc) { p.stateless = true })
	r := pass(t, m, &s)
	if !slices.Equal(m[10].applied, []specs.PatchID{patch(idA, 1)}) || len(r.Revoked) != 1 || r.Revoked[0].Result == nil || len(r.Processes[0].Errors) != 0 {
		t.Errorf("with variables of another type: %v, %+v", m[10].applied, r)
	}
	m = new(func(p *proc) { p.busy = time.Millisecond })
	r = pass(t, m, &s)
	if !slices.Equal(m[10].applied, []specs.PatchID{patch(idA, 2)}) || len(r.Revoked) != 1 || r.Revoked[0].Out || len(r.Processes[0].Errors) != 1 {
		t.Errorf("busy: %v, %+v", m[10].applied, r.Revoked)
	}
	m = new(func(*proc) {})
	r = pass(t, m, &s, func(o *Options) { o.DryRun = true })
	if !slices.Equal(m[10].applied, []specs.PatchID{patch(idA, 2)}) || len(r.Revoked) != 1 || r.Revoked[0].Out {
		t.Errorf("dry run: %v, %+v", m[10].applied, r.Revoked)
	}
	s.bundles = nil // the lower level cannot be had: better none than this one
	m = new(func(*proc) {})
	r = pass(t, m, &s)
	if len(m[10].applied) != 0 || len(r.Revoked) != 1 || !r.Revoked[0].Out || len(r.Releases[0].Errors) != 1 {
		t.Errorf("without the lower bundle: %v, %+v", m[10].applied, r.Revoked)
	}
	m = new(func(p *proc) { p.revert = apply.ErrNoMemory })
	r = pass(t, m, &s)
	expect(t, r, "not found", "first-2.kpatch.tar.zst was revoked (it crashes), and cannot be taken out")
	// One package does not revoke another's.
	var two store
	two.publish(t, "first", "default", 2, idA)
	two.publish(t, "other", "default", 2, idA)
	two.revoke("other", 2)
	m = new(func(*proc) {})
	r = pass(t, m, &two)
	if !slices.Equal(m[10].applied, []specs.PatchID{patch(idA, 2)}) || len(r.Revoked) != 0 {
		t.Errorf("revoked by another package: %v, %+v", m[10].applied, r.Revoked)
	}
	expect(t, r, "claimed by two packages")
}

// TestRememberRevoked: a pass for single processes forgets nothing of others.
func TestRememberRevoked(t *testing.T) {
	var s store
	s.publish(t, "first", "default", 1, idA)
	s.publish(t, "second", "default", 1, idB)
	s.revoke("first", 1)
	s.revoke("second", 1)
	state := t.TempDir()
	m := machine{10: {ids: []specs.BuildID{idA}}, 11: {ids: []specs.BuildID{idB}}}
	remembered := func(want string, change func(*Options)) {
		t.Helper()
		pass(t, m, &s, func(o *Options) { o.State = state; change(o) })
		list, err := ReadRevoked(state)
		var names []string
		for _, r := range list {
			names = append(names, r.Package)
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("remembered %q, %v: want %q", got, err, want)
		}
	}
	remembered("first", func(o *Options) { o.PIDs = []int{10} })
	remembered("first second", func(o *Options) { o.PIDs = []int{11} })
	s.entries[0].Revoked = nil
	remembered("second", func(o *Options) { o.PIDs = []int{10} })
	remembered("second", func(*Options) {})
	delete(m, 11)
	remembered("", func(*Options) {})
	path := filepath.Join(state, revokedFile)
	for what, text := range map[string]string{"garbage": "x", "another form": `{"a":1}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if list, err := ReadRevoked(state); err == nil {
			t.Errorf("%s: %v", what, list)
		}
	}
	if err := os.Truncate(path, maxRevoked+1); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRevoked(state); err == nil {
		t.Error("a file of any size is read")
	}
	data, err := json.Marshal([]RevokedPatch{{Package: "x"}})
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(state, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRevoked(state); err == nil {
		t.Error("what others can write is read")
	}
}
