package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fother/fother/specs"
)

// kinds are the files that a client reads on the way to a new release.
var kinds = map[string]string{
	"timestamp": "/metadata/timestamp.json",
	"snapshot":  ".snapshot.json",
	"bin":       ".bin-",
	"index":     "/targets/index/",
	"signature": ".zst.sig",
	"bundle":    ".zst",
}

func isKind(kind, path string) bool {
	return strings.Contains(path, kinds[kind]) && (kind != "bundle" || strings.HasSuffix(path, ".zst"))
}

// damages are answers in a file's place; each gets the file's content.
var damages = map[string]struct {
	answer func(w http.ResponseWriter, r *http.Request, data []byte)
	want   []error
}{
	"a byte changed": {func(w http.ResponseWriter, _ *http.Request, data []byte) {
		data[len(data)/2] ^= 1
		w.Write(data)
	}, []error{ErrUntrusted}},
	"cut short": {func(w http.ResponseWriter, _ *http.Request, data []byte) {
		w.Write(data[:len(data)-1])
	}, []error{ErrUntrusted}},
	"empty": {func(http.ResponseWriter, *http.Request, []byte) {}, []error{ErrUntrusted}},
	"one byte more": {func(w http.ResponseWriter, _ *http.Request, data []byte) {
		w.Write(append(data, '{'))
	}, []error{ErrUntrusted, ErrTooLarge}},
	"a page": {func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		io.WriteString(w, "<html>please log in</html>")
	}, []error{ErrUntrusted, ErrTooLarge}},
	"null everywhere": {func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		io.WriteString(w, `{"signed":{"_type":"timestamp","meta":{"snapshot.json":null},"targets":{"x":null},"roles":{"root":null},"keys":{"a":null}},"signatures":[]}`)
	}, []error{ErrUntrusted, ErrTooLarge}},
	"too long": {func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Content-Length", strconv.Itoa(MaxBundle+2))
		io.CopyN(w, zeros{}, MaxBundle+2)
	}, []error{ErrTooLarge}},
	"without end": {func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		io.Copy(w, zeros{})
	}, []error{ErrTooLarge}},
	"a server error": {func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}, []error{ErrUnreachable}},
	"not there": {func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.WriteHeader(http.StatusNotFound)
	}, []error{ErrUnreachable, ErrNotFound}},
	"closed in the middle": {func(w http.ResponseWriter, _ *http.Request, data []byte) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:len(data)/2])
		panic(http.ErrAbortHandler)
	}, []error{ErrUnreachable}},
	"stalled": {func(w http.ResponseWriter, r *http.Request, data []byte) {
		w.Write(data[:1])
		w.(*countedWriter).Unwrap().(http.Flusher).Flush()
		<-r.Context().Done()
	}, []error{ErrUnreachable}},
	"a redirect to a file": {func(w http.ResponseWriter, r *http.Request, _ []byte) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	}, []error{ErrUntrusted}},
	"a redirect in a circle": {func(w http.ResponseWriter, r *http.Request, _ []byte) {
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
	}, []error{ErrUnreachable}},
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestDamagedOnTheWay(t *testing.T) {
	t.Parallel()
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			v := s.serve(t)
			s.publish(t, releases(len(damages))...)
			n := -1
			for damage, d := range damages {
				n++
				t.Run(damage, func(t *testing.T) { s.checkDamage(t, v, n, kind, damage, d.answer, d.want) })
			}
		})
	}
}

// checkDamage damages one kind of file while a client updates from the first
// level of the n-th package to the second.
func (s *site) checkDamage(t *testing.T, v *server, n int, kind, damage string, answer func(http.ResponseWriter, *http.Request, []byte), want []error) {
	ids := []specs.BuildID{buildID(n)}
	before := newRelease(fmt.Sprintf("p%d", n), 1, ids...)
	after := newRelease(before.Package, 2, ids...)
	state := filepath.Join(t.TempDir(), "state")
	c := s.clientAt(t, v.URL, state)
	if damage == "stalled" { // else a slow machine would fail
		c.hurry()
	}
	expect(t, c, ids, before)
	s.publish(t, after)

	v.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !isKind(kind, r.URL.Path) {
			return false
		}
		data, err := os.ReadFile(filepath.Join(s.dir, r.URL.Path))
		if err != nil {
			t.Error(err)
		}
		answer(w, r, data)
		return true
	})
	err := c.Update(t.Context())
	if kind == "bundle" || kind == "signature" {
		if err != nil {
			t.Fatal(err)
		}
		err = fetchLevel(t, c, ids, 2)
	} else {
		// What was valid before stays in use, also by the next run.
		expectNow(t, c, ids, before)
		expectNow(t, s.clientAt(t, v.URL, state), ids, before)
	}
	checkFailure(t, err, want)
	v.set(nil)
	s.checkState(t, state)
	expect(t, c, ids, before, after)
}

// hurry makes a client give up soon.
func (c *Client) hurry() {
	hurry(c.remote.source)
}

func fetchLevel(t *testing.T, c *Client, ids []specs.BuildID, level specs.Level) error {
	t.Helper()
	entries, err := c.Lookup(t.Context(), ids)
	if err != nil || entries[0].Level != level {
		t.Fatal(entries, err)
	}
	data, err := c.Fetch(t.Context(), entries[0])
	if err != nil && data != nil {
		t.Error("data in spite of the error")
	}
	return err
}

func checkFailure(t *testing.T, err error, want []error) {
	t.Helper()
	var ours *Error
	if !slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) }) || !errors.As(err, &ours) || ours.File == "" {
		t.Errorf("error: %v, want %v", err, want)
	}
}

// checkState makes sure that a client has kept nothing but what is in the
// registry, byte for byte, and nothing half fetched.
func (s *site) checkState(t *testing.T, state string) {
	t.Helper()
	published := map[specs.Digest]bool{}
	digests := func(dir string, f func(path string, d specs.Digest)) {
		err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			f(path, specs.DigestOf(data))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	digests(s.dir, func(_ string, d specs.Digest) { published[d] = true })
	digests(filepath.Join(s.keys), func(_ string, d specs.Digest) { published[d] = true })
	digests(state, func(path string, d specs.Digest) {
		base := filepath.Base(path)
		if !published[d] && base != shardsFile && base != filepath.Base(currentTimestamp) && !strings.HasSuffix(base, "timestamp.json") {
			t.Errorf("%s: not from the registry", path)
		}
		if strings.HasPrefix(strings.TrimPrefix(path, state)[18:], tempDir) {
			t.Errorf("%s: left over", path)
		}
	})
}

func TestRedirects(t *testing.T) {
	s := newSite(t)
	r := newRelease("alpha", 1, buildID(1))
	s.publish(t, r)
	v, elsewhere := s.serve(t), s.serve(t)
	v.set(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusFound)
		return true
	})
	if err := s.client(t, v.URL).Update(t.Context()); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), elsewhere.URL) {
		t.Errorf("redirect to another server: %v", err)
	}
	if seen, _ := elsewhere.take(); len(seen) > 0 {
		t.Errorf("the other server was asked for %q", seen)
	}
	v.set(func(w http.ResponseWriter, r *http.Request) bool {
		if path, ok := strings.CutPrefix(r.URL.Path, "/here"); ok {
			w.Header().Set("X-Terraform-Get", elsewhere.URL)
			http.StripPrefix("/here", http.FileServer(http.Dir(s.dir))).ServeHTTP(w, r)
			_ = path
			return true
		}
		http.Redirect(w, r, "/here"+r.URL.Path, http.StatusFound)
		return true
	})
	expect(t, s.client(t, v.URL), r.BuildIDs, r)
	if seen, _ := elsewhere.take(); len(seen) > 0 {
		t.Errorf("the other server was asked for %q", seen)
	}
}

func TestStoreGoesAway(t *testing.T) {
	s := newSite(t)
	v := s.serve(t)
	one, two := newRelease("alpha", 1, buildID(1), buildID(2)), newRelease("alpha", 2, buildID(1), buildID(2))
	s.publish(t, one)
	state := filepath.Join(t.TempDir(), "state")
	expect(t, s.clientAt(t, v.URL, state), one.BuildIDs, one)
	s.publish(t, two)
	for working := 0; ; working++ {
		var requests atomic.Int64
		v.set(func(w http.ResponseWriter, r *http.Request) bool {
			if requests.Add(1) <= int64(working) {
				return false
			}
			panic(http.ErrAbortHandler)
		})
		c := s.clientAt(t, v.URL, state)
		err := c.Update(t.Context())
		if err == nil {
			break
		}
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("after %d requests: %v", working, err)
		}
		expectNow(t, c, one.BuildIDs, one)
	}
	v.Close()
	c := s.clientAt(t, v.URL, state)
	if err := c.Update(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("server gone: %v", err)
	}
	if entries, err := c.Lookup(t.Context(), one.BuildIDs); err != nil || len(entries) != 4 {
		t.Errorf("offline: %v, %v", entries, err)
	}
	s.now = s.now.Add(timestampValidity + time.Hour)
	if _, err := c.Lookup(t.Context(), one.BuildIDs); !errors.Is(err, ErrExpired) {
		t.Errorf("offline for longer than signatures hold: %v", err)
	}
	if _, err := s.clientAt(t, v.URL, state).Lookup(t.Context(), one.BuildIDs); !errors.Is(err, ErrExpired) {
		t.Errorf("the same by a new client: %v", err)
	}
	if _, err := s.client(t, v.URL).Lookup(t.Context(), one.BuildIDs); !errors.Is(err, ErrUnreachable) {
		t.Errorf("without any state: %v", err)
	}
}

// TestPartOfLookup lets some of the index targets fail: the others' releases
// are found, from the cache or the store.
func TestPartOfLookup(t *testing.T) {
	s := newSite(t)
	v := s.serve(t)
	s.publish(t, releases(40)...)
	var ids []specs.BuildID
	for n := range 40 {
		ids = append(ids, buildID(n))
	}
	state := filepath.Join(t.TempDir(), "state")
	expect(t, s.clientAt(t, v.URL, state), ids[:3], releases(3)...)
	c := s.clientAt(t, v.URL, state)
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	lookup := func(what string, least, most int) {
		t.Helper()
		v.take()
		entries, err := c.Lookup(t.Context(), ids)
		if !errors.Is(err, ErrUnreachable) || len(entries) < least || len(entries) > most || strings.Count(err.Error(), "\n") > maxTold {
			t.Errorf("%s: %d entries, want %d to %d: %v", what, len(entries), least, most, err)
		}
		if seen, _ := v.take(); len(seen) > 120 || what == "store down" && len(seen) > 2*parallel {
			t.Errorf("%s: %d requests", what, len(seen))
		}
	}
	broken := func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusServiceUnavailable); return true }
	v.set(func(w http.ResponseWriter, _ *http.Request) bool { return broken(w) })
	lookup("store down", 3, 3)
	if got := c.shards(); len(got) != 3 {
		t.Errorf("an update would need %d index targets, some of which failed", len(got))
	}
	one := fmt.Sprintf(".%s", strings.TrimPrefix(shardTarget(ids[39]), indexPrefix))
	v.set(func(w http.ResponseWriter, r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, one) && broken(w)
	})
	lookup("one index target", 39, 39)
	v.set(nil)
	expectNow(t, c, ids, releases(40)...)
}

func TestNoRegistry(t *testing.T) {
	s := newSite(t)
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	for _, url := range []string{t.TempDir(), "/nowhere", web.URL, "http://127.0.0.1:1"} {
		if err := s.client(t, url).Update(t.Context()); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"", "ftp://host/x", "git::http://host/x", "http:///x", "http://host/x?checksum=md5:00", "http://host/#x", "file://host/x", "http://%zz"} {
		if _, err := NewClient(ClientOptions{URL: url, Root: s.root, State: t.TempDir()}); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestNoTrust(t *testing.T) {
	s, other := newSite(t), newSite(t)
	if err := other.client(t, s.dir).Update(t.Context()); !errors.Is(err, ErrUntrusted) {
		t.Errorf("another registry's root: %v", err)
	}
	for _, root := range []string{"", "{}", "null", `{"signed":{"_type":"root","roles":{"root":null}},"signatures":[]}`, strings.Replace(string(s.root), `"version":1`, `"version":9`, 1)} {
		if _, err := NewClient(ClientOptions{URL: s.dir, Root: []byte(root), State: t.TempDir()}); !errors.Is(err, ErrUntrusted) {
			t.Errorf("root %.60q: %v", root, err)
		}
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"", open, "/dev/null/x"} {
		if _, err := NewClient(ClientOptions{URL: s.dir, Root: s.root, State: state}); !errors.Is(err, ErrState) {
			t.Errorf("state in %q: %v", state, err)
		}
	}
}

// TestHostileFolder puts what is no file in files' places.
func TestHostileFolder(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(s.dir, timestampFile)
	for name, make := range map[string]func() error{
		"folder":  func() error { return os.Mkdir(path, 0o755) },
		"FIFO":    func() error { return mkfifo(path) },
		"device":  func() error { return os.Symlink("/dev/zero", path) },
		"nothing": func() error { return os.Symlink("nowhere", path) },
		"large":   func() error { return os.WriteFile(path, fmt.Append(nil, strings.Repeat("x", maxTimestamp+1)), 0o644) },
	} {
		if err := errors.Join(os.RemoveAll(path), make()); err != nil {
			t.Fatal(err)
		}
		err := s.client(t, s.dir).Update(t.Context())
		if !errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.p.List(t.Context()); !errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: publisher: %v", name, err)
		}
	}
}
