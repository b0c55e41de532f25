package registry

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/fother/fother/specs"
)

// boundKeys returns the ids of the keys of a name that may sign.
func (s *site) boundKeys(t testing.TB, name string) (ids []string) {
	t.Helper()
	all, err := s.p.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range all {
		if k.Name == name && k.Bound {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// TestRotate rotates each key. Hosts with the first root.json follow, those that
// were on the way when it happened too; the old key is of no use any more.
func TestRotate(t *testing.T) {
	s := newSite(t)
	one := newRelease("alpha", 1, buildID(1))
	s.publish(t, one, newRelease("beta", 1, buildID(2)))
	early := s.client(t, s.dir)
	expect(t, early, one.BuildIDs, one)
	published := []Release{one}
	for i, name := range []string{metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS, metadata.ROOT, roleBins, "package.alpha", "package.default", "package.alpha"} {
		before := s.boundKeys(t, name)
		if err := s.p.Rotate(t.Context(), Rotation{Name: name}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		after := s.boundKeys(t, name)
		if len(after) != 1 || slices.Equal(before, after) {
			t.Fatalf("%s: keys were %q, are %q", name, before, after)
		}
		expect(t, early, one.BuildIDs, published...)
		s.p = s.open(t) // what is in the folder is what is bound
		next := newRelease("alpha", specs.Level(i+2), buildID(1))
		s.publish(t, next)
		published = append(published, next)
		if err := s.p.Refresh(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		expect(t, early, one.BuildIDs, published...)
		expect(t, s.client(t, s.dir), one.BuildIDs, published...)
		all, err := s.p.Keys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range all {
			if !k.Signs || !k.Bound || k.File == "" || !strings.HasSuffix(k.File, keySuffix) {
				t.Errorf("after %s: %+v", name, k)
			}
		}
	}
	if retired, err := filepath.Glob(filepath.Join(s.keys, "*"+retiredSuffix)); err != nil || len(retired) != 7 {
		t.Errorf("retired: %q, %v", retired, err)
	}
	for _, name := range []string{"timestamp.1", "snapshot.1", "bins.1"} {
		role, _, _ := strings.Cut(name, ".")
		data, err := os.ReadFile(filepath.Join(s.keys, name+keySuffix+retiredSuffix))
		if err != nil {
			t.Fatal(err)
		}
		old, err := (&keyring{}).parseKeys(data, name)
		if err != nil {
			t.Fatal(err)
		}
		good := s.read(t, timestampFile)
		s.write(t, timestampFile, s.sign(t, old[0], 1000))
		if err := early.Update(t.Context()); !errors.Is(err, ErrUntrusted) {
			t.Errorf("a timestamp by the old key of %s: %v", role, err)
		}
		s.write(t, timestampFile, good)
	}
	expect(t, early, one.BuildIDs, published...)
}

// TestRotateInterrupted ends a rotation before each of its writes. Hosts find
// all signed at each moment, and it can be repeated.
func TestRotateInterrupted(t *testing.T) {
	names := []string{metadata.TIMESTAMP, "package.alpha"}
	if os.Getenv("FOTHER_LONG") != "" {
		names = append(names, metadata.SNAPSHOT, metadata.TARGETS, metadata.ROOT, roleBins, "package.default")
	}
	for _, name := range names {
		for working := 0; ; working++ {
			s := newSite(t)
			one := newRelease("alpha", 1, buildID(1))
			s.publish(t, one)
			early := s.client(t, s.dir)
			expect(t, early, one.BuildIDs, one)
			p := s.open(t)
			p.store = &failing{p.store, working}
			err := p.Rotate(t.Context(), Rotation{Name: name})
			if err == nil {
				if working == 0 {
					t.Errorf("%s: no writes", name)
				}
				break
			}
			if !errors.Is(err, errInjected) {
				t.Fatalf("%s, %d writes: %v", name, working, err)
			}
			expect(t, early, one.BuildIDs, one)
			expect(t, s.client(t, s.dir), one.BuildIDs, one)
			s.p = s.open(t)
			again := Rotation{Name: name}
			if bound := s.boundKeys(t, name); len(bound) == 2 { // the new one has joined
				again.Drop, again.Leaves = true, bound[0]
			}
			if err := s.p.Rotate(t.Context(), again); err != nil {
				t.Fatalf("%s, again after %d writes: %v", name, working, err)
			}
			two := newRelease("alpha", 2, buildID(1))
			s.p = s.open(t)
			s.publish(t, two)
			expect(t, early, one.BuildIDs, one, two)
			expect(t, s.client(t, s.dir), one.BuildIDs, one, two)
			if len(s.boundKeys(t, name)) != 1 {
				t.Errorf("%s: keys %q", name, s.boundKeys(t, name))
			}
		}
	}
}

// TestRootHeldByThree has three people hold root's keys, of which two have to
// sign: a change goes from one to the other.
func TestRootHeldByThree(t *testing.T) {
	s := newSiteWith(t, func(o *InitOptions) { o.RootKeys, o.RootThreshold = 3, 2 })
	one := newRelease("alpha", 1, buildID(1))
	s.publish(t, one)
	early := s.client(t, s.dir)
	expect(t, early, one.BuildIDs, one)
	people := make([]*Publisher, 3)
	for i := range people {
		dir := t.TempDir()
		key := fmt.Sprintf("root.%d%s", i+1, keySuffix)
		err := errors.Join(os.Chmod(dir, 0o700), os.WriteFile(filepath.Join(dir, trustFile), s.root, 0o644), os.Rename(filepath.Join(s.keys, key), filepath.Join(dir, key)))
		if err != nil {
			t.Fatal(err)
		}
		if people[i], err = Open(s.dir, dir); err != nil {
			t.Fatal(err)
		}
		people[i].now = s.clock
	}
	s.p = s.open(t)
	if err := s.p.SignRoot(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("nothing waits: %v", err)
	}
	send := func(from, to *Publisher) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(from.keys.dir, pendingFile))
		if err == nil {
			err = os.WriteFile(filepath.Join(to.keys.dir, pendingFile), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// Who publishes wants another key of the timestamp.
	if err := s.p.Rotate(t.Context(), Rotation{Name: metadata.TIMESTAMP}); !errors.Is(err, ErrPending) || !strings.Contains(err.Error(), "2 signatures") {
		t.Fatalf("without root's keys: %v", err)
	}
	if len(s.boundKeys(t, metadata.TIMESTAMP)) != 1 {
		t.Error("the key is bound before root has signed")
	}
	send(s.p, people[0])
	if err := people[0].SignRoot(t.Context()); !errors.Is(err, ErrUntrusted) {
		t.Errorf("signs what nobody of root has: %v", err)
	}
	// So one of root begins, with the public half.
	fresh := s.p.keys.role[metadata.TIMESTAMP][1]
	der, err := x509.MarshalPKIXPublicKey(fresh.pub.(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if err := writeKey(filepath.Join(people[0].keys.dir, "timestamp.9.pem"), &pem.Block{Type: publicBlock, Bytes: der}); err != nil {
		t.Fatal(err)
	}
	reopen := func(i int) {
		t.Helper()
		p, err := Open(s.dir, people[i].keys.dir)
		if err != nil {
			t.Fatal(err)
		}
		p.now = s.clock
		people[i] = p
	}
	reopen(0)
	if err := people[0].Rotate(t.Context(), Rotation{Name: metadata.TIMESTAMP, Add: true}); !errors.Is(err, ErrPending) || !strings.Contains(err.Error(), "1 signatures") {
		t.Fatalf("one of root: %v", err)
	}
	expect(t, early, one.BuildIDs, one)
	send(people[0], people[2])
	if err := people[2].SignRoot(t.Context()); err != nil {
		t.Fatalf("two of root: %v", err)
	}
	if bound := s.boundKeys(t, metadata.TIMESTAMP); !slices.Contains(bound, fresh.id) || len(bound) != 2 {
		t.Errorf("bound: %q", bound)
	}
	s.p = s.open(t)
	two := newRelease("alpha", 2, buildID(1))
	s.publish(t, two)
	expect(t, early, one.BuildIDs, one, two)

	// What waits and is outdated, or was changed on the way, is refused.
	if err := people[0].SignRoot(t.Context()); !errors.Is(err, ErrConflict) {
		t.Errorf("outdated: %v", err)
	}
	err = people[1].Rotate(t.Context(), Rotation{Name: metadata.TIMESTAMP, Drop: true, Leaves: s.boundKeys(t, metadata.TIMESTAMP)[0][:12]})
	if !errors.Is(err, ErrKey) { // what the role signs has to be signed by the other key first
		t.Fatalf("root alone: %v", err)
	}
	data, err := metadata.Root().FromBytes(s.read(t, metadataFile(2, metadata.ROOT)))
	if err != nil {
		t.Fatal(err)
	}
	data.Signed.Version++
	data.ClearSignatures()
	if err := addSignatures(t.Context(), data, "x", people[1].keys.role[metadata.ROOT]); err != nil {
		t.Fatal(err)
	}
	data.Signatures = append(data.Signatures, data.Signatures[0])
	data.Signatures[1].KeyID = people[2].keys.role[metadata.ROOT][0].id // another's name
	forged, err := data.ToBytes(false)
	if err == nil {
		err = os.WriteFile(filepath.Join(people[1].keys.dir, pendingFile), forged, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := people[1].SignRoot(t.Context()); !errors.Is(err, ErrPending) {
		t.Errorf("one signature under two names: %v", err)
	}
	expect(t, early, one.BuildIDs, one, two)
}

// TestThresholdOfPackage lets a second key join a package and both be needed:
// what was published before is signed by both.
func TestThresholdOfPackage(t *testing.T) {
	s := newSite(t)
	if info, err := s.p.MakeKey(t.Context(), "package.alpha", nil); err != nil || !info.Bound || info.Name != "package.alpha" {
		t.Fatalf("a key of a new package: %+v, %v", info, err)
	}
	one := newRelease("alpha", 1, buildID(1))
	s.publish(t, one)
	c := s.client(t, s.dir)
	expect(t, c, one.BuildIDs, one)
	if _, err := s.p.MakeKey(t.Context(), "package.alpha", nil); !errors.Is(err, ErrExists) {
		t.Errorf("a second key: %v", err)
	}
	if _, err := s.p.Revoke(t.Context(), ref(t, "alpha-1"), "bad"); err != nil {
		t.Fatal(err)
	}
	if err := s.p.Rotate(t.Context(), Rotation{Name: "package.alpha", Add: true, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	s.p = s.open(t)
	if keys := s.p.keys.pack["alpha"]; len(keys) != 2 {
		t.Fatalf("%d keys", len(keys))
	}
	two := newRelease("alpha", 2, buildID(1))
	s.publish(t, two)
	expect(t, c, one.BuildIDs, one, two)
	wantTold(t, c, buildID(1), "alpha-2", "alpha-1!bad")
	for _, r := range []Rotation{
		{Name: "package.alpha", Drop: true}, {Name: "package.alpha", Leaves: "x"}, {Name: "package.alpha", Add: true, Threshold: 9},
		{Name: "package.alpha", Add: true, Drop: true}, {Name: "package.alpha", Drop: true, Leaves: s.boundKeys(t, "package.alpha")[0]},
	} {
		if err := s.p.Rotate(t.Context(), r); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if err := s.p.Rotate(t.Context(), Rotation{Name: "package.alpha", Drop: true, Threshold: 1, Leaves: s.boundKeys(t, "package.alpha")[0]}); err != nil {
		t.Fatal(err)
	}
	s.p = s.open(t)
	expect(t, c, one.BuildIDs, one, two)
	for _, name := range []string{"package", "else", "root.2", "package./"} {
		if _, err := s.p.MakeKey(t.Context(), name, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.p.Rotate(t.Context(), Rotation{Name: name}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRotateAttachments: what lies beside a release is signed by the new key,
// too.
func TestRotateAttachments(t *testing.T) {
	s := newSite(t)
	one := newRelease("alpha", 1, buildID(1))
	one.Attachments = []Attachment{{Name: "a.json", Data: about(one.Bundle, "p"), Statement: true}, {Name: "b.txt", Data: []byte("plain")}}
	s.publish(t, one)
	if err := s.p.Rotate(t.Context(), Rotation{Name: "package.alpha"}); err != nil {
		t.Fatal(err)
	}
	found, err := s.p.Find(t.Context(), "alpha", "default", 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range one.Attachments {
		file, statement, err := s.p.Attached(t.Context(), found, a.Name)
		if err != nil || string(statement) != string(a.Data) && string(file) != string(a.Data) {
			t.Errorf("%s: %q, %v", a.Name, statement, err)
		}
	}
	if err := s.p.Publish(t.Context(), one); !errors.Is(err, ErrPublished) {
		t.Errorf("the same again: %v", err)
	}
}

// TestRotateTampered: a package's new key does not sign what its old one did
// not.
func TestRotateTampered(t *testing.T) {
	s := newSite(t)
	one := newRelease("alpha", 1, buildID(1))
	s.publish(t, one)
	sig := bundleFile(specs.DigestOf(one.Bundle), one.File) + ".sig"
	s.write(t, sig, []byte(`{"payloadType":"`+payloadType+`","payload":"e30=","signatures":[]}`))
	before := s.files(t)
	if err := s.p.Rotate(t.Context(), Rotation{Name: "package.alpha"}); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), sig) {
		t.Errorf("a release that is not signed: %v", err)
	}
	if after := s.files(t); !slices.Equal(before, after) {
		t.Errorf("files were %q, are %q", before, after)
	}
}
