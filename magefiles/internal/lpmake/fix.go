package lpmake

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fother/fother/compiler/source"
	"github.com/fother/fother/specs"
)

func (s *sources) path(f saved) string { return filepath.Join(s.journal.Tree, f.Name) }

// staged is the folder of what the fix makes of the files.
func (s *sources) staged() string { return filepath.Join(s.folder, "new") }

// stage lets fix work on copies of the files and notes what it makes of them.
func (s *sources) stage(fix func(dir string) error) error {
	if err := s.distinct(); err != nil {
		return err
	}
	if err := os.Mkdir(s.staged(), 0o700); err != nil {
		return err
	}
	for _, f := range s.journal.Files {
		if _, err := s.copyOf(f.Name, f.data); err != nil {
			return err
		}
	}
	if err := s.fix(fix); err != nil {
		return err
	}
	for i := range s.journal.Files {
		f := &s.journal.Files[i]
		data, err := os.ReadFile(filepath.Join(s.staged(), f.Name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		digest := specs.DigestOf(data)
		f.Wrote = &digest
	}
	return nil
}

// fix calls fix, and again with what else it asks for: the files that the fix
// makes copies of.
func (s *sources) fix(fix func(dir string) error) error {
	for {
		err := fix(s.staged())
		var lacks *source.ApplyError
		if !errors.As(err, &lacks) {
			return err
		}
		if more, e := s.copyOf(lacks.File, nil); e != nil || !more {
			return err
		}
	}
}

// copyOf copies a file of the tree to the staged ones, with data in it if that
// is not nil. It reports whether there was something to copy.
func (s *sources) copyOf(name string, data []byte) (bool, error) {
	from, to := filepath.Join(s.journal.Tree, name), filepath.Join(s.staged(), name)
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && data == nil {
		data, err = os.ReadFile(from)
	}
	if err != nil {
		return false, err
	}
	if _, err := os.Lstat(to); err == nil {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return false, err
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		return false, err
	}
	return true, os.Chmod(to, info.Mode().Perm()|0o600)
}

// distinct refuses a fix that names one file twice, by way of a link to a
// folder: one half of it would be lost.
func (s *sources) distinct() error {
	names := map[string]string{}
	for _, f := range s.journal.Files {
		path := s.path(f)
		if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			path = filepath.Join(dir, filepath.Base(path))
		}
		if other, ok := names[path]; ok {
			return hinted(ErrUsage, "let the fix name it once", "%s and %s are one file", other, f.Name)
		}
		names[path] = f.Name
	}
	return nil
}

// apply puts what the fix makes of the files in their places, each in one step,
// with the time of now.
func (s *sources) apply() error {
	for _, f := range s.journal.Files {
		if err := s.applyFile(f); err != nil {
			return err
		}
	}
	return nil
}

func (s *sources) applyFile(f saved) error {
	path := s.path(f)
	if f.Wrote == nil {
		return remove(path)
	}
	from := filepath.Join(s.staged(), f.Name)
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := replaceFile(path, data, info.Mode().Perm()); err != nil {
		return err
	}
	return touch(path)
}

// check returns an error that names each file which is neither what the fix
// made of it nor what it was: somebody has edited it since.
func (s *sources) check() error {
	var edited []string
	for _, f := range s.journal.Files {
		if s.edited(f) {
			edited = append(edited, "\n  "+s.path(f)+": "+s.was(f))
		}
	}
	if len(edited) == 0 {
		return nil
	}
	return hinted(ErrEdited, "nothing is lost and nothing was restored: each of these has the fix in it and what was changed since. "+
		"Move it out of the way (mv FILE FILE.mine) and run this again: the original comes back, and then bring your changes over",
		"%v:%s", ErrEdited, strings.Join(edited, ""))
}

// was says what a file was before the fix.
func (s *sources) was(f saved) string {
	switch {
	case f.Link != "":
		return "it was a link to " + f.Link
	case f.Kept == "":
		return "the fix adds it, there is no original"
	}
	return "the original is kept in " + filepath.Join(s.folder, f.Kept)
}

// edited reports whether there is a file that would be lost if f was restored.
func (s *sources) edited(f saved) bool {
	path := s.path(f)
	original, kept := s.original(f)
	if f.Kept != "" && !kept {
		return false // an interrupted restore brought it: nothing will be done
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false
	case err != nil:
		return true
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(path)
		return err != nil || f.Link == "" || to != f.Link
	case !info.Mode().IsRegular():
		return true
	}
	data, err := os.ReadFile(path)
	switch {
	case err != nil:
		return true
	case f.Wrote != nil && specs.DigestOf(data) == *f.Wrote:
		return false
	}
	return !kept || string(data) != string(original)
}

// original returns what was in a file, if that is known.
func (s *sources) original(f saved) ([]byte, bool) {
	if f.Kept == "" {
		return nil, false
	}
	if data, err := os.ReadFile(filepath.Join(s.folder, f.Kept)); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return data, err == nil
	}
	return f.data, f.data != nil
}

// removed names the files that are not there, which neither the fix nor a run
// has removed.
func (s *sources) removed() (names []string) {
	for _, f := range s.journal.Files {
		_, err := os.Lstat(s.path(f))
		if errors.Is(err, fs.ErrNotExist) && f.Wrote != nil && (f.Kept != "" || f.Link != "") {
			names = append(names, f.Name)
		}
	}
	return names
}

// counted is a number of files.
func counted(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}
