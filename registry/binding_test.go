package registry

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/fother/fother/specs"
)

// drop removes keys and opens the registry with what is left.
func (s *site) drop(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(s.keys, name+keySuffix)); err != nil {
			t.Fatal(err)
		}
	}
	s.p = s.open(t)
}

func (s *site) addKey(t testing.TB, name string) {
	t.Helper()
	if err := makeKey(filepath.Join(s.keys, name+keySuffix), nil); err != nil {
		t.Fatal(err)
	}
	s.p = s.open(t)
}

// TestInvented gives a thief the keys of bins, snapshot and timestamp. With a
// fresh key for a package, new or known, no host takes what they publish.
func TestInvented(t *testing.T) {
	for _, name := range []string{"evil", "alpha"} {
		s := newSite(t)
		good := newRelease("alpha", 1, buildID(1))
		s.publish(t, good)
		s.drop(t, "root.1", "targets.1", "package.default")
		s.addKey(t, "package."+name)
		before := s.files(t)
		evil := newRelease(name, 9, buildID(1))
		if err := s.p.Publish(t.Context(), evil); !errors.Is(err, ErrKey) && !errors.Is(err, ErrConflict) {
			t.Errorf("%s: published: %v", name, err)
		}
		if after := s.files(t); !slices.Equal(before, after) {
			t.Errorf("%s: refused, but files are %q", name, after)
		}
		s.force(t, evil, s.p.keys.pack[name][0])
		c := s.client(t, s.dir)
		if err := c.Update(t.Context()); err != nil {
			t.Fatal(err)
		}
		entries, err := c.Lookup(t.Context(), evil.BuildIDs)
		if err != nil || len(entries) != 2 {
			t.Fatal(entries, err)
		}
		for _, e := range entries {
			data, err := c.Fetch(t.Context(), e)
			if e.Level == 9 && (!errors.Is(err, ErrUntrusted) || data != nil) || e.Level == 1 && err != nil {
				t.Errorf("%s at level %d: %q, %v", name, e.Level, data, err)
			}
		}
	}
}

// force publishes a release as Publish does, by any key and without a look at
// whom the package belongs to.
func (s *site) force(t testing.TB, r Release, key signer) {
	t.Helper()
	e, err := s.p.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rel, err := r.describe()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signRelease(t.Context(), rel, []signer{key})
	if err != nil {
		t.Fatal(err)
	}
	all, err := e.listing(t.Context(), packageTarget(rel.Package))
	if err != nil {
		t.Fatal(err)
	}
	e.append(packageTarget(rel.Package), all, rel)
	name := bundleFile(rel.Digest, rel.File)
	err = errors.Join(e.store.write(t.Context(), name, r.Bundle), e.store.write(t.Context(), name+".sig", sig), e.index(t.Context(), rel), e.commit(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
}

// TestNewPackages publishes packages without the keys of root and targets: by
// the default key any, by a key of their own those that it is bound to.
func TestNewPackages(t *testing.T) {
	s := newSite(t)
	v := s.serve(t)
	state := filepath.Join(t.TempDir(), "state")
	s.addKey(t, "package.alpha")
	alpha, ids := newRelease("alpha", 1, buildID(1)), []specs.BuildID{buildID(1), buildID(2)}
	s.publish(t, alpha)
	expect(t, s.clientAt(t, v.URL, state), ids, alpha)
	s.drop(t, "root.1", "targets.1")

	newer, beta := newRelease("alpha", 2, buildID(1)), newRelease("beta", 1, buildID(2))
	s.publish(t, newer, beta)
	expect(t, s.clientAt(t, v.URL, state), ids, alpha, newer, beta)
	v.take()
	expect(t, s.clientAt(t, v.URL, state), ids, alpha, newer, beta)
	if seen, _ := v.take(); len(seen) != 2 {
		t.Errorf("a poll without news: %q", seen)
	}
	s.addKey(t, "package.gamma")
	if err := s.p.Publish(t.Context(), newRelease("gamma", 1, buildID(2))); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), metadata.TARGETS) {
		t.Errorf("a new package by its own key: %v", err)
	}
	// One key's package does not go over to another by a file's name.
	s.addKey(t, "package.beta")
	if err := s.p.Publish(t.Context(), newRelease("beta", 2, buildID(2))); !errors.Is(err, ErrConflict) {
		t.Errorf("a package of the default key by its own: %v", err)
	}
	s.drop(t, "package.alpha")
	if err := s.p.Publish(t.Context(), newRelease("alpha", 3, buildID(1))); !errors.Is(err, ErrConflict) {
		t.Errorf("a package with a key of its own by the default key: %v", err)
	}
}

// TestThreshold binds a package to two keys, both of which have to sign.
func TestThreshold(t *testing.T) {
	s := newSite(t)
	s.addKey(t, "package.other")
	e, err := s.p.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var two binding
	for _, name := range []string{defaultKey, "other"} {
		pub, err := s.p.keys.pack[name][0].public()
		if err != nil {
			t.Fatal(err)
		}
		two.Keys = append(two.Keys, pub)
	}
	two.Threshold = 2
	e.trust.bound = map[string]*binding{"alpha": &two}
	if err := errors.Join(e.bind("other", s.p.keys.pack["other"]), e.commit(t.Context())); err != nil {
		t.Fatal(err)
	}
	r := newRelease("alpha", 1, buildID(1))
	s.publish(t, r)
	c, entry := s.lookUp(t, r)
	if _, err := c.Fetch(t.Context(), entry); !errors.Is(err, ErrUntrusted) {
		t.Errorf("signed by one of two: %v", err)
	}
	rel, err := r.describe()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signRelease(t.Context(), rel, slices.Concat(slices.Collect(maps.Values(s.p.keys.pack))...))
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, bundleFile(rel.Digest, rel.File)+".sig", sig)
	expectNow(t, c, r.BuildIDs, r)
}

// TestBindings: malformed bindings, or none, are refused.
func TestBindings(t *testing.T) {
	s := newSite(t)
	key, err := s.p.keys.pack[defaultKey][0].public()
	if err != nil {
		t.Fatal(err)
	}
	good := &binding{Keys: []publicKey{key}}
	e, err := s.p.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]any{
		"a list":         []any{},
		"null in it":     map[string]*binding{"alpha": nil},
		"no key":         map[string]*binding{"alpha": {}},
		"garbage key":    map[string]*binding{"alpha": {Keys: []publicKey{[]byte("x")}}},
		"long key":       map[string]*binding{"alpha": {Keys: []publicKey{make([]byte, 1<<16)}}},
		"many keys":      map[string]*binding{"alpha": {Keys: slices.Repeat([]publicKey{key}, maxPackageKeys+1)}},
		"a key twice":    map[string]*binding{"alpha": {Keys: []publicKey{key, key}, Threshold: 2}},
		"threshold of 2": map[string]*binding{"alpha": {Keys: []publicKey{key}, Threshold: 2}},
		"threshold -1":   map[string]*binding{"alpha": {Keys: []publicKey{key}, Threshold: -1}},
		"a bad name":     map[string]*binding{"alpha": good, "../x": good},
	} {
		m := metadata.Targets()
		m.Signed.UnrecognizedFields = map[string]any{keysField: bad}
		tr := e.trust
		tr.set.Targets[metadata.TARGETS] = m
		if err := tr.readBindings(); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A registry without any, as older versions made it, is mended by the key.
	if e, err = s.p.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	delete(e.openTargets().Signed.UnrecognizedFields, keysField)
	if err := e.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := newRelease("alpha", 1, buildID(1))
	s.force(t, r, s.p.keys.pack[defaultKey][0])
	c := s.client(t, s.dir)
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := c.Lookup(t.Context(), r.BuildIDs)
	if err != nil || len(entries) != 1 || entries[0].KeyID != "" {
		t.Fatal(entries, err)
	}
	if _, err := c.Fetch(t.Context(), entries[0]); !errors.Is(err, ErrUntrusted) {
		t.Errorf("bound to no key: %v", err)
	}
	s.publish(t, r)
	expect(t, c, r.BuildIDs, r)
}

// lookUp returns a client and what it finds of a release, which is all that there is for
// its builds.
func (s *site) lookUp(t *testing.T, r Release) (*Client, Entry) {
	t.Helper()
	c := s.client(t, s.dir)
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := c.Lookup(t.Context(), r.BuildIDs)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	return c, entries[0]
}
