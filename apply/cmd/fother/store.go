package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// offer is a patch that a store has for a build-id.
type offer struct {
	// patch is nil where LibCare's level 0 tells that a build is vulnerable, and
	// where it has to be read again.
	patch *kpack.Patch
	again bool
	// path is of the file that holds it.
	path        string
	id          specs.BuildID
	series      specs.Series
	level       specs.Level
	name        string
	description string
	// notes is the path of a file that may hold another description.
	notes string
}

func newOffer(p *kpack.Patch, path string) *offer {
	m := p.Meta
	return &offer{patch: p, path: path, id: p.Target.BuildID, series: m.Series, level: m.Level, name: m.Name, description: m.Description}
}

// store is all that was named on the command line: patch files, bundles and
// folders of them.
type store struct {
	trust   *trust
	folders []*folder
	// named is set if a file was named, not only folders.
	named bool
	// loaded are the patches of files that had to be decoded to know what they
	// are for, in order; known are the same by build-id.
	loaded []*offer
	known  map[specs.BuildID][]*offer
	// found remembers what lookup returned.
	found map[specs.BuildID]found
	// kept are the bytes of patches from folders that are kept in memory.
	kept uint64
}

// maxKept bounds the patches from folders that are kept in memory before it is
// known whether anything runs what they are for, in bytes. Others are read
// again then.
const maxKept = 16 << 20

type found struct {
	offers []*offer
	err    error
}

// openStore opens files and folders. Errors: what is wrong with any of the
// files that have to be read to know what they are for.
func openStore(args []string) (*store, error) {
	s := &store{trust: newTrust(), known: make(map[specs.BuildID][]*offer), found: make(map[specs.BuildID]found)}
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			if err := s.load(arg, true); err != nil {
				return nil, err
			}
			s.named = true
			continue
		}
		if slices.Contains(strings.Split(arg, "/"), "..") {
			// What is below it is named by paths that are made shorter.
			if arg, _, err = s.trust.resolve(arg); err != nil {
				return nil, err
			}
		}
		f, err := openFolder(arg, s.trust)
		if err != nil {
			return nil, err
		}
		for _, name := range f.others {
			if err := s.load(filepath.Join(arg, name), false); err != nil {
				return nil, err
			}
		}
		s.folders = append(s.folders, f)
	}
	return s, nil
}

// load decodes a file whose name does not tell what it is for.
func (s *store) load(path string, keep bool) error {
	patches, err := (&file{path: path}).load(s.trust)
	if err != nil {
		return err
	}
	for _, p := range patches {
		o := newOffer(p, path)
		for _, section := range p.Sections {
			s.kept += section.Size
		}
		if !keep && s.kept > maxKept && len(s.loaded) >= mostTold {
			o.patch, o.again = nil, true
		}
		s.loaded = append(s.loaded, o)
		s.known[o.id] = append(s.known[o.id], o)
	}
	return nil
}

// noPatchesError means that a folder holds nothing that could be a patch.
type noPatchesError struct{ path string }

func (e *noPatchesError) Error() string {
	return e.path + ": holds no .kpatch files, no bundles and no folders named by build-ids"
}

// empty returns an error if one of the folders is empty.
func (s *store) empty() error {
	for _, f := range s.folders {
		if f.empty() {
			return &noPatchesError{f.path}
		}
	}
	return nil
}

// indexed reports whether some of the names told what they are for, so that
// not all files were read.
func (s *store) indexed() bool {
	for _, f := range s.folders {
		if len(f.files)+len(f.levels) > 0 {
			return true
		}
	}
	return false
}

// scripts returns those that LibCare would have run.
func (s *store) scripts() []string {
	var all []string
	for _, f := range s.folders {
		for _, name := range f.scripts {
			all = append(all, filepath.Join(f.path, name))
		}
	}
	return all
}

// lookup returns all patches for an object of build-id id.
func (s *store) lookup(id specs.BuildID) ([]*offer, error) {
	if f, ok := s.found[id]; ok {
		return f.offers, f.err
	}
	f := found{offers: s.known[id]}
	var errs []error
	for _, dir := range s.folders {
		more, err := dir.lookup(id)
		errs = append(errs, err)
		f.offers = append(f.offers[:len(f.offers):len(f.offers)], more...)
	}
	for _, o := range f.offers {
		errs = append(errs, s.reload(o))
	}
	f.err = errors.Join(errs...)
	s.found[id] = f
	return f.offers, f.err
}

// concerns reports whether there is anything for objects with one of these
// build-ids, or anything wrong with what there is.
func (s *store) concerns(ids []specs.BuildID) bool {
	return slices.ContainsFunc(ids, func(id specs.BuildID) bool {
		offers, err := s.lookup(id)
		return len(offers) > 0 || err != nil
	})
}

// reload reads a patch again that was not kept.
func (s *store) reload(o *offer) error {
	if !o.again {
		return nil
	}
	patches, err := (&file{path: o.path}).load(s.trust)
	if err != nil {
		return err
	}
	for _, p := range patches {
		if p.Target.BuildID == o.id && p.Meta.Series == o.series && p.Meta.Level == o.level {
			o.patch, o.again = p, false
			return nil
		}
	}
	return fmt.Errorf("%s: replaced while it was read", o.path)
}

// describe returns what an offer says it is for.
func (s *store) describe(o *offer) (string, error) {
	if o.notes == "" {
		return o.description, nil
	}
	b, err := s.trust.read(o.notes, maxDescription)
	if errors.Is(err, os.ErrNotExist) {
		return o.description, nil
	}
	return string(b), err
}

// patches returns those for any of the objects. One that cannot be read is an
// error: a process gets all that is there for it, or nothing.
func (s *store) patches(objects []apply.ObjectInfo) ([]*kpack.Patch, error) {
	var all []*kpack.Patch
	var errs []error
	seen := make(map[specs.BuildID]bool)
	for _, o := range objects {
		if o.BuildID == "" || seen[o.BuildID] {
			continue
		}
		seen[o.BuildID] = true
		offers, err := s.lookup(o.BuildID)
		errs = append(errs, err)
		for _, offer := range offers {
			if offer.patch != nil {
				all = append(all, offer.patch)
			}
		}
	}
	return all, errors.Join(errs...)
}

// given returns all patches of files that were decoded, and kept.
func (s *store) given() []*kpack.Patch {
	var all []*kpack.Patch
	for _, o := range s.loaded {
		if o.patch != nil {
			all = append(all, o.patch)
		}
	}
	return all
}

// noneFitError means that no patch of the folders is for an object of the
// process.
type noneFitError struct {
	folders []string
	objects []apply.ObjectInfo
}

func (s *store) noneFit(objects []apply.ObjectInfo) error {
	e := &noneFitError{objects: objects}
	for _, f := range s.folders {
		e.folders = append(e.folders, f.path)
	}
	return e
}

func (e *noneFitError) Error() string {
	var have []string
	for _, o := range e.objects {
		if o.BuildID != "" {
			have = append(have, fmt.Sprintf("%s with build-id %s", o.Path, o.BuildID))
		}
	}
	run := "no object with a build-id"
	if len(have) > 0 {
		run = have[0]
	}
	if len(have) > 1 {
		run += fmt.Sprintf(" and %d more", len(have)-1)
	}
	return fmt.Sprintf("no patch fits: %s has none for what the process runs, %s", strings.Join(e.folders, ", "), run)
}

// ExitCode says that this is a refusal.
func (e *noneFitError) ExitCode() int { return exitRefused }

// Hint is that of [apply.NoFitError].
func (e *noneFitError) Hint() string { return hint(&apply.NoFitError{}) }
