package registry

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// holdsRegistry reports whether there is a registry in a store already.
func holdsRegistry(ctx context.Context, s store) (bool, error) {
	var err error
	if f, ok := s.(folder); ok {
		if _, err = os.Lstat(f.path(metadataDir)); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, fileError(f.dir, err)
	}
	if _, err = s.read(ctx, timestampFile, maxTimestamp); errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// initStore writes the metadata of a registry without releases. It reports
// whether the registry may be there, also after an error.
func initStore(ctx context.Context, s store, ring *keyring, root []byte, now time.Time) (made bool, err error) {
	if f, ok := s.(folder); ok {
		return f.init(ctx, ring, root, now)
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	e, err := newEdit(ring, s, root, now)
	if err != nil {
		return false, err
	}
	if err := e.create(ctx); errors.Is(err, ErrRaced) {
		return false, &Error{ErrExists, timestampFile, errors.New("somebody else has made a registry here meanwhile")}
	} else if err != nil {
		return e.tried, err
	}
	return true, nil
}

// init lets the metadata become visible together, by a rename: until it there
// is no registry, after it there is one.
func (f folder) init(ctx context.Context, ring *keyring, root []byte, now time.Time) (made bool, err error) {
	if err := f.makeDir(f.dir); err != nil {
		return false, fileError(f.dir, err)
	}
	temp, err := os.MkdirTemp(f.dir, ".init-*")
	if err != nil {
		return false, fileError(f.dir, err)
	}
	defer os.RemoveAll(temp)
	e, err := newEdit(ring, folder{temp}, root, now)
	if err != nil {
		return false, err
	}
	if err := e.create(ctx); err != nil {
		return false, err
	}
	if err := os.Rename(filepath.Join(temp, metadataDir), f.path(metadataDir)); err != nil {
		return false, fileError(f.dir, err)
	}
	return true, fileError(f.dir, syncDir(f.dir))
}
