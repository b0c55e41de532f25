package compiler

import (
	"bytes"
	"debug/elf"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fother/fother/compiler/internal/store"
	"github.com/fother/fother/kpack/elfobj"
)

const (
	hintNothing = "is the compiler gcc or clang, and does the build use it? Capture works through gcc's COMPILER_PATH; a build that clears its " +
		"environment, or whose tree was built before, runs no compiler that it could see. Try CC=fother-cc CXX=fother-c++, and a clean tree"
	hintBuildID = "link with -Wl,--build-id: LDFLAGS=-Wl,--build-id, or the build system's own way"
)

// finish looks at the tree after a build and checks that something that can
// be patched was captured. It does not count what stood there earlier.
func finish(s *store.Store, o Options, start time.Time, earlier []written) error {
	files, err := o.linkedSince(s, start)
	if err != nil {
		return err
	}
	var linked []store.Linked
	for _, f := range files {
		if !slices.Contains(earlier, f) {
			linked = append(linked, f.Linked)
		}
	}
	if err := s.PutLinked(o.Stage, linked); err != nil {
		return storeHint(err)
	}
	c, err := Load(s.Dir(), o.Stage)
	if err != nil {
		return err
	}
	switch deliverables := c.Deliverables(); {
	case len(c.Units) == 0 && len(c.Links) == 0:
		return hint(hintNothing, "%w: no assembler and no linker was seen", ErrNothingCaptured)
	case len(deliverables) == 0 && len(c.Unseen) > 0:
		return hint(hintNothing, "%w: %s was linked by a linker that was not seen", ErrNothingCaptured, c.Unseen[0].Path)
	case len(deliverables) == 0:
		return hint(hintNothing, "%w: %d units were seen, but no program or library was linked", ErrNothingCaptured, len(c.Units))
	default:
		for _, l := range deliverables {
			if l.BuildID != "" {
				return nil
			}
		}
		return hint(hintBuildID, "%s: %w: its running copies could not be told", deliverables[0].Output, ErrNoBuildID)
	}
}

// written is a linked file as it was written at one time.
type written struct {
	store.Linked
	inode   uint64
	changed int64 // status change, nanoseconds since 1970
}

// linkedSince returns the executables and shared libraries in the tree and the
// build's other folders that were written since start, sorted by path in each.
// Because time stamps are coarse, what was written up to a second before may be
// among them, such as what configuring left.
func (o *Options) linkedSince(s *store.Store, start time.Time) ([]written, error) {
	skip := append([]string{s.Dir()}, o.Skip...)
	linked, err := findLinked(o.Dir, skip, start)
	if err != nil {
		return nil, err
	}
	for _, dir := range o.Folders {
		if strings.HasPrefix(dir+"/", o.Dir+"/") {
			continue
		}
		found, err := findLinked(dir, skip, start)
		if err != nil {
			return nil, err
		}
		linked = append(linked, found...)
	}
	return linked, nil
}

// findLinked returns the executables and shared libraries in folder dir that
// were written since start, sorted by path. It leaves out the folders skip.
func findLinked(dir string, skip []string, start time.Time) ([]written, error) {
	var found []written
	// Time stamps have the granularity of the kernel's tick.
	start = start.Add(-time.Second)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains(skip, path) {
			return filepath.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil || info.ModTime().Before(start) && statusChange(info).Before(start) || info.Size() < 64 {
			return nil
		}
		l, ok, err := linkedFile(path)
		if ok {
			w := written{Linked: l, changed: statusChange(info).UnixNano()}
			if st, is := info.Sys().(*syscall.Stat_t); is {
				w.inode = st.Ino
			}
			found = append(found, w)
		}
		return err
	})
	return found, err
}

// linkedFile describes the file at path if it is an executable or shared
// library. What cannot be read is none.
func linkedFile(path string) (store.Linked, bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return store.Linked{}, false, nil
	}
	defer f.Close()
	var h [20]byte
	if _, err := f.ReadAt(h[:], 0); err != nil || !bytes.HasPrefix(h[:], []byte(elf.ELFMAG)) {
		return store.Linked{}, false, nil
	}
	if t := elf.Type(h[16]); t != elf.ET_EXEC && t != elf.ET_DYN {
		return store.Linked{}, false, nil
	}
	l := store.Linked{Path: path}
	if id, err := elfobj.ReadBuildID(f); err == nil {
		l.BuildID = id
	}
	l.Digest, err = store.DigestFile(path)
	return l, err == nil, err
}
