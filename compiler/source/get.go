package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-getter/v2"
)

// idleTime is how long a server may send nothing.
var idleTime = time.Minute

// maxRedirects is how often a server may point elsewhere.
const maxRedirects = 10

// fetchFile fetches the archive at a http, https or file URL into the folder
// work and returns its path.
func fetchFile(ctx context.Context, work, address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	if u.Scheme == "file" {
		// A FIFO would be waited for, a device read without end.
		f, _, err := openFile(u.Path)
		if err != nil {
			return "", err
		}
		f.Close()
	}
	// The folder is new: go-getter would take a file that is there for the
	// one to fetch, or write over its beginning.
	dst := filepath.Join(work, "archive")
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: idleTime}).DialContext,
		TLSHandshakeTimeout: idleTime,
		ForceAttemptHTTP2:   true,
		DisableKeepAlives:   true,
		// A server that calls a .tar.gz encoded by gzip would have it
		// decompressed, and the checksum is that of the file.
		DisableCompression: true,
	}
	client := getter.Client{
		Getters: []getter.Getter{
			&getter.HttpGetter{
				Client:                &http.Client{Transport: guard{transport}, CheckRedirect: checkRedirect},
				Netrc:                 true,
				DoNotCheckHeadFirst:   true,
				XTerraformGetDisabled: true, // it can point at files of this machine
			},
			new(getter.FileGetter),
		},
		Decompressors:   map[string]getter.Decompressor{}, // we unpack ourselves
		DisableSymlinks: true,
	}
	_, err = client.Get(ctx, &getter.Request{Src: address, Dst: dst, GetMode: getter.ModeFile, Copy: true})
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("fetch: %w", err)
	}
	if info, err := os.Lstat(dst); err != nil {
		return "", err
	} else if !info.Mode().IsRegular() {
		return "", &fs.PathError{Op: "fetch", Path: dst, Err: errors.New("not a regular file")}
	}
	return dst, nil
}

// checkRedirect lets a server point at another place, but not at a weaker one.
func checkRedirect(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case r.URL.Scheme != "https" && r.URL.Scheme != "http":
		return fmt.Errorf("redirect to a %q address: want https or http", r.URL.Scheme)
	case r.URL.Scheme == "http" && via[0].URL.Scheme == "https":
		return errors.New("redirect from https to http")
	}
	return nil
}

// guard is a transport that fails when a server sends more than an archive can
// have, or nothing for long. Package http has no such limits, and go-getter
// cuts a body that is too long without a word.
type guard struct{ http.RoundTripper }

func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(idleTime, func() { cancel(fmt.Errorf("the server sent nothing for %v", idleTime)) })
	release := func() {
		timer.Stop()
		cancel(nil)
	}
	resp, err := g.RoundTripper.RoundTrip(r.WithContext(ctx))
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		release()
		return nil, err
	}
	left, body := maxBody, resp.Body
	resp.Body = &guardedBody{release: release, Closer: body, Reader: readerFunc(func(p []byte) (int, error) {
		timer.Reset(idleTime)
		n, err := body.Read(p)
		if left -= int64(n); left < 0 {
			return 0, ErrTooLarge
		}
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return n, err
	})}
	return resp, nil
}

// maxBody is maxArchive, except in tests.
var maxBody int64 = maxArchive

type guardedBody struct {
	io.Reader
	io.Closer
	release func()
}

func (b *guardedBody) Close() error {
	defer b.release()
	return b.Closer.Close()
}
