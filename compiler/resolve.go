package compiler

import (
	"path/filepath"
	"strings"

	"github.com/fother/fother/compiler/internal/fingerprint"
	"github.com/fother/fother/compiler/internal/store"
	"github.com/fother/fother/specs"
)

// resolver finds out what made the inputs of links.
type resolver struct {
	store    *store.Store
	capture  *Capture
	units    map[specs.Digest][]*Unit
	partial  map[specs.Digest]*Link       // relocatable links by output
	children map[string][]*Unit           // by the link that ran the assembler
	prints   map[fingerprint.Print]*Input // what made an object, by what it holds; filled when needed
}

func newResolver(s *store.Store, c *Capture) *resolver {
	r := &resolver{store: s, capture: c, units: map[specs.Digest][]*Unit{}, partial: map[specs.Digest]*Link{}, children: map[string][]*Unit{}}
	for _, u := range c.Units {
		r.units[u.ObjectDigest] = append(r.units[u.ObjectDigest], u)
		if u.run != "" {
			r.children[u.run] = append(r.children[u.run], u)
		}
	}
	for _, l := range c.Links {
		if l.Kind == Relocatable {
			r.partial[l.Digest] = l
		}
	}
	return r
}

// resolve fills in the inputs of the capture's links from their records.
func (r *resolver) resolve(links []*store.Link) {
	for i, l := range r.capture.Links {
		r.link(l, links[i])
	}
}

func (r *resolver) link(l *Link, record *store.Link) {
	children := r.children[l.run]
	taken := map[*Unit]bool{}
	for _, in := range record.Inputs {
		out := Input{Path: in.Path, Member: in.Member, Digest: in.Digest, Gone: in.Gone}
		if in.Gone {
			out.Unit = childAt(children, in.Path)
			taken[out.Unit] = true
		} else {
			r.find(&out, l)
		}
		if out.Unit == nil && out.Link == nil {
			out.NoText = r.capture.noText[out.Digest]
		}
		if !replaced(out, children) {
			l.Inputs = append(l.Inputs, out)
		}
	}
	// Not every linker's map names the optimizer's objects.
	for _, u := range children {
		if !taken[u] {
			l.Inputs = append(l.Inputs, Input{Path: u.ObjectPath, Digest: u.ObjectDigest, Unit: u, Gone: true})
		}
	}
}

// childAt returns the last unit that was assembled to path in a link.
func childAt(children []*Unit, path string) *Unit {
	for i := len(children) - 1; i >= 0; i-- {
		if children[i].ObjectPath == path {
			return children[i]
		}
	}
	return nil
}

// replaced reports whether link-time optimization put the given units in the
// place of an input: one that holds intermediate code, or one of those with
// debug information only that gcc's lto-wrapper makes from it.
func replaced(in Input, children []*Unit) bool {
	if len(children) == 0 {
		return false
	}
	return in.Unit != nil && in.Unit.LTO || in.Gone && in.Unit == nil && strings.HasSuffix(in.Path, ".debug.temp.o")
}

// find sets in.Unit or in.Link: what made an object with these bytes or, if
// strip or objcopy changed it, with these sections.
func (r *resolver) find(in *Input, l *Link) {
	if in.Unit = bestUnit(r.units[in.Digest], *in); in.Unit != nil {
		return
	}
	if in.Link = r.partial[in.Digest]; in.Link != nil && in.Link != l {
		return
	}
	in.Link = nil
	print, err := fingerprint.Of(r.store.Blob(in.Digest))
	if err != nil {
		return // then it is compared as a whole
	}
	r.fill()
	if made := r.prints[print]; made != nil && made.Link != l {
		in.Unit, in.Link = made.Unit, made.Link
	}
}

// bestUnit returns the unit whose object has in's name, else the last; their
// objects are all the same.
func bestUnit(units []*Unit, in Input) *Unit {
	for i := len(units) - 1; i >= 0; i-- {
		path := units[i].ObjectPath
		if in.Member == "" && path == in.Path || in.Member != "" && filepath.Base(path) == filepath.Base(in.Member) {
			return units[i]
		}
	}
	if len(units) == 0 {
		return nil
	}
	return units[len(units)-1]
}

// fill computes the fingerprints of all objects that were made. An object
// that shares its fingerprint with one of other bytes is known by its bytes
// only.
func (r *resolver) fill() {
	if r.prints != nil {
		return
	}
	r.prints = map[fingerprint.Print]*Input{}
	digests := map[fingerprint.Print]specs.Digest{}
	add := func(d specs.Digest, in *Input) {
		print, err := fingerprint.Of(r.store.Blob(d))
		if err != nil {
			return
		}
		if had, ok := digests[print]; ok && had != d {
			in = nil
		}
		digests[print] = d
		r.prints[print] = in
	}
	for d, units := range r.units {
		add(d, &Input{Unit: units[len(units)-1]})
	}
	for d, l := range r.partial {
		add(d, &Input{Link: l})
	}
}
