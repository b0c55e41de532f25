package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/specs"
)

// Bounds of what is read from files, in bytes.
const (
	maxPatch       = 1 << 30
	maxDescription = 64 << 10
)

// suffix is that of patch files; [bundle.Suffix] is that of bundles.
const suffix = ".kpatch"

// libcareFileError means that a file is LibCare's own.
type libcareFileError struct{ path string }

func (e *libcareFileError) Error() string {
	return e.path + ": a patch in LibCare's own format, which this program does not read"
}

// Hint says how to get a patch that can be read.
func (e *libcareFileError) Hint() string {
	return "make the patch again from the same source patch: fother-make takes the command line of libcare-patch-make"
}

// file is a patch file or a bundle.
type file struct {
	path string
	// id is the build-id that every patch in the file has to be for, or empty.
	id specs.BuildID
	// level is what LibCare's folders say the level is, and the series then is
	// the default; 0 leaves both to the patch.
	level specs.Level
}

// The first bytes of the kinds of files.
const (
	elfMagic     = "\x7fELF"
	libcareMagic = "KPATCH1"
)

// load reads and decodes the file. What by its first bytes is neither a patch
// nor a bundle is not read at all.
func (f *file) load(t *trust) ([]*kpack.Patch, error) {
	data, err := f.read(t)
	if err != nil {
		return nil, err
	}
	var patches []*kpack.Patch
	if bundle.Is(data) {
		var b *bundle.Bundle
		if b, err = bundle.Decode(data); err == nil {
			patches = b.Patches
		}
	} else {
		var p *kpack.Patch
		if p, err = kpack.Decode(data); err == nil {
			patches = []*kpack.Patch{p}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return f.check(patches)
}

func (f *file) read(t *trust) ([]byte, error) {
	r, size, err := t.open(f.path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	head := make([]byte, 8)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	switch head = head[:n]; {
	case bytes.HasPrefix(head, []byte(libcareMagic)):
		return nil, &libcareFileError{f.path}
	case !bytes.HasPrefix(head, []byte(elfMagic)) && !bundle.Is(head):
		return nil, fmt.Errorf("%s: %w, and not a bundle", f.path, kpack.ErrNotPatch)
	}
	return readAll(r, size, maxPatch)
}

// check holds the patches to what the file's place says of them.
func (f *file) check(patches []*kpack.Patch) ([]*kpack.Patch, error) {
	for i, p := range patches {
		if f.id != "" && p.Target.BuildID != f.id {
			return nil, fmt.Errorf("%s: the patch is for build-id %s, not the one its name says", f.path, p.Target.BuildID)
		}
		if f.level != 0 {
			own := *p
			own.Meta.Series, own.Meta.Level = specs.DefaultSeries, f.level
			patches[i] = &own
		}
	}
	return patches, nil
}
