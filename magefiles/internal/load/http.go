package load

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
)

// browser asks for one page after the other. It does without net/http's client,
// which sends a request again when a connection breaks.
type browser struct {
	bodies map[string]string
	paths  []string
	next   int
	c      net.Conn
	r      *bufio.Reader
}

func newHTTP(o Order, i int) speaker {
	return &browser{bodies: o.Bodies, paths: slices.Sorted(maps.Keys(o.Bodies)), next: i}
}

func (b *browser) begin(c net.Conn) { b.c, b.r = c, bufio.NewReader(c) }

func (b *browser) request(last bool) (again bool, err error) {
	path := b.paths[b.next%len(b.paths)]
	b.next++
	closing := ""
	if last {
		closing = "Connection: close\r\n"
	}
	if _, err := io.WriteString(b.c, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n"+closing+"\r\n"); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(b.r, nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return false, err
	}
	if resp.StatusCode != http.StatusOK || string(body) != b.bodies[path] {
		return false, fmt.Errorf("%s: %s: %d bytes: %.100q", path, resp.Status, len(body), body)
	}
	return !resp.Close, nil
}
