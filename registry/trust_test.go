package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/fother/fother/specs"
)

func (s *site) read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (s *site) write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRollback(t *testing.T) {
	s := newSite(t)
	one, two := newRelease("alpha", 1, buildID(1)), newRelease("alpha", 2, buildID(1))
	s.publish(t, one)
	old := s.read(t, timestampFile)
	s.publish(t, two)
	state := filepath.Join(t.TempDir(), "state")
	c := s.clientAt(t, s.dir, state)
	expect(t, c, one.BuildIDs, one, two)
	s.write(t, timestampFile, old)
	for _, c := range []*Client{c, s.clientAt(t, s.dir, state)} {
		if err := c.Update(t.Context()); !errors.Is(err, ErrUntrusted) {
			t.Errorf("an older timestamp: %v", err)
		}
		expectNow(t, c, one.BuildIDs, one, two)
	}
	// A publisher would lose what was published since.
	if err := s.p.Publish(t.Context(), newRelease("beta", 1, buildID(2))); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), lastSeenFile) {
		t.Errorf("publishing on an older state: %v", err)
	}
	if err := os.Remove(filepath.Join(s.keys, lastSeenFile)); err != nil {
		t.Fatal(err)
	}
	s.publish(t, newRelease("beta", 1, buildID(2)))
}

// TestRollbackUnfinished: the newest timestamp is believed even if what it
// names could not be fetched.
func TestRollbackUnfinished(t *testing.T) {
	s := newSite(t)
	v := s.serve(t)
	one := newRelease("alpha", 1, buildID(1))
	s.publish(t, one)
	state := filepath.Join(t.TempDir(), "state")
	expect(t, s.clientAt(t, v.URL, state), one.BuildIDs, one)
	s.publish(t, newRelease("alpha", 2, buildID(1)))
	middle := s.read(t, timestampFile)
	s.publish(t, newRelease("alpha", 3, buildID(1)))
	v.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !isKind("snapshot", r.URL.Path) {
			return false
		}
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	if err := s.clientAt(t, v.URL, state).Update(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Fatal(err)
	}
	v.set(nil)
	s.write(t, timestampFile, middle)
	c := s.clientAt(t, v.URL, state)
	if err := c.Update(t.Context()); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a timestamp older than one that was seen: %v", err)
	}
	expectNow(t, c, one.BuildIDs, one)
}

func TestFrozen(t *testing.T) {
	s := newSite(t)
	r := newRelease("alpha", 1, buildID(1))
	s.publish(t, r)
	c := s.client(t, s.dir)
	expect(t, c, r.BuildIDs, r)
	for _, wrong := range []time.Duration{24 * time.Hour, -24 * time.Hour, -1000 * time.Hour} {
		s.now = s.now.Add(wrong)
		expect(t, c, r.BuildIDs, r)
		expect(t, s.client(t, s.dir), r.BuildIDs, r)
		s.now = s.now.Add(-wrong)
	}
	s.now = s.now.Add(timestampValidity + time.Minute)
	for _, c := range []*Client{c, s.client(t, s.dir)} {
		err := c.Update(t.Context())
		var ours *Error
		if !errors.Is(err, ErrExpired) || !errors.As(err, &ours) || !strings.Contains(ours.File, "timestamp") || ours.Hint() == "" || !strings.Contains(err.Error(), s.now.UTC().Format("2006-01-02")) {
			t.Errorf("expired: %v", err)
		}
	}
	if _, err := c.Lookup(t.Context(), r.BuildIDs); !errors.Is(err, ErrExpired) {
		t.Errorf("lookup in what has expired: %v", err)
	}
	if err := s.p.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, c, r.BuildIDs, r)
}

// TestRefreshForYears renews a registry every six days, longer than each of
// its signatures holds, and then after it has expired altogether.
func TestRefreshForYears(t *testing.T) {
	s := newSite(t)
	r := newRelease("alpha", 1, buildID(1))
	s.publish(t, r)
	early := s.client(t, s.dir)
	expect(t, early, r.BuildIDs, r)
	for range 2 * 365 / 6 {
		s.now = s.now.Add(6 * 24 * time.Hour)
		if err := s.p.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, early, r.BuildIDs, r)
	}
	if early.state.set.Root.Signed.Version < 3 {
		t.Errorf("after two years the root is version %d", early.state.set.Root.Signed.Version)
	}
	s.now = s.now.Add(3 * 365 * 24 * time.Hour)
	if err := early.Update(t.Context()); !errors.Is(err, ErrExpired) {
		t.Errorf("expired altogether: %v", err)
	}
	if err := s.p.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, early, r.BuildIDs, r)
	expect(t, s.client(t, s.dir), r.BuildIDs, r)
	two := newRelease("alpha", 2, buildID(1))
	s.publish(t, two)
	expect(t, early, r.BuildIDs, r, two)
}

// TestRefreshWithoutKeys: as long as root and targets hold, whoever lacks
// their keys keeps the registry alive. The error says what is missing, and
// until when.
func TestRefreshWithoutKeys(t *testing.T) {
	for _, missing := range [][]string{{metadata.ROOT}, {metadata.TARGETS}, {metadata.ROOT, metadata.TARGETS}} {
		s := newSite(t)
		r := newRelease("alpha", 1, buildID(1))
		s.publish(t, r)
		all := s.open(t)
		for _, role := range missing {
			if err := os.Remove(filepath.Join(s.keys, role+".1.pem")); err != nil {
				t.Fatal(err)
			}
		}
		s.p = s.open(t)
		start := s.now
		for day := 6; day < 365; day += 6 {
			s.now = start.Add(time.Duration(day) * 24 * time.Hour)
			err := s.p.Refresh(t.Context())
			if day < 365*2/3 && err != nil || day > 365*2/3+1 && !errors.Is(err, ErrDue) {
				t.Fatalf("without %v, day %d: %v", missing, day, err)
			}
			for _, role := range missing {
				want := fmt.Sprintf("2.%s.json: not signed, the one before it holds until %s", role, start.Add(rootValidity).UTC().Format(time.DateOnly))
				if err != nil && (!errors.Is(err, ErrKey) || !strings.Contains(err.Error(), want)) {
					t.Errorf("without %v, day %d: %v, want %s", missing, day, err, want)
				}
			}
			if day%60 == 0 || day > 350 {
				expect(t, s.client(t, s.dir), r.BuildIDs, r)
			}
		}
		if err := all.Refresh(t.Context()); err != nil {
			t.Errorf("with all keys: %v", err)
		}
		s.now = start.Add(rootValidity + 24*time.Hour)
		expect(t, s.client(t, s.dir), r.BuildIDs, r)
	}
}

// forge signs a timestamp of the given version by the key of a role.
func (s *site) forge(t testing.TB, version int64, role string) []byte {
	t.Helper()
	return s.sign(t, s.p.keys.role[role][0], version)
}

func TestWrongRole(t *testing.T) {
	s, other := newSite(t), newSite(t)
	c := s.client(t, s.dir)
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	good := s.forge(t, 9, metadata.TIMESTAMP)
	for name, data := range map[string][]byte{
		"snapshot's key":  s.forge(t, 9, metadata.SNAPSHOT),
		"bins' key":       s.forge(t, 9, roleBins),
		"another's key":   other.forge(t, 9, metadata.TIMESTAMP),
		"another's file":  other.read(t, timestampFile),
		"another role":    s.read(t, metadataFile(1, metadata.SNAPSHOT)),
		"no signature":    []byte(strings.Replace(string(good), `"signatures":[`, `"signatures":[],"x":[`, 1)),
		"root's document": s.root,
	} {
		s.write(t, timestampFile, data)
		if err := c.Update(t.Context()); !errors.Is(err, ErrUntrusted) {
			t.Errorf("timestamp signed by %s: %v", name, err)
		}
	}
	s.write(t, timestampFile, good)
	if err := c.Update(t.Context()); err != nil {
		t.Errorf("signed by its key: %v", err)
	}
}

// TestRootStays revokes the timestamp key. A client that has seen it does not
// fall back to the key in the root.json that it is started with.
func TestRootStays(t *testing.T) {
	s := newSite(t)
	one := newRelease("alpha", 1, buildID(1))
	s.publish(t, one)
	stolen := s.forge(t, 50, metadata.TIMESTAMP)
	m, err := metadata.Root().FromBytes(s.root)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Signed.RevokeKey(s.p.keys.role[metadata.TIMESTAMP][0].id, metadata.TIMESTAMP); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.keys, "timestamp.1.pem")); err != nil {
		t.Fatal(err)
	}
	s.addKey(t, "timestamp.2")
	fresh := s.p.keys.role[metadata.TIMESTAMP][0]
	if err := addRootKey(m, metadata.TIMESTAMP, fresh); err != nil {
		t.Fatal(err)
	}
	m.Signed.Version = 2
	root, err := s.p.keys.signRoot(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(t.TempDir(), "state")
	before := s.clientAt(t, s.dir, state)
	expect(t, before, one.BuildIDs, one)
	s.write(t, metadataFile(2, metadata.ROOT), root)
	if err := os.Remove(filepath.Join(s.keys, lastSeenFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := before.Update(t.Context()); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a timestamp by the revoked key: %v", err)
	}

	s.write(t, timestampFile, s.sign(t, fresh, 3))
	s.p = s.open(t)
	expect(t, s.clientAt(t, s.dir, state), one.BuildIDs, one)

	if err := os.Remove(filepath.Join(s.dir, metadataFile(2, metadata.ROOT))); err != nil {
		t.Fatal(err)
	}
	s.write(t, timestampFile, stolen)
	if err := s.clientAt(t, s.dir, state).Update(t.Context()); !errors.Is(err, ErrUntrusted) {
		t.Errorf("the revoked key, with the new root held back: %v", err)
	}
}

// sign signs a timestamp of the given version by a key.
func (s *site) sign(t testing.TB, key signer, version int64) []byte {
	t.Helper()
	m, err := metadata.Timestamp().FromBytes(s.read(t, timestampFile))
	if err != nil {
		t.Fatal(err)
	}
	m.Signed.Version = version
	m.ClearSignatures()
	if err := addSignatures(t.Context(), m, timestampFile, []signer{key}); err != nil {
		t.Fatal(err)
	}
	data, err := m.ToBytes(false)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestIndexLies lets whoever holds the registry's keys say of a bundle what
// its package's owner did not.
func TestIndexLies(t *testing.T) {
	for name, lie := range map[string]func(r *release){
		"higher level":   func(r *release) { r.Level = 9 },
		"other series":   func(r *release) { r.Series = "other" },
		"other package":  func(r *release) { r.Package = "beta" },
		"other build-id": func(r *release) { r.BuildIDs = []specs.BuildID{buildID(5)} },
		"other CVEs":     func(r *release) { r.CVEs = []string{"CVE-1"} },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.publish(t, newRelease("alpha", 1, buildID(1)))
			e, err := s.p.begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			l, err := e.listing(t.Context(), shardTarget(buildID(1)))
			if err != nil {
				t.Fatal(err)
			}
			r := *l.Releases[0]
			lie(&r)
			if l, err = e.listing(t.Context(), shardTarget(r.BuildIDs[0])); err != nil {
				t.Fatal(err)
			}
			l.Releases = nil
			e.append(shardTarget(r.BuildIDs[0]), l, &r)
			if err := e.commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			c := s.client(t, s.dir)
			if err := c.Update(t.Context()); err != nil {
				t.Fatal(err)
			}
			entries, err := c.Lookup(t.Context(), r.BuildIDs)
			if err != nil || len(entries) != 1 {
				t.Fatal(entries, err)
			}
			if data, err := c.Fetch(t.Context(), entries[0]); !errors.Is(err, ErrUntrusted) || data != nil {
				t.Errorf("fetched: %v", err)
			}
		})
	}
}

// TestAnothersSignature puts a valid signature by another key beside a bundle.
func TestAnothersSignature(t *testing.T) {
	s, other := newSite(t), newSite(t)
	r := newRelease("alpha", 1, buildID(1))
	s.publish(t, r)
	other.publish(t, r)
	sig := bundleFile(specs.DigestOf(r.Bundle), r.File) + ".sig"
	s.write(t, sig, other.read(t, sig))
	c := s.client(t, s.dir)
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := c.Lookup(t.Context(), r.BuildIDs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Fetch(t.Context(), entries[0]); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), entries[0].KeyID) || !strings.Contains(err.Error(), sig) {
		t.Errorf("another's signature: %v", err)
	}
	if _, err := c.Fetch(t.Context(), Entry{Path: "x"}); !errors.Is(err, ErrUntrusted) {
		t.Errorf("an entry that is not from Lookup: %v", err)
	}
	// A second signature beside the right one does no harm.
	var ours, theirs envelope
	if err := errors.Join(json.Unmarshal(s.read(t, sig), &theirs)); err != nil {
		t.Fatal(err)
	}
	if err := s.p.Publish(t.Context(), r); !errors.Is(err, ErrPublished) {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.dir, sig)); err != nil {
		t.Fatal(err)
	}
	if err := s.p.Publish(t.Context(), r); !errors.Is(err, ErrPublished) {
		t.Fatal(err)
	}
	if err := json.Unmarshal(s.read(t, sig), &ours); err != nil {
		t.Fatal(err)
	}
	ours.Signatures = append(theirs.Signatures, ours.Signatures...)
	data, err := json.Marshal(ours)
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, sig, data)
	expect(t, c, r.BuildIDs, r)
}

// TestOwnPackageKey gives two teams keys of their own.
func TestOwnPackageKey(t *testing.T) {
	s := newSite(t)
	for _, name := range []string{"alpha", "beta"} {
		if err := makeKey(filepath.Join(s.keys, "package."+name+".pem"), nil); err != nil {
			t.Fatal(err)
		}
	}
	s.p = s.open(t)
	a, b := newRelease("alpha", 1, buildID(1)), newRelease("beta", 1, buildID(1))
	s.publish(t, a, b)
	expect(t, s.client(t, s.dir), a.BuildIDs, a, b)
	if err := os.Rename(filepath.Join(s.keys, "package.beta.pem"), filepath.Join(s.keys, "package.alpha.pem")); err != nil {
		t.Fatal(err)
	}
	s.p = s.open(t)
	if err := s.p.Publish(t.Context(), newRelease("alpha", 2, buildID(1))); !errors.Is(err, ErrConflict) {
		t.Errorf("a package by another's key: %v", err)
	}
}

// TestTamperedStore: what others have written into the store is not signed.
func TestTamperedStore(t *testing.T) {
	s := newSite(t)
	s.publish(t, newRelease("alpha", 1, buildID(1)))
	index, err := filepath.Glob(filepath.Join(s.dir, targetsDir, "*", "*"))
	if err != nil || len(index) != 2 {
		t.Fatal(index, err)
	}
	for _, path := range index {
		name := strings.TrimPrefix(path, s.dir)
		good := s.read(t, name)
		s.write(t, name, []byte(strings.Replace(string(good), `"level":1`, `"level":3`, 1)))
		before := s.files(t)
		if err := s.p.Publish(t.Context(), newRelease("alpha", 2, buildID(1))); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
		after := s.files(t)
		if i := slices.IndexFunc(before, func(f string) bool { return !slices.Contains(after, f) }); i >= 0 {
			t.Errorf("%s was changed", before[i])
		}
		s.write(t, name, good)
	}
	s.publish(t, newRelease("alpha", 2, buildID(1)))
}

// TestDamagedState damages every file that a client keeps.
func TestDamagedState(t *testing.T) {
	s := newSite(t)
	one, two := newRelease("alpha", 1, buildID(1)), newRelease("alpha", 2, buildID(1))
	s.publish(t, one)
	s.now = s.now.Add(rootValidity * 3 / 4)
	if err := s.p.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(t.TempDir(), "state")
	expect(t, s.clientAt(t, s.dir, state), one.BuildIDs, one)
	s.publish(t, two)
	expect(t, s.clientAt(t, s.dir, state), one.BuildIDs, one, two)
	var files []string
	err := filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	// The new root, two timestamps, snapshot, targets, bin, index, the list of
	// shards, and two bundles with their signatures.
	if err != nil || len(files) != 12 {
		t.Fatal(len(files), files, err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"cut":       func(b []byte) []byte { return b[:len(b)/2] },
		"flipped":   func(b []byte) []byte { b[len(b)/3] ^= 4; return b },
		"something": func([]byte) []byte { return []byte(`{"signed":null,"signatures":{}}`) },
	} {
		for _, path := range append(files, "all") {
			for _, file := range files {
				if path != "all" && path != file {
					continue
				}
				data, err := os.ReadFile(file)
				if err == nil {
					err = os.WriteFile(file, damage(data), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			c := s.clientAt(t, s.dir, state)
			if path != "all" {
				// Not even told to update, unless it is what the rest hangs on.
				if _, err := c.Lookup(t.Context(), one.BuildIDs); err != nil && !errors.Is(err, ErrUnreachable) {
					t.Errorf("%s %s: lookup: %v", path, name, err)
				}
			}
			expect(t, c, one.BuildIDs, one, two)
			s.checkState(t, state)
		}
	}
	// A folder that cannot be written, as on a full disk.
	c := s.clientAt(t, s.dir, state)
	s.publish(t, newRelease("alpha", 3, buildID(1)))
	temp := c.cache.path(tempDir)
	if err := errors.Join(os.RemoveAll(temp), os.WriteFile(temp, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := c.Update(t.Context()); !errors.Is(err, ErrState) {
		t.Errorf("nowhere to write: %v", err)
	}
	expectNow(t, c, one.BuildIDs, one, two)
}

func TestStateOfTwoRegistries(t *testing.T) {
	a, b := newSite(t), newSite(t)
	state := filepath.Join(t.TempDir(), "state")
	one, two := newRelease("alpha", 1, buildID(1)), newRelease("alpha", 2, buildID(1))
	a.publish(t, one)
	b.publish(t, two)
	expect(t, a.clientAt(t, a.dir, state), one.BuildIDs, one)
	expect(t, b.clientAt(t, b.dir, state), one.BuildIDs, two)
	expect(t, a.clientAt(t, a.dir, state), one.BuildIDs, one)
	if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(fmt.Sprint(info.Mode()), err)
	}
}
