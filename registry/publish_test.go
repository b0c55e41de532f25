package registry

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

var errInjected = errors.New("the power went")

// failing is a store whose writes fail from one on.
type failing struct {
	store
	left int
}

func (f *failing) fails() bool {
	f.left--
	return f.left < 0
}

func (f *failing) write(ctx context.Context, name string, data []byte) error {
	if f.fails() {
		return errInjected
	}
	return f.store.write(ctx, name, data)
}

func (f *failing) create(ctx context.Context, name string, data []byte) error {
	if f.fails() {
		return errInjected
	}
	return f.store.create(ctx, name, data)
}

func (f *failing) commit(ctx context.Context, name string, old, data []byte) error {
	if f.fails() {
		return errInjected
	}
	return f.store.commit(ctx, name, old, data)
}

// TestInterruptedPublish ends a publish before each of its writes. Readers see
// the old state; others can publish in between; it can be repeated.
func TestInterruptedPublish(t *testing.T) {
	for _, between := range []bool{false, true} {
		for working := 0; ; working++ {
			s := newSite(t)
			old, one := newRelease("alpha", 1, buildID(1), buildID(2)), newRelease("alpha", 2, buildID(1), buildID(2))
			other := newRelease("beta", 1, buildID(1))
			s.publish(t, old)
			early := s.client(t, s.dir)
			expect(t, early, old.BuildIDs, old)
			p := s.open(t)
			p.store = &failing{p.store, working}
			err := p.Publish(t.Context(), one)
			if err == nil {
				if working < 8 {
					t.Errorf("only %d writes", working)
				}
				break
			}
			if !errors.Is(err, errInjected) {
				t.Fatal(err)
			}
			expect(t, early, old.BuildIDs, old)
			expect(t, s.client(t, s.dir), old.BuildIDs, old)
			want := []Release{old, one}
			if between {
				s.publish(t, other)
				expect(t, early, old.BuildIDs, old, other)
				want = append(want, other)
			}
			s.publish(t, one)
			expect(t, early, old.BuildIDs, want...)
			expect(t, s.client(t, s.dir), old.BuildIDs, want...)
		}
	}
}

func TestPublishAllOrNothing(t *testing.T) {
	s := newSite(t)
	good := newRelease("alpha", 1, buildID(1))
	twice := good
	twice.Bundle = []byte("other")
	for name, bad := range map[string]Release{
		"twice":         twice,
		"no build-id":   newRelease("beta", 1),
		"bad build-id":  newRelease("beta", 1, "xyz"),
		"level 0":       newRelease("beta", 0, buildID(1)),
		"bad name":      newRelease("../beta", 1, buildID(1)),
		"empty bundle":  {Package: "beta", Series: "default", Level: 1, BuildIDs: []specs.BuildID{buildID(1)}, File: "f"},
		"bad file name": {Package: "beta", Series: "default", Level: 1, BuildIDs: []specs.BuildID{buildID(1)}, File: "a/f", Bundle: []byte("x")},
	} {
		if err := s.p.Publish(t.Context(), good, bad); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
		expect(t, s.client(t, s.dir), good.BuildIDs)
	}
	if err := s.p.Publish(t.Context()); err != nil {
		t.Errorf("nothing to publish: %v", err)
	}
	// The same release twice in one call is one.
	s.publish(t, good, good)
	expect(t, s.client(t, s.dir), good.BuildIDs, good)
}

func TestLockedStore(t *testing.T) {
	s := newSite(t)
	unlock, err := s.p.store.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockPoll)
	defer cancel()
	if err := s.open(t).Publish(ctx, newRelease("alpha", 1, buildID(1))); !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another publishes: %v", err)
	}
	// As a child between fork(2) and execve(2) does.
	copied := dupLock(t, s.dir)
	defer unix.Close(copied)
	unlock()
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.p.Publish(ctx, newRelease("alpha", 1, buildID(1))); err != nil {
		t.Errorf("unlocked, but a child has a copy: %v", err)
	}
}

// dupLock duplicates the file descriptor of the lock that is held in dir.
func dupLock(t *testing.T, dir string) int {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, _ := os.Readlink(link); to != filepath.Join(dir, lockFile) {
			continue
		}
		fd, err := strconv.Atoi(filepath.Base(link))
		if err != nil {
			t.Fatal(err)
		}
		copied, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		return copied
	}
	t.Fatal("no open lock")
	return -1
}

// TestUmask: a web server, which is another user, reads the registry whatever
// the umask of those who publish.
func TestUmask(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	s := newSite(t)
	s.publish(t, newRelease("alpha", 1, buildID(1)))
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && filepath.Base(path) != lockFile && info.Mode().Perm()&0o444 != 0o444 || d.IsDir() && info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(s.keys); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("keys: %v, %v", info.Mode(), err)
	}
}

// TestInitUnsynced: a registry that is in place keeps its keys, though its
// folder, which cannot be opened, could not be synced.
func TestInitUnsynced(t *testing.T) {
	dir, keys := filepath.Join(t.TempDir(), "registry"), filepath.Join(t.TempDir(), "keys")
	if err := os.Mkdir(dir, 0o300); err != nil {
		t.Fatal(err)
	}
	asNobody(t, dir, filepath.Dir(keys))
	if _, err := Init(t.Context(), InitOptions{URL: dir, Keys: keys}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the last sync: %v", err)
	}
	if _, err := Open(dir, keys); err != nil {
		t.Errorf("the registry that is there: %v", err)
	}
}

// asNobody takes from the test root's right to open everything, until it ends:
// the thread's file system user becomes nobody, who is given some files.
func asNobody(t *testing.T, own ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	const nobody = 65534
	for _, path := range own {
		if err := errors.Join(os.Chown(path, nobody, nobody), os.Chmod(filepath.Dir(path), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread()
	if _, err := unix.SetfsuidRetUid(nobody); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = unix.SetfsuidRetUid(0)
		runtime.UnlockOSThread()
	})
}

func TestInitOverwritesNothing(t *testing.T) {
	s := newSite(t)
	before := s.files(t)
	for name, o := range map[string]InitOptions{
		"both":     {URL: s.dir, Keys: s.keys},
		"registry": {URL: s.dir, Keys: filepath.Join(t.TempDir(), "keys")},
		"keys":     {URL: filepath.Join(t.TempDir(), "registry"), Keys: s.keys},
	} {
		if _, err := Init(t.Context(), o); !errors.Is(err, ErrExists) {
			t.Errorf("%s there already: %v", name, err)
		}
	}
	if after := s.files(t); !slices.Equal(before, after) {
		t.Errorf("files were %q, are %q", before, after)
	}
	// Empty folders are fine.
	dir, keys := t.TempDir(), t.TempDir()
	if _, err := Init(t.Context(), InitOptions{URL: dir, Keys: keys}); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(keys); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("keys folder: %v, %v", info.Mode(), err)
	}
	if _, err := Open(t.TempDir(), keys); !errors.Is(err, ErrNotFound) {
		t.Errorf("no registry: %v", err)
	}
}

func TestKeys(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, harm := range map[string]func(dir, key string) error{
		"readable by the group": func(_, key string) error { return os.Chmod(key, 0o640) },
		"readable by all":       func(_, key string) error { return os.Chmod(key, 0o604) },
		"in an open folder":     func(dir, _ string) error { return os.Chmod(dir, 0o777) },
		"garbage":               func(_, key string) error { return os.WriteFile(key, []byte("x"), 0o600) },
		"encrypted": func(_, key string) error {
			return os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}), 0o600)
		},
		"RSA": func(_, key string) error {
			return os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), 0o600)
		},
		"a FIFO":       func(_, key string) error { return errors.Join(os.Remove(key), mkfifo(key)) },
		"unknown role": func(dir, key string) error { return os.Rename(key, filepath.Join(dir, "else.1.pem")) },
		"no root.json": func(dir, _ string) error { return os.Remove(filepath.Join(dir, trustFile)) },
		"no folder":    func(dir, _ string) error { return os.RemoveAll(dir) },
	} {
		s := newSite(t)
		if err := harm(s.keys, filepath.Join(s.keys, "snapshot.1.pem")); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(s.dir, s.keys); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, role := range keyRoles[2:] {
		s := newSite(t)
		files, err := filepath.Glob(filepath.Join(s.keys, role+".*"+keySuffix))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		if err := os.Remove(files[0]); err != nil {
			t.Fatal(err)
		}
		if err := s.open(t).Publish(t.Context(), newRelease("alpha", 1, buildID(1))); !errors.Is(err, ErrKey) {
			t.Errorf("without the key of %s: %v", role, err)
		}
		expect(t, s.client(t, s.dir), []specs.BuildID{buildID(1)})
	}
}

func BenchmarkPublish(b *testing.B) {
	s := newSite(b)
	level := specs.Level(0)
	for b.Loop() {
		level++
		r := newRelease("alpha", level, buildID(1))
		r.Bundle = make([]byte, 1<<20)
		s.publish(b, r)
	}
}

// BenchmarkPoll is a host with 500 build-ids of which 50 have a release, when
// nobody has published.
func BenchmarkPoll(b *testing.B) {
	s := newSite(b)
	s.publish(b, releases(50)...)
	v := s.serve(b)
	var ids []specs.BuildID
	for n := range 500 {
		ids = append(ids, buildID(n))
	}
	state := filepath.Join(b.TempDir(), "state")
	find := func() {
		c := s.clientAt(b, v.URL, state)
		if err := c.Update(b.Context()); err != nil {
			b.Fatal(err)
		}
		if entries, err := c.Lookup(b.Context(), ids); err != nil || len(entries) != 50 {
			b.Fatal(len(entries), err)
		}
	}
	find()
	for b.Loop() {
		find()
	}
}

// BenchmarkOpenBundle verifies a bundle of 1 MB from the cache.
func BenchmarkOpenBundle(b *testing.B) {
	s := newSite(b)
	r := newRelease("alpha", 1, buildID(1))
	r.Bundle = make([]byte, 1<<20)
	s.publish(b, r)
	c := s.client(b, s.dir)
	expect(b, c, r.BuildIDs, r)
	entries, err := c.Lookup(b.Context(), r.BuildIDs)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.Fetch(b.Context(), entries[0]); err != nil {
			b.Fatal(err)
		}
	}
}

// TestInitHalf: when the registry cannot be made, no keys stay behind.
func TestInitHalf(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	if _, err := Init(t.Context(), InitOptions{URL: "/dev/null/x", Keys: keys}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("nowhere to write: %v", err)
	}
	if _, err := os.Lstat(keys); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("keys stayed: %v", err)
	}
	if _, err := Init(t.Context(), InitOptions{URL: filepath.Join(t.TempDir(), "registry"), Keys: keys}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(keys, lastSeenFile)); err != nil {
		t.Errorf("the first timestamp is not noted: %v", err)
	}
}
