package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// keysField is the field of targets.json that binds packages to keys, an
// object of bindings by package. That of defaultKey is for all other packages.
// The keys that publish day by day do not sign targets.json, so that none of
// them makes a package's key.
const keysField = "package_keys"

// maxPackageKeys bounds the keys of a package, and the signatures of a bundle
// that are looked at.
const maxPackageKeys = 16

// binding says who may sign the bundles of a package.
type binding struct {
	// Keys may sign; Threshold of them must, 0 stands for 1.
	Keys      []publicKey `json:"keys"`
	Threshold int         `json:"threshold,omitempty"`
}

func (b *binding) check() error {
	switch {
	case b == nil || len(b.Keys) == 0 || len(b.Keys) > maxPackageKeys:
		return fmt.Errorf("want 1 to %d keys", maxPackageKeys)
	case b.Threshold < 0 || b.Threshold > len(b.Keys):
		return fmt.Errorf("threshold of %d among %d keys", b.Threshold, len(b.Keys))
	}
	for i, k := range b.Keys {
		if _, err := k.parse(); err != nil {
			return err
		}
		if slices.ContainsFunc(b.Keys[:i], func(o publicKey) bool { return bytes.Equal(k, o) }) {
			return errors.New("a key is listed twice")
		}
	}
	return nil
}

// need returns how many of the keys have to sign.
func (b *binding) need() int {
	if b == nil {
		return 1
	}
	return max(1, b.Threshold)
}

// keyID returns the identity of the first key, "" if no key is bound.
func (b *binding) keyID() string {
	if b == nil {
		return ""
	}
	return b.Keys[0].id()
}

// has reports whether a key is one of those bound.
func (b *binding) has(id string) bool {
	return b != nil && slices.ContainsFunc(b.Keys, func(k publicKey) bool { return k.id() == id })
}

// readBindings takes the bindings from targets.json, and refuses all if one is
// malformed.
func (t *trust) readBindings() error {
	m := t.set.Targets[metadata.TARGETS].Signed
	name := metadataFile(m.Version, metadata.TARGETS)
	data, err := json.Marshal(m.UnrecognizedFields[keysField])
	if err != nil {
		return &Error{ErrUntrusted, name, err}
	}
	t.bound = nil
	if err := json.Unmarshal(data, &t.bound); err != nil {
		return fail(ErrUntrusted, name, "%s: %w", keysField, err)
	}
	for pack, b := range t.bound {
		if err := errors.Join(checkName("package", pack, maxName), b.check()); err != nil {
			return fail(ErrUntrusted, name, "%s: package %.80q: %w", keysField, pack, err)
		}
	}
	return nil
}

// binding returns the binding of a package, nil if it has none.
func (t *trust) binding(pack string) *binding {
	if b := t.bound[pack]; b != nil {
		return b
	}
	return t.bound[defaultKey]
}

// claim returns those of a package's keys at hand that it is bound to, and
// reports whether it had to bind it. Only a new package may get a key of its own
// here; own says that the keys are the package's own, known that it has releases.
func (e *edit) claim(pack string, keys []signer, own, known bool) (by []signer, bound bool, err error) {
	b, as := e.trust.binding(pack), defaultKey
	if own {
		as = pack
	}
	by = slices.DeleteFunc(slices.Clone(keys), func(s signer) bool { return !b.has(s.id) })
	switch {
	case len(by) > 0:
		return by, false, nil
	case e.trust.bound[as] != nil || e.trust.bound[pack] != nil || known && b != nil:
		return nil, false, fail(ErrConflict, pack, "this package belongs to key %s, %s is %s", b.keyID(), keys[0].file, keys[0].id)
	}
	if !e.canSign(metadata.TARGETS) {
		return nil, false, fail(ErrKey, keys[0].file, "not bound to package %s yet: the first release by this key has to be published where the key of %s is", as, metadata.TARGETS)
	}
	return keys, true, e.bind(as, keys)
}

// canSign reports whether enough keys of a role of root.json are at hand.
func (e *edit) canSign(role string) bool {
	r := e.trust.set.Root.Signed.Roles[role]
	return len(usable(e.keys.role[role], r.KeyIDs)) >= r.Threshold
}

// bind binds a package to keys in targets.json, each of which may sign.
func (e *edit) bind(pack string, keys []signer) error {
	b := &binding{}
	for _, key := range keys {
		pub, err := key.public()
		if err != nil {
			return err
		}
		b.Keys = append(b.Keys, pub)
	}
	e.setBinding(pack, b)
	return nil
}

// setBinding binds a package in targets.json.
func (e *edit) setBinding(pack string, b *binding) {
	bound := maps.Clone(e.trust.bound)
	if bound == nil {
		bound = map[string]*binding{}
	}
	bound[pack] = b
	e.trust.bound = bound
	m := e.openTargets()
	if m.Signed.UnrecognizedFields == nil {
		m.Signed.UnrecognizedFields = map[string]any{}
	}
	m.Signed.UnrecognizedFields[keysField] = bound
}
