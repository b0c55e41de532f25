package registry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

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
