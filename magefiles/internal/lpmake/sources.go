package lpmake

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/fother/fother/specs"
)

// sources keeps the files that a fix touches, so that they come back whatever
// happens: after a SIGKILL the next run finds the journal.
//
// A file is kept by a hard link where that is possible: apply puts new files in
// the place of those that it changes.
type sources struct {
	folder  string // of the journal and of what is kept
	journal journal
}

// journal is what stands in the file of that name.
type journal struct {
	Tree  string  `json:"tree"` // absolute
	Files []saved `json:"files"`
	// Folders are those that the fix makes, outermost first, relative to Tree.
	Folders []string `json:"folders,omitempty"`
}

// saved is one file.
type saved struct {
	Name string `json:"name"`           // relative to the tree
	Kept string `json:"kept,omitempty"` // where it is in the folder; empty if it was not there or is a link
	Link string `json:"link,omitempty"` // target of the symbolic link that it was
	// Wrote is of what the fix makes of it; nil if it removes the file.
	Wrote *specs.Digest `json:"wrote,omitempty"`

	data []byte // a second copy, should the folder be lost
	mode fs.FileMode
}

func journalAt(folder string) string { return filepath.Join(folder, "journal.json") }

// keep keeps the files of names, which are relative to tree, in folder, and
// beside them what fix, which is called with a folder, makes of them: the tree
// is not changed before apply. A journal that is there already is that of
// another run and must be restored first.
func keep(folder, tree string, names []string, fix func(dir string) error) (*sources, error) {
	if err := os.RemoveAll(folder); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	s := &sources{folder: folder, journal: journal{Tree: tree}}
	for i, name := range names {
		f, err := s.save(name, strconv.Itoa(i))
		if err != nil {
			return nil, err
		}
		s.journal.Files = append(s.journal.Files, f)
		s.folders(name)
	}
	if err := s.stage(fix); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(s.journal, "", "\t")
	if err != nil {
		return nil, err
	}
	return s, writeSynced(journalAt(folder), data)
}

func (s *sources) save(name, kept string) (saved, error) {
	f := saved{Name: name}
	path := filepath.Join(s.journal.Tree, name)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, nil
	case err != nil:
		return f, err
	case info.Mode()&fs.ModeSymlink != 0:
		f.Link, err = os.Readlink(path)
		return f, err
	}
	f.Kept, f.mode = kept, info.Mode().Perm()
	if f.data, err = os.ReadFile(path); err != nil {
		return f, err
	}
	to := filepath.Join(s.folder, kept)
	if os.Link(path, to) == nil {
		return f, nil
	}
	return f, copyFile(to, path)
}

// folders notes the parents of name that are not there.
func (s *sources) folders(name string) {
	var missing []string
	for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(filepath.Join(s.journal.Tree, dir)); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, dir)
		}
	}
	slices.Reverse(missing)
	for _, dir := range missing {
		if !slices.Contains(s.journal.Folders, dir) {
			s.journal.Folders = append(s.journal.Folders, dir)
		}
	}
}

// unfinished returns the sources that an interrupted run left in folder, or
// nil if there are none.
func unfinished(folder string) (*sources, error) {
	data, err := os.ReadFile(journalAt(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := &sources{folder: folder}
	if err := json.Unmarshal(data, &s.journal); err != nil {
		return nil, &fs.PathError{Op: "read", Path: journalAt(folder), Err: err}
	}
	return s, nil
}

// restore puts every file back as it was, with the time of now, so that make
// builds again what it built from the patched ones. If check finds an edit,
// nothing is done. It goes on after an error, and may be done again.
func (s *sources) restore() error {
	if err := s.check(); err != nil {
		return err
	}
	var errs []error
	for _, f := range s.journal.Files {
		_ = os.Remove(near(s.path(f))) // of an interrupted run
		errs = append(errs, s.restoreFile(f))
	}
	for _, dir := range slices.Backward(s.journal.Folders) {
		_ = os.Remove(filepath.Join(s.journal.Tree, dir)) // the build may have put something there
	}
	if err := errors.Join(errs...); err != nil {
		return hinted(err, "what is kept is in "+s.folder+"; the next run tries again", "the sources could not be restored: %v", err)
	}
	// First: without the originals it would tell nothing.
	if err := remove(journalAt(s.folder)); err != nil {
		return err
	}
	return os.RemoveAll(s.folder)
}

func (s *sources) restoreFile(f saved) error {
	path := s.path(f)
	switch {
	case f.Link != "":
		if have, err := os.Readlink(path); err != nil || have != f.Link {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := os.Symlink(f.Link, path); err != nil {
				return err
			}
		}
	case f.Kept == "":
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	default:
		if err := s.bring(f, path); err != nil {
			return err
		}
	}
	return touch(path)
}

// bring moves a kept file to path.
func (s *sources) bring(f saved, path string) error {
	kept := filepath.Join(s.folder, f.Kept)
	if _, err := os.Lstat(kept); errors.Is(err, fs.ErrNotExist) {
		if f.data == nil {
			return nil // an interrupted restore brought it
		}
		if have, err := os.ReadFile(path); err == nil && string(have) == string(f.data) {
			return nil
		}
		if err := os.WriteFile(kept, f.data, f.mode); err != nil {
			// The folder is gone as well.
			return replaceFile(path, f.data, f.mode)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Rename(kept, path); errors.Is(err, syscall.EXDEV) {
		if err := copyFile(near(path), kept); err != nil {
			return err
		}
		if err := os.Rename(near(path), path); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	// Two names of one file are not renamed, rename(2).
	if err := os.Remove(kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// near is where the new content of a file is written, to be moved to it in one
// step.
func near(path string) string { return path + ".fother-new" }

func replaceFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.WriteFile(near(path), data, mode); err != nil {
		return err
	}
	return os.Rename(near(path), path)
}

// touch gives a file, or that which a link leads to, the time of now.
func touch(path string) error {
	now := time.Now()
	if err := os.Chtimes(path, now, now); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// copyFile copies a file with its permissions and, if that is allowed, its
// owner.
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
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = out.Chown(int(st.Uid), int(st.Gid)) // only root may give files away
	}
	if err := out.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return out.Close()
}

// writeSynced puts data at path in one step, and on the disk.
func writeSynced(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
