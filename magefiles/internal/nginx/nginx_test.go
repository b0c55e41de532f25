package nginx

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fother/fother/magefiles/internal/corpus"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// fake answers every request by its number, counted over all connections. It
// closes the connection after what is not ok.
func fake(t *testing.T, answer func(n uint64) string) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var count atomic.Uint64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					text := answer(count.Add(1))
					if fmt.Fprint(c, text); text != ok {
						return
					}
				}
			}()
		}
	}()
	return &Server{addr: l.Addr().String()}
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"

// TestLoadCounts holds the load to count each failure once, whatever kind.
func TestLoadCounts(t *testing.T) {
	bad := map[uint64]string{
		3:  "",                                                    // closed without an answer
		7:  "HTTP/1.1 500 No\r\nContent-Length: 6\r\n\r\nhello\n", // wrong status
		11: "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nadieu\n", // wrong body
		15: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello\n", // cut off
		16: "",
		20: "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n", // no failure
	}
	var served atomic.Uint64
	s := fake(t, func(n uint64) string {
		served.Store(n)
		if text, isBad := bad[n]; isBad {
			return text
		}
		return ok
	})
	load, err := s.Load(1)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); served.Load() < 30 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	st, err := load.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if st.Requests < 30 || st.Failed != 5 || st.First == "" || st.Longest <= 0 || st.Elapsed < st.Longest {
		t.Errorf("stats %+v, want 30 requests or more, 5 failed", st)
	}
}

func TestLoadNobodyThere(t *testing.T) {
	addr, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	load, err := (&Server{addr: addr}).Load(2)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if st, err := load.Stop(); err != nil || st.Requests == 0 || st.Failed != st.Requests {
		t.Errorf("stats %+v, %v: want all requests to fail", st, err)
	}
}

func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Start(t.Context(), dir, dir); err == nil {
		t.Error("started a server that is not there")
	}
	script := filepath.Join(dir, "objs", "nginx")
	if err := os.MkdirAll(filepath.Dir(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho no such thing; exit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), dir, dir)
	if err == nil || err.Error() != "nginx ended: exit status 3\nno such thing" {
		t.Errorf("got %v", err)
	}
}

func TestProbeUnknown(t *testing.T) {
	if _, err := (&Server{}).Probe(t.Context(), "CVE-2000-0001"); err == nil {
		t.Error("probed for a bug without a probe")
	}
}

// TestProbes builds nginx before and after each fix, and holds every probe to
// tell the two apart.
func TestProbes(t *testing.T) {
	if !testenv.Long() {
		t.Skip("builds nginx three times: set FOTHER_LONG=1")
	}
	root := os.Getenv("FOTHER_TREES") // keeps the trees for another run
	if root == "" {
		root = t.TempDir()
	}
	for _, cve := range CVEs {
		t.Run(cve, func(t *testing.T) {
			dir := filepath.Join(root, cve)
			c, err := corpus.Find(cve)
			if err != nil {
				t.Fatal(err)
			}
			if err := tools.Install(t.Context(), c.Needs()...); err != nil {
				t.Fatal(err)
			}
			s, err := Prepare(t.Context(), dir, cve)
			if err != nil {
				t.Fatal(err)
			}
			original, patched := filepath.Join(dir, "original"), filepath.Join(dir, "patched")
			build(t, s, s.Dir, original)
			s.Configure = nil // is copied
			build(t, s, original, patched, s.Patches...)
			check(t, original, cve, false)
			check(t, patched, cve, true)
		})
	}
}

// build copies the folder from to tree, patches it and builds what is not built
// yet.
func build(t *testing.T, s specs.Spec, from, tree string, patches ...string) {
	t.Helper()
	built := tree + ".built"
	if _, err := os.Stat(built); err == nil {
		return
	}
	shell := func(dir, command string) {
		cmd := exec.CommandContext(t.Context(), "nice", "sh", "-c", command)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), s.Env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out[max(0, len(out)-2000):])
		}
	}
	shell(".", "rm -rf '"+tree+"' && cp -a '"+from+"' '"+tree+"'")
	for _, p := range patches {
		shell(tree, "patch -p1 -s -f -i '"+p+"'")
	}
	for _, command := range append(s.Configure, s.Build...) {
		shell(tree, command)
	}
	if err := os.WriteFile(built, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, tree, cve string, fixed bool) {
	t.Helper()
	s, err := Start(t.Context(), tree, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	f, err := s.Probe(t.Context(), cve)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %v", filepath.Base(tree), f)
	if f.Fixed != fixed {
		t.Errorf("%s: %v, want fixed to be %v", filepath.Base(tree), f, fixed)
	}
	// A worker that died is replaced, and the load does not see it.
	load, err := s.Load(8)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	st, err := load.Stop()
	if err != nil || st.Failed > 0 || st.Requests < 100 {
		t.Errorf("load: %+v, %v", st, err)
	}
	pids, err := s.PIDs()
	if err != nil || len(pids) != 1+Workers {
		t.Errorf("pids %v, %v: want a master and %d workers", pids, err, Workers)
	}
	t.Logf("%s: %+v, pids %v", filepath.Base(tree), st, pids)
}
