package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	// Threshold is how many keys have to sign from then on; 0 leaves it.
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

// retiredSuffix is that of a key's file that signs no more.
const retiredSuffix = ".retired"

// newFile returns the name for a new key's file: ROLE.N.pem, or package.NAME.pem
// with .2, .3 and so on behind it if there are several.
func (k *keyring) newFile(role, pack string) (string, error) {
	for n := 1; n <= 1000; n++ {
		path := filepath.Join(k.dir, role+"."+strconv.Itoa(n)+keySuffix)
		if role == rolePackage {
			path = filepath.Join(k.dir, role+"."+pack+keySuffix)
			if n > 1 {
				path += "." + strconv.Itoa(n)
			}
		}
		_, there := os.Lstat(path)
		_, gone := os.Lstat(path + retiredSuffix)
		if errors.Is(there, os.ErrNotExist) && errors.Is(gone, os.ErrNotExist) {
			return path, nil
		}
	}
	return "", fail(ErrKey, k.dir, "no name is left for a key of %s", role)
}

// make makes a key's file and takes the key up.
func (k *keyring) make(path, role, pack string, passphrase []byte) (signer, error) {
	if err := makeKey(path, passphrase); err != nil {
		return signer{}, err
	}
	data, err := readSecret(path)
	if err != nil {
		return signer{}, err
	}
	if len(passphrase) > 0 {
		k.mu.Lock()
		k.phrase = passphrase
		k.mu.Unlock()
	}
	keys, err := k.parseKeys(data, path)
	if err != nil {
		return signer{}, err
	}
	k.add(role, pack, keys...)
	return keys[0], syncDir(k.dir)
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

// settle takes the file of a key that left out of use, and gives the one that
// joined its name. Keys are not removed: a registry that is restored from before
// would need them.
func (k *keyring) settle(c *keyChange) error {
	left, err := k.take(c.role, c.pack, c.leaves)
	if err != nil || c.joins == nil {
		return err
	}
	name := left
	if !strings.HasSuffix(name, keySuffix) || !strings.HasPrefix(c.joins.file, name+".") {
		return nil
	}
	if err := os.Rename(c.joins.file, name); err != nil {
		return &Error{ErrKey, name, err}
	}
	keys := k.pack[c.pack]
	for i := range keys {
		if keys[i].id == c.joins.id {
			keys[i].file = name
		}
	}
	return syncDir(k.dir)
}

// take takes a key from the ring, and its file, if it is one of the folder's.
func (k *keyring) take(role, pack, id string) (string, error) {
	keys := k.role[role]
	if role == rolePackage {
		keys = k.pack[pack]
	}
	i := slices.IndexFunc(keys, func(s signer) bool { return s.id == id })
	if i < 0 || id == "" {
		return "", nil
	}
	file := keys[i].file
	keys = slices.Delete(slices.Clone(keys), i, i+1)
	if role == rolePackage {
		k.pack[pack] = keys
	} else {
		k.role[role] = keys
	}
	if filepath.Dir(file) != filepath.Clean(k.dir) {
		return file, nil
	}
	to := fmt.Sprintf("%s.%.8s%s", file, id, retiredSuffix)
	if role != rolePackage {
		to = file + retiredSuffix
	}
	if err := os.Rename(file, to); err != nil {
		return "", &Error{ErrKey, file, err}
	}
	return file, syncDir(k.dir)
}
