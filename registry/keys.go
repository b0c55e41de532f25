package registry

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
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

// signer is a private key.
type signer struct {
	signature.Signer
	id   string // as in TUF
	file string // where it is from, for errors
	pub  crypto.PublicKey
}

// keyring holds the private keys of a folder. A file is named ROLE.NAME.pem:
// for a role of TUF, NAME is free and every key that the metadata list for the
// role signs; for role package, NAME is the package, or "default".
type keyring struct {
	dir  string
	role map[string][]signer // by role
	pack map[string]signer   // by package
}

const (
	keySuffix    = ".pem"
	keyMode      = 0o600
	keyBlock     = "PRIVATE KEY" // PKCS #8, RFC 5958
	maxKeyFile   = 64 << 10
	defaultKey   = "default"
	trustFile    = "root.json"
	lastSeenFile = "timestamp.json"
)

// openKeys reads a folder of keys. Like ssh it refuses files that others could
// read, and folders that others could change.
func openKeys(dir string) (*keyring, error) {
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
	k := &keyring{dir: dir, role: map[string][]signer{}, pack: map[string]signer{}}
	for _, e := range entries {
		role, name, ok := strings.Cut(strings.TrimSuffix(e.Name(), keySuffix), ".")
		if !strings.HasSuffix(e.Name(), keySuffix) || !ok {
			continue
		}
		if !slices.Contains(keyRoles, role) {
			return nil, fail(ErrKey, filepath.Join(dir, e.Name()), "key of role %q: want %s", role, strings.Join(keyRoles, ", "))
		}
		s, err := readKey(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if role == rolePackage {
			k.pack[name] = s
			continue
		}
		k.role[role] = append(k.role[role], s)
	}
	return k, nil
}

// packageKey returns the key that signs the bundles of a package.
func (k *keyring) packageKey(name string) (signer, error) {
	if s, ok := k.pack[name]; ok {
		return s, nil
	}
	if s, ok := k.pack[defaultKey]; ok {
		return s, nil
	}
	return signer{}, fail(ErrKey, filepath.Join(k.dir, rolePackage+"."+name+keySuffix), "no key for package %s, and no %s.%s%s", name, rolePackage, defaultKey, keySuffix)
}

func readKey(path string) (signer, error) {
	data, err := readSecret(path)
	if err != nil {
		return signer{}, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != keyBlock {
		return signer{}, fail(ErrKey, path, "want a PEM block %q that is not encrypted", keyBlock)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return signer{}, &Error{ErrKey, path, err}
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return signer{}, fail(ErrKey, path, "%T: want Ed25519", key)
	}
	return newSigner(private, path)
}

// readSecret reads a small regular file that nobody but its owner can read.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, &Error{ErrKey, path, err}
	}
	switch {
	case !info.Mode().IsRegular() || info.Size() > maxKeyFile:
		return nil, fail(ErrKey, path, "not a key file")
	case info.Mode().Perm()&0o077 != 0:
		return nil, fail(ErrKey, path, "others can read this key (mode %#o): it is not used", info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &Error{ErrKey, path, err}
	}
	return data, nil
}

func newSigner(private ed25519.PrivateKey, path string) (signer, error) {
	s, err := signature.LoadED25519Signer(private)
	if err != nil {
		return signer{}, &Error{ErrKey, path, err}
	}
	id, err := keyID(private.Public())
	if err != nil {
		return signer{}, &Error{ErrKey, path, err}
	}
	return signer{s, id, path, private.Public()}, nil
}

// makeKey makes a key and its file, which must not exist.
func makeKey(path string) (signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return signer{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return signer{}, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, keyMode)
	if err != nil {
		return signer{}, &Error{ErrKey, path, err}
	}
	if err := errors.Join(pem.Encode(f, &pem.Block{Type: keyBlock, Bytes: der}), f.Sync(), f.Close()); err != nil {
		return signer{}, &Error{ErrKey, path, err}
	}
	return newSigner(private, path)
}

// public returns the key as bindings hold it.
func (s signer) public() (publicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(s.pub)
	if err != nil {
		return nil, &Error{ErrKey, s.file, err}
	}
	return der, nil
}

// usable returns those of the keys at hand that are among the allowed ones.
func usable(have []signer, allowed []string) []signer {
	return slices.DeleteFunc(slices.Clone(have), func(s signer) bool { return !slices.Contains(allowed, s.id) })
}

// sign replaces the signatures of metadata by those of all keys at hand that
// may sign for the role; there have to be enough.
func sign[T metadata.Roles](m *metadata.Metadata[T], file string, have []signer, allowed []string, threshold int) ([]byte, error) {
	m.ClearSignatures()
	for _, s := range usable(have, allowed) {
		if _, err := m.Sign(s); err != nil {
			return nil, fail(ErrKey, s.file, "sign %s: %w", file, err)
		}
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
