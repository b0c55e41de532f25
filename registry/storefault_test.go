package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// storeFaults are answers of servers that do not do what they are asked for.
var storeFaults = map[string]struct {
	answer func(kind string, w http.ResponseWriter, r *http.Request)
	want   []error
}{
	"slow": {func(_ string, _ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}, []error{ErrUnreachable}},
	"full": {func(kind string, w http.ResponseWriter, r *http.Request) {
		if kind == "s3" {
			s3Fails(w, http.StatusForbidden, "QuotaExceeded")
			return
		}
		w.WriteHeader(http.StatusInsufficientStorage)
	}, []error{ErrFull}},
	"an error": {func(_ string, w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
	}, []error{ErrUnreachable}},
	"gone": {func(string, http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	}, []error{ErrUnreachable}},
	"wrong credentials": {func(kind string, w http.ResponseWriter, r *http.Request) {
		if kind == "s3" {
			s3Fails(w, http.StatusForbidden, "SignatureDoesNotMatch")
			return
		}
		w.Header().Set("Www-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}, []error{ErrDenied}},
	"elsewhere": {func(_ string, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:1/elsewhere", http.StatusTemporaryRedirect)
	}, []error{ErrUntrusted, ErrUnreachable}},
	"a local file": {func(_ string, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	}, []error{ErrUntrusted, ErrUnreachable}},
	"without end": {func(_ string, w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodHead { // of which nothing is sent
			_, _ = io.Copy(w, zeros{})
		}
	}, []error{ErrTooLarge, ErrUnreachable}},
}

// isWrite reports whether a request changes a store.
func isWrite(r *http.Request) bool { return r.Method == http.MethodPut || r.Method == http.MethodPost }

// eachThrough runs a test on each kind of store, once as it is and once through
// a proxy that can spoil what passes.
func eachThrough(t *testing.T, test func(t *testing.T, kind string, s, through *site, p *proxy)) {
	t.Parallel()
	for kind, start := range services {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v := start(t)
			s, p := newSiteAt(t, v.url), newProxy(t, v)
			through := *s
			through.url = p.site
			test(t, kind, s, &through, p)
		})
	}
}

// TestStoreFaults lets a store fail for those who publish, at reads and at
// writes, and for those who read. Nothing of it is visible, and it can be
// repeated.
func TestStoreFaults(t *testing.T) {
	eachThrough(t, func(t *testing.T, kind string, s, through *site, p *proxy) {
		r := newRelease("alpha", 1, buildID(1))
		n := 0
		for name, f := range storeFaults {
			fails := func(what string, only func(*http.Request) bool, do func() error) {
				t.Helper()
				defer func(began time.Time) { t.Logf("%s, %s: %v", name, what, time.Since(began)) }(time.Now())
				p.set(func(_ int, w http.ResponseWriter, r *http.Request) bool {
					if !only(r) {
						return false
					}
					f.answer(kind, w, r)
					return true
				})
				defer p.set(nil)
				err := do()
				if !slices.ContainsFunc(f.want, func(e error) bool { return errors.Is(err, e) }) {
					t.Errorf("%s, %s: %v, want %v", name, what, err, f.want)
				}
			}
			publish := func() error {
				pub := through.open(t)
				pub.hurry()
				err := pub.Publish(t.Context(), r)
				if err != nil && !strings.Contains(err.Error(), p.site) {
					t.Errorf("%s: the error does not name %s: %v", name, p.site, err)
				}
				return err
			}
			update := func() error {
				c := through.client(t, p.site)
				hurry(c.remote.source)
				return c.Update(t.Context())
			}
			all := func(*http.Request) bool { return true }
			// The body of an answer to a write does not matter, and who reads
			// needs no room.
			if name != "without end" && name != "full" {
				fails("publish", all, publish)
			}
			if name != "without end" {
				fails("publish, at the writes", isWrite, publish)
			}
			if name != "full" {
				fails("update", all, update)
			}
			if n++; n%3 == 0 {
				expect(t, s.client(t, s.url), r.BuildIDs)
			}
		}
		if err := through.open(t).Publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		expect(t, through.client(t, p.site), r.BuildIDs, r)
	})
}

// TestStoreGoesAwayInPublish: after the n-th request of a publish the store is
// gone. Readers see the old state or the new, and the next publish goes on.
func TestStoreGoesAwayInPublish(t *testing.T) {
	eachThrough(t, func(t *testing.T, _ string, s, through *site, p *proxy) {
		ids := []specs.BuildID{buildID(1)}
		var want []Release
		step := 13
		if testenv.Long() {
			step = 1
		}
		for working := 2; ; working += step {
			r := newRelease("alpha", specs.Level(len(want)+1), ids...)
			p.set(func(n int, _ http.ResponseWriter, _ *http.Request) bool {
				if n >= working {
					panic(http.ErrAbortHandler)
				}
				return false
			})
			err := through.open(t).Publish(t.Context(), r)
			p.set(nil)
			if err != nil && !errors.Is(err, ErrUnreachable) {
				t.Errorf("gone after %d requests: %v", working, err)
			}
			c := s.client(t, s.url)
			if err := c.Update(t.Context()); err != nil {
				t.Fatalf("gone after %d requests: a reader: %v", working, err)
			}
			entries, lookErr := c.Lookup(t.Context(), ids)
			if visible := len(entries) - len(want); lookErr != nil || visible < 0 || visible > 1 || err == nil && visible == 0 {
				t.Fatalf("gone after %d requests (%v): %d of %d releases, %v", working, err, len(entries), len(want)+1, lookErr)
			}
			if pubErr := s.open(t).Publish(t.Context(), r); pubErr != nil && !errors.Is(pubErr, ErrPublished) {
				t.Fatalf("gone after %d requests: again: %v", working, pubErr)
			}
			want = append(want, r)
			expect(t, s.client(t, s.url), ids, want...)
			if err == nil {
				break
			}
		}
	})
}

// TestForbidding: a store that says 403 for what is not there, as S3 does to
// those who may not list, is as good as another.
func TestForbidding(t *testing.T) {
	t.Parallel()
	for kind, start := range services {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, start(t))
			p.forbids = true
			s := newSiteAt(t, p.site)
			r := newRelease("alpha", 1, buildID(1))
			s.publish(t, r)
			expect(t, s.client(t, s.url), r.BuildIDs, r)
		})
	}
}

// TestWithoutPut publishes to a web server that only reads.
func TestWithoutPut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	reading := *s
	reading.url = s.serve(t).URL // net/http's file server takes a PUT for a GET
	if err := reading.open(t).Publish(t.Context(), newRelease("alpha", 1, buildID(1))); err == nil {
		t.Error("published to a server that takes nothing")
	}
	none := nginx(t, "", "")
	_, err := Init(t.Context(), InitOptions{URL: none.url, Keys: filepath.Join(t.TempDir(), "keys")})
	if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "PUT") {
		t.Errorf("a server without PUT: %v", err)
	}
}

// TestFoldersByHand: a server that makes no folders by itself is asked to.
func TestFoldersByHand(t *testing.T) {
	t.Parallel()
	s := newSiteAt(t, nginx(t, "dav_methods PUT MKCOL;", "").url+"/new")
	r := newRelease("alpha", 1, buildID(1))
	s.publish(t, r)
	expect(t, s.client(t, s.url), r.BuildIDs, r)
}

// TestTooLargeForServer: nginx takes no more than it is told to.
func TestTooLargeForServer(t *testing.T) {
	t.Parallel()
	s := newSiteAt(t, nginx(t, "dav_methods PUT MKCOL; create_full_put_path on; client_max_body_size 64k;", "").url)
	r := newRelease("alpha", 1, buildID(1))
	r.Bundle = make([]byte, 1<<20)
	if err := s.p.Publish(t.Context(), r); !errors.Is(err, ErrFull) && !errors.Is(err, ErrUnreachable) {
		t.Errorf("more than the server takes: %v", err)
	}
	expect(t, s.client(t, s.url), r.BuildIDs)
}

// TestFolderFull fills the file system under a registry.
func TestFolderFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		testenv.Skip(t, fmt.Sprintf("cannot mount a small file system: %v", err))
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s := newSiteAt(t, filepath.Join(dir, "registry"))
	one, two := newRelease("alpha", 1, buildID(1)), newRelease("alpha", 2, buildID(1))
	s.publish(t, one)
	two.Bundle = make([]byte, 1<<20)
	if err := s.p.Publish(t.Context(), two); !errors.Is(err, ErrFull) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("full: %v", err)
	}
	expect(t, s.client(t, s.url), one.BuildIDs, one)
	for n := range 40 { // until the metadata have no room
		filler := newRelease("fill", specs.Level(n+1), buildID(1))
		filler.Bundle = make([]byte, 20<<10)
		if err := s.p.Publish(t.Context(), filler); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Errorf("full: %v", err)
			}
			if err := s.client(t, s.url).Update(t.Context()); err != nil {
				t.Errorf("a reader of a full store: %v", err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "registry", "*", ".tmp-*")); len(left) > 0 {
				t.Errorf("left over: %q", left)
			}
			return
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it was never full")
	}
}

// TestBlindServer: an S3 server that ignores conditions is refused.
func TestBlindServer(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"If-None-Match", "If-Match"} {
		p := newProxy(t, startS3(t))
		p.set(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
			r.Header.Del(header)
			return false
		})
		_, err := Init(t.Context(), InitOptions{URL: p.site, Keys: filepath.Join(t.TempDir(), "keys")})
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), header) {
			t.Errorf("without %s: %v", header, err)
		}
	}
}
