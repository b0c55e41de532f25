package registry

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// edit is one change of a registry, from the state that was proven to the
// commit. Whoever makes one holds the store's lock.
type edit struct {
	keys  *keyring
	store store
	now   time.Time
	trust *trust
	seen  []byte // timestamp.json as the store has it, nil if there is none
	tried bool   // the new timestamp.json may be in the store

	listings map[string]*listing // by target
	dirty    map[string]bool     // the listings that are to be written
	bins     map[string]*metadata.Metadata[metadata.TargetsType]
	targets  *metadata.Metadata[metadata.TargetsType] // nil if it stays
	snapshot *metadata.Metadata[metadata.SnapshotType]
}

// newEdit begins with a trusted root alone.
func newEdit(keys *keyring, s store, root []byte, now time.Time) (*edit, error) {
	e := &edit{
		keys: keys, store: s, now: now,
		listings: map[string]*listing{}, dirty: map[string]bool{}, bins: map[string]*metadata.Metadata[metadata.TargetsType]{},
	}
	var err error
	// What has expired can be renewed: for publishers the clock stands still.
	e.trust, err = newTrust(root, time.Time{}, e.read, none{})
	return e, err
}

// read notes what the commit will replace.
func (e *edit) read(ctx context.Context, name string, max int64) ([]byte, error) {
	data, err := e.store.read(ctx, name, max)
	if name == timestampFile {
		e.seen = data
	}
	return data, err
}

// create writes the first version of everything.
func (e *edit) create(ctx context.Context) error {
	root, err := e.trust.set.Root.ToBytes(false)
	if err != nil {
		return err
	}
	e.targets = metadata.Targets()
	e.targets.Signed.Version = 0
	e.targets.Signed.Delegations = &metadata.Delegations{
		Keys:          map[string]*metadata.Key{},
		SuccinctRoles: &metadata.SuccinctRoles{KeyIDs: []string{}, Threshold: 1, BitLength: binBits, NamePrefix: binPrefix},
	}
	for _, s := range e.keys.role[roleBins] {
		if err := addBinKey(e.targets, s); err != nil {
			return err
		}
	}
	if err := e.bind(defaultKey, e.keys.pack[defaultKey]); err != nil {
		return err
	}
	e.snapshot = metadata.Snapshot()
	e.snapshot.Signed.Version = 0
	if err := e.commit(ctx); err != nil {
		return err
	}
	// Nobody needs it, for all begin with a root.json that they were given: it
	// comes last, so that of two who make a registry here the first one's stays.
	return e.store.write(ctx, metadataFile(1, metadata.ROOT), root)
}

// addBinKey lets a key sign the bins.
func addBinKey(m *metadata.Metadata[metadata.TargetsType], s signer) error {
	k, err := metadata.KeyFromPublicKey(s.pub)
	if err == nil {
		err = m.Signed.AddKey(k, binPrefix)
	}
	if err != nil {
		return &Error{ErrKey, s.file, err}
	}
	return nil
}

// bin returns the metadata of the role that signs a target, to be changed.
func (e *edit) bin(target string) (*metadata.Metadata[metadata.TargetsType], error) {
	roles := e.trust.roles(target)
	if len(roles) == 0 {
		return nil, fail(ErrUntrusted, target, "no role may sign this target")
	}
	return e.openBin(roles[0]), nil
}

func (e *edit) openBin(role string) *metadata.Metadata[metadata.TargetsType] {
	m := e.bins[role]
	if m == nil {
		if m = e.trust.set.Targets[role]; m == nil {
			m = metadata.Targets()
			m.Signed.Version = 0
		}
		e.bins[role] = m
	}
	return m
}

// listing returns the listing that is a target, to be changed; an empty one if
// there is none.
func (e *edit) listing(ctx context.Context, target string) (*listing, error) {
	if l := e.listings[target]; l != nil {
		return l, nil
	}
	found, err := e.trust.listings(ctx, []string{target})
	if err != nil {
		return nil, err
	}
	l := found[target]
	if l == nil {
		l = &listing{Format: listingFormat}
	}
	e.listings[target] = l
	return l, nil
}

// writeListings writes the changed listings and notes them in their bins.
func (e *edit) writeListings(ctx context.Context) error {
	for _, target := range slices.Sorted(maps.Keys(e.dirty)) {
		data, err := e.listings[target].encode()
		if err != nil {
			return err
		}
		f, err := metadata.TargetFile().FromBytes(target, data, "sha256")
		if err != nil {
			return err
		}
		name, err := targetFile(target, f)
		if err != nil {
			return err
		}
		if int64(len(data)) > maxListing {
			return fail(ErrTooLarge, name, "%d bytes: want at most %d", len(data), maxListing)
		}
		if err := e.store.write(ctx, name, data); err != nil {
			return err
		}
		bin, err := e.bin(target)
		if err != nil {
			return err
		}
		bin.Signed.Targets[target] = f
	}
	return nil
}

// commit signs and writes what was changed, each file before the one that
// names it: listings, bins, targets, snapshot, and last the timestamp, which
// makes all of it visible at once.
func (e *edit) commit(ctx context.Context) error {
	if err := e.writeListings(ctx); err != nil {
		return err
	}
	for _, role := range slices.Sorted(maps.Keys(e.bins)) {
		if err := e.writeBin(ctx, role, e.bins[role]); err != nil {
			return err
		}
	}
	if err := e.writeTargets(ctx); err != nil {
		return err
	}
	info, err := e.writeSnapshot(ctx)
	if err != nil {
		return err
	}
	return e.writeTimestamp(ctx, info)
}

// openTargets returns targets.json, to be changed.
func (e *edit) openTargets() *metadata.Metadata[metadata.TargetsType] {
	if e.targets == nil {
		e.targets = e.trust.set.Targets[metadata.TARGETS]
	}
	return e.targets
}

// openSnapshot returns the snapshot, to be changed.
func (e *edit) openSnapshot() *metadata.Metadata[metadata.SnapshotType] {
	if e.snapshot == nil {
		e.snapshot = e.trust.set.Snapshot
	}
	return e.snapshot
}

func (e *edit) writeBin(ctx context.Context, role string, m *metadata.Metadata[metadata.TargetsType]) error {
	top := e.targets
	if top == nil {
		top = e.trust.set.Targets[metadata.TARGETS]
	}
	d := top.Signed.Delegations
	if d == nil || d.SuccinctRoles == nil {
		return fail(ErrUntrusted, metadata.TARGETS, "delegates to no bins")
	}
	m.Signed.Expires = expiry(e.now, targetsValidity)
	info, err := e.nextVersion(ctx, role, maxTargets, &m.Signed.Version, func(name string) ([]byte, error) {
		return sign(ctx, m, name, e.keys.role[roleBins], d.SuccinctRoles.KeyIDs, d.SuccinctRoles.Threshold)
	})
	e.openSnapshot().Signed.Meta[role+".json"] = info
	return err
}

// nextVersion writes the next version of a role's metadata, one that no other
// publisher has used, and returns what is said of it in the snapshot or the
// timestamp. Limit is in bytes.
func (e *edit) nextVersion(ctx context.Context, role string, limit int, version *int64, sign func(name string) ([]byte, error)) (*metadata.MetaFiles, error) {
	for range maxSkipped {
		*version++
		name := metadataFile(*version, role)
		data, err := sign(name)
		if err != nil {
			return nil, err
		}
		info, err := metaFile(*version, data, limit, name)
		if err != nil {
			return nil, err
		}
		if err := e.store.create(ctx, name, data); !errors.Is(err, ErrTaken) {
			return info, err
		}
	}
	return nil, fail(ErrTaken, metadataFile(*version, role), "as are the %d versions before it", maxSkipped)
}

func (e *edit) writeTargets(ctx context.Context) error {
	if e.targets == nil {
		return nil
	}
	m := e.targets
	m.Signed.Expires = expiry(e.now, targetsValidity)
	r := e.trust.set.Root.Signed.Roles[metadata.TARGETS]
	info, err := e.nextVersion(ctx, metadata.TARGETS, maxTargets, &m.Signed.Version, func(name string) ([]byte, error) {
		return sign(ctx, m, name, e.keys.role[metadata.TARGETS], r.KeyIDs, r.Threshold)
	})
	e.openSnapshot().Signed.Meta["targets.json"] = info
	return err
}

// writeSnapshot returns what the timestamp has to say of the snapshot.
func (e *edit) writeSnapshot(ctx context.Context) (*metadata.MetaFiles, error) {
	m := e.snapshot
	if m == nil {
		return e.trust.set.Timestamp.Signed.Meta["snapshot.json"], nil
	}
	m.Signed.Expires = expiry(e.now, snapshotValidity)
	r := e.trust.set.Root.Signed.Roles[metadata.SNAPSHOT]
	return e.nextVersion(ctx, metadata.SNAPSHOT, maxSnapshot, &m.Signed.Version, func(name string) ([]byte, error) {
		return sign(ctx, m, name, e.keys.role[metadata.SNAPSHOT], r.KeyIDs, r.Threshold)
	})
}

func (e *edit) writeTimestamp(ctx context.Context, snapshot *metadata.MetaFiles) error {
	m := metadata.Timestamp(expiry(e.now, timestampValidity))
	m.Signed.Meta["snapshot.json"] = snapshot
	m.Signed.Version = 1
	if t := e.trust.set.Timestamp; t != nil {
		m.Signed.Version = t.Signed.Version + 1
	}
	r := e.trust.set.Root.Signed.Roles[metadata.TIMESTAMP]
	data, err := sign(ctx, m, timestampFile, e.keys.role[metadata.TIMESTAMP], r.KeyIDs, r.Threshold)
	if err != nil {
		return err
	}
	e.tried = true
	if err := e.store.commit(ctx, timestampFile, e.seen, data); err != nil {
		return err
	}
	e.keys.saw(data)
	return nil
}

// metaFile describes a metadata file to the one that names it.
func metaFile(version int64, data []byte, most int, name string) (*metadata.MetaFiles, error) {
	if len(data) > most {
		return nil, fail(ErrTooLarge, name, "%d bytes: want at most %d", len(data), most)
	}
	f, err := metadata.TargetFile().FromBytes(name, data, "sha256")
	if err != nil {
		return nil, err
	}
	return &metadata.MetaFiles{Version: version, Length: f.Length, Hashes: f.Hashes}, nil
}
