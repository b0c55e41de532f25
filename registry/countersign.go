package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
)

// Countersign adds the signature of the package's key that is at hand to those
// of a release that is published. R is what the caller made on its own: the
// registry has to list just that, and others have to have signed just that. Only
// the signature file is replaced; readers of the old one see fewer signatures.
//
// It returns how many keys have signed then, and how many have to. The error is
// ErrPublished if this key had signed already.
func (p *Publisher) Countersign(ctx context.Context, r Release) (signed, need int, err error) {
	err = p.change(ctx, func(e *edit) error {
		signed, need, err = e.countersign(ctx, p, &r)
		return err
	})
	return signed, need, err
}

func (e *edit) countersign(ctx context.Context, p *Publisher, r *Release) (signed, need int, err error) {
	rel, err := r.describe()
	if err != nil {
		return 0, 0, err
	}
	all, err := e.listing(ctx, packageTarget(rel.Package))
	if err != nil {
		return 0, 0, err
	}
	listed := all.find(rel)
	if listed == nil || !listed.same(rel) {
		return 0, 0, fail(ErrConflict, rel.File, "the registry does not list this very release")
	}
	b := e.trust.binding(rel.Package)
	keys, err := e.countersigners(rel, b)
	if err != nil {
		return 0, 0, err
	}
	env, old, err := p.signature(ctx, listed, b)
	if err != nil {
		return 0, 0, err
	}
	env.keep(b)
	if !slices.ContainsFunc(keys, func(s signer) bool { return !env.has(b, s) }) {
		return env.signers(b), b.need(), fail(ErrPublished, rel.File, "this key, %s, has signed it already", keys[0].file)
	}
	if err := env.addSignatures(ctx, keys); err != nil {
		return 0, 0, err
	}
	data, err := json.Marshal(env)
	if err != nil {
		return 0, 0, err
	}
	name := bundleFile(rel.Digest, rel.File) + ".sig"
	return env.signers(b), b.need(), e.store.commit(ctx, name, old, data)
}

// countersigners returns the package's keys that are at hand, of those that are
// bound.
func (e *edit) countersigners(r *release, b *binding) ([]signer, error) {
	keys, _, err := e.keys.packageKeys(r.Package)
	if err != nil {
		return nil, err
	}
	bound := slices.DeleteFunc(slices.Clone(keys), func(s signer) bool { return !b.has(s.id) })
	if len(bound) == 0 {
		return nil, fail(ErrKey, keys[0].file, "%s is not one of the keys that package %s is bound to", keys[0].id, r.Package)
	}
	return bound, nil
}

// find returns the release of the same level of a series of a package, nil if
// there is none.
func (l *listing) find(r *release) *release {
	i := slices.IndexFunc(l.Releases, func(o *release) bool {
		return o.Package == r.Package && o.Series == r.Series && o.Level == r.Level
	})
	if i < 0 {
		return nil
	}
	return l.Releases[i]
}

// keep removes signatures that are by none of the bound keys: there is room for
// a few only.
func (e *envelope) keep(b *binding) {
	all := e.Signatures[:min(len(e.Signatures), maxPackageKeys)]
	e.Signatures = nil
	for _, s := range all {
		one := envelope{PayloadType: e.PayloadType, Payload: e.Payload, Signatures: []envelopeSignature{s}}
		again := slices.ContainsFunc(e.Signatures, func(o envelopeSignature) bool { return bytes.Equal(o.Sig, s.Sig) })
		if !again && one.signers(b) > 0 {
			e.Signatures = append(e.Signatures, s)
		}
	}
}

// has reports whether a signer's key has signed.
func (e *envelope) has(b *binding, s signer) bool {
	return slices.ContainsFunc(b.Keys, func(k publicKey) bool { return k.id() == s.id && e.signedBy(k) })
}

// countSignatures returns how many keys have signed the releases of packages
// that ask for more than one signature.
func (e *edit) countSignatures(ctx context.Context, all []*release) (map[*release]int, error) {
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var mu sync.Mutex
	signed, b := map[*release]int{}, newBatch(giveUp)
	for _, r := range all {
		bound := e.trust.binding(r.Package)
		if bound.need() < 2 {
			continue
		}
		name := bundleFile(r.Digest, r.File) + ".sig"
		b.run(name, func() error {
			n, err := e.countSigned(ctx, name, r, bound)
			mu.Lock()
			defer mu.Unlock()
			signed[r] = n
			return err
		})
	}
	return signed, b.wait()
}

// countSigned returns how many keys have signed a release; what is not its
// signature has none.
func (e *edit) countSigned(ctx context.Context, name string, r *release, b *binding) (int, error) {
	data, err := e.store.read(ctx, name, maxSignature)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	env, err := readEnvelope(data)
	if err != nil {
		return 0, nil
	}
	if want, err := r.payload(); err != nil || !bytes.Equal(env.Payload, want) {
		return 0, err
	}
	return env.signers(b), nil
}
