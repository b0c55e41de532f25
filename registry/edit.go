package registry

import (
	"context"
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

	listings map[string]*listing // by target
	dirty    map[string]bool     // the listings that are to be written
	bins     map[string]*metadata.Metadata[metadata.TargetsType]
	targets  *metadata.Metadata[metadata.TargetsType] // nil if it stays
	snapshot *metadata.Metadata[metadata.SnapshotType]
}

// newEdit begins with a trusted root alone.
func newEdit(keys *keyring, s store, root []byte, now time.Time) (*edit, error) {
	// What has expired can be renewed: for publishers the clock stands still.
	t, err := newTrust(root, time.Time{}, s.read, none{})
	if err != nil {
		return nil, err
	}
	return &edit{
		keys: keys, store: s, now: now, trust: t,
		listings: map[string]*listing{}, dirty: map[string]bool{}, bins: map[string]*metadata.Metadata[metadata.TargetsType]{},
	}, nil
}

// create writes the first version of everything.
func (e *edit) create(ctx context.Context) error {
	root, err := e.trust.set.Root.ToBytes(false)
	if err != nil {
		return err
	}
	if err := e.store.write(ctx, metadataFile(1, metadata.ROOT), root); err != nil {
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
	return e.commit(ctx)
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
	m.Signed.Version++
	m.Signed.Expires = expiry(e.now, targetsValidity)
	name := metadataFile(m.Signed.Version, role)
	data, err := sign(ctx, m, name, e.keys.role[roleBins], d.SuccinctRoles.KeyIDs, d.SuccinctRoles.Threshold)
	if err != nil {
		return err
	}
	e.openSnapshot().Signed.Meta[role+".json"], err = metaFile(m.Signed.Version, data, maxTargets, name)
	if err != nil {
		return err
	}
	return e.store.write(ctx, name, data)
}

func (e *edit) writeTargets(ctx context.Context) error {
	if e.targets == nil {
		return nil
	}
	m := e.targets
	m.Signed.Version++
	m.Signed.Expires = expiry(e.now, targetsValidity)
	name := metadataFile(m.Signed.Version, metadata.TARGETS)
	r := e.trust.set.Root.Signed.Roles[metadata.TARGETS]
	data, err := sign(ctx, m, name, e.keys.role[metadata.TARGETS], r.KeyIDs, r.Threshold)
	if err != nil {
		return err
	}
	e.openSnapshot().Signed.Meta["targets.json"], err = metaFile(m.Signed.Version, data, maxTargets, name)
	if err != nil {
		return err
	}
	return e.store.write(ctx, name, data)
}

// writeSnapshot returns what the timestamp has to say of the snapshot.
func (e *edit) writeSnapshot(ctx context.Context) (*metadata.MetaFiles, error) {
	m := e.snapshot
	if m == nil {
		return e.trust.set.Timestamp.Signed.Meta["snapshot.json"], nil
	}
	m.Signed.Version++
	m.Signed.Expires = expiry(e.now, snapshotValidity)
	name := metadataFile(m.Signed.Version, metadata.SNAPSHOT)
	r := e.trust.set.Root.Signed.Roles[metadata.SNAPSHOT]
	data, err := sign(ctx, m, name, e.keys.role[metadata.SNAPSHOT], r.KeyIDs, r.Threshold)
	if err != nil {
		return nil, err
	}
	info, err := metaFile(m.Signed.Version, data, maxSnapshot, name)
	if err != nil {
		return nil, err
	}
	return info, e.store.write(ctx, name, data)
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
	if err := e.store.commit(ctx, timestampFile, data); err != nil {
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
