package registry

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"
	"time"
)

// proxy stands before a service, and answers in its place when a test wants
// it to.
type proxy struct {
	*httptest.Server
	// site is where the proxy's registry is.
	site string
	// forbids tells 403 instead of 404.
	forbids bool

	mu     sync.Mutex
	asked  int
	answer func(n int, w http.ResponseWriter, r *http.Request) bool
}

func newProxy(t testing.TB, v *service) *proxy {
	p := &proxy{}
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(v.server)
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(res *http.Response) error {
			if p.forbids && res.StatusCode == http.StatusNotFound {
				res.StatusCode, res.Status = http.StatusForbidden, ""
			}
			return nil
		},
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		n, answer := p.asked, p.answer
		p.asked++
		p.mu.Unlock()
		if answer == nil || !answer(n, w, r) {
			pass.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(p.Close)
	p.site = strings.Replace(v.url, v.server.Host, strings.TrimPrefix(p.URL, "http://"), 1)
	return p
}

// set says what answers from now on; it is told how many requests there were
// since.
func (p *proxy) set(answer func(n int, w http.ResponseWriter, r *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked, p.answer = 0, answer
}

// hurry makes a publisher give up soon.
func (p *Publisher) hurry() {
	switch s := p.store.(type) {
	case *turns:
		hurry(s.source)
		s.tries = 2
	case *conditional:
		hurry(s.source)
	}
}

func hurry(o opener) {
	const stall = 500 * time.Millisecond
	switch o := o.(type) {
	case *webStore:
		o.careful.stall = stall
	case *bucket:
		o.careful.stall = stall
	case *artifacts:
		o.careful.stall = stall
	}
}
