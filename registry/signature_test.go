package registry

import (
	"context"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
)

// raced is a store in which others act right before the first file with a
// suffix is written.
type raced struct {
	store
	suffix string
	others func()
}

func (r *raced) before(name string) {
	if others := r.others; others != nil && strings.HasSuffix(name, r.suffix) {
		r.others = nil
		others()
	}
}

func (r *raced) write(ctx context.Context, name string, data []byte) error {
	r.before(name)
	return r.store.write(ctx, name, data)
}

func (r *raced) create(ctx context.Context, name string, data []byte) error {
	r.before(name)
	return r.store.create(ctx, name, data)
}

func (r *raced) commit(ctx context.Context, name string, old, data []byte) error {
	r.before(name)
	return r.store.commit(ctx, name, old, data)
}

// TestSignaturesRace: while one publishes a bundle, another publishes the same
// and a third one countersigns it, in a store without a lock. No signature is
// lost.
func TestSignaturesRace(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		s := newSiteAt(t, startS3(t).url)
		second := newSecondAt(t, s)
		r := newRelease("alpha", 1, buildID(1))
		others := func() {
			if err := s.open(t).Publish(t.Context(), r); err != nil && !errors.Is(err, ErrPublished) {
				t.Error(err)
			}
			if n, _, err := second.Countersign(t.Context(), r); err != nil || n != 2 {
				t.Errorf("signed by %d: %v", n, err)
			}
		}
		want := error(ErrPublished)
		p := s.open(t)
		if lost { // and is put back
			s.publish(t, r)
			p.store = &unsigned{p.store, true}
		}
		p.store = &raced{p.store, ".sig", others}
		if err := p.Publish(t.Context(), r); !errors.Is(err, want) {
			t.Errorf("the slower one: %v", err)
		}
		expect(t, s.client(t, s.url), r.BuildIDs, r)
	}
}

// unsigned is a store that does not show a signature at the first look.
type unsigned struct {
	store
	hides bool
}

func (u *unsigned) read(ctx context.Context, name string, max int64) ([]byte, error) {
	if u.hides && strings.HasSuffix(name, ".sig") {
		u.hides = false
		return nil, &Error{ErrNotFound, name, nil}
	}
	return u.store.read(ctx, name, max)
}

// TestSameFileTwice: the signature of a release is not replaced by that of
// another one that has the same file.
func TestSameFileTwice(t *testing.T) {
	s := newSite(t)
	one := newRelease("alpha", 1, buildID(1))
	s.publish(t, one)
	for _, other := range []Release{newRelease("beta", 1, buildID(2)), newRelease("alpha", 2, buildID(2))} {
		other.File, other.Bundle = one.File, one.Bundle
		if err := s.p.Publish(t.Context(), other); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "of package alpha") {
			t.Errorf("%s-%d: %v", other.Package, other.Level, err)
		}
		expect(t, s.client(t, s.dir), []specs.BuildID{buildID(1), buildID(2)}, one)
	}
	named := newRelease("beta", 1, buildID(2))
	named.Bundle = one.Bundle
	s.publish(t, named)
	expect(t, s.client(t, s.dir), []specs.BuildID{buildID(1), buildID(2)}, one, named)
	// A revocation is one package's, also in the cache.
	c := s.client(t, s.dir)
	for _, name := range []string{"alpha-1", "beta-1"} {
		if _, err := s.p.Revoke(t.Context(), ref(t, name), "bad"); err != nil {
			t.Fatal(err)
		}
		wantUpdated(t, c, []specs.BuildID{buildID(1), buildID(2)})
	}
	s.unlist(t, "alpha-1")
	entries := wantUpdated(t, c, []specs.BuildID{buildID(1)})
	if len(entries) != 1 || entries[0].Revoked == nil {
		t.Errorf("a revocation that was seen is forgotten: %+v", entries)
	}
}

func wantUpdated(t *testing.T, c *Client, ids []specs.BuildID) []Entry {
	t.Helper()
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := c.Lookup(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// unlist takes the mark of a revocation away, as who holds the keys of the index
// can.
func (s *site) unlist(t *testing.T, name string) {
	t.Helper()
	err := s.p.change(t.Context(), func(e *edit) error {
		r, err := e.find(t.Context(), ref(t, name))
		if err != nil {
			return err
		}
		if err := e.update(t.Context(), r, func(o *release) { o.Revoked = false }); err != nil {
			return err
		}
		return e.commit(t.Context())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSignatureDamaged: who publishes the same again mends it.
func TestSignatureDamaged(t *testing.T) {
	s := newSite(t)
	r := newRelease("alpha", 1, buildID(1))
	s.publish(t, r)
	name := bundleFile(specs.DigestOf(r.Bundle), r.File) + ".sig"
	for _, text := range []string{"", "{}", `{"payloadType":"` + payloadType + `","payload":"e30=","signatures":[]}`} {
		s.write(t, name, []byte(text))
		if err := s.p.Publish(t.Context(), r); !errors.Is(err, ErrPublished) {
			t.Errorf("%q: %v", text, err)
		}
		expect(t, s.client(t, s.dir), r.BuildIDs, r)
	}
}

// TestRotateUnsigned: keys do not change so that hosts would refuse what is
// published. The owner of a key whose public half alone is at hand signs first.
func TestRotateUnsigned(t *testing.T) {
	s := newSite(t)
	if _, err := s.p.MakeKey(t.Context(), "package.alpha", nil); err != nil {
		t.Fatal(err)
	}
	one := newRelease("alpha", 1, buildID(1))
	s.publish(t, one)
	first := s.boundKeys(t, "package.alpha")[0]
	second := s.guest(t, "package.alpha.pem.2")
	s.p = s.open(t)
	for _, r := range []Rotation{
		{Name: "package.alpha", Add: true, Threshold: 2}, {Name: "package.alpha"}, {Name: "package.alpha", Leaves: first},
	} {
		if err := s.p.Rotate(t.Context(), r); !errors.Is(err, ErrUnsigned) || !strings.Contains(err.Error(), one.File) {
			t.Errorf("%+v: %v", r, err)
		}
		s.p = s.open(t)
		expect(t, s.client(t, s.dir), one.BuildIDs, one)
	}
	if err := s.p.Rotate(t.Context(), Rotation{Name: "package.alpha", Add: true}); err != nil {
		t.Fatal(err)
	}
	both := Rotation{Name: "package.alpha", Threshold: 2}
	if err := s.p.Rotate(t.Context(), both); !errors.Is(err, ErrUnsigned) {
		t.Errorf("before the other has signed: %v", err)
	}
	if n, _, err := second.Countersign(t.Context(), one); err != nil || n != 2 {
		t.Fatalf("signed by %d: %v", n, err)
	}
	if err := s.p.Rotate(t.Context(), both); err != nil {
		t.Fatal(err)
	}
	if keys := s.boundKeys(t, "package.alpha"); len(keys) != 2 {
		t.Errorf("bound keys: %q", keys)
	}
	expect(t, s.client(t, s.dir), one.BuildIDs, one)
}

// guest makes a key whose private half is in another folder than the public one.
func (s *site) guest(t *testing.T, file string) *Publisher {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, file)
	if err := errors.Join(os.Chmod(dir, 0o700), makeKey(path, nil), os.WriteFile(filepath.Join(dir, trustFile), s.root, 0o644)); err != nil {
		t.Fatal(err)
	}
	p, err := Open(s.url, dir)
	if err != nil {
		t.Fatal(err)
	}
	p.now = s.clock
	pub, err := p.keys.pack["alpha"][0].public()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.keys, file), pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: pub}), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}
