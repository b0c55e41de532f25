package fleet

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

const (
	idA = specs.BuildID("aa00000000000000000000000000000000000001")
	idB = specs.BuildID("bb00000000000000000000000000000000000002")
	idC = specs.BuildID("cc00000000000000000000000000000000000003")
)

// store is a registry in memory.
type store struct {
	entries []registry.Entry
	bundles map[string][]byte // by path
	update  error
	lookup  error
	unknown []specs.BuildID // that Lookup cannot tell of
	asked   [][]specs.BuildID
	fetched []string
	pruned  int
}

func (s *store) Update(context.Context) error { return s.update }

func (s *store) Lookup(_ context.Context, ids []specs.BuildID) ([]registry.Entry, error) {
	s.asked = append(s.asked, ids)
	var found []registry.Entry
	for _, e := range s.entries {
		if slices.Contains(ids, e.BuildID) && !slices.Contains(s.unknown, e.BuildID) {
			found = append(found, e)
		}
	}
	return found, s.lookup
}

func (s *store) Prune([]registry.Entry) error { s.pruned++; return nil }

func (s *store) Fetch(_ context.Context, e registry.Entry) ([]byte, error) {
	s.fetched = append(s.fetched, e.File)
	if b, ok := s.bundles[e.Path]; ok {
		return b, nil
	}
	return nil, errors.New("not found")
}

// publish adds a release to the store and returns its bundle.
func (s *store) publish(t *testing.T, name string, series specs.Series, level specs.Level, ids ...specs.BuildID) []byte {
	t.Helper()
	data := bundleOf(t, name, series, level, ids...)
	s.list(name, series, level, data, ids...)
	return data
}

func (s *store) list(name string, series specs.Series, level specs.Level, data []byte, ids ...specs.BuildID) {
	e := registry.Entry{Package: name, Series: series, Level: level, File: bundle.Name(name, level), Length: int64(len(data)), Digest: specs.DigestOf(data), KeyID: "key"}
	e.Path = e.Digest.String() + "/" + e.File
	for _, e.BuildID = range ids {
		s.entries = append(s.entries, e)
	}
	if s.bundles == nil {
		s.bundles = make(map[string][]byte)
	}
	s.bundles[e.Path] = data
}

func bundleOf(t *testing.T, name string, series specs.Series, level specs.Level, ids ...specs.BuildID) []byte {
	t.Helper()
	data, err := encode(name, series, level, ids...)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func encode(name string, series specs.Series, level specs.Level, ids ...specs.BuildID) ([]byte, error) {
	var files [][]byte
	for _, id := range ids {
		code := bytes.Repeat([]byte{0x90}, 16)
		p := &kpack.Patch{
			Arch: arch.X86_64, Target: kpack.Target{BuildID: id, Name: "prog", Image: specs.Range[specs.VAddr]{Lo: 0, Hi: 0x10000}},
			Meta:     kpack.Meta{Name: name, Series: series, Level: level},
			Sections: []kpack.Section{{Name: ".kpatch.text", Kind: kpack.Text, Align: 16, Size: uint64(len(code)), Data: code}},
			Symbols:  []kpack.Symbol{{Name: "check.kpatch", Size: 16, Func: true}},
			Functions: []kpack.Function{{Name: "check", File: "main.c", Reason: "body changed",
				Original: specs.Range[specs.VAddr]{Lo: 0x1000, Hi: 0x1040}, Room: 64, Entry: make([]byte, 32)}},
		}
		file, err := p.Encode()
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return bundle.Encode(bundle.Manifest{Name: name, Series: series, Level: level, Created: time.Unix(0, 0).UTC()}, files)
}

// TestMain makes what package bundle makes once: made in a test's bubble of
// time it would belong to that.
func TestMain(m *testing.M) {
	data, err := encode("first", "default", 1, idA)
	if err == nil {
		_, err = bundle.Decode(data)
	}
	if err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// machine is a host whose processes are made up.
type machine map[int]*proc

// proc is a process of a machine.
type proc struct {
	uid       int
	ids       []specs.BuildID
	applied   []specs.PatchID
	rejected  []specs.PatchID
	trialOver bool            // of all that is applied
	read      error           // of reading it
	apply     error           // of applying to it
	revert    error           // of taking a patch out
	stateless bool            // a lower level cannot go on with its variables
	hang      <-chan struct{} // reading it takes until this is closed
	later     <-chan struct{} // reading what it has takes until this is closed
	busy      time.Duration   // applying takes this long, and fails
	stick     <-chan struct{} // applying takes until this is closed
	commits   int
	when      time.Time // of the last commit
}

func (m machine) processes() ([]int, error) { return slices.Sorted(maps.Keys(m)), nil }

func (m machine) owner(pid int) (int, error) {
	if m[pid] == nil {
		return 0, apply.ErrGone
	}
	return m[pid].uid, nil
}

func (m machine) read(pid int) (found, error) {
	p := m[pid]
	if p.hang != nil {
		<-p.hang
	}
	return found{pid: pid, name: "prog", ids: p.ids, applied: slices.Clone(p.applied), trialOver: p.trialOver}, p.read
}

func (m machine) has(pid int, ids []specs.PatchID) ([]standing, error) {
	if m[pid].later != nil {
		<-m[pid].later
	}
	has := make([]standing, len(ids))
	for i, id := range ids {
		switch {
		case m[pid].has(id):
			has[i] = present
		case slices.Contains(m[pid].rejected, id):
			has[i] = rejected
		}
	}
	return has, nil
}

func (m machine) revert(_ context.Context, pid int, which []apply.Selector, o apply.Options) (*apply.Result, error) {
	p := m[pid]
	if err := o.Check(pid); err != nil {
		return nil, err
	}
	if p.revert != nil {
		return nil, p.revert
	}
	res := &apply.Result{PID: pid, Name: "prog"}
	for _, s := range which {
		p.applied = slices.DeleteFunc(p.applied, func(a specs.PatchID) bool {
			out := a == specs.PatchID{BuildID: s.BuildID, Series: s.Series, Level: s.Level}
			if out {
				res.Removed = append(res.Removed, apply.Applied{PatchID: a})
			}
			return out
		})
	}
	if len(res.Removed) == 0 {
		return nil, apply.ErrNotApplied
	}
	return res, nil
}

func (m machine) expire(_ context.Context, pid int, o apply.Options) (*apply.Result, error) {
	p := m[pid]
	if err := o.Check(pid); err != nil {
		return nil, err
	}
	if p.busy > 0 {
		return nil, &apply.BusyError{Waited: p.busy}
	}
	p.rejected, p.applied, p.trialOver = p.applied, nil, false
	return &apply.Result{PID: pid, Name: "prog"}, nil
}

func (p *proc) has(id specs.PatchID) bool {
	return slices.ContainsFunc(p.applied, func(a specs.PatchID) bool {
		return a.BuildID == id.BuildID && a.Series == id.Series && a.Level >= id.Level
	})
}

func (m machine) prepare(_ context.Context, pid int, patches []*kpack.Patch) (*apply.Plan, error) {
	plan := &apply.Plan{}
	for _, p := range patches {
		plan.Apply = append(plan.Apply, apply.Applied{PatchID: specs.PatchID{BuildID: p.Target.BuildID, Series: p.Meta.Series, Level: p.Meta.Level}, Name: p.Meta.Name})
	}
	return plan, m[pid].apply
}

func (m machine) apply(ctx context.Context, pid int, patches []*kpack.Patch, o apply.Options) (*apply.Result, error) {
	if err := o.Check(pid); err != nil {
		return nil, err
	}
	if m[pid].stick != nil {
		<-m[pid].stick
	}
	if m[pid].busy > 0 {
		time.Sleep(m[pid].busy)
		return nil, &apply.BusyError{Waited: m[pid].busy}
	}
	plan, err := m.prepare(ctx, pid, patches)
	if err != nil {
		return nil, err
	}
	res := &apply.Result{PID: pid, Name: "prog", Applied: plan.Apply}
	for _, a := range plan.Apply {
		i := slices.IndexFunc(m[pid].applied, func(old specs.PatchID) bool { return old.BuildID == a.BuildID && old.Series == a.Series })
		if i < 0 {
			continue
		}
		old := m[pid].applied[i]
		switch {
		case old.Level > a.Level && !slices.Contains(o.Revoked, old):
			return nil, apply.ErrAlreadyApplied
		case m[pid].stateless:
			return nil, &apply.StateError{Why: "it has another type"}
		}
		res.Replaced = append(res.Replaced, apply.Applied{PatchID: old})
		m[pid].applied = slices.Delete(m[pid].applied, i, i+1)
	}
	m[pid].commits++
	m[pid].when = time.Now()
	for _, a := range plan.Apply {
		m[pid].applied = append(m[pid].applied, a.PatchID)
	}
	return res, nil
}

// pass makes one pass over m.
func pass(t *testing.T, m machine, s *store, change ...func(*Options)) *Report {
	t.Helper()
	o := Options{Registry: s, Address: "https://patches.example"}
	for _, f := range change {
		f(&o)
	}
	r, err := newPull(o, m).run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}
