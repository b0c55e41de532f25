package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// store is where a registry is written. Names are relative, with slashes.
// What readers may rely on: each call leaves a whole file or none, and commit
// makes its file the last one that they see of everything written before.
type store interface {
	// lock keeps other publishers away until unlock is called, or does nothing
	// where create and commit are enough.
	lock(ctx context.Context) (unlock func(), err error)
	// read returns a file of at most max bytes, or ErrNotFound.
	read(ctx context.Context, name string, max int64) ([]byte, error)
	// write leaves data under a name that has no other content ever: it holds
	// the digest of data, or no reader knows of it.
	write(ctx context.Context, name string, data []byte) error
	// create leaves data under a name with a version. It may fail with ErrTaken
	// if another publisher has used the name, who may have died since; then the
	// next version is as good.
	create(ctx context.Context, name string, data []byte) error
	// commit replaces a file that readers look at, whose content was old, nil if
	// there was none. It fails with ErrRaced if it is not old any more.
	commit(ctx context.Context, name string, old, data []byte) error
}

// maxCommitted bounds the files that commit replaces, in bytes.
const maxCommitted = max(maxRoot, maxTimestamp, maxSignature)

// openStore returns the store at an address: a folder, or file://.
func openStore(address string) (store, error) {
	u, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "file" {
		return nil, fail(ErrUnreachable, u.Redacted(), "scheme %s: cannot be written", u.Scheme)
	}
	return folder{filepath.FromSlash(u.Path)}, nil
}

// Redacted returns a registry's address as it may be shown: without password,
// and a folder with its whole path.
func Redacted(address string) string {
	if !strings.Contains(address, "://") {
		if abs, err := filepath.Abs(address); err == nil {
			return abs
		}
		return address
	}
	u, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	return u.Redacted()
}

// present fails with ErrNotFound if a folder surely has no registry. Elsewhere
// the first file that is read tells.
func (p *Publisher) present() error {
	f, ok := p.store.(folder)
	if !ok {
		return nil
	}
	if info, err := os.Stat(f.path(metadataDir)); err != nil || !info.IsDir() {
		return fail(ErrNotFound, f.dir, "no registry here")
	}
	return nil
}

const (
	// maxTries bounds how often a change begins anew because others were faster.
	maxTries = 20
	// raceDelay bounds the pause before the second try; each next one may be
	// twice as long, up to maxRaceDelay.
	raceDelay    = 100 * time.Millisecond
	maxRaceDelay = 5 * time.Second
	// maxSkipped bounds how many versions that others have used are skipped.
	maxSkipped = 1000
)

// change makes a change of the registry, in turn with other publishers. Do has
// the state that was proven, and ends with [edit.commit] or another commit of
// the store; if others were faster, it is called again with what they have left.
func (p *Publisher) change(ctx context.Context, do func(e *edit) error) error {
	for try := range maxTries {
		err := p.once(ctx, do)
		if !errors.Is(err, ErrRaced) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		case <-time.After(rand.N(min(raceDelay<<try, maxRaceDelay))):
		}
	}
	return fail(ErrRaced, timestampFile, "other publishers were faster, %d times", maxTries)
}

func (p *Publisher) once(ctx context.Context, do func(e *edit) error) error {
	unlock, err := p.store.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := p.begin(ctx)
	if err != nil {
		return err
	}
	return do(e)
}
