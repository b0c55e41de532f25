package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	getter "github.com/hashicorp/go-getter/v2"
)

// transport reads files of a registry with go-getter.
type transport struct {
	base   *url.URL
	temp   string // folder for files that are not verified yet
	client *http.Client
	log    *slog.Logger
	most   time.Duration // for one file, maxFetch but in tests
}

const (
	// maxFetch bounds the time for one file.
	maxFetch = 10 * time.Minute
	// maxStall bounds the time without a byte.
	maxStall     = 30 * time.Second
	maxRedirects = 5
)

// newTransport takes a folder or an address.
func newTransport(address, temp string, log *slog.Logger) (*transport, error) {
	u, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	web := http.DefaultTransport.(*http.Transport).Clone()
	web.MaxIdleConnsPerHost = parallel
	web.ResponseHeaderTimeout = maxStall
	return &transport{u, temp, &http.Client{Transport: &carefully{web, maxStall}, CheckRedirect: checkRedirect}, log, maxFetch}, nil
}

func parseAddress(address string) (*url.URL, error) {
	if !strings.Contains(address, "://") {
		abs, err := filepath.Abs(address)
		if err != nil || address == "" {
			return nil, fail(ErrUnreachable, fmt.Sprintf("registry %q", address), "want a folder or an address")
		}
		return &url.URL{Scheme: "file", Path: filepath.ToSlash(abs)}, nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, fail(ErrUnreachable, "registry", "address: %w", err)
	}
	file, web := u.Scheme == "file", u.Scheme == "http" || u.Scheme == "https"
	switch {
	case !file && !web:
		return nil, fail(ErrUnreachable, u.Redacted(), "scheme %s: want a folder, file, http or https", u.Scheme)
	case file && u.Host != "" && u.Host != "localhost", web && u.Host == "":
		return nil, fail(ErrUnreachable, u.Redacted(), "wrong host %q", u.Host)
	case u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
		return nil, fail(ErrUnreachable, u.Redacted(), "want an address without query and fragment")
	}
	if file {
		u.Host = ""
	}
	// A double slash would mean a part of an archive to go-getter.
	return &url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host, Path: path.Clean("/" + u.Path)}, nil
}

// read fetches one file into a fresh temporary one and returns its content,
// which nothing has verified. The traps of go-getter it avoids: unpacking by
// file name, symbolic links instead of copies, silent truncation at MaxBytes,
// and sources named by the server.
func (t *transport) read(ctx context.Context, name string, max int64) ([]byte, error) {
	dir, err := os.MkdirTemp(t.temp, "get-*")
	if err != nil {
		return nil, fail(ErrState, t.temp, "%w", err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, t.most)
	defer cancel()
	client := &getter.Client{
		Getters: []getter.Getter{
			&getter.HttpGetter{Client: t.client, DoNotCheckHeadFirst: true, XTerraformGetDisabled: true, MaxBytes: max + 1},
			&fileGetter{max: max},
		},
		Decompressors:   map[string]getter.Decompressor{},
		DisableSymlinks: true,
	}
	dst := filepath.Join(dir, "file")
	_, err = client.Get(ctx, &getter.Request{
		Src: t.base.JoinPath(name).String(), Dst: dst, GetMode: getter.ModeFile, Copy: true, Umask: 0o077,
	})
	if info, statErr := os.Stat(dst); statErr == nil && info.Size() > max {
		return nil, fail(ErrTooLarge, name, "more than %d bytes", max)
	}
	if own := (*fs.PathError)(nil); errors.As(err, &own) && strings.HasPrefix(own.Path, dir) { // a full disk
		return nil, &Error{ErrState, own.Path, err}
	}
	if err != nil {
		return nil, fetchError(ctx, name, err)
	}
	data, err := readRegular(dst, max)
	if err != nil {
		return nil, &Error{ErrState, dst, err}
	}
	t.log.Debug("fetched", "file", name, "bytes", len(data))
	return data, nil
}

// absent are the answers of servers that have no such file; where files cannot
// be listed, S3 forbids those that are not there.
var absent = []int{http.StatusNotFound, http.StatusGone, http.StatusForbidden}

// fetchError gives what went wrong a class.
func fetchError(ctx context.Context, name string, err error) error {
	var status statusError
	var ours *Error
	switch {
	case errors.As(err, &ours):
		return &Error{ours.Kind, name, ours.Err}
	case errors.As(err, &status) && slices.Contains(absent, int(status)):
		return &Error{ErrNotFound, name, err}
	case errors.Is(err, context.Canceled) && ctx.Err() == nil:
		return fail(ErrUnreachable, name, "the server stopped sending")
	}
	return &Error{ErrUnreachable, name, err}
}

type statusError int

func (s statusError) Error() string {
	return fmt.Sprintf("the server answers %d %s", int(s), http.StatusText(int(s)))
}

// checkRedirect follows redirects within one server only.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case req.URL.Scheme != first.Scheme || req.URL.Host != first.Host:
		return fail(ErrUntrusted, first.Redacted(), "redirected to %s: another server or scheme is not followed", req.URL.Redacted())
	case len(via) > maxRedirects:
		return fail(ErrUnreachable, first.Redacted(), "more than %d redirects", maxRedirects)
	}
	return nil
}

// carefully is a RoundTripper that tells status codes apart, which go-getter
// does not, and gives up when a body stalls.
type carefully struct {
	http.RoundTripper
	stall time.Duration // how long it waits for a byte
}

func (c *carefully) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	res, err := c.RoundTripper.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	if res.StatusCode >= 400 {
		res.Body.Close()
		cancel()
		return nil, statusError(res.StatusCode)
	}
	res.Body = &watched{res.Body, time.AfterFunc(c.stall, cancel), c.stall, cancel}
	return res, nil
}

// watched is a body whose request ends if a read takes too long.
type watched struct {
	io.ReadCloser
	timer  *time.Timer
	stall  time.Duration
	cancel context.CancelFunc
}

func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(w.stall)
	return w.ReadCloser.Read(p)
}

func (w *watched) Close() error {
	w.timer.Stop()
	defer w.cancel()
	return w.ReadCloser.Close()
}

// fileGetter is go-getter's, but takes regular files only, of a bounded size.
type fileGetter struct {
	getter.FileGetter
	max int64
}

// GetFile copies the file.
func (g *fileGetter) GetFile(ctx context.Context, req *getter.Request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name := filepath.FromSlash(req.URL().Path)
	data, err := readRegular(name, g.max)
	if err != nil {
		return fileError(name, err)
	}
	return os.WriteFile(req.Dst, data, 0o600)
}
