package registry

import (
	"context"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// KeyInfo is a key that is at hand or may sign something, or both.
type KeyInfo struct {
	// Name is a role, or "package." and a package, or "default".
	Name string `json:"name"`
	ID   string `json:"id"`
	// File is where the key is from, "" if it is not at hand. Signs is false
	// too if only its public half is.
	File  string `json:"file,omitempty"`
	Signs bool   `json:"signs"`
	// Bound keys may sign for Name. Of Keys that may, Threshold must.
	Bound     bool `json:"bound"`
	Threshold int  `json:"threshold,omitempty"`
	Keys      int  `json:"keys,omitempty"`
}

// Rotation says how the keys of a role or a package change.
type Rotation struct {
	// Name is a role of TUF, "bins", or "package." and a package, or "default".
	Name string
	// Leaves is the id of the key that leaves, or its first digits; "" is the
	// only one there is.
	Leaves string
	// Add lets a key join and none leave, Drop lets one leave and none join.
	Add, Drop bool
	// Threshold is how many keys have to sign from then on; 0 leaves it. Where
	// there are several keys, and Leaves, Add and Drop say nothing, it is all that
	// changes.
	Threshold int
	// Passphrase, if there is one, encrypts a key that is made.
	Passphrase []byte
}

// change is a rotation with its keys found.
type keyChange struct {
	Rotation
	role, pack string
	joins      *signer // nil if none does
	leaves     string  // "" if none does
}

// Keys lists the keys, by name.
func (p *Publisher) Keys(ctx context.Context) ([]KeyInfo, error) {
	e, err := p.begin(ctx)
	if err != nil {
		return nil, err
	}
	var all []KeyInfo
	list := func(name string, bound []string, threshold int, have []signer) {
		for _, s := range have {
			all = append(all, KeyInfo{name, s.id, s.file, s.sign != nil, slices.Contains(bound, s.id), threshold, len(bound)})
		}
		for _, id := range bound {
			if !slices.ContainsFunc(have, func(s signer) bool { return s.id == id }) {
				all = append(all, KeyInfo{Name: name, ID: id, Bound: true, Threshold: threshold, Keys: len(bound)})
			}
		}
	}
	for _, role := range keyRoles[:len(keyRoles)-1] {
		ids, threshold := e.roleKeys(role)
		list(role, ids, threshold, e.keys.role[role])
	}
	packs := map[string]bool{}
	for pack := range e.trust.bound {
		packs[pack] = true
	}
	for pack := range e.keys.pack {
		packs[pack] = true
	}
	for pack := range packs {
		have, err := e.keys.ofPackage(pack)
		if err != nil {
			return nil, err
		}
		ids, threshold := e.trust.bound[pack].ids()
		list(rolePackage+"."+pack, ids, threshold, have)
	}
	slices.SortStableFunc(all[:], func(a, b KeyInfo) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// roleKeys returns the ids of the keys that may sign for a role, and how many
// must.
func (e *edit) roleKeys(role string) ([]string, int) {
	if role == roleBins {
		if d := e.trust.set.Targets[metadata.TARGETS].Signed.Delegations; d != nil && d.SuccinctRoles != nil {
			return d.SuccinctRoles.KeyIDs, d.SuccinctRoles.Threshold
		}
		return nil, 0
	}
	r := e.trust.set.Root.Signed.Roles[role]
	return r.KeyIDs, r.Threshold
}

// MakeKey makes a key for a role or a package, named as in [Rotation], and
// returns it. It signs once it is bound: that of a package without releases is
// bound at once if the key of targets is at hand, or else by its first release;
// any other by [Publisher.Rotate].
func (p *Publisher) MakeKey(ctx context.Context, name string, passphrase []byte) (info KeyInfo, err error) {
	role, pack, err := parseKeyName(name)
	if err != nil {
		return info, err
	}
	path, err := p.keys.newFile(role, pack)
	if err != nil {
		return info, err
	}
	if !strings.HasSuffix(path, keySuffix) {
		return info, fail(ErrExists, path, "this package has a key; registry:rotate %s replaces it", name)
	}
	s, err := p.keys.make(path, role, pack, passphrase)
	if err != nil {
		return info, err
	}
	info = KeyInfo{Name: name, ID: s.id, File: path, Signs: true}
	if role != rolePackage {
		return info, nil
	}
	err = p.change(ctx, func(e *edit) error {
		all, err := e.listing(ctx, packageTarget(pack))
		if err != nil || all.has(pack) || e.trust.bound[pack] != nil || !e.canSign(metadata.TARGETS) {
			return err
		}
		info.Bound, info.Keys, info.Threshold = true, 1, 1
		if err := e.bind(pack, []signer{s}); err != nil {
			return err
		}
		return e.commit(ctx)
	})
	return info, err
}

// Rotate lets a key join and another leave, so that from then on it signs in
// the other's place. The one that joins is a key at hand that signs nothing yet,
// or is made. Hosts follow from any earlier root.json.
//
// If signatures of root's keys are missing the change waits in the keys' folder,
// and the error is ErrPending: [Publisher.SignRoot] adds them.
func (p *Publisher) Rotate(ctx context.Context, r Rotation) error {
	c := &keyChange{Rotation: r}
	var err error
	if c.role, c.pack, err = parseKeyName(r.Name); err != nil {
		return err
	}
	if r.Add && r.Drop {
		return fail(ErrInvalid, r.Name, "a key is either added or dropped")
	}
	err = p.change(ctx, func(e *edit) error { return c.find(ctx, e) })
	if err != nil {
		return err
	}
	switch c.role {
	case rolePackage:
		err = p.change(ctx, func(e *edit) error { return e.rotatePackage(ctx, c) })
	case roleBins:
		err = p.change(ctx, func(e *edit) error { return e.rotateBins(ctx, c) })
	case metadata.ROOT:
		err = p.change(ctx, func(e *edit) error { return e.changeRoot(ctx, c, true, true) })
	default:
		err = p.rotateOnline(ctx, c)
	}
	if err != nil {
		return err
	}
	return p.keys.settle(c)
}

// rotateOnline rotates a key of what root.json names, in three steps, after each
// of which hosts find all signed: the new key may sign too; what the role signs
// is signed by both; the old key may not any more.
func (p *Publisher) rotateOnline(ctx context.Context, c *keyChange) error {
	if c.joins != nil {
		if err := p.change(ctx, func(e *edit) error { return e.changeRoot(ctx, c, true, false) }); err != nil {
			return err
		}
	}
	if c.leaves == "" && c.Threshold == 0 {
		return nil
	}
	err := p.change(ctx, func(e *edit) error {
		switch c.role {
		case metadata.TARGETS:
			e.openTargets()
		case metadata.SNAPSHOT:
			e.openSnapshot()
		}
		return e.commit(ctx)
	})
	if err != nil {
		return err
	}
	return p.change(ctx, func(e *edit) error { return e.changeRoot(ctx, c, false, true) })
}

// find finds the keys that join and leave.
func (c *keyChange) find(ctx context.Context, e *edit) error {
	bound, have := []string(nil), e.keys.role[c.role]
	if c.role == rolePackage {
		var err error
		if have, err = e.keys.ofPackage(c.pack); err != nil {
			return err
		}
		bound, _ = e.trust.bound[c.pack].ids()
	} else {
		bound, _ = e.roleKeys(c.role)
	}
	if c.Threshold > 0 && !c.Add && !c.Drop && c.Leaves == "" && len(bound) > 1 {
		return nil // no key joins and none leaves
	}
	if err := c.findLeaving(bound); err != nil || c.Drop {
		return err
	}
	fresh := slices.DeleteFunc(slices.Clone(have), func(s signer) bool { return slices.Contains(bound, s.id) })
	switch {
	case len(fresh) > 1:
		return fail(ErrConflict, c.Name, "keys %s and %s both could join: remove one from the keys' folder", fresh[0].file, fresh[1].file)
	case len(fresh) == 1:
		c.joins = &fresh[0]
		return nil
	}
	path, err := e.keys.newFile(c.role, c.pack)
	if err != nil {
		return err
	}
	s, err := e.keys.make(path, c.role, c.pack, c.Passphrase)
	c.joins = &s
	return err
}

// findLeaving finds the key that leaves among those that are bound.
func (c *keyChange) findLeaving(bound []string) error {
	switch {
	case c.Add:
		return nil
	case c.Leaves == "" && len(bound) == 0 && c.role == rolePackage: // a package of the default key
		return nil
	case c.Leaves == "" && len(bound) == 1:
		c.leaves = bound[0]
		return nil
	case c.Leaves == "":
		return fail(ErrInvalid, c.Name, "it has %d keys: say which one leaves: %s", len(bound), strings.Join(bound, ", "))
	}
	for _, id := range bound {
		if strings.HasPrefix(id, c.Leaves) {
			if c.leaves != "" {
				return fail(ErrInvalid, c.Name, "more than one key begins with %s", c.Leaves)
			}
			c.leaves = id
		}
	}
	if c.leaves == "" {
		return fail(ErrInvalid, c.Name, "no key of it begins with %.80q: it has %s", c.Leaves, strings.Join(bound, ", "))
	}
	return nil
}

// rotateBins binds the bins to another key and signs all of them by it.
func (e *edit) rotateBins(ctx context.Context, c *keyChange) error {
	for _, role := range e.signedBins() { // while the old key still counts
		if err := e.trust.role(ctx, role, metadata.TARGETS); err != nil {
			return err
		}
	}
	m := e.openTargets()
	if c.joins != nil {
		if err := addBinKey(m, *c.joins); err != nil {
			return err
		}
	}
	if c.leaves != "" {
		if err := m.Signed.RevokeKey(c.leaves, binPrefix); err != nil {
			return &Error{ErrKey, c.Name, err}
		}
	}
	roles := m.Signed.Delegations.SuccinctRoles
	if c.Threshold > 0 {
		roles.Threshold = c.Threshold
	}
	if err := checkThreshold(c.Name, len(roles.KeyIDs), roles.Threshold); err != nil {
		return err
	}
	for _, role := range e.signedBins() {
		e.openBin(role)
	}
	return e.commit(ctx)
}

func checkThreshold(name string, keys, threshold int) error {
	if keys > maxRoleKeys || threshold < 1 || threshold > keys {
		return fail(ErrInvalid, name, "%d of %d keys would have to sign: want 1 to all of at most %d", threshold, keys, maxRoleKeys)
	}
	return nil
}
