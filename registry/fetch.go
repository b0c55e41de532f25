package registry

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	getter "github.com/hashicorp/go-getter/v2"
)

// transport reads files of a registry with go-getter.
type transport struct {
	at     *place
	temp   string // folder for files that are not verified yet
	source opener
	log    *slog.Logger
	most   time.Duration // for one file, maxFetch but in tests
}

// opener has a getter for the files of one kind of store.
type opener interface {
	// getter returns one that reads the named file, and of that not much more
	// than max bytes.
	getter(name string, max int64) getter.Getter
}

// maxFetch bounds the time for one file.
const maxFetch = 10 * time.Minute

// newTransport takes a folder or an address.
func newTransport(address, temp string, log *slog.Logger) (*transport, error) {
	at, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	t := &transport{at: at, temp: temp, log: log, most: maxFetch}
	switch at.Scheme {
	case "file":
		t.source = folder{filepath.FromSlash(at.Path)}
	case "s3":
		t.source, err = newBucket(at)
	case "oci":
		t.source, err = newArtifacts(at)
	default:
		t.source = newWeb(at)
	}
	return t, err
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
		Getters:         []getter.Getter{t.source.getter(name, max)},
		Decompressors:   map[string]getter.Decompressor{},
		DisableSymlinks: true,
	}
	dst := filepath.Join(dir, "file")
	_, err = client.Get(ctx, &getter.Request{
		Src: t.at.URL.JoinPath(name).String(), Dst: dst, GetMode: getter.ModeFile, Copy: true, Umask: 0o077,
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

// getter returns a getter for the folder's files.
func (f folder) getter(_ string, max int64) getter.Getter { return &fileGetter{max: max} }

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

// objectGetter reads one file of a store that go-getter has no getter for.
type objectGetter struct {
	scheme string
	name   string
	max    int64
	open   func(ctx context.Context, name string, max int64) (io.ReadCloser, error)
}

// Detect takes addresses of the store's scheme.
func (g *objectGetter) Detect(req *getter.Request) (bool, error) {
	return strings.HasPrefix(req.Src, g.scheme+"://"), nil
}

// Mode is always that of a file.
func (g *objectGetter) Mode(context.Context, *url.URL) (getter.Mode, error) {
	return getter.ModeFile, nil
}

// Get would fetch a folder.
func (g *objectGetter) Get(context.Context, *getter.Request) error {
	return fail(ErrUnreachable, g.name, "not a file")
}

// GetFile leaves the file at the destination, or its first max+1 bytes.
func (g *objectGetter) GetFile(ctx context.Context, req *getter.Request) error {
	from, err := g.open(ctx, g.name, g.max)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(req.Dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return &Error{ErrState, req.Dst, err}
	}
	_, err = io.Copy(to, io.LimitReader(from, g.max+1))
	return errors.Join(err, to.Close())
}
