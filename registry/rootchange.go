package registry

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// pendingFile, in the keys' folder, is a root.json that lacks signatures.
const pendingFile = "root.pending.json"

// changeRoot makes the next root.json, in which a key joins a role and another
// leaves it.
func (e *edit) changeRoot(ctx context.Context, c *keyChange, join, leave bool) error {
	m, err := copyRoot(e.trust.set.Root)
	if err != nil {
		return err
	}
	r := m.Signed.Roles[c.role]
	before := slices.Clone(r.KeyIDs)
	if join && c.joins != nil && !slices.Contains(r.KeyIDs, c.joins.id) {
		if err := addRootKey(m, c.role, *c.joins); err != nil {
			return err
		}
	}
	if leave && c.leaves != "" && slices.Contains(r.KeyIDs, c.leaves) {
		if err := m.Signed.RevokeKey(c.leaves, c.role); err != nil {
			return &Error{ErrKey, c.Name, err}
		}
	}
	threshold := r.Threshold
	if leave && c.Threshold > 0 {
		threshold = c.Threshold
	}
	if err := checkThreshold(c.Name, len(r.KeyIDs), threshold); err != nil {
		return err
	}
	if slices.Equal(before, r.KeyIDs) && threshold == r.Threshold {
		return nil
	}
	r.Threshold = threshold
	m.Signed.Version++
	m.Signed.Expires = expiry(e.now, rootValidity)
	m.ClearSignatures()
	return e.finishRoot(ctx, m)
}

func copyRoot(m *metadata.Metadata[metadata.RootType]) (*metadata.Metadata[metadata.RootType], error) {
	data, err := m.ToBytes(false)
	if err != nil {
		return nil, err
	}
	return metadata.Root().FromBytes(data)
}

// finishRoot signs the next root.json by the keys of the present one and by its
// own, as far as they are at hand, and puts it in place. If signatures are
// missing it leaves it in the keys' folder, and the error is ErrPending.
func (e *edit) finishRoot(ctx context.Context, m *metadata.Metadata[metadata.RootType]) error {
	name := metadataFile(m.Signed.Version, metadata.ROOT)
	now, next := e.trust.set.Root.Signed.Roles[metadata.ROOT], m.Signed.Roles[metadata.ROOT]
	signed := func(id string) bool {
		return slices.ContainsFunc(m.Signatures, func(s metadata.Signature) bool { return s.KeyID == id })
	}
	by := usable(e.keys.role[metadata.ROOT], slices.Concat(now.KeyIDs, next.KeyIDs))
	by = slices.DeleteFunc(by, func(s signer) bool { return signed(s.id) })
	if err := addSignatures(ctx, m, name, by); err != nil {
		return err
	}
	data, err := m.ToBytes(false)
	if err != nil {
		return err
	}
	pending := filepath.Join(e.keys.dir, pendingFile)
	old, own := missing(now, signed), missing(next, signed)
	if old+own > 0 {
		if err := writeAtomic(e.keys.dir, pending, data, 0o644, true); err != nil {
			return &Error{ErrKey, pending, err}
		}
		return fail(ErrPending, name, "not in use yet: %d signatures by keys of the present root and %d by its own are missing; it waits in %s: who has such a key puts that file into the keys' folder and runs registry:sign", old, own, pending)
	}
	if _, err := trustedNext(e.trust.set.Root, data); err != nil {
		return fail(ErrKey, name, "would not be trusted: %w", err)
	}
	if err := e.store.commit(ctx, name, nil, data); err != nil {
		return err
	}
	if err := os.Remove(pending); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &Error{ErrKey, pending, err}
	}
	return nil
}

// missing returns how many signatures a role of a root lacks.
func missing(r *metadata.Role, signed func(id string) bool) int {
	n := 0
	for _, id := range r.KeyIDs {
		if signed(id) {
			n++
		}
	}
	return max(0, r.Threshold-n)
}

// trustedNext holds the next root against the present one as hosts will.
func trustedNext(now *metadata.Metadata[metadata.RootType], data []byte) (*metadata.Metadata[metadata.RootType], error) {
	next, err := metadata.Root().FromBytes(data)
	if err == nil {
		err = now.VerifyDelegate(metadata.ROOT, next)
	}
	if err == nil {
		err = next.VerifyDelegate(metadata.ROOT, next)
	}
	return next, err
}

// SignRoot adds the signatures of root's keys at hand to the root.json that
// waits in the keys' folder, and puts it in place once there are enough; until
// then the error is ErrPending.
func (p *Publisher) SignRoot(ctx context.Context) error {
	return p.change(ctx, func(e *edit) error {
		path := filepath.Join(e.keys.dir, pendingFile)
		data, err := readRegular(path, maxRoot)
		if errors.Is(err, fs.ErrNotExist) {
			return fail(ErrNotFound, path, "no root.json waits for signatures")
		}
		if err != nil {
			return &Error{ErrKey, path, err}
		}
		var m *metadata.Metadata[metadata.RootType]
		if err := guard(func() (err error) { m, err = metadata.Root().FromBytes(data); return err }); err != nil {
			return &Error{ErrUntrusted, path, err}
		}
		if err := e.checkPending(m, path); err != nil {
			return err
		}
		return e.finishRoot(ctx, m)
	})
}

// checkPending refuses a root.json that is not the next one, or which none of
// root's present keys has signed.
func (e *edit) checkPending(m *metadata.Metadata[metadata.RootType], path string) error {
	now := e.trust.set.Root
	if m.Signed.Version != now.Signed.Version+1 {
		return fail(ErrConflict, path, "it is version %d, and the registry has %d: begin anew", m.Signed.Version, now.Signed.Version)
	}
	one, err := copyRoot(now)
	if err != nil {
		return err
	}
	one.Signed.Roles[metadata.ROOT].Threshold = 1
	if err := guard(func() error { return one.VerifyDelegate(metadata.ROOT, m) }); err != nil {
		return fail(ErrUntrusted, path, "no key of the present root has signed it: %w", err)
	}
	// Signatures that are none would be counted.
	valid := m.Signatures[:0:0]
	for _, s := range m.Signatures {
		for _, root := range []*metadata.Metadata[metadata.RootType]{one, m} {
			if e.signedRoot(root, m, s) {
				valid = append(valid, s)
				break
			}
		}
	}
	m.Signatures = valid
	return nil
}

// signedRoot reports whether a signature is that of a root's key.
func (e *edit) signedRoot(root, m *metadata.Metadata[metadata.RootType], s metadata.Signature) bool {
	if !slices.Contains(root.Signed.Roles[metadata.ROOT].KeyIDs, s.KeyID) {
		return false
	}
	alone, err := copyRoot(root)
	if err != nil {
		return false
	}
	r := alone.Signed.Roles[metadata.ROOT]
	r.KeyIDs, r.Threshold = []string{s.KeyID}, 1
	probe := *m
	probe.Signatures = []metadata.Signature{s}
	return guard(func() error { return alone.VerifyDelegate(metadata.ROOT, &probe) }) == nil
}
