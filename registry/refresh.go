package registry

import (
	"context"
	"errors"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Refresh signs the timestamp anew, and whatever else has less than a third of
// its time left. It has to run more often than the timestamp expires, seven
// days. Targets and root, which hold for a year, come last and each on its own:
// if one is due and its key is not at hand, the rest is in place all the same,
// and the error is ErrDue.
func (p *Publisher) Refresh(ctx context.Context) error {
	err := p.change(ctx, func(e *edit) error {
		if err := e.openDue(ctx); err != nil {
			return err
		}
		return e.commit(ctx)
	})
	if err != nil {
		return err
	}
	return errors.Join(
		p.change(ctx, func(e *edit) error { return e.renewTargets(ctx) }),
		p.change(ctx, func(e *edit) error { return e.renewRoot(ctx) }))
}

// openDue opens the bins and the snapshot that are to be signed anew.
func (e *edit) openDue(ctx context.Context) error {
	for _, role := range e.signedBins() {
		if err := e.trust.role(ctx, role, metadata.TARGETS); err != nil {
			return err
		}
		if e.due(e.trust.set.Targets[role].Signed.Expires, targetsValidity) {
			e.openBin(role)
		}
	}
	if s := e.trust.set.Snapshot; e.due(s.Signed.Expires, snapshotValidity) {
		e.openSnapshot()
	}
	return nil
}

// due reports whether what expires at t should be renewed.
func (e *edit) due(t time.Time, validity time.Duration) bool {
	return t.Sub(e.now) < validity/3
}

// renewTargets signs targets.json anew, in a state of its own.
func (e *edit) renewTargets(ctx context.Context) error {
	m := e.trust.set.Targets[metadata.TARGETS]
	until := m.Signed.Expires
	if !e.due(until, targetsValidity) {
		return nil
	}
	e.openTargets()
	return overdue(metadataFile(m.Signed.Version+1, metadata.TARGETS), until, e.commit(ctx))
}

// renewRoot signs the same keys anew, as the next version.
func (e *edit) renewRoot(ctx context.Context) error {
	until := e.trust.set.Root.Signed.Expires
	if !e.due(until, rootValidity) {
		return nil
	}
	m, err := copyRoot(e.trust.set.Root)
	if err != nil {
		return err
	}
	m.Signed.Version++
	m.Signed.Expires = expiry(e.now, rootValidity)
	m.ClearSignatures()
	name := metadataFile(m.Signed.Version, metadata.ROOT)
	if len(usable(e.keys.role[metadata.ROOT], m.Signed.Roles[metadata.ROOT].KeyIDs)) == 0 {
		return overdue(name, until, fail(ErrKey, name, "no key that may sign it is at hand"))
	}
	return overdue(name, until, e.finishRoot(ctx, m))
}

// overdue says, if keys are missing, until when the version before name holds.
func overdue(name string, until time.Time, err error) error {
	if !errors.Is(err, ErrKey) && !errors.Is(err, ErrPending) {
		return err
	}
	return fail(ErrDue, name, "not signed, the one before it holds until %s: %w", until.UTC().Format(time.RFC3339), err)
}
