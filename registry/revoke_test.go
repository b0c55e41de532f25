package registry

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
)

// told updates and returns what a client is told of, as NAME-LEVEL, with ! for
// what is revoked.
func told(t testing.TB, c *Client, ids ...specs.BuildID) []string {
	t.Helper()
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := c.Lookup(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		name := Ref{e.Package, "", e.Level}.String()
		if e.Revoked != nil {
			name += "!" + e.Revoked.Reason
		}
		all = append(all, name)
	}
	return all
}

func wantTold(t testing.TB, c *Client, id specs.BuildID, want ...string) {
	t.Helper()
	if got := told(t, c, id); !slices.Equal(got, want) {
		t.Errorf("told of %q, want %q", got, want)
	}
}

func (s *site) follower(t testing.TB, channel Channel) *Client {
	t.Helper()
	c, err := NewClient(ClientOptions{URL: s.dir, Root: s.root, State: filepath.Join(t.TempDir(), "state"), Now: s.clock, Channel: channel})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ref(t testing.TB, text string) Ref {
	t.Helper()
	r, err := ParseRef(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestChannels: a release that goes up is seen by more and more hosts, and is
// the same release.
func TestChannels(t *testing.T) {
	s := newSite(t)
	id := buildID(1)
	edge, beta, stable := s.follower(t, Edge), s.follower(t, Beta), s.follower(t, "")
	s.publish(t, newRelease("alpha", 1, id))
	two := newRelease("alpha", 2, id)
	two.Channel = Edge
	s.publish(t, two)
	wantTold(t, edge, id, "alpha-2", "alpha-1")
	wantTold(t, beta, id, "alpha-1")
	wantTold(t, stable, id, "alpha-1")
	if err := s.p.Publish(t.Context(), newRelease("alpha", 2, id)); !errors.Is(err, ErrPublished) {
		t.Errorf("the same in another channel: %v", err)
	}
	if now, err := s.p.Promote(t.Context(), ref(t, "alpha-2"), ""); err != nil || now != Beta {
		t.Errorf("up from edge: %s, %v", now, err)
	}
	wantTold(t, edge, id, "alpha-2", "alpha-1")
	wantTold(t, beta, id, "alpha-2", "alpha-1")
	wantTold(t, stable, id, "alpha-1")
	if _, err := s.p.Promote(t.Context(), ref(t, "alpha@default-2"), Edge); !errors.Is(err, ErrPublished) {
		t.Errorf("down: %v", err)
	}
	if now, err := s.p.Promote(t.Context(), ref(t, "alpha@default-2"), Stable); err != nil || now != Stable {
		t.Errorf("up to stable: %s, %v", now, err)
	}
	wantTold(t, stable, id, "alpha-2", "alpha-1")
	if _, err := s.p.Promote(t.Context(), ref(t, "alpha-2"), ""); !errors.Is(err, ErrPublished) {
		t.Errorf("above stable: %v", err)
	}
	for _, text := range []string{"alpha-3", "beta-1", "alpha@other-2"} {
		if _, err := s.p.Promote(t.Context(), ref(t, text), ""); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := s.p.Promote(t.Context(), ref(t, "alpha-2"), "later"); !errors.Is(err, ErrInvalid) {
		t.Errorf("no channel: %v", err)
	}
	other := newRelease("alpha", 2, id)
	other.Series, other.File, other.Bundle = "other", "x", []byte("other")
	s.publish(t, other)
	if _, err := s.p.Promote(t.Context(), ref(t, "alpha-2"), ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("a name of two: %v", err)
	}
	if _, err := NewClient(ClientOptions{URL: s.dir, Root: s.root, State: t.TempDir(), Channel: "later"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a client of no channel: %v", err)
	}
}

func TestParseRef(t *testing.T) {
	for text, want := range map[string]Ref{
		"nginx-3": {"nginx", "", 3}, "lib-x@hot-12": {"lib-x", "hot", 12},
	} {
		if got, err := ParseRef(text); err != nil || got != want || got.String() != text {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "nginx", "nginx-", "nginx-0", "nginx-x", "-3", "../x-3", "nginx@-3", "nginx@../x-3", "nginx-99999999999", "@x-3"} {
		if got, err := ParseRef(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// TestRevoke: every host is told, whatever its channel; nobody promotes what is
// revoked, and it is not published again.
func TestRevoke(t *testing.T) {
	s := newSite(t)
	id := buildID(1)
	one, two := newRelease("alpha", 1, id), newRelease("alpha", 2, id, buildID(2))
	two.Channel = Edge
	s.publish(t, one, two)
	edge, stable := s.follower(t, Edge), s.follower(t, Stable)
	wantTold(t, edge, id, "alpha-2", "alpha-1")
	if _, err := s.p.Revoke(t.Context(), ref(t, "alpha-2"), "a\nb"); !errors.Is(err, ErrInvalid) {
		t.Errorf("a reason of two lines: %v", err)
	}
	done, err := s.p.Revoke(t.Context(), ref(t, "alpha-2"), "it crashes")
	if err != nil || done.Reason != "it crashes" || !done.Time.Equal(s.now.UTC().Truncate(1e9)) {
		t.Fatal(done, err)
	}
	for _, c := range []*Client{edge, stable} {
		wantTold(t, c, id, "alpha-2!it crashes", "alpha-1")
		wantTold(t, c, buildID(2), "alpha-2!it crashes")
	}
	if done, err := s.p.Revoke(t.Context(), ref(t, "alpha-2"), "again"); !errors.Is(err, ErrPublished) || done.Reason != "it crashes" {
		t.Errorf("again: %v, %v", done, err)
	}
	if _, err := s.p.Promote(t.Context(), ref(t, "alpha-2"), ""); !errors.Is(err, ErrConflict) {
		t.Errorf("promoted: %v", err)
	}
	if err := s.p.Publish(t.Context(), two); !errors.Is(err, ErrPublished) {
		t.Errorf("published again: %v", err)
	}
	wantTold(t, stable, id, "alpha-2!it crashes", "alpha-1")
	entries, err := s.p.List(t.Context())
	if err != nil || len(entries) != 3 || entries[0].Revoked == nil || entries[2].Revoked != nil {
		t.Errorf("list: %+v, %v", entries, err)
	}
}

// spoil changes what the index says of package alpha at level 1, as who holds
// the keys of bins can.
func (s *site) spoil(t testing.TB, change func(*release)) {
	t.Helper()
	e, err := s.p.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.find(t.Context(), ref(t, "alpha-1"))
	if err == nil {
		err = errors.Join(e.update(t.Context(), r, change), e.commit(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRevokedByTheIndexAlone: who holds the keys of the index, and not the
// package's, revokes nothing and takes no revocation back.
func TestRevokedByTheIndexAlone(t *testing.T) {
	s := newSite(t)
	id := buildID(1)
	one := newRelease("alpha", 1, id)
	s.publish(t, one, newRelease("beta", 1, id))
	path := bundleFile(specs.DigestOf(one.Bundle), one.File) + revokedSuffix
	s.spoil(t, func(r *release) { r.Revoked = true })
	c := s.follower(t, "")
	refused := func(what string, class error) {
		t.Helper()
		if err := c.Update(t.Context()); err != nil {
			t.Fatal(err)
		}
		entries, err := c.Lookup(t.Context(), []specs.BuildID{id})
		if !errors.Is(err, class) || !strings.Contains(err.Error(), path) || len(entries) != 1 || entries[0].Package != "beta" {
			t.Errorf("%s: %v, %v", what, entries, err)
		}
	}
	refused("no statement", ErrNotFound)
	entry := func() *Entry {
		rel, err := one.describe()
		if err != nil {
			t.Fatal(err)
		}
		e := rel.entry(id, nil)
		return &e
	}
	sign := func(e *Entry, by signer) []byte {
		t.Helper()
		env, _, err := (&edit{store: folder{t.TempDir()}, now: s.now}).openRevocation(t.Context(), e, "because")
		if err != nil {
			t.Fatal(err)
		}
		data, err := signStatement(t.Context(), env.Payload, []signer{by})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	own := s.p.keys.pack[defaultKey][0]
	good := sign(entry(), own)
	other := entry()
	other.Level = 2
	signature, err := signRelease(t.Context(), &release{Package: "alpha", Series: "default", Level: 1, File: one.File, Digest: specs.DigestOf(one.Bundle)}, []signer{own})
	if err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string][]byte{
		"a stranger's": sign(entry(), newTestKey(t)), "the bins' key": sign(entry(), s.p.keys.role[roleBins][0]), "another release's": sign(other, own),
		"the release's own signature": signature, "garbage": []byte("{"), "one byte changed": []byte(strings.Replace(string(good), `"payload":"ey`, `"payload":"ez`, 1)),
	} {
		s.write(t, path, data)
		refused(what, ErrUntrusted)
	}
	s.write(t, path, make([]byte, maxRevocation+1))
	refused("too long", ErrTooLarge)
	s.write(t, path, good)
	wantTold(t, c, id, "alpha-1!because", "beta-1")

	// It stays revoked for who has seen it, also by a new client, whatever the
	// index says then and whatever becomes of the file.
	s.spoil(t, func(r *release) { r.Revoked = false })
	if err := os.Remove(filepath.Join(s.dir, path)); err != nil {
		t.Fatal(err)
	}
	if err := c.Prune(nil); err != nil {
		t.Fatal(err)
	}
	wantTold(t, c, id, "alpha-1!because", "beta-1")
	wantTold(t, s.follower(t, ""), id, "alpha-1", "beta-1")
}

// TestRevokeByTwo: where bundles need two signatures, revocations do.
func TestRevokeByTwo(t *testing.T) {
	s, second := newSecond(t)
	r := newRelease("alpha", 1, buildID(1))
	s.publish(t, r)
	if _, _, err := second.Countersign(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	c := s.follower(t, "")
	wantTold(t, c, buildID(1), "alpha-1")
	for range 2 {
		if _, err := s.p.Revoke(t.Context(), ref(t, "alpha-1"), "one says so"); !errors.Is(err, ErrPending) || !strings.Contains(err.Error(), "1 of 2") {
			t.Errorf("by one of two: %v", err)
		}
	}
	s.spoil(t, func(r *release) { r.Revoked = true })
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if entries, err := c.Lookup(t.Context(), r.BuildIDs); !errors.Is(err, ErrUnsigned) || len(entries) != 0 {
		t.Errorf("by one of two: %v, %v", entries, err)
	}
	// The second one has the keys of the index too.
	second.keys.role = s.p.keys.role
	if done, err := second.Revoke(t.Context(), ref(t, "alpha-1"), "two say so"); err != nil || done.Reason != "one says so" {
		t.Fatal(done, err)
	}
	wantTold(t, c, buildID(1), "alpha-1!one says so")
}
