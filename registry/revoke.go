package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/fother/fother/registry/catalog"
	"github.com/fother/fother/specs"
)

// Revocation is why and when a release was revoked.
type Revocation = catalog.Revocation

// revokedSuffix is what the name of a revocation has behind that of the bundle.
const revokedSuffix = ".revoked"

const (
	revocationType = "https://github.com/fother/fother/registry/revocation/v1"
	// maxRevocation bounds a revocation, maxReason its reason, in bytes.
	maxRevocation = 64 << 10
	maxReason     = 500
)

// revocation is the signed statement: the subject is the bundle, as in that of
// its release.
type revocation struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     revoked   `json:"predicate"`
}

type revoked struct {
	Package string       `json:"package"`
	Series  specs.Series `json:"series"`
	Level   specs.Level  `json:"level"`
	Revocation
}

// checkReason refuses what cannot be shown in one line.
func checkReason(reason string) error {
	if strings.TrimSpace(reason) == "" || len(reason) > maxReason {
		return fmt.Errorf("reason of %d bytes: want 1 to %d", len(reason), maxReason)
	}
	if strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("reason %.80q: want one line of text", reason)
	}
	return nil
}

// verifyRevocation checks that data is a revocation of the release that e is of,
// by as many of its package's keys as its bundle needs.
func verifyRevocation(data []byte, e *Entry) (*Revocation, error) {
	env, err := readEnvelope(data)
	if err != nil {
		return nil, err
	}
	if err := env.signedFor(e); err != nil {
		return nil, err
	}
	return env.revocation(e)
}

// revocation returns the statement of an envelope, if it revokes a
// release.
func (e *envelope) revocation(of *Entry) (*Revocation, error) {
	var s revocation
	if err := json.Unmarshal(e.Payload, &s); err != nil {
		return nil, fmt.Errorf("signed statement: %w", err)
	}
	switch p := s.Predicate; {
	case s.Type != statementType || s.PredicateType != revocationType:
		return nil, fmt.Errorf("signed statement of type %.80q about %.80q", s.Type, s.PredicateType)
	case len(s.Subject) != 1 || s.Subject[0].Digest["sha256"] != of.Digest || s.Subject[0].Name != of.File,
		p.Package != of.Package || p.Series != of.Series || p.Level != of.Level:
		return nil, errors.New("it revokes another release")
	}
	return &s.Predicate.Revocation, checkReason(s.Predicate.Reason)
}

// Revoke revokes a release by its package's keys at hand: hosts that have
// applied it go back to the highest level that is not revoked, and none applies
// it again. That cannot be undone; a fix is published as a higher level.
//
// If the package asks for more signatures than there are then, the error is
// ErrPending, and nothing is revoked until the owner of another key has called
// Revoke too. If it was revoked the error is ErrPublished.
func (p *Publisher) Revoke(ctx context.Context, ref Ref, reason string) (*Revocation, error) {
	if err := checkReason(reason); err != nil {
		return nil, &Error{ErrInvalid, ref.String(), err}
	}
	var done *Revocation
	err := p.change(ctx, func(e *edit) error {
		r, err := e.find(ctx, ref)
		if err != nil {
			return err
		}
		b := e.trust.binding(r.Package)
		entry := r.entry(r.BuildIDs[0], b)
		keys, err := e.countersigners(r, b)
		if err != nil {
			return err
		}
		env, old, err := e.openRevocation(ctx, &entry, reason)
		if err != nil {
			return err
		}
		if done, err = env.revocation(&entry); err != nil {
			return &Error{ErrUntrusted, entry.Path + revokedSuffix, err}
		}
		if r.Revoked && env.signers(b) >= b.need() {
			return fail(ErrPublished, ref.String(), "was revoked on %s: %s", done.Time.Format(time.DateOnly), done.Reason)
		}
		if err := e.writeRevocation(ctx, env, old, &entry, keys); err != nil {
			return err
		}
		if n := env.signers(b); n < b.need() {
			return fail(ErrPending, ref.String(), "%d of %d signatures are there: the owner of another key of package %s has to revoke it too", n, b.need(), r.Package)
		}
		if err := e.update(ctx, r, func(o *release) { o.Revoked = true }); err != nil {
			return err
		}
		return e.commit(ctx)
	})
	return done, err
}

// openRevocation returns the revocation of a release that one of its keys has
// signed already, and its file, or a new one.
func (e *edit) openRevocation(ctx context.Context, entry *Entry, reason string) (*envelope, []byte, error) {
	old, err := e.store.read(ctx, entry.Path+revokedSuffix, maxRevocation)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, nil, err
	}
	if env, err := readEnvelope(old); err == nil {
		if _, err := env.revocation(entry); err == nil && env.signers(originOf(entry).binding) > 0 {
			env.keep(originOf(entry).binding)
			return env, old, nil
		}
	}
	payload, err := json.Marshal(revocation{
		Type:          statementType,
		Subject:       []subject{{entry.File, map[string]specs.Digest{"sha256": entry.Digest}}},
		PredicateType: revocationType,
		Predicate:     revoked{entry.Package, entry.Series, entry.Level, Revocation{Reason: reason, Time: e.now.UTC().Truncate(time.Second)}},
	})
	return &envelope{PayloadType: payloadType, Payload: payload}, old, err
}

// writeRevocation signs a revocation and writes it.
func (e *edit) writeRevocation(ctx context.Context, env *envelope, old []byte, entry *Entry, keys []signer) error {
	before := len(env.Signatures)
	if err := env.addSignatures(ctx, keys); err != nil {
		return err
	}
	if before == len(env.Signatures) {
		return nil
	}
	data, err := json.Marshal(env)
	if err != nil {
		return err
	}
	return e.store.commit(ctx, entry.Path+revokedSuffix, old, data)
}

// tellRevoked says of an entry why it is revoked, for those who publish.
func (e *edit) tellRevoked(ctx context.Context, entry *Entry) error {
	name := entry.Path + revokedSuffix
	data, err := e.store.read(ctx, name, maxRevocation)
	if err != nil {
		return err
	}
	if entry.Revoked, err = verifyRevocation(data, entry); err != nil {
		return signatureError(name, err)
	}
	return nil
}

// revocations finds out which of the entries are revoked. A statement that was
// verified stays in the cache: whoever holds the keys of the index cannot take a
// revocation back. An entry that is said to be revoked and has no statement by
// its package's keys is left out, with an error: it is neither applied nor
// reverted.
func (c *Client) revocations(ctx context.Context, entries []Entry) ([]Entry, error) {
	type key struct { // two packages may have the same bundle
		pack   string
		series specs.Series
		level  specs.Level
		digest specs.Digest
	}
	of := func(e *Entry) key { return key{e.Package, e.Series, e.Level, e.Digest} }
	said, failed := map[key]*Revocation{}, map[key]error{}
	var errs []error
	for i := range entries {
		e := &entries[i]
		if _, done := failed[of(e)]; !done {
			said[of(e)], failed[of(e)] = c.revocationOf(ctx, e)
			errs = append(errs, failed[of(e)])
		}
		e.Revoked = said[of(e)]
	}
	kept := slices.DeleteFunc(entries, func(e Entry) bool { return failed[of(&e)] != nil })
	return kept, errors.Join(errs...)
}

func (c *Client) revocationOf(ctx context.Context, e *Entry) (*Revocation, error) {
	// Another package with the same bundle has a place of its own.
	keep := bundlesDir + "/" + e.Digest.String() + "." + e.Package + revokedSuffix
	if data := c.cache.get(keep, maxRevocation); data != nil {
		if r, err := verifyRevocation(data, e); err == nil {
			return r, nil
		}
	}
	if !originOf(e).release.Revoked {
		return nil, nil
	}
	name := e.Path + revokedSuffix
	data, err := c.remote.read(ctx, name, maxRevocation)
	if err != nil {
		return nil, err
	}
	r, err := verifyRevocation(data, e)
	if err != nil {
		return nil, signatureError(name, err)
	}
	return r, c.cache.put(keep, data)
}
