package registry

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// roleBins is the name, among keys, of the roles that sign the index, and
// rolePackage that of the keys that sign bundles. The others are TUF's.
const (
	roleBins    = "bins"
	rolePackage = "package"
)

// keyRoles are the roles that Init makes keys for.
var keyRoles = []string{metadata.ROOT, metadata.TARGETS, roleBins, metadata.SNAPSHOT, metadata.TIMESTAMP, rolePackage}

// keyring holds keys: those of a folder, of the environment, and others that are
// given. A file is named ROLE.NAME.pem: for a role of TUF, NAME is free and every
// key that the metadata list for the role signs; for role package, NAME is the
// package, or "default".
type keyring struct {
	dir    string
	role   map[string][]signer      // by role
	pack   map[string][]signer      // by package
	getenv func(name string) string // reads the environment; nil if no keys are there

	mu     sync.Mutex // guards the rest, and calls of ask
	ask    func(file string) ([]byte, error)
	phrase []byte // opened the last key
}

// maxRoleKeys bounds the keys of a role.
const maxRoleKeys = 16

const (
	keySuffix    = ".pem"
	defaultKey   = "default"
	trustFile    = "root.json"
	lastSeenFile = "timestamp.json"
)

// KeyOption says where keys are besides the keys' folder, or how they are
// opened.
type KeyOption func(*keyring) error

// WithPassphrase has encrypted keys opened by the passphrase that ask returns.
// It is asked when the key of a file first has to sign, and not for others that
// the same passphrase opens.
func WithPassphrase(ask func(file string) ([]byte, error)) KeyOption {
	return func(k *keyring) error { k.ask = ask; return nil }
}

// WithSigner adds a key that is kept elsewhere. role is one of TUF's, "bins",
// or "package" with the name of a package, or "default", behind a dot.
func WithSigner(role string, s Signer) KeyOption {
	return func(k *keyring) error {
		key, err := newSigner(s, "signer of "+role)
		if err != nil {
			return err
		}
		role, name, err := parseKeyName(role)
		if err == nil {
			k.add(role, name, key)
		}
		return err
	}
}

// WithEnvironment adds the keys of environment variables. FOTHER_KEY_ROLE, as
// FOTHER_KEY_TIMESTAMP, holds what a key file would, and may hold several keys;
// FOTHER_KEY_PACKAGE is the default key of packages, FOTHER_KEY_PACKAGE_NAME
// that of package NAME, in upper case and with _ for all but letters and digits.
func WithEnvironment(getenv func(name string) string) KeyOption {
	return func(k *keyring) error {
		k.getenv = getenv
		return nil
	}
}

// fromEnvironment reads all keys there but those of single packages.
func (k *keyring) fromEnvironment() error {
	if k.getenv == nil {
		return nil
	}
	for _, role := range keyRoles {
		name := ""
		if role == rolePackage {
			name = defaultKey
		}
		keys, err := k.fromVariable(keyVariable(role, ""))
		if err != nil {
			return err
		}
		k.add(role, name, keys...)
	}
	return nil
}

// keyVariable names the environment variable of a key.
func keyVariable(role, pack string) string {
	name := "FOTHER_KEY_" + strings.ToUpper(role)
	if pack == "" {
		return name
	}
	return name + "_" + strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(pack))
}

func (k *keyring) fromVariable(variable string) ([]signer, error) {
	text := k.getenv(variable)
	if text == "" {
		return nil, nil
	}
	if len(text) > maxKeyFile {
		return nil, fail(ErrKey, variable, "%d bytes: want at most %d", len(text), maxKeyFile)
	}
	return k.parseKeys([]byte(text), variable)
}

// parseKeyName takes the name of a key apart: a role, or "package." and the
// name of a package.
func parseKeyName(text string) (role, pack string, err error) {
	role, pack, named := strings.Cut(text, ".")
	switch {
	case !slices.Contains(keyRoles, role) || named != (role == rolePackage):
		return "", "", fail(ErrInvalid, text, "not the name of a key: want %s or %s.NAME", strings.Join(keyRoles[:len(keyRoles)-1], ", "), rolePackage)
	case named:
		if err := checkName("package", pack, maxName); err != nil {
			return "", "", &Error{ErrInvalid, text, err}
		}
	}
	return role, pack, nil
}

// add adds keys.
func (k *keyring) add(role, name string, keys ...signer) {
	if role == rolePackage {
		k.pack[name] = merge(k.pack[name], keys)
	} else {
		k.role[role] = merge(k.role[role], keys)
	}
}

// merge adds keys to others; one that can sign takes the place of its public
// half.
func merge(to, keys []signer) []signer {
	for _, s := range keys {
		i := slices.IndexFunc(to, func(o signer) bool { return o.id == s.id })
		switch {
		case i < 0:
			to = append(to, s)
		case to[i].sign == nil:
			to[i] = s
		}
	}
	return to
}

// openKeys reads a folder of keys. Like ssh it refuses files that others could
// read, and folders that others could change.
func openKeys(dir string, options ...KeyOption) (*keyring, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, &Error{ErrKey, dir, err}
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fail(ErrKey, dir, "others can change this folder (mode %#o)", info.Mode().Perm())
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, &Error{ErrKey, dir, err}
	}
	k := &keyring{dir: dir, role: map[string][]signer{}, pack: map[string][]signer{}}
	for _, o := range options {
		if err := o(k); err != nil {
			return nil, err
		}
	}
	if err := k.fromEnvironment(); err != nil {
		return nil, err
	}
	for _, e := range entries {
		base, is := strings.CutSuffix(strings.TrimRight(e.Name(), ".0123456789"), keySuffix)
		role, name, ok := strings.Cut(base, ".")
		if !is || !ok {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if !slices.Contains(keyRoles, role) {
			return nil, fail(ErrKey, path, "key of role %q: want %s", role, strings.Join(keyRoles, ", "))
		}
		data, err := readSecret(path)
		if err != nil {
			return nil, err
		}
		keys, err := k.parseKeys(data, path)
		if err != nil {
			return nil, err
		}
		k.add(role, name, keys...)
	}
	return k, nil
}

// ofPackage returns the keys at hand that are a package's own.
func (k *keyring) ofPackage(name string) ([]signer, error) {
	if k.getenv == nil || name == defaultKey {
		return k.pack[name], nil
	}
	found, err := k.fromVariable(keyVariable(rolePackage, name))
	return merge(slices.Clone(k.pack[name]), found), err
}

// packageKeys returns the keys that sign the bundles of a package, and whether
// they are its own.
func (k *keyring) packageKeys(name string) (keys []signer, own bool, err error) {
	if keys, err = k.ofPackage(name); err != nil || len(able(keys)) > 0 {
		return able(keys), true, err
	}
	if keys = able(k.pack[defaultKey]); len(keys) > 0 {
		return keys, false, nil
	}
	return nil, false, fail(ErrKey, filepath.Join(k.dir, rolePackage+"."+name+keySuffix), "no key for package %s, and no %s.%s%s", name, rolePackage, defaultKey, keySuffix)
}

// able returns the keys that can sign.
func able(keys []signer) []signer {
	return slices.DeleteFunc(slices.Clone(keys), func(s signer) bool { return s.sign == nil })
}

// public returns the key as bindings hold it.
func (s signer) public() (publicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(s.pub)
	if err != nil {
		return nil, &Error{ErrKey, s.file, err}
	}
	return der, nil
}

// usable returns those of the keys at hand that can sign and are among the
// allowed ones.
func usable(have []signer, allowed []string) []signer {
	return slices.DeleteFunc(able(have), func(s signer) bool { return !slices.Contains(allowed, s.id) })
}

// sign replaces the signatures of metadata by those of all keys at hand that
// may sign for the role; there have to be enough.
func sign[T metadata.Roles](ctx context.Context, m *metadata.Metadata[T], file string, have []signer, allowed []string, threshold int) ([]byte, error) {
	m.ClearSignatures()
	if err := addSignatures(ctx, m, file, usable(have, allowed)); err != nil {
		return nil, err
	}
	if n := len(m.Signatures); n < threshold {
		return nil, fail(ErrKey, file, "%d of the keys that may sign it are at hand, %d are needed", n, threshold)
	}
	data, err := m.ToBytes(false)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return data, nil
}

func addSignatures[T metadata.Roles](ctx context.Context, m *metadata.Metadata[T], file string, keys []signer) error {
	for _, s := range keys {
		by := &forTUF{pub: s.pub, sign: func(message []byte) ([]byte, error) { return s.sign(ctx, message) }}
		if _, err := m.Sign(by); by.err != nil {
			return fmt.Errorf("%s: %w", file, by.err)
		} else if err != nil {
			return fail(ErrKey, s.file, "sign %s: %w", file, err)
		}
	}
	return nil
}

// trustAnchor returns the root.json that lies with the keys.
func (k *keyring) trustAnchor() ([]byte, error) {
	path := filepath.Join(k.dir, trustFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail(ErrKey, path, "not there: publishing starts from the root.json that registry:init left with the keys")
	}
	if err != nil {
		return nil, &Error{ErrKey, path, err}
	}
	return data, nil
}
