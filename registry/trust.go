package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

// readFunc returns a file of the registry of at most max bytes. It fails with
// ErrNotFound if the store says that there is none.
type readFunc func(ctx context.Context, name string, max int64) ([]byte, error)

// keep is a place for files that were verified. Nothing read from it is
// believed: it is verified again.
type keep interface {
	get(name string, max int64) []byte // nil if it is not there
	put(name string, data []byte) error
}

// trust is one state of a registry, proven from a trusted root.json. The
// checks, and their order, are go-tuf's; its updater is not used since a cache
// with one file per role cannot hold the state that is in use and the one that
// is being fetched, takes damaged files for errors, and knows no context.
type trust struct {
	read  readFunc
	cache keep

	mu  sync.Mutex // guards set
	set *trustedmetadata.TrustedMetadata
	// timestamp is the file that set.Timestamp is from.
	timestamp []byte
	// bound are the bindings of packages, set once targets.json is loaded.
	bound map[string]*binding
}

// newTrust starts from root and follows the newer roots of the cache.
func newTrust(root []byte, now time.Time, read readFunc, cache keep) (*trust, error) {
	t := &trust{read: read, cache: cache}
	err := guard(func() (err error) {
		t.set, err = trustedmetadata.New(root)
		return err
	})
	if err != nil {
		return nil, fail(ErrUntrusted, trustFile, "no trusted root: %w", err)
	}
	t.set.RefTime = now
	for {
		data := cache.get(t.nextRoot(), maxRoot)
		if data == nil || guard(func() error { _, err := t.set.UpdateRoot(data); return err }) != nil {
			return t, nil
		}
	}
}

// at sets the reference time.
func (t *trust) at(now time.Time) {
	t.mu.Lock()
	t.set.RefTime = now
	t.mu.Unlock()
}

func (t *trust) nextRoot() string {
	return metadataFile(t.set.Root.Signed.Version+1, metadata.ROOT)
}

// guard turns a panic over hostile metadata into an error: go-tuf does not
// expect null everywhere where JSON allows it.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed metadata: %v", r)
		}
	}()
	return f()
}

// refresh brings root, timestamp, snapshot and targets up to date (TUF, "Detailed
// client workflow", 5.3 to 5.6).
func (t *trust) refresh(ctx context.Context) error {
	if err := t.updateRoots(ctx); err != nil {
		return err
	}
	if err := t.updateTimestamp(ctx); err != nil {
		return err
	}
	return t.rest(ctx)
}

// rest loads what the timestamp names.
func (t *trust) rest(ctx context.Context) error {
	if err := t.updateSnapshot(ctx); err != nil {
		return err
	}
	if err := t.role(ctx, metadata.TARGETS, metadata.ROOT); err != nil {
		return err
	}
	return t.readBindings()
}

func (t *trust) updateRoots(ctx context.Context) error {
	for range maxRoots {
		name := t.nextRoot()
		data, err := t.read(ctx, name, maxRoot)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.verify(name, func() error { _, err := t.set.UpdateRoot(data); return err }); err != nil {
			return err
		}
		if err := t.cache.put(name, data); err != nil {
			return err
		}
	}
	return fail(ErrUntrusted, t.nextRoot(), "more than %d new roots", maxRoots)
}

// updateTimestamp reads the newest timestamp. The one in the cache, which may
// have expired, keeps it from being older.
func (t *trust) updateTimestamp(ctx context.Context) error {
	t.useTimestamp(t.cache.get(timestampFile, maxTimestamp))
	data, err := t.read(ctx, timestampFile, maxTimestamp)
	if errors.Is(err, ErrDenied) {
		return &Error{ErrDenied, timestampFile, err}
	}
	if errors.Is(err, ErrNotFound) {
		return &Error{ErrUnreachable, timestampFile, err}
	}
	if err != nil {
		return err
	}
	err = t.verify(timestampFile, func() error { _, err := t.set.UpdateTimestamp(data); return err })
	if errors.Is(err, &metadata.ErrEqualVersionNumber{}) {
		return nil
	}
	if err != nil {
		return err
	}
	t.timestamp = data
	return t.cache.put(timestampFile, data)
}

// useTimestamp takes a timestamp from the cache if it is a valid one, expired
// or not.
func (t *trust) useTimestamp(data []byte) {
	if data == nil {
		return
	}
	before := t.set.Timestamp
	_ = guard(func() error { _, err := t.set.UpdateTimestamp(data); return err })
	if t.set.Timestamp != before {
		t.timestamp = data
	}
}

// updateSnapshot loads the snapshot that the timestamp names. The one before
// it, if it is in the cache, keeps its versions from going back.
func (t *trust) updateSnapshot(ctx context.Context) error {
	if err := t.expired(); err != nil {
		return err
	}
	info := t.set.Timestamp.Signed.Meta["snapshot.json"]
	if info == nil {
		return fail(ErrUntrusted, timestampFile, "names no snapshot")
	}
	if name := t.lastSnapshot(); name != metadataFile(info.Version, metadata.SNAPSHOT) {
		if old := t.cache.get(name, maxSnapshot); old != nil {
			_ = guard(func() error { _, err := t.set.UpdateSnapshot(old, true); return err })
		}
	}
	return t.file(ctx, metadataFile(info.Version, metadata.SNAPSHOT), limit(info, maxSnapshot), func(data []byte) error {
		_, err := t.set.UpdateSnapshot(data, false)
		return err
	})
}

// lastSnapshot returns the name of the snapshot of the last complete state, ""
// if there is none.
func (t *trust) lastSnapshot() string {
	m, err := metadata.Timestamp().FromBytes(t.cache.get(currentTimestamp, maxTimestamp))
	if err != nil || m.Signed.Meta["snapshot.json"] == nil {
		return ""
	}
	return metadataFile(m.Signed.Meta["snapshot.json"].Version, metadata.SNAPSHOT)
}

// role loads the metadata of targets or of a delegated role. A delegated role
// that the snapshot does not name has signed nothing yet.
func (t *trust) role(ctx context.Context, name, parent string) error {
	t.mu.Lock()
	info, loaded := t.set.Snapshot.Signed.Meta[name+".json"], t.set.Targets[name] != nil
	t.mu.Unlock()
	if loaded || info == nil && parent != metadata.ROOT {
		return nil
	}
	if info == nil {
		return fail(ErrUntrusted, metadataFile(t.set.Snapshot.Signed.Version, metadata.SNAPSHOT), "names no %s.json", name)
	}
	return t.file(ctx, metadataFile(info.Version, name), limit(info, maxTargets), func(data []byte) error {
		_, err := t.set.UpdateDelegatedTargets(data, name, parent)
		return err
	})
}

func limit(info *metadata.MetaFiles, most int64) int64 {
	if info.Length > 0 {
		return min(info.Length, most)
	}
	return most
}

// file loads a file from the cache or else from the store, and keeps it once
// it is verified. What is damaged in the cache is fetched again.
func (t *trust) file(ctx context.Context, name string, max int64, use func([]byte) error) error {
	if data := t.cache.get(name, max); data != nil && t.verify(name, func() error { return use(data) }) == nil {
		return nil
	}
	data, err := t.read(ctx, name, max)
	if err != nil {
		return err
	}
	if err := t.verify(name, func() error { return use(data) }); err != nil {
		return err
	}
	return t.cache.put(name, data)
}

// verify runs a check of a file and gives what it says a class. Only one runs
// at a time.
func (t *trust) verify(name string, check func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := guard(check)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		return t.expiredError(name, err)
	}
	return &Error{ErrUntrusted, name, err}
}

// expiredError names the moment and the clock that says that it is over.
func (t *trust) expiredError(name string, err error) error {
	return fail(ErrExpired, name, "%w; it is now %s", err, t.set.RefTime.UTC().Format(time.RFC3339))
}

// expired tells which of the files loaded so far is past its date at the
// reference time.
func (t *trust) expired() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	until := map[string]time.Time{
		metadataFile(t.set.Root.Signed.Version, metadata.ROOT): t.set.Root.Signed.Expires,
	}
	if t.set.Timestamp != nil {
		until[timestampFile] = t.set.Timestamp.Signed.Expires
	}
	if s := t.set.Snapshot; s != nil {
		until[metadataFile(s.Signed.Version, metadata.SNAPSHOT)] = s.Signed.Expires
	}
	for role, m := range t.set.Targets {
		until[metadataFile(m.Signed.Version, role)] = m.Signed.Expires
	}
	for _, name := range slices.Sorted(maps.Keys(until)) {
		if t.set.RefTime.After(until[name]) {
			return t.expiredError(name, fmt.Errorf("expired on %s", until[name].UTC().Format(time.RFC3339)))
		}
	}
	return nil
}

// roles returns which delegated roles may name a target, the most trusted
// first.
func (t *trust) roles(target string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	if d := t.set.Targets[metadata.TARGETS].Signed.Delegations; d != nil {
		for _, r := range d.GetRolesForTarget(target) {
			names = append(names, r.Name)
		}
	}
	return names
}

// target returns what the loaded roles say of a target, nil if nothing.
func (t *trust) target(name string) *metadata.TargetFiles {
	for _, role := range t.roles(name) {
		t.mu.Lock()
		m := t.set.Targets[role]
		t.mu.Unlock()
		if m == nil {
			continue
		}
		if f := m.Signed.Targets[name]; f != nil {
			return f
		}
	}
	return nil
}

// listings loads the listings that are the given targets. Those that nobody
// has signed are missing in the result, and those that could not be loaded, of
// which the error tells.
func (t *trust) listings(ctx context.Context, names []string) (map[string]*listing, error) {
	roles := map[string]bool{}
	for _, name := range names {
		for _, role := range t.roles(name) {
			roles[role] = true
		}
	}
	inner, giveUp := context.WithCancel(ctx)
	defer giveUp()
	b := newBatch(giveUp)
	for role := range roles {
		b.run(role, func() error { return t.role(inner, role, metadata.TARGETS) })
	}
	_ = b.wait() // told by the next one
	found := map[string]*listing{}
	for _, name := range names {
		f := t.target(name)
		if f == nil {
			continue
		}
		b.run(name, func() error {
			return t.listing(inner, name, f, func(l *listing) { found[name] = l })
		})
	}
	return found, b.wait()
}

// listing loads one listing and hands it to use; the calls of use are in turn.
func (t *trust) listing(ctx context.Context, name string, f *metadata.TargetFiles, use func(*listing)) error {
	file, err := targetFile(name, f)
	if err != nil {
		return err
	}
	if f.Length > maxListing {
		return fail(ErrTooLarge, file, "%d bytes: want at most %d", f.Length, maxListing)
	}
	return t.file(ctx, file, f.Length, func(data []byte) error {
		if err := f.VerifyLengthHashes(data); err != nil {
			return err
		}
		l, err := parseListing(data)
		if err == nil {
			use(l)
		}
		return err
	})
}
