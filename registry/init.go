package registry

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"golang.org/x/sys/unix"
)

// InitOptions say where a new registry is made.
type InitOptions struct {
	// URL is where the registry is to be: a folder's path, or an address. The
	// place may exist, without a registry in it.
	URL string
	// Keys is the folder for the keys, made with mode 0700; it may exist if it
	// is empty. Keep it apart from the registry: who has it owns that.
	Keys string
	// RootKeys is how many keys of root there are, RootThreshold how many of them
	// have to sign; 0 is 1.
	RootKeys, RootThreshold int
	// Passphrase, if there is one, encrypts the keys that are made.
	Passphrase []byte
	// More are keys that are kept elsewhere: for their roles none is made.
	More []KeyOption
	// Now is the clock, time.Now if nil.
	Now func() time.Time
}

// Init makes keys and an empty registry, and returns its root.json, which lies
// with the keys too: clients trust the registry by it alone. It overwrites
// nothing.
func Init(ctx context.Context, o InitOptions) ([]byte, error) {
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	s, err := openStore(o.URL)
	if err != nil {
		return nil, err
	}
	if err := o.vacant(ctx, s); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(o.Keys)), 0o755); err != nil {
		return nil, &Error{ErrKey, o.Keys, err}
	}
	keys, err := os.MkdirTemp(filepath.Dir(filepath.Clean(o.Keys)), ".keys-*")
	if err != nil {
		return nil, &Error{ErrKey, o.Keys, err}
	}
	defer os.RemoveAll(keys)
	root, ring, err := o.makeKeys(ctx, keys, now())
	if err != nil {
		return nil, err
	}
	// Onto an empty folder, or nothing; rename(2) refuses anything else. The
	// keys come first: a registry without keys could not be mended.
	if err := unix.Rename(keys, filepath.Clean(o.Keys)); err != nil {
		return nil, &Error{ErrKey, o.Keys, err}
	}
	if err := syncDir(filepath.Dir(filepath.Clean(o.Keys))); err != nil {
		return nil, &Error{ErrKey, o.Keys, err}
	}
	ring.dir = o.Keys
	// Once the registry may be there its keys stay, come what may.
	if made, err := initStore(ctx, s, ring, root, now()); err != nil {
		if !made {
			os.RemoveAll(o.Keys) // made a moment ago
		}
		return nil, err
	}
	return root, nil
}

// vacant fails if there is a registry or a key already.
func (o *InitOptions) vacant(ctx context.Context, s store) error {
	if there, err := holdsRegistry(ctx, s); err != nil {
		return err
	} else if there {
		return fail(ErrExists, Redacted(o.URL), "holds a registry already")
	}
	if entries, err := os.ReadDir(o.Keys); len(entries) > 0 {
		return fail(ErrExists, o.Keys, "this folder is not empty: keys are never overwritten")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &Error{ErrKey, o.Keys, err}
	}
	return nil
}

// makeKeys fills a folder with a key for each role that has none elsewhere, and
// with the root.json that names them.
func (o *InitOptions) makeKeys(ctx context.Context, dir string, now time.Time) ([]byte, *keyring, error) {
	given, err := openKeys(dir, o.More...)
	if err != nil {
		return nil, nil, err
	}
	want, threshold := max(o.RootKeys, 1), max(o.RootThreshold, 1)
	if want > maxRoleKeys || threshold > want {
		return nil, nil, fail(ErrKey, metadata.ROOT, "%d of %d keys: want at most %d, and no more to sign than there are", threshold, want, maxRoleKeys)
	}
	for _, role := range keyRoles {
		names := []string{"1"}
		switch role {
		case metadata.ROOT:
			for n := 2; n <= want; n++ {
				names = append(names, strconv.Itoa(n))
			}
		case rolePackage:
			names[0] = defaultKey
			given.role[role] = given.pack[defaultKey]
		}
		for _, name := range names[min(len(given.role[role]), len(names)):] {
			if err := makeKey(filepath.Join(dir, role+"."+name+keySuffix), o.Passphrase); err != nil {
				return nil, nil, err
			}
		}
	}
	ring, err := openKeys(dir, o.More...)
	if err != nil {
		return nil, nil, err
	}
	if len(o.Passphrase) > 0 {
		ring.phrase = o.Passphrase
	}
	m := metadata.Root(expiry(now, rootValidity))
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		for _, s := range ring.role[role] {
			if err := addRootKey(m, role, s); err != nil {
				return nil, nil, err
			}
		}
	}
	m.Signed.Roles[metadata.ROOT].Threshold = threshold
	root, err := ring.signRoot(ctx, m)
	if err != nil {
		return nil, nil, err
	}
	return root, ring, writeAtomic(dir, filepath.Join(dir, trustFile), root, 0o644, true)
}

// addRootKey lets a key sign for a role of root.json.
func addRootKey(m *metadata.Metadata[metadata.RootType], role string, s signer) error {
	k, err := metadata.KeyFromPublicKey(s.pub)
	if err == nil {
		err = m.Signed.AddKey(k, role)
	}
	if err != nil {
		return &Error{ErrKey, s.file, err}
	}
	return nil
}

// expiry returns the moment until which something signed now holds, in whole
// seconds, as TUF wants it.
func expiry(now time.Time, validity time.Duration) time.Time {
	return now.Add(validity).UTC().Truncate(time.Second)
}

// signRoot signs a root with all keys at hand that it names itself.
func (k *keyring) signRoot(ctx context.Context, m *metadata.Metadata[metadata.RootType]) ([]byte, error) {
	r := m.Signed.Roles[metadata.ROOT]
	return sign(ctx, m, metadataFile(m.Signed.Version, metadata.ROOT), k.role[metadata.ROOT], r.KeyIDs, r.Threshold)
}
