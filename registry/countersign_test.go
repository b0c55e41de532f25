package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// second is a registry of which package alpha asks for two signatures, and the
// keys of the one who signs second, who has no others.
func newSecond(t *testing.T) (s *site, second *Publisher) {
	t.Helper()
	s = newSite(t)
	return s, newSecondAt(t, s)
}

// newSecondAt does so in a registry that is there.
func newSecondAt(t *testing.T, s *site) (second *Publisher) {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(makeKey(filepath.Join(dir, "package.alpha"+keySuffix), nil), os.Chmod(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	ring, err := openKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, trustFile), s.root, 0o644); err != nil {
		t.Fatal(err)
	}
	two := binding{Threshold: 2}
	for _, k := range []signer{s.p.keys.pack[defaultKey][0], ring.pack["alpha"][0]} {
		pub, err := k.public()
		if err != nil {
			t.Fatal(err)
		}
		two.Keys = append(two.Keys, pub)
	}
	e, err := s.p.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := e.openTargets()
	m.Signed.UnrecognizedFields[keysField] = map[string]*binding{defaultKey: e.trust.bound[defaultKey], "alpha": &two}
	if err := e.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second, err = Open(s.url, dir); err != nil {
		t.Fatal(err)
	}
	second.now = s.clock
	return second
}

// TestCountersign: a bundle that needs two signatures is refused with one, and
// taken as soon as the second one has joined. Nothing else changes.
func TestCountersign(t *testing.T) {
	s, second := newSecond(t)
	r := newRelease("alpha", 1, buildID(1))
	s.publish(t, r)
	c, entry := s.lookUp(t, r)
	var told *Error
	if _, err := c.Fetch(t.Context(), entry); !errors.Is(err, ErrUnsigned) || !errors.Is(err, ErrUntrusted) ||
		!strings.Contains(err.Error(), "signed by 1 of 2") || !errors.As(err, &told) || !strings.Contains(told.Hint(), "-rebuild") {
		t.Errorf("signed by one of two: %v", err)
	}
	s.counted(t, "1 of 2")
	other := r
	other.Bundle = []byte("another build")
	for what, r := range map[string]Release{"another bundle": other, "another level": newRelease("alpha", 2, buildID(1)), "another build-id": newRelease("alpha", 1, buildID(2))} {
		if _, _, err := second.Countersign(t.Context(), r); !errors.Is(err, ErrConflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
	before := s.files(t)
	if signed, need, err := second.Countersign(t.Context(), r); err != nil || signed != 2 || need != 2 {
		t.Errorf("signed by %d of %d: %v", signed, need, err)
	}
	if after := s.files(t); len(after) != len(before) {
		t.Errorf("files before %q, after %q", before, after)
	}
	expectNow(t, c, r.BuildIDs, r)
	s.counted(t, "2 of 2")
	for _, p := range []*Publisher{s.p, second} {
		if signed, _, err := p.Countersign(t.Context(), r); !errors.Is(err, ErrPublished) || signed != 2 {
			t.Errorf("again: %d, %v", signed, err)
		}
	}
	// Who publishes it once more does not take the second signature away.
	if err := s.p.Publish(t.Context(), r); !errors.Is(err, ErrPublished) {
		t.Error(err)
	}
	expect(t, s.client(t, s.dir), r.BuildIDs, r)
}

// counted checks what List and Find say of the only release.
func (s *site) counted(t *testing.T, want string) {
	t.Helper()
	entries, err := s.p.List(t.Context())
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	if got := fmt.Sprintf("%d of %d", entries[0].Signed, entries[0].Need); got != want {
		t.Errorf("List says %s, want %s", got, want)
	}
	p, err := s.p.Find(t.Context(), entries[0].Package, entries[0].Series, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%d of %d", p.Signed, p.Need); got != want {
		t.Errorf("Find says %s, want %s", got, want)
	}
}

// TestCountersignRefuses: a key that the package is not bound to adds nothing,
// and nobody signs beside what is not a signature of this release.
func TestCountersignRefuses(t *testing.T) {
	s, second := newSecond(t)
	r := newRelease("alpha", 1, buildID(1))
	s.publish(t, r)
	rel, err := r.describe()
	if err != nil {
		t.Fatal(err)
	}
	name := bundleFile(rel.Digest, rel.File) + ".sig"
	good, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	stranger := newTestKey(t)
	own := second.keys.pack["alpha"]
	second.keys.pack["alpha"] = []signer{stranger}
	if _, _, err := second.Countersign(t.Context(), r); !errors.Is(err, ErrKey) {
		t.Errorf("by a stranger's key: %v", err)
	}
	second.keys.pack["alpha"] = own
	foreign, err := signRelease(t.Context(), rel, []signer{stranger})
	if err != nil {
		t.Fatal(err)
	}
	renamed := *rel
	renamed.CVEs = nil
	same, err := signRelease(t.Context(), &renamed, s.p.keys.pack[defaultKey])
	if err != nil {
		t.Fatal(err)
	}
	for what, sig := range map[string][]byte{"nothing": []byte("{}"), "a stranger's": foreign, "another statement's": same} {
		s.write(t, name, sig)
		if _, _, err := second.Countersign(t.Context(), r); !errors.Is(err, ErrUntrusted) {
			t.Errorf("beside %s signature: %v", what, err)
		}
		if entries, err := s.p.List(t.Context()); err != nil || entries[0].Signed != 0 && what != "nothing" {
			t.Errorf("beside %s signature: %d signed, %v", what, entries[0].Signed, err)
		}
	}
	// Strangers' signatures do not push others out.
	env, err := readEnvelope(good)
	if err != nil {
		t.Fatal(err)
	}
	for len(env.Signatures) < maxPackageKeys {
		env.Signatures = append(env.Signatures, envelopeSignature{"x", []byte("x")})
	}
	env.keep(s.bindingOf(t, "alpha"))
	if len(env.Signatures) != 1 {
		t.Errorf("%d signatures stay", len(env.Signatures))
	}
}

func (s *site) bindingOf(t *testing.T, pack string) *binding {
	t.Helper()
	e, err := s.p.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e.trust.binding(pack)
}

// signRelease returns the signature file of a release.
func signRelease(ctx context.Context, r *release, signers []signer) ([]byte, error) {
	payload, err := r.payload()
	if err != nil {
		return nil, err
	}
	return signStatement(ctx, payload, signers)
}
