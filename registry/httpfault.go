package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	// maxStall bounds the time without a byte.
	maxStall     = 30 * time.Second
	maxRedirects = 5
)

// absent are the answers of servers that have no such file; where files cannot
// be listed, S3 forbids those that are not there.
var absent = []int{http.StatusNotFound, http.StatusGone, http.StatusForbidden}

// denied are the answers to wrong or missing credentials.
var denied = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired}

// full are the answers of stores that have no room.
var full = []int{http.StatusInsufficientStorage, http.StatusRequestEntityTooLarge}

// fetchError gives what went wrong a class.
func fetchError(ctx context.Context, name string, err error) error {
	hideQuery(err)
	var status *statusError
	var ours *Error
	switch {
	case errors.As(err, &ours):
		return &Error{ours.Kind, name, ours.Err}
	case errors.As(err, &status) && status.code == http.StatusForbidden && !status.denied:
		return &Error{ErrNotFound, name, &Error{ErrDenied, name, status}}
	case errors.As(err, &status) && (status.denied || slices.Contains(denied, status.code)):
		return &Error{ErrDenied, name, status}
	case errors.As(err, &status) && slices.Contains(absent, status.code):
		return &Error{ErrNotFound, name, err}
	case errors.Is(err, context.Canceled) && ctx.Err() == nil:
		return fail(ErrUnreachable, name, "the server stopped sending")
	}
	return &Error{ErrUnreachable, name, err}
}

// writeError gives what went wrong while a file was written a class.
func writeError(ctx context.Context, name string, err error) error {
	var status *statusError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &status):
		return fetchError(ctx, name, err)
	case slices.Contains(full, status.code) || status.full:
		return &Error{ErrFull, name, status}
	case slices.Contains(denied, status.code) || status.denied:
		return &Error{ErrDenied, name, status}
	case status.code == http.StatusPreconditionFailed:
		return &Error{ErrRaced, name, status}
	}
	return &Error{ErrUnreachable, name, status}
}

// statusError is an answer of a server that is an error.
type statusError struct {
	code   int
	said   string // by the server; one line
	denied bool   // the credentials are wrong, whatever the code
	full   bool   // there is no room, whatever the code
}

func (s *statusError) Error() string {
	text := fmt.Sprintf("the server answers %d %s", s.code, http.StatusText(s.code))
	if s.said != "" {
		text += " (" + s.said + ")"
	}
	return text
}

// newStatusError notes what a server says, as far as a message should have it.
func newStatusError(code int, said ...string) *statusError {
	line := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, strings.Join(slices.DeleteFunc(said, func(s string) bool { return s == "" }), ": "))
	return &statusError{code: code, said: strings.ToValidUTF8(line[:min(len(line), 200)], "")}
}

// checkRedirect follows redirects within one server only.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case req.URL.Scheme != first.Scheme || req.URL.Host != first.Host:
		return fail(ErrUntrusted, redact(first), "redirected to %s: another server or scheme is not followed", redact(req.URL))
	case len(via) > maxRedirects:
		return fail(ErrUnreachable, redact(first), "more than %d redirects", maxRedirects)
	}
	return nil
}

// newCareful returns a RoundTripper for one store.
func newCareful() *carefully {
	web := http.DefaultTransport.(*http.Transport).Clone()
	web.MaxIdleConnsPerHost = parallel
	web.ResponseHeaderTimeout = maxStall
	return &carefully{web, maxStall}
}

// carefully is a RoundTripper that gives up when a body stalls, in either
// direction.
type carefully struct {
	http.RoundTripper
	stall time.Duration // how long it waits for a byte
}

func (c *carefully) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	req = req.Clone(ctx)
	timer := time.AfterFunc(c.stall, cancel)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &sent{req.Body, timer, c.stall}
	}
	res, err := c.RoundTripper.RoundTrip(req)
	if err != nil {
		timer.Stop()
		cancel()
		return nil, err
	}
	timer.Reset(c.stall)
	left, bounded := req.Context().Value(bodyLimit{}).(int64)
	if !bounded {
		left = math.MaxInt64
	}
	res.Body = &watched{res.Body, timer, c.stall, cancel, left}
	return res, nil
}

// bodyLimit is the key of a context's limit for the bodies of answers.
type bodyLimit struct{}

// withLimit bounds what is read of an answer about a file of at most max bytes:
// some libraries read to its end what they close.
func withLimit(ctx context.Context, max int64) context.Context {
	return context.WithValue(ctx, bodyLimit{}, max+maxSaid)
}

// sent is a body on its way to a server. The timer begins anew whenever the
// connection takes a part of it.
type sent struct {
	io.ReadCloser
	timer *time.Timer
	stall time.Duration
}

func (s *sent) Read(p []byte) (int, error) {
	s.timer.Reset(s.stall)
	return s.ReadCloser.Read(p)
}

// strictly is a RoundTripper that makes an error of each answer that is one,
// which go-getter does not tell apart, and adds the credentials of one server
// to the requests that go there, and to no others.
type strictly struct {
	http.RoundTripper
	at *place
}

func (s *strictly) RoundTrip(req *http.Request) (*http.Response, error) {
	if s.at.user != nil && req.URL.Scheme == s.at.Scheme && req.URL.Host == s.at.Host {
		req = req.Clone(req.Context())
		password, _ := s.at.user.Password()
		req.SetBasicAuth(s.at.user.Username(), password)
	}
	res, err := s.RoundTripper.RoundTrip(req)
	if err != nil || res.StatusCode < 400 {
		return res, err
	}
	res.Body.Close()
	return nil, newStatusError(res.StatusCode)
}

// watched is a body whose request ends if a read takes too long.
type watched struct {
	io.ReadCloser
	timer  *time.Timer
	stall  time.Duration
	cancel context.CancelFunc
	left   int64 // bytes
}

func (w *watched) Read(p []byte) (int, error) {
	if w.left <= 0 {
		return 0, fail(ErrTooLarge, "the answer", "it does not end")
	}
	w.timer.Reset(w.stall)
	n, err := w.ReadCloser.Read(p[:min(int64(len(p)), w.left)])
	w.left -= int64(n)
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	defer w.cancel()
	return w.ReadCloser.Close()
}
