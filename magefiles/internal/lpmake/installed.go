package lpmake

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// installed is what a build installed.
type installed struct {
	targets []target
	unseen  []string // programs and libraries that no captured link made, relative
}

// findInstalled looks in folder for the deliverables of a build. What was
// there before start and belongs to no file of the tree is of an earlier
// version.
func findInstalled(folder string, c *compiler.Capture, start time.Time) (*installed, error) {
	links := map[specs.BuildID]*compiler.Link{}
	var nameless []*compiler.Link
	for _, l := range c.Deliverables() {
		if l.BuildID == "" {
			nameless = append(nameless, l)
		} else if links[l.BuildID] == nil {
			links[l.BuildID] = l
		}
	}
	in, taken := new(installed), map[string]bool{}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		id, ok := program(path)
		if !ok {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fresh := changed(info).After(start.Add(-time.Second)) // the kernel's clock for files is coarse
		l := links[id]
		if id == "" {
			l = sameName(nameless, path)
		}
		switch {
		case l == nil && fresh:
			rel, err := filepath.Rel(folder, path)
			in.unseen = append(in.unseen, rel)
			return err
		case l != nil && !taken[l.Output] && (fresh || !inside(l.Output, folder)):
			taken[l.Output] = true
			in.targets = append(in.targets, target{Path: path, Output: l.Output, BuildID: id})
		}
		return nil
	})
	if err == nil && len(in.targets) == 0 {
		err = in.nothing(folder)
	}
	return in, err
}

func (in *installed) nothing(folder string) error {
	if len(in.unseen) > 0 {
		return hinted(ErrNeedsClean, hintClean, "%s was linked before, without capture", filepath.Join(folder, in.unseen[0]))
	}
	return hinted(errors.ErrUnsupported, "--destdir names the variable by which the makefile is told where to install, if it is not DESTDIR",
		"make install put no program and no library into %s", folder)
}

// program returns the build-id of the file at path, which may be empty, and
// whether it is an executable or a shared library.
func program(path string) (specs.BuildID, bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	var h [20]byte
	if _, err := f.ReadAt(h[:], 0); err != nil || string(h[:4]) != elf.ELFMAG {
		return "", false
	}
	if t := elf.Type(h[16]); t != elf.ET_EXEC && t != elf.ET_DYN {
		return "", false
	}
	id, err := elfobj.ReadBuildID(f)
	if err != nil {
		id = ""
	}
	return id, true
}

// changed returns when a file was changed in any way.
func changed(info fs.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix())
	}
	return info.ModTime()
}

func sameName(links []*compiler.Link, path string) *compiler.Link {
	for _, l := range links {
		if filepath.Base(l.Output) == filepath.Base(path) {
			return l
		}
	}
	return nil
}

// compareUnseen compares what no captured link made in both installations.
func (in *installed) compareUnseen(original, patched string) error {
	var differ []string
	for _, name := range in.unseen {
		a, err := os.ReadFile(filepath.Join(original, name))
		if err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(patched, name))
		if err != nil || !bytes.Equal(a, b) {
			differ = append(differ, name)
		}
	}
	if len(differ) == 0 {
		return nil
	}
	return hinted(compiler.ErrUnseen, hintClean+"; is the compiler gcc?", "%s: the builds differ, and the linker was not seen: %v",
		strings.Join(differ, ", "), fmt.Errorf("%w", compiler.ErrUnseen))
}
