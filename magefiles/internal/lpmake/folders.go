package lpmake

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/fother/fother/compiler/source"
)

// stash is the folder of the original installation out of the way, so that the
// patched one can go to its path or make clean cannot reach it.
type stash struct {
	note     string // file that tells of it
	Original string `json:"original"` // where it belongs
	Stashed  string `json:"stashed"`  // where it is
}

// aside moves the folder original aside and puts an empty one in its place.
func aside(note, original string) (*stash, error) {
	if _, err := os.Lstat(original); err != nil {
		return nil, hinted(err, "set LPMAKE_ORIGINAL_DIR to a folder that make leaves alone", "make removed the folder where the original is installed: %v", err)
	}
	s := &stash{note: note, Original: original, Stashed: original + ".fother-original"}
	// What is there was dropped, but not to the end.
	if err := os.RemoveAll(s.Stashed); err != nil {
		return nil, err
	}
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	if err := writeSynced(note, data); err != nil {
		return nil, err
	}
	if err := os.Rename(original, s.Stashed); err != nil {
		return nil, hinted(err, "is it a mount point? LPMAKE_ORIGINAL_DIR must be a folder that can be moved", "%v", err)
	}
	return s, os.Mkdir(original, 0o755)
}

// leftAside returns the stash of an interrupted run, or nil.
func leftAside(note string) (*stash, error) {
	data, err := os.ReadFile(note)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := &stash{note: note}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, &fs.PathError{Op: "read", Path: note, Err: err}
	}
	return s, nil
}

// back moves the folder back, in the place of what is there now.
func (s *stash) back() error {
	if _, err := os.Lstat(s.Stashed); err == nil {
		if err := os.RemoveAll(s.Original); err != nil {
			return err
		}
		if err := os.Rename(s.Stashed, s.Original); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(s.note); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// drop removes the folder: what is in its place is what counts.
func (s *stash) drop() error {
	// First: what is half removed must not come back.
	if err := os.Remove(s.note); err != nil {
		return err
	}
	return os.RemoveAll(s.Stashed)
}

// moveFolder moves a folder to another path, which may be on another file
// system, in the place of what is there.
func moveFolder(to, from string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	err := os.Rename(from, to)
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	if err := source.Copy(to, from); err != nil {
		return err
	}
	return os.RemoveAll(from)
}
