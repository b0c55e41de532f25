package registry

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// TestExpiredAlone lets one role's file expire while all others are fresh. The
// error names it.
func TestExpiredAlone(t *testing.T) {
	for _, role := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, binPrefix} {
		s := newSite(t)
		one := newRelease("alpha", 1, buildID(1))
		s.publish(t, one)
		c := s.client(t, s.dir)
		expect(t, c, one.BuildIDs, one)
		s.now = s.now.Add(rootValidity + time.Hour)
		err := s.p.change(t.Context(), func(e *edit) error {
			for _, bin := range e.signedBins() {
				if err := e.trust.role(t.Context(), bin, metadata.TARGETS); err != nil {
					return err
				}
				if role != binPrefix {
					e.openBin(bin)
				}
			}
			if role != metadata.TARGETS {
				e.openTargets()
			}
			e.openSnapshot()
			return e.commit(t.Context())
		})
		if err == nil && role != metadata.ROOT {
			err = s.p.change(t.Context(), func(e *edit) error { return e.renewRoot(t.Context()) })
		}
		if role == metadata.SNAPSHOT && err == nil {
			s.now = s.now.Add(snapshotValidity + time.Hour)
			err = s.p.change(t.Context(), func(e *edit) error { return e.commit(t.Context()) })
		}
		if err != nil {
			t.Fatal(err)
		}
		for what, c := range map[string]*Client{"known": c, "new": s.client(t, s.dir)} {
			err := c.Update(t.Context())
			if err == nil {
				_, err = c.Lookup(t.Context(), one.BuildIDs)
			}
			if !errors.Is(err, ErrExpired) || !strings.Contains(err.Error(), role) {
				t.Errorf("%s expired, a %s client: %v", role, what, err)
			}
		}
	}
}

// plant puts a file in a role's place, named by a snapshot and a timestamp that
// are signed as they should be.
func (s *site) plant(t testing.TB, role string, data []byte, version int64) {
	t.Helper()
	err := s.p.change(t.Context(), func(e *edit) error {
		name := metadataFile(version, role)
		info, err := metaFile(version, data, maxTargets, name)
		if err != nil {
			return err
		}
		e.openSnapshot().Signed.Meta[role+".json"] = info
		return errors.Join(e.store.write(t.Context(), name, data), e.commit(t.Context()))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSignedByAnotherRole: the keys of snapshot and timestamp sign no targets,
// and those of targets no root.
func TestSignedByAnotherRole(t *testing.T) {
	for _, role := range []string{metadata.TARGETS, binPrefix, metadata.ROOT} {
		s := newSite(t)
		one := newRelease("alpha", 1, buildID(1))
		s.publish(t, one)
		c := s.client(t, s.dir)
		expect(t, c, one.BuildIDs, one)
		by, as := s.p.keys.role[metadata.SNAPSHOT], s.p.keys.role[metadata.TARGETS]
		e, err := s.p.begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var data []byte
		file := ""
		switch role {
		case metadata.ROOT:
			m := e.trust.set.Root
			m.Signed.Version++
			m.ClearSignatures()
			by, as, file = s.p.keys.role[metadata.TARGETS], s.p.keys.role[metadata.ROOT], metadataFile(2, role)
			if err = addSignatures(t.Context(), m, file, by); err == nil {
				m.Signatures[0].KeyID = as[0].id
				data, err = m.ToBytes(false)
			}
			s.write(t, file, data)
		default:
			bin := e.trust.roles(shardTarget(buildID(1)))[0]
			name := bin
			if role == metadata.TARGETS {
				name = role
			} else {
				as = s.p.keys.role[roleBins]
			}
			if err := e.trust.role(t.Context(), bin, metadata.TARGETS); err != nil {
				t.Fatal(err)
			}
			m := e.trust.set.Targets[name]
			m.Signed.Version++
			m.ClearSignatures()
			file = metadataFile(m.Signed.Version, name)
			if err = addSignatures(t.Context(), m, file, by); err == nil {
				m.Signatures[0].KeyID = as[0].id
				data, err = m.ToBytes(false)
			}
			if err == nil {
				s.plant(t, name, data, m.Signed.Version)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Update(t.Context()); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s signed by another role: %v", role, err)
		}
		expectNow(t, c, one.BuildIDs, one)
		fresh := s.client(t, s.dir)
		if err := fresh.Update(t.Context()); err == nil {
			_, err = fresh.Lookup(t.Context(), one.BuildIDs)
			if !errors.Is(err, ErrUntrusted) {
				t.Errorf("%s signed by another role, a new client: %v", role, err)
			}
		}
	}
}

// TestDamagedRoots damages the next root.json and targets.json on the way.
func TestDamagedRoots(t *testing.T) {
	s := newSite(t)
	v := s.serve(t)
	one := newRelease("alpha", 1, buildID(1))
	s.publish(t, one)
	begin := s.now
	states := map[string]string{}
	for damage := range damages {
		for _, file := range []string{"2.root.json", "2.targets.json"} {
			state := filepath.Join(t.TempDir(), "state")
			states[damage+"/"+file] = state
			expect(t, s.clientAt(t, v.URL, state), one.BuildIDs, one)
		}
	}
	s.now = begin.Add(rootValidity * 3 / 4)
	if err := s.p.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.now = begin
	for damage, d := range damages {
		for _, file := range []string{"2.root.json", "2.targets.json"} {
			if damage == "not there" && file == "2.root.json" {
				continue // then there is no next one
			}
			t.Run(file+"/"+damage, func(t *testing.T) {
				v.set(func(w http.ResponseWriter, r *http.Request) bool {
					if filepath.Base(r.URL.Path) != file {
						return false
					}
					data, err := os.ReadFile(filepath.Join(s.dir, r.URL.Path))
					if err != nil {
						t.Error(err)
					}
					d.answer(w, r, data)
					return true
				})
				defer v.set(nil)
				state := states[damage+"/"+file]
				c := s.clientAt(t, v.URL, state)
				if damage == "stalled" { // else a slow machine would fail
					c.hurry()
				}
				err := c.Update(t.Context())
				checkFailure(t, err, d.want)
				if !strings.Contains(fmt.Sprint(err), file) {
					t.Errorf("the error names no %s: %v", file, err)
				}
				s.checkState(t, state)
				expectNow(t, c, one.BuildIDs, one)
				v.set(nil)
				expect(t, c, one.BuildIDs, one)
			})
		}
	}
}

// TestClientDiskFull: on a full disk what was valid stays in use, nothing half
// written is left, and all goes on when there is room.
func TestClientDiskFull(t *testing.T) {
	mount := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("fother", mount, "tmpfs", 0, "size=256k,mode=700"); err != nil {
		testenv.Skip(t, "a tmpfs cannot be mounted: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	s := newSite(t)
	one, two := newRelease("alpha", 1, buildID(1)), newRelease("alpha", 2, buildID(1))
	two.Bundle = make([]byte, 128<<10)
	s.publish(t, one)
	state := filepath.Join(mount, "state")
	c := s.clientAt(t, s.dir, state)
	expect(t, c, one.BuildIDs, one)

	// There is room for the metadata, not for the bundle.
	ballast := filepath.Join(mount, "ballast")
	full := func(left int64) {
		t.Helper()
		var st unix.Statfs_t
		if err := errors.Join(os.RemoveAll(ballast), unix.Statfs(mount, &st)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(ballast, make([]byte, int64(st.Bavail)*st.Bsize-left), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.publish(t, two)
	full(96 << 10)
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	noRoom := func(what string, err error) {
		t.Helper()
		var ours *Error
		if !errors.Is(err, ErrState) || !errors.Is(err, unix.ENOSPC) || !errors.As(err, &ours) || !strings.HasPrefix(ours.File, mount) {
			t.Errorf("%s: %v", what, err)
		}
		s.checkState(t, state)
	}
	noRoom("no room for the bundle", fetchLevel(t, c, one.BuildIDs, 2))
	entries, err := c.Lookup(t.Context(), one.BuildIDs)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := c.Fetch(t.Context(), entries[1]); err != nil || string(data) != string(one.Bundle) {
		t.Errorf("what is in the cache: %v", err)
	}

	// There is room for nothing.
	s.publish(t, newRelease("alpha", 3, buildID(1)))
	full(0)
	noRoom("no room for metadata", c.Update(t.Context()))
	for _, c := range []*Client{c, s.clientAt(t, s.dir, state)} {
		if entries, err := c.Lookup(t.Context(), one.BuildIDs); err != nil || len(entries) != 2 {
			t.Errorf("what was valid: %v, %v", entries, err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	expect(t, c, one.BuildIDs, one, two, newRelease("alpha", 3, buildID(1)))
}

// TestClockOfPublisher: a publisher whose clock is wrong by a day, either way,
// makes what hosts with a right clock take.
func TestClockOfPublisher(t *testing.T) {
	s := newSite(t)
	all := []Release{newRelease("alpha", 1, buildID(1))}
	s.publish(t, all[0])
	c := s.client(t, s.dir)
	ids := []specs.BuildID{buildID(1)}
	for i, wrong := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		s.now = s.now.Add(wrong)
		next := newRelease("alpha", specs.Level(i+2), buildID(1))
		s.publish(t, next)
		if err := s.p.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.now = s.now.Add(-wrong)
		all = append(all, next)
		expect(t, c, ids, all...)
		expect(t, s.client(t, s.dir), ids, all...)
	}
}
