package source

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Copy copies the tree src to dst, which must be missing or an empty folder:
// folders, regular files and symbolic links, with their permissions and times,
// since make goes by times. What else there is, sockets for example, is left
// out, and so are the folders and files at the absolute paths skip, and dst
// itself if it lies in src.
func Copy(dst, src string, skip ...string) error {
	dst, err := filepath.Abs(dst)
	if err != nil {
		return err
	}
	if src, err = filepath.Abs(src); err != nil {
		return err
	}
	if src, err = filepath.EvalSymlinks(src); err != nil {
		return err
	}
	if entries, err := os.ReadDir(dst); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s: not empty", dst)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return err
	}
	c := copier{skip: append(slices.Clone(skip), dst)}
	if real, err := filepath.EvalSymlinks(dst); err == nil {
		c.skip = append(c.skip, real)
	}
	return c.dir(dst, src)
}

type copier struct{ skip []string }

// dir copies what src holds to the folder dst.
func (c *copier) dir(dst, src string) error {
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := filepath.Join(src, e.Name()), filepath.Join(dst, e.Name())
		if slices.Contains(c.skip, from) {
			continue
		}
		if err := c.entry(to, from, e.Type()); err != nil {
			return err
		}
	}
	// Last: writing in it changes a folder's time, and may need permissions
	// that the original lacks.
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	if err := os.Chmod(dst, info.Mode().Perm()); err != nil {
		return err
	}
	return os.Chtimes(dst, info.ModTime(), info.ModTime())
}

func (c *copier) entry(to, from string, mode fs.FileMode) error {
	switch {
	case mode.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		return c.dir(to, from)
	case mode.IsRegular():
		return copyFile(to, from)
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	if err := out.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Chtimes(to, info.ModTime(), info.ModTime())
}
