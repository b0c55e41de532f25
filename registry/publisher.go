package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/fother/fother/specs"
)

// Publisher changes a registry. Its methods may be called concurrently, also
// from several processes; but while MakeKey or Rotate changes the keys at hand,
// no other one.
type Publisher struct {
	address string // as it may be shown
	store   store
	keys    *keyring
	root    []byte
	now     func() time.Time
}

// Open opens a registry, given a folder's path or an address, with the keys
// that Init made, and others. It refuses keys that others can read.
func Open(address, keys string, more ...KeyOption) (*Publisher, error) {
	s, err := openStore(address)
	if err != nil {
		return nil, err
	}
	p := &Publisher{address: Redacted(address), store: s, now: time.Now}
	if err := p.present(); err != nil {
		return nil, err
	}
	if p.keys, err = openKeys(keys, more...); err != nil {
		return nil, err
	}
	if p.root, err = p.keys.trustAnchor(); err != nil {
		return nil, err
	}
	return p, nil
}

// begin proves the registry's state, starting from the root.json that lies
// with the keys: what others may have written into the store is not signed.
func (p *Publisher) begin(ctx context.Context) (*edit, error) {
	e, err := newEdit(p.keys, p.store, p.root, p.now())
	if err != nil {
		return nil, err
	}
	e.trust.cache = lastSeen{p.keys}
	err = e.trust.refresh(ctx)
	if errors.Is(err, &metadata.ErrBadVersionNumber{}) {
		return nil, fmt.Errorf("%w; the registry is older than what these keys signed last: if it was restored on purpose, remove %s", err, filepath.Join(p.keys.dir, lastSeenFile))
	}
	if errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDenied) && e.trust.set.Timestamp == nil {
		return nil, fail(ErrNotFound, timestampFile, "no registry here: %w", err)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// lastSeen is a cache that holds no more than the last timestamp that this
// keys folder has signed, which keeps a store from being set back.
type lastSeen struct{ keys *keyring }

func (l lastSeen) get(name string, max int64) []byte {
	if name != timestampFile {
		return nil
	}
	data, err := readRegular(filepath.Join(l.keys.dir, lastSeenFile), max)
	if err != nil {
		return nil
	}
	return data
}

func (l lastSeen) put(string, []byte) error { return nil }

// saw notes the last timestamp. A keys folder that cannot be written, as in
// many CI services, does without.
func (k *keyring) saw(timestamp []byte) {
	_ = writeAtomic(k.dir, filepath.Join(k.dir, lastSeenFile), timestamp, 0o644, true)
}

// Publish adds releases, all of them or none. Readers see them at once, when
// the last file is in place; an interrupted call leaves nothing that they see
// and can be repeated. A release that is there already is left as it is; if all
// are, the error is ErrPublished. Another content for a level of a series is
// ErrConflict.
func (p *Publisher) Publish(ctx context.Context, releases ...Release) error {
	return p.change(ctx, func(e *edit) error { return e.publish(ctx, releases) })
}

func (e *edit) publish(ctx context.Context, releases []Release) error {
	changed := false
	for _, r := range releases {
		added, err := e.add(ctx, &r)
		if err != nil {
			return err
		}
		changed = changed || added
	}
	if changed {
		return e.commit(ctx)
	}
	if len(releases) == 0 {
		return nil
	}
	return &Error{ErrPublished, releases[0].File, errors.New("is in the registry already, with the same bytes")}
}

// add writes one bundle and its signature, and notes it in the listings. It
// reports whether the registry has to change.
func (e *edit) add(ctx context.Context, r *Release) (bool, error) {
	keys, own, err := e.keys.packageKeys(r.Package)
	if err != nil {
		return false, err
	}
	rel, err := r.describe()
	if err != nil {
		return false, err
	}
	all, err := e.listing(ctx, packageTarget(rel.Package))
	if err != nil {
		return false, err
	}
	by, bound, err := e.claim(rel.Package, keys, own, all.has(rel.Package))
	if err != nil {
		return false, err
	}
	there, err := all.admits(rel)
	if err != nil {
		return false, err
	}
	// Also if it is there: files that were lost are put back.
	if err := e.putSignature(ctx, rel, by, there); err != nil {
		return false, err
	}
	if err := e.store.write(ctx, bundleFile(rel.Digest, rel.File), r.Bundle); err != nil {
		return false, err
	}
	if there {
		added, err := e.attach(ctx, all.find(rel), r.Attachments, by)
		if added {
			e.dirty[packageTarget(rel.Package)] = true
		}
		return bound || added, err
	}
	if _, err := e.attach(ctx, rel, r.Attachments, by); err != nil {
		return false, err
	}
	e.append(packageTarget(rel.Package), all, rel)
	return true, e.index(ctx, rel)
}

// index notes a release in the index targets of its build-ids.
func (e *edit) index(ctx context.Context, r *release) error {
	shards := map[string][]specs.BuildID{}
	for _, id := range r.BuildIDs {
		shards[shardTarget(id)] = append(shards[shardTarget(id)], id)
	}
	for _, target := range slices.Sorted(maps.Keys(shards)) {
		l, err := e.listing(ctx, target)
		if err != nil {
			return err
		}
		part := *r
		part.BuildIDs, part.Attachments = shards[target], nil
		e.append(target, l, &part)
	}
	return nil
}

// append adds a release to a listing, which is thereby to be written.
func (e *edit) append(target string, l *listing, r *release) {
	l.Releases = append(l.Releases, r)
	e.dirty[target] = true
}

// describe checks a release and returns what listings say of it.
func (r *Release) describe() (*release, error) {
	rel := &release{
		Package: r.Package, Series: r.Series, Level: r.Level, File: r.File,
		Channel: inListing(r.Channel), CVEs: slices.Compact(slices.Sorted(slices.Values(r.CVEs))),
		Length: int64(len(r.Bundle)), Digest: specs.DigestOf(r.Bundle),
		BuildIDs: slices.Compact(slices.Sorted(slices.Values(r.BuildIDs))),
	}
	if err := rel.check(); err != nil {
		return nil, fail(ErrInvalid, r.File, "release of package %.80q: %w", r.Package, err)
	}
	return rel, nil
}

// admits checks a new release against those that its package has. It reports
// whether it is there already.
func (l *listing) admits(r *release) (bool, error) {
	for _, old := range l.Releases {
		if old.Package != r.Package || old.Series != r.Series || old.Level != r.Level {
			continue
		}
		if old.same(r) {
			return true, nil
		}
		return false, fail(ErrConflict, r.File, "level %d of series %s of %s is published with other content (SHA-256 %s)", r.Level, r.Series, r.Package, old.Digest)
	}
	return false, nil
}

// has reports whether a package has a release.
func (l *listing) has(pack string) bool {
	return slices.ContainsFunc(l.Releases, func(r *release) bool { return r.Package == pack })
}

// List returns what is published, one entry for each release and build-id, by
// package, series and level, the highest first.
func (p *Publisher) List(ctx context.Context) ([]Entry, error) {
	e, err := p.begin(ctx)
	if err != nil {
		return nil, p.named(err)
	}
	names, err := e.packages(ctx)
	if err != nil {
		return nil, p.named(err)
	}
	listings, err := e.trust.listings(ctx, names)
	if err != nil {
		return nil, p.named(err)
	}
	var all []*release
	for _, name := range names {
		if l := listings[name]; l != nil {
			all = append(all, l.Releases...)
		}
	}
	signed, err := e.countSignatures(ctx, all)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, r := range slices.SortedFunc(slices.Values(all), compareReleases) {
		b := e.trust.binding(r.Package)
		first := r.entry(r.BuildIDs[0], b)
		if r.Revoked {
			if err := e.tellRevoked(ctx, &first); err != nil {
				return nil, err
			}
		}
		for _, id := range r.BuildIDs {
			entry := r.entry(id, b)
			entry.Revoked = first.Revoked
			if n, ok := signed[r]; ok {
				entry.Signed, entry.Need = n, b.need()
			}
			entries = append(entries, entry)
		}
	}
	return entries, nil
}

// packages returns the targets of packages of all bins, sorted.
func (e *edit) packages(ctx context.Context) ([]string, error) {
	var names []string
	for _, role := range e.signedBins() {
		if err := e.trust.role(ctx, role, metadata.TARGETS); err != nil {
			return nil, err
		}
		for target := range e.trust.set.Targets[role].Signed.Targets {
			if strings.HasPrefix(target, packagesPrefix) {
				names = append(names, target)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// signedBins returns the delegated roles that have signed something.
func (e *edit) signedBins() []string {
	var roles []string
	for name := range e.trust.set.Snapshot.Signed.Meta {
		if role := strings.TrimSuffix(name, ".json"); role != metadata.TARGETS {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return roles
}
