package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/specs"
)

// A folder of patches holds
//
//	NAME-LEVEL.kpatch.tar.zst           bundles
//	NAME.kpatch                         patches
//	BUILDID.kpatch                      patches whose name says what they are for
//	BUILDID/latest -> N                 LibCare's patch levels: the patch is
//	BUILDID/N/kpatch.bin                  of level N in the series "default",
//	BUILDID/N/description                 this tells people what it is for
//
// Its names are read once. A file whose name says what it is for is not looked
// at before a process runs just that: it costs nothing in a folder of
// thousands. Others have to be decoded to know. Names that begin with a dot
// are left out, as by a shell's *.
//
// Files and folders may be symbolic links, which are held to what
// [trust.resolve] demands of every path: a link that leads out of the folder is
// followed as long as only root and the caller can change it and what it leads
// to. Only latest has to name a number in its own folder.
type folder struct {
	path  string
	trust *trust
	// files are the build-ids of names BUILDID.kpatch, levels those of names
	// BUILDID, in lower case; others tell nothing.
	files, levels map[specs.BuildID]bool
	// others are the names of patches and bundles that do not tell.
	others []string
	// scripts are those that LibCare runs before and after.
	scripts []string
}

const (
	maxEntries = 1 << 20
	// A name of this many digits, 8 bytes, or more is taken for a build-id;
	// cafe.kpatch may be a patch for a café.
	nameDigits = 16
)

// openFolder reads the names of a folder that only root and the caller can
// change.
func openFolder(path string, t *trust) (*folder, error) {
	real, _, err := t.resolve(path)
	if err != nil {
		return nil, err
	}
	dir, err := os.OpenFile(real, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f := &folder{path: path, trust: t, files: make(map[specs.BuildID]bool), levels: make(map[specs.BuildID]bool)}
	const batch = 4096
	for n := 0; ; {
		names, err := dir.Readdirnames(batch)
		for _, name := range names {
			f.add(name)
		}
		if n += len(names); n > maxEntries {
			return nil, fmt.Errorf("%s: more than %d entries", path, maxEntries)
		}
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
	}
	slices.Sort(f.others)
	slices.Sort(f.scripts)
	return f, nil
}

// add notes a name.
func (f *folder) add(name string) {
	switch {
	case strings.HasPrefix(name, "."):
	case strings.HasSuffix(name, suffix):
		if stem := strings.TrimSuffix(name, suffix); len(stem) >= nameDigits && isBuildID(stem) {
			f.files[specs.BuildID(stem)] = true
		} else {
			f.others = append(f.others, name)
		}
	case strings.HasSuffix(name, bundle.Suffix):
		f.others = append(f.others, name)
	case name == "before", name == "after":
		f.scripts = append(f.scripts, name)
	case isBuildID(name):
		f.levels[specs.BuildID(name)] = true
	}
}

// isBuildID reports whether s is a build-id in lower case.
func isBuildID(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	_, err := specs.ParseBuildID(s)
	return err == nil
}

// empty reports whether the folder holds nothing that could be a patch.
func (f *folder) empty() bool {
	return len(f.files)+len(f.levels)+len(f.others) == 0
}

// lookup returns the patches for id that lie under its name.
func (f *folder) lookup(id specs.BuildID) ([]*offer, error) {
	var offers []*offer
	var errs []error
	if f.levels[id] {
		o, err := f.latest(id)
		errs = append(errs, err)
		if o != nil {
			offers = append(offers, o)
		}
	}
	if f.files[id] {
		path := filepath.Join(f.path, string(id)+suffix)
		patches, err := (&file{path: path, id: id}).load(f.trust)
		errs = append(errs, err)
		for _, p := range patches {
			// As in LibCare, the file counts only if there is no latest.
			if len(offers) == 0 || p.Meta.Series != specs.DefaultSeries {
				offers = append(offers, newOffer(p, path))
			}
		}
	}
	return offers, errors.Join(errs...)
}

// latest reads BUILDID/latest and what it leads to, or nothing if there is no
// such link.
func (f *folder) latest(id specs.BuildID) (*offer, error) {
	dir := filepath.Join(f.path, string(id))
	link := filepath.Join(dir, "latest")
	text, err := f.readLink(link)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	number := strings.TrimSuffix(strings.TrimPrefix(text, "./"), "/")
	level, err := strconv.ParseUint(number, 10, 32)
	if err != nil || strconv.FormatUint(level, 10) != number {
		return nil, fmt.Errorf("%s: it leads to %q: want the number of a level, a folder beside it", link, text)
	}
	at := filepath.Join(dir, number)
	o := &offer{path: filepath.Join(at, "kpatch.bin"), notes: filepath.Join(at, "description"), id: id, series: specs.DefaultSeries, level: specs.Level(level)}
	if level == 0 { // LibCare's note that this build is vulnerable; there is no patch
		return o, nil
	}
	patches, err := (&file{path: o.path, id: id, level: o.level}).load(f.trust)
	if err != nil {
		return nil, err
	}
	if len(patches) != 1 {
		return nil, fmt.Errorf("%s: %d patches: want one", o.path, len(patches))
	}
	o.patch, o.name, o.description = patches[0], patches[0].Meta.Name, patches[0].Meta.Description
	return o, nil
}

// readLink returns where a link leads that only root and the caller can
// change.
func (f *folder) readLink(link string) (string, error) {
	dir, _, err := f.trust.resolve(filepath.Dir(link))
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	at := filepath.Join(dir, filepath.Base(link))
	if err := unix.Lstat(at, &st); err != nil {
		return "", &os.PathError{Op: "open", Path: link, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", fmt.Errorf("%s: not a link to the number of a level", link)
	}
	if why := othersOwn(&st); why != "" {
		return "", &unsafeFileError{link, why}
	}
	return os.Readlink(at)
}
