package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/fother/fother/specs"
)

// ids returns the ids of the bound keys, and how many of them must sign.
func (b *binding) ids() ([]string, int) {
	if b == nil {
		return nil, 0
	}
	var ids []string
	for _, k := range b.Keys {
		ids = append(ids, k.id())
	}
	return ids, max(1, b.Threshold)
}

// rotatePackage binds a package to other keys. What the package has published
// is signed by the key that joins first, so that hosts find it signed before and
// after; that needs the signatures of the keys before, which are checked. Where
// hosts would not take a release any more, nothing changes.
func (e *edit) rotatePackage(ctx context.Context, c *keyChange) error {
	if !e.canSign(metadata.TARGETS) {
		return fail(ErrKey, c.Name, "the key of %s, which binds packages to keys, is not at hand", metadata.TARGETS)
	}
	old := e.trust.binding(c.pack)
	next := &binding{Threshold: c.Threshold}
	if own := e.trust.bound[c.pack]; own != nil {
		next.Keys = slices.DeleteFunc(slices.Clone(own.Keys), func(k publicKey) bool { return k.id() == c.leaves })
	}
	if c.Threshold == 0 && old != nil {
		next.Threshold = old.Threshold
	}
	if c.joins != nil {
		pub, err := c.joins.public()
		if err != nil {
			return err
		}
		next.Keys = append(next.Keys, pub)
	}
	if err := next.check(); err != nil {
		return &Error{ErrInvalid, c.Name, err}
	}
	releases, err := e.releasesOf(ctx, c.pack)
	if err != nil {
		return err
	}
	by, err := e.signAgainBy(c, next)
	if err != nil {
		return err
	}
	for _, r := range releases {
		if err := e.signAgain(ctx, r, old, next, by); err != nil {
			return err
		}
		if err := e.attachAgain(ctx, r, old, next, by); err != nil {
			return err
		}
	}
	e.setBinding(c.pack, next)
	return e.commit(ctx)
}

// signAgainBy returns the keys that sign what a package has published: the one
// that joins, or if none does that can sign those that stay, of those at hand.
func (e *edit) signAgainBy(c *keyChange, next *binding) ([]signer, error) {
	if c.joins != nil && c.joins.sign != nil {
		return []signer{*c.joins}, nil
	}
	have, err := e.keys.ofPackage(c.pack)
	return slices.DeleteFunc(able(have), func(s signer) bool { return !next.has(s.id) }), err
}

// releasesOf returns the releases of a package; of "default" those of all
// packages that have no keys of their own.
func (e *edit) releasesOf(ctx context.Context, pack string) ([]*release, error) {
	names := []string{packageTarget(pack)}
	if pack == defaultKey {
		var err error
		if names, err = e.packages(ctx); err != nil {
			return nil, err
		}
	}
	listings, err := e.trust.listings(ctx, names)
	if err != nil {
		return nil, err
	}
	var all []*release
	for _, name := range slices.Sorted(maps.Keys(listings)) {
		for _, r := range listings[name].Releases {
			if r.Package == pack || pack == defaultKey && e.trust.bound[r.Package] == nil {
				all = append(all, r)
			}
		}
	}
	return all, nil
}

// signAgain adds keys' signatures to what keys of a package signed about a
// release, and takes away those of keys that are not its any more. It fails if
// hosts would not take the release by its next keys.
func (e *edit) signAgain(ctx context.Context, r *release, old, next *binding, by []signer) error {
	was, will := r.entry(r.BuildIDs[0], old), r.entry(r.BuildIDs[0], next)
	checks := map[string]func([]byte, *Entry) error{".sig": verifyRelease}
	if r.Revoked {
		checks[revokedSuffix] = func(data []byte, e *Entry) error { _, err := verifyRevocation(data, e); return err }
	}
	for suffix, check := range checks {
		name := was.Path + suffix
		data, err := e.store.read(ctx, name, maxSignature)
		if err != nil {
			return err
		}
		// A run that was interrupted may have signed it.
		if err := check(data, &was); err != nil && check(data, &will) != nil {
			return &Error{ErrUntrusted, name, err}
		}
		env, err := readEnvelope(data)
		if err != nil {
			return &Error{ErrUntrusted, name, err}
		}
		signed, err := env.again(ctx, old, next, by)
		if err != nil {
			return err
		}
		if err := check(signed, &will); err != nil {
			return fail(ErrUnsigned, name, "hosts would refuse %s of package %s then: %w", r.File, r.Package, err)
		}
		if bytes.Equal(data, signed) {
			continue
		}
		if err := e.store.commit(ctx, name, data, signed); err != nil {
			return fmt.Errorf("sign %s of package %s again: %w", r.File, r.Package, err)
		}
	}
	return nil
}

// again returns an envelope with the signatures of the keys of two bindings, and
// of some of them.
func (e *envelope) again(ctx context.Context, old, next *binding, by []signer) ([]byte, error) {
	both := &binding{}
	for _, b := range []*binding{old, next} {
		if b != nil {
			both.Keys = append(both.Keys, b.Keys...)
		}
	}
	e.keep(both)
	if err := e.addSignatures(ctx, by); err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

// attachAgain signs the statements among a release's attachments, which have
// other names then.
func (e *edit) attachAgain(ctx context.Context, r *release, old, next *binding, by []signer) error {
	all := slices.Clone(r.Attachments)
	for i := range all {
		a := &all[i]
		if a.Type != typeStatement {
			continue
		}
		name := attachmentFile(r.Digest, a)
		data, err := e.store.read(ctx, name, a.Length)
		if err != nil {
			return err
		}
		env, err := readEnvelope(data)
		switch {
		case specs.DigestOf(data) != a.Digest:
			err = errors.New("not the file that the registry lists")
		case err == nil && env.signers(old)+env.signers(next) == 0:
			err = fmt.Errorf("signed by none of the keys of package %s", r.Package)
		}
		if err != nil {
			return &Error{ErrUntrusted, name, err}
		}
		if data, err = env.again(ctx, old, next, by); err != nil {
			return err
		}
		a.Length, a.Digest = int64(len(data)), specs.DigestOf(data)
		if err := e.store.write(ctx, attachmentFile(r.Digest, a), data); err != nil {
			return err
		}
	}
	if slices.Equal(all, r.Attachments) {
		return nil
	}
	target := packageTarget(r.Package)
	l, err := e.listing(ctx, target)
	if err != nil {
		return err
	}
	l.find(r).Attachments = all
	e.dirty[target] = true
	return nil
}
