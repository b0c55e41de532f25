package source

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
)

// checkLinks calls checkLink for all symbolic links below root.
func checkLinks(root *os.Root) error {
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type() == fs.ModeSymlink {
			err = checkLink(root, name)
		}
		return err
	})
}

// checkLink reports an [UnsafeError] if the symbolic link at name leads out of
// root, as it stands or by way of other links. It may lead nowhere: a build can
// make what it leads to.
func checkLink(root *os.Root, name string) error {
	target, err := root.Readlink(name)
	if err != nil {
		return err
	}
	// As written: what is missing now may be there later, and the link would
	// lead on to what comes after it.
	if path.IsAbs(target) || !filepath.IsLocal(path.Join(path.Dir(name), target)) {
		return &UnsafeError{name, "is a link that leads out of the tree, to " + target}
	}
	_, err = root.Stat(name)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR):
		return nil
	}
	return &UnsafeError{name, "is a link that leads out of the tree by way of another"}
}
