package registry

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// site is a registry in a folder, with all that tests change about it.
type site struct {
	url, keys string
	dir       string // if it is a folder
	root      []byte
	now       time.Time
	p         *Publisher
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := emptySite(t)
	var err error
	if s.root, err = Init(t.Context(), InitOptions{URL: s.dir, Keys: s.keys, Now: s.clock}); err != nil {
		t.Fatal(err)
	}
	s.p = s.open(t)
	return s
}

// emptySite is one in which nothing is made yet.
func emptySite(t testing.TB) *site {
	dir := filepath.Join(t.TempDir(), "registry")
	return &site{url: dir, dir: dir, keys: filepath.Join(t.TempDir(), "keys"), now: time.Now()}
}

func (s *site) clock() time.Time { return s.now }

func (s *site) open(t testing.TB, more ...KeyOption) *Publisher {
	t.Helper()
	p, err := Open(s.url, s.keys, more...)
	if err != nil {
		t.Fatal(err)
	}
	p.now = s.clock
	return p
}

func (s *site) publish(t testing.TB, releases ...Release) {
	t.Helper()
	if err := s.p.Publish(t.Context(), releases...); err != nil {
		t.Fatal(err)
	}
}

func (s *site) client(t testing.TB, url string) *Client {
	t.Helper()
	return s.clientAt(t, url, filepath.Join(t.TempDir(), "state"))
}

func (s *site) clientAt(t testing.TB, url, state string) *Client {
	t.Helper()
	c, err := NewClient(ClientOptions{URL: url, Root: s.root, State: state, Now: s.clock})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// server serves the registry over HTTP and counts requests.
type server struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
	sent int64
	// answer, if it returns true, has answered in the folder's place.
	answer func(w http.ResponseWriter, r *http.Request) bool
}

func (s *site) serve(t testing.TB) *server {
	v := &server{}
	files := http.FileServer(http.Dir(s.dir))
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.mu.Lock()
		v.seen = append(v.seen, r.Method+" "+r.URL.Path)
		answer := v.answer
		v.mu.Unlock()
		counted := &countedWriter{ResponseWriter: w}
		if answer == nil || !answer(counted, r) {
			files.ServeHTTP(counted, r)
		}
		v.mu.Lock()
		v.sent += counted.n
		v.mu.Unlock()
	}))
	t.Cleanup(v.Close)
	return v
}

// take returns the requests since the last call, and the bytes of the bodies.
func (v *server) take() ([]string, int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	seen, sent := v.seen, v.sent
	v.seen, v.sent = nil, 0
	return seen, sent
}

func (v *server) set(answer func(w http.ResponseWriter, r *http.Request) bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.answer = answer
}

type countedWriter struct {
	http.ResponseWriter
	n int64
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}

func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// buildID returns the n-th build-id of the tests.
func buildID(n int) specs.BuildID {
	return specs.BuildID(specs.DigestOf(fmt.Append(nil, n)).String()[:40])
}

func newRelease(pack string, level specs.Level, ids ...specs.BuildID) Release {
	return Release{
		Package: pack, Series: specs.DefaultSeries, Level: level, BuildIDs: ids, CVEs: []string{"CVE-2026-1234"},
		File: fmt.Sprintf("%s-%d.kpatch.tar.zst", pack, level), Bundle: fmt.Appendf(nil, "bundle of %s at level %d", pack, level),
	}
}

// expect updates, looks ids up and fetches all that is found.
func expect(t testing.TB, c *Client, ids []specs.BuildID, want ...Release) {
	t.Helper()
	if err := c.Update(t.Context()); err != nil {
		t.Fatalf("update: %v", err)
	}
	expectNow(t, c, ids, want...)
}

// expectNow is expect without the update.
func expectNow(t testing.TB, c *Client, ids []specs.BuildID, want ...Release) {
	t.Helper()
	entries, err := c.Lookup(t.Context(), ids)
	if err != nil {
		t.Fatalf("lookup: %v", err)
	}
	var got, wanted []string
	for _, e := range entries {
		data, err := c.Fetch(t.Context(), e)
		if err != nil {
			t.Fatalf("fetch: %v", err)
		}
		got = append(got, fmt.Sprintf("%s %s %s %d %v %s %q", e.BuildID, e.Package, e.Series, e.Level, e.CVEs, e.File, data))
	}
	for _, r := range want {
		for _, id := range r.BuildIDs {
			if slices.Contains(ids, id) {
				wanted = append(wanted, fmt.Sprintf("%s %s %s %d %v %s %q", id, r.Package, r.Series, r.Level, r.CVEs, r.File, r.Bundle))
			}
		}
	}
	slices.Sort(got)
	slices.Sort(wanted)
	if !slices.Equal(got, wanted) {
		t.Fatalf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wanted, "\n"))
	}
}

func TestRoundTrip(t *testing.T) {
	for _, store := range []string{"folder", "relative folder", "file", "http", "http below a path"} {
		t.Run(store, func(t *testing.T) {
			s := newSite(t)
			url := s.dir
			switch store {
			case "relative folder":
				t.Chdir(filepath.Dir(s.dir))
				url = filepath.Base(s.dir)
			case "file":
				url = "file://" + s.dir
			case "http":
				url = s.serve(t).URL
			case "http below a path":
				url = s.serve(t).URL + "//./"
			}
			c := s.client(t, url)
			expect(t, c, []specs.BuildID{buildID(1)})

			one := newRelease("alpha", 1, buildID(1), buildID(2))
			s.publish(t, one)
			expect(t, c, []specs.BuildID{buildID(1), buildID(2), buildID(3)}, one)

			other := newRelease("beta", 7, buildID(3))
			newer := newRelease("alpha", 2, buildID(2))
			s.publish(t, other, newer)
			expect(t, c, []specs.BuildID{buildID(1), buildID(2), buildID(3)}, one, other, newer)
			expect(t, s.client(t, url), []specs.BuildID{buildID(2)}, one, newer)

			entries, err := s.p.List(t.Context())
			if err != nil || len(entries) != 4 || entries[0].Level != 2 || entries[3].Package != "beta" {
				t.Errorf("list: %+v, %v", entries, err)
			}
		})
	}
}

func TestSameAgain(t *testing.T) {
	s := newSite(t)
	one := newRelease("alpha", 1, buildID(1), buildID(2))
	s.publish(t, one)
	before := s.files(t)
	if err := s.open(t).Publish(t.Context(), one); !errors.Is(err, ErrPublished) {
		t.Errorf("the same again: %v", err)
	}
	slices.Reverse(one.BuildIDs)
	if err := s.p.Publish(t.Context(), one); !errors.Is(err, ErrPublished) {
		t.Errorf("the same again, in another order: %v", err)
	}
	for name, change := range map[string]func(*Release){
		"bytes":     func(r *Release) { r.Bundle = append(slices.Clone(r.Bundle), 'x') },
		"build-ids": func(r *Release) { r.BuildIDs = []specs.BuildID{buildID(9)} },
		"file":      func(r *Release) { r.File = "other" },
	} {
		r := one
		change(&r)
		if err := s.p.Publish(t.Context(), r); !errors.Is(err, ErrConflict) {
			t.Errorf("the same level with other %s: %v", name, err)
		}
	}
	if after := s.files(t); !slices.Equal(before, after) {
		t.Errorf("files were %q, are %q", before, after)
	}
	// Lost files come back.
	if err := os.RemoveAll(filepath.Join(s.dir, bundlesDir)); err != nil {
		t.Fatal(err)
	}
	if err := s.p.Publish(t.Context(), one); !errors.Is(err, ErrPublished) {
		t.Error(err)
	}
	expect(t, s.client(t, s.dir), []specs.BuildID{buildID(1)}, one)
}

// files returns the names and contents of the registry's files, in short.
func (s *site) files(t testing.TB) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		out = append(out, strings.TrimPrefix(path, s.dir)+" "+specs.DigestOf(data).String()[:8])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRequests(t *testing.T) {
	s := newSite(t)
	v := s.serve(t)
	state := filepath.Join(t.TempDir(), "state")
	var ids []specs.BuildID
	for n := range 40 {
		ids = append(ids, buildID(n))
		s.publish(t, newRelease(fmt.Sprintf("p%d", n), 1, buildID(n)))
	}
	ids = ids[:20]
	expect(t, s.clientAt(t, v.URL, state), ids, releases(20)...)
	v.take()

	// Nobody has published: a new client, as of a timer, makes two requests.
	expect(t, s.clientAt(t, v.URL, state), ids, releases(20)...)
	if seen, sent := v.take(); len(seen) > 2 || sent > 2048 || slices.ContainsFunc(seen, func(s string) bool { return !strings.HasPrefix(s, "GET ") }) {
		t.Errorf("a poll without news: %d bytes in %d requests: %q", sent, len(seen), seen)
	}
	// Somebody else has.
	s.publish(t, newRelease("other", 1, buildID(1000)))
	expect(t, s.clientAt(t, v.URL, state), ids, releases(20)...)
	if seen, sent := v.take(); len(seen) > 5 || sent > 100<<10 {
		t.Errorf("a poll with others' news: %d bytes in %d requests: %q", sent, len(seen), seen)
	}
	// Renewed.
	if err := s.p.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, s.clientAt(t, v.URL, state), ids, releases(20)...)
	if seen, _ := v.take(); len(seen) > 2 {
		t.Errorf("a poll after a refresh: %q", seen)
	}
}

func releases(n int) []Release {
	var all []Release
	for i := range n {
		all = append(all, newRelease(fmt.Sprintf("p%d", i), 1, buildID(i)))
	}
	return all
}

// TestTwoPublishers: neither loses the other's work.
func TestTwoPublishers(t *testing.T) {
	twoPublishers(t, newSite(t), 8)
}

// twoPublishers has two publish at once, each so many packages.
func twoPublishers(t *testing.T, s *site, each int) {
	t.Helper()
	var wg sync.WaitGroup
	for who := range 2 {
		p := s.open(t)
		wg.Go(func() {
			for n := range each {
				if err := p.Publish(t.Context(), newRelease(fmt.Sprintf("p%d", who*each+n), 1, buildID(who*each+n))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var ids []specs.BuildID
	for n := range 2 * each {
		ids = append(ids, buildID(n))
	}
	expect(t, s.client(t, s.url), ids, releases(2*each)...)
}

func TestBigBundle(t *testing.T) {
	s := newSite(t)
	r := newRelease("big", 1, buildID(1))
	r.Bundle = bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	s.publish(t, r)
	expect(t, s.client(t, s.serve(t).URL), r.BuildIDs, r)
}

func mkfifo(path string) error { return unix.Mkfifo(path, 0o644) }
