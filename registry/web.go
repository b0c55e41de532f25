package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"

	getter "github.com/hashicorp/go-getter/v2"
)

// webStore is a store that any web server is, for reading; for writing one that
// takes PUT, as WebDAV does (RFC 4918).
type webStore struct {
	at      *place
	careful *carefully
	reads   *http.Client
	writes  *http.Client
}

func newWeb(at *place) *webStore {
	careful := newCareful()
	strict := &strictly{careful, at}
	return &webStore{
		at: at, careful: careful,
		reads: &http.Client{Transport: strict, CheckRedirect: checkRedirect},
		// A redirect would turn a PUT into a GET.
		writes: &http.Client{Transport: strict, CheckRedirect: func(req *http.Request, via []*http.Request) error {
			return fail(ErrUntrusted, redact(via[0].URL), "redirected to %s: give that address, if it is the right one", redact(req.URL))
		}},
	}
}

func (w *webStore) getter(_ string, max int64) getter.Getter {
	return &getter.HttpGetter{Client: w.reads, DoNotCheckHeadFirst: true, XTerraformGetDisabled: true, MaxBytes: max + 1}
}

func (w *webStore) url(name string) *url.URL { return w.at.URL.JoinPath(name) }

func (w *webStore) get(ctx context.Context, name string, max int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, maxFetch)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url(name).String(), nil)
	if err != nil {
		return nil, &Error{ErrUnreachable, name, err}
	}
	res, err := w.reads.Do(req)
	if err != nil {
		return nil, fetchError(ctx, name, err)
	}
	defer res.Body.Close()
	return readBounded(ctx, res.Body, name, max)
}

// readBounded reads a file of at most max bytes to its end.
func readBounded(ctx context.Context, r io.Reader, name string, max int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, max+1))
	if err != nil {
		return nil, fetchError(ctx, name, err)
	}
	if int64(len(data)) > max {
		return nil, fail(ErrTooLarge, name, "more than %d bytes", max)
	}
	return data, nil
}

// put makes the folders above a file if that may be what the server wants (RFC
// 4918, 9.7.1: 409 Conflict; nginx says 500).
func (w *webStore) put(ctx context.Context, name string, data []byte, fresh bool) error {
	err := w.send(ctx, http.MethodPut, w.url(name), data, fresh)
	var status *statusError
	if errors.As(err, &status) && (status.code == http.StatusConflict || status.code == http.StatusInternalServerError) {
		if w.makeFolder(ctx, path.Dir(name)) != nil {
			return writeError(ctx, name, err)
		}
		err = w.send(ctx, http.MethodPut, w.url(name), data, fresh)
	}
	if errors.As(err, &status) && (status.code == http.StatusMethodNotAllowed || status.code == http.StatusNotImplemented) {
		return fail(ErrDenied, name, "%w: it takes no files by PUT", status)
	}
	return writeError(ctx, name, err)
}

// makeFolder makes a folder of the registry and those above it, the registry's
// own too.
func (w *webStore) makeFolder(ctx context.Context, name string) error {
	err := w.send(ctx, "MKCOL", w.url(name+"/"), nil, false)
	var status *statusError
	if errors.As(err, &status) && status.code == http.StatusConflict && name != "." {
		if err := w.makeFolder(ctx, path.Dir(name)); err != nil {
			return err
		}
		err = w.send(ctx, "MKCOL", w.url(name+"/"), nil, false)
	}
	if errors.As(err, &status) && status.code == http.StatusMethodNotAllowed {
		return nil // it is there (RFC 4918, 9.3.1), or the next PUT fails
	}
	return err
}

// send makes a request that has a body and wants none.
func (w *webStore) send(ctx context.Context, method string, to *url.URL, data []byte, fresh bool) error {
	ctx, cancel := context.WithTimeout(ctx, maxFetch)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, to.String(), bytes.NewReader(data))
	if err != nil {
		return err
	}
	if fresh {
		req.Header.Set("If-None-Match", "*")
	}
	res, err := w.writes.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxSaid))
	return err
}

// maxSaid bounds what is read of an answer that does not matter, in bytes.
const maxSaid = 64 << 10
