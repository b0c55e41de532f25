package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
)

// putSignature leaves the signatures of a release beside its bundle. Those that
// others have put there stay: a release may be published by two at once, and one
// that is listed may have been countersigned. So nothing is replaced but what
// was looked at.
func (e *edit) putSignature(ctx context.Context, r *release, by []signer, listed bool) error {
	name := bundleFile(r.Digest, r.File) + ".sig"
	payload, err := r.payload()
	if err != nil {
		return err
	}
	old, err := e.store.read(ctx, name, maxSignature)
	absent := errors.Is(err, ErrNotFound)
	if err != nil && !absent {
		return err
	}
	env := &envelope{PayloadType: payloadType, Payload: payload}
	if there, err := readEnvelope(old); err == nil {
		b := e.trust.binding(r.Package)
		switch same := bytes.Equal(there.Payload, payload); {
		case same && listed && there.signers(b) > 0:
			return nil
		case same:
			there.keep(b)
			env = there
		default:
			if err := e.unclaimed(ctx, r, there); err != nil {
				return err
			}
		}
	}
	if err := env.addSignatures(ctx, by); err != nil {
		return err
	}
	data, err := json.Marshal(env)
	switch {
	case err != nil || bytes.Equal(data, old):
		return err
	case !absent:
		return e.store.commit(ctx, name, old, data)
	}
	if err = e.store.create(ctx, name, data); errors.Is(err, ErrTaken) {
		return &Error{ErrRaced, name, err}
	}
	return err
}

// unclaimed fails if what was signed about the file of r is another release
// that is listed: it would lose its signatures.
func (e *edit) unclaimed(ctx context.Context, r *release, there *envelope) error {
	var s statement
	if json.Unmarshal(there.Payload, &s) != nil {
		return nil
	}
	p := s.Predicate
	all, err := e.listing(ctx, packageTarget(p.Package))
	if err != nil {
		return err
	}
	other := all.find(&release{Package: p.Package, Series: p.Series, Level: p.Level})
	if other != nil && other.Digest == r.Digest && other.File == r.File {
		return fail(ErrConflict, r.File, "the same file is level %d of series %s of package %s: give it another name", other.Level, other.Series, other.Package)
	}
	return nil
}
