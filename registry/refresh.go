package registry

import (
	"context"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Refresh signs the timestamp anew, and whatever else has less than a third of
// its time left. It has to run more often than the timestamp expires, seven
// days; a root that is due needs the root key, all else does not.
func (p *Publisher) Refresh(ctx context.Context) error {
	unlock, err := p.store.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := p.begin(ctx)
	if err != nil {
		return err
	}
	for _, role := range e.signedBins() {
		if err := e.trust.role(ctx, role, metadata.TARGETS); err != nil {
			return err
		}
		if e.due(e.trust.set.Targets[role].Signed.Expires, targetsValidity) {
			e.openBin(role)
		}
	}
	if top := e.trust.set.Targets[metadata.TARGETS]; e.due(top.Signed.Expires, targetsValidity) {
		e.targets = top
	}
	if s := e.trust.set.Snapshot; e.due(s.Signed.Expires, snapshotValidity) {
		e.openSnapshot()
	}
	if err := e.commit(ctx); err != nil {
		return err
	}
	// Last: without the root key the rest is renewed all the same.
	return e.renewRoot(ctx)
}

// due reports whether what expires at t should be renewed.
func (e *edit) due(t time.Time, validity time.Duration) bool {
	return t.Sub(e.now) < validity/3
}

// renewRoot signs the same keys anew, as the next version.
func (e *edit) renewRoot(ctx context.Context) error {
	m := e.trust.set.Root
	if !e.due(m.Signed.Expires, rootValidity) {
		return nil
	}
	m.Signed.Version++
	m.Signed.Expires = expiry(e.now, rootValidity)
	data, err := e.keys.signRoot(m)
	if err != nil {
		return err
	}
	return e.store.commit(ctx, metadataFile(m.Signed.Version, metadata.ROOT), data)
}
