package verify

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// Compare compares two builds of one deliverable: executables or shared
// objects as the linker left them, with symbols. The report does not depend on
// anything but the two files and literals. Errors name the side, "original" or
// "patched".
//
// literals are the strings, without the zero at their end, that the objects of the
// two builds have in sections of strings, which are flagged SHF_MERGE and
// SHF_STRINGS: linked files do not say where a constant ends. It may be nil, and
// need not have all of them.
func Compare(original, patched *elfobj.File, literals map[string]bool) (*Report, error) {
	if original.Arch != patched.Arch || original.Type != patched.Type {
		return nil, fmt.Errorf("the original is %v for %v, the patched build %v for %v", original.Type, original.Arch, patched.Type, patched.Arch)
	}
	c := &comparison{literals: literals, seen: map[anonPair]bool{}}
	var errs [2]error
	var wg sync.WaitGroup
	wg.Go(func() { c.left, errs[0] = newImage(original, "original") })
	wg.Go(func() { c.right, errs[1] = newImage(patched, "patched") })
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	c.tlsMoved = c.left.tls.size != c.right.tls.size || !slices.Equal(c.left.tls.syms, c.right.tls.syms)
	c.correlate()
	r := &Report{c: c}
	r.functions()
	r.renumbered()
	c.numbered()
	r.unsupported()
	r.data()
	r.threadData()
	r.tables()
	r.reach()
	return r, nil
}

// functions compares all pairs of functions.
func (r *Report) functions() {
	for _, e := range r.c.right.funcs {
		if e.parent != nil {
			continue
		}
		if len(e.pairs) == 0 {
			r.Functions = append(r.Functions, Function{Name: e.name(), File: e.file(), Verdict: New, PatchedRange: e.span(), right: e})
			continue
		}
		for _, o := range e.pairs {
			f := Function{Name: e.name(), Original: o.name(), File: e.file(), OriginalRange: o.span(), PatchedRange: e.span(), left: o, right: e}
			if f.First = r.c.walk(o, e); f.First != nil {
				f.Verdict = Changed
			}
			r.Functions = append(r.Functions, f)
		}
	}
	for _, e := range r.c.left.funcs {
		if len(e.pairs) == 0 && e.parent == nil {
			r.Functions = append(r.Functions, Function{Name: e.name(), Original: e.name(), File: e.file(), Verdict: Removed, OriginalRange: e.span(), left: e})
		}
	}
}

func (e *entity) span() specs.Range[specs.VAddr] {
	return specs.Range[specs.VAddr]{Lo: specs.VAddr(e.addr), Hi: specs.VAddr(e.end())}
}

// file returns the source file of a local entity.
func (e *entity) file() string {
	f, _, _ := strings.Cut(e.names[0].file, "#")
	if f == "<temporary>" {
		return ""
	}
	return f
}

// unsupported takes back that functions are the same if that counts on an
// address being outside the object that lies there, and nobody else uses that
// object: then it is what was meant.
func (r *Report) unsupported() {
	index := map[[2]*entity]int{}
	for i := range r.Functions {
		f := &r.Functions[i]
		index[[2]*entity{f.left, f.right}] = i
	}
	guessing := map[*entity]map[*entity]bool{} // object → functions
	note := func(obj, fn *entity) {
		if obj != nil && len(obj.pairs) == 0 {
			if guessing[obj] == nil {
				guessing[obj] = map[*entity]bool{}
			}
			guessing[obj][fn] = true
		}
	}
	for _, g := range r.c.supported {
		note(g.oa, g.fa)
		note(g.ob, g.fb)
	}
	for _, g := range r.c.supported {
		if used(g.oa, guessing[g.oa]) && used(g.ob, guessing[g.ob]) {
			continue
		}
		if i, ok := index[[2]*entity{g.fa, g.fb}]; ok && r.Functions[i].Verdict == Same {
			r.Functions[i].Verdict = Changed
			r.Functions[i].First = &Difference{
				Function: g.fb.name(), Original: "refers to " + g.pa.String(), Patched: "refers to " + g.pb.String(),
			}
		}
	}
}

// used reports whether an object that has no pair is used by more than the
// functions that may mean something else.
func used(obj *entity, except map[*entity]bool) bool {
	if obj == nil || len(obj.pairs) > 0 {
		return true
	}
	for _, u := range obj.usersOf() {
		if !except[u] {
			return true
		}
	}
	return false
}

// usersOf returns the functions whose code refers to an object, in the order
// of their addresses.
func (e *entity) usersOf() (list []*entity) {
	im := e.img
	from, _ := slices.BinarySearch(im.marks, e.addr)
	for _, v := range im.marks[from:] {
		if v >= max(e.end(), e.addr+1) {
			break
		}
		list = append(list, im.users[v]...)
	}
	slices.SortFunc(list, func(a, b *entity) int { return cmp.Compare(a.addr, b.addr) })
	return slices.Compact(list)
}

// reach finds out which new functions the program can come to.
func (r *Report) reach() {
	if !slices.ContainsFunc(r.Functions, func(f Function) bool { return f.Verdict == New }) {
		return
	}
	im := r.c.right
	called := map[uint64]bool{}
	for _, e := range im.funcs {
		for _, p := range im.decode(e).parts {
			for i := range p.code {
				for j := range int(p.code[i].refs) {
					if o := im.operand(&p.code[i], j); o.place.kind == placeCode && o.place.ent != e && o.place.ent.parent != e {
						called[o.place.ent.addr] = true
					}
				}
			}
		}
	}
	for at := range im.relocs {
		if to, _ := im.loaded(at); to.kind == placeCode {
			called[to.ent.addr] = true
		}
	}
	if im.fixed {
		im.eachPointer(func(to place) {
			if to.kind == placeCode {
				called[to.ent.addr] = true
			}
		})
	}
	for i := range r.Functions {
		if f := &r.Functions[i]; f.Verdict == New {
			f.Reached = called[f.right.addr]
		}
	}
}

// eachPointer calls fn for all words of data that may be addresses.
func (im *image) eachPointer(fn func(place)) {
	for i := range im.secs {
		s := &im.secs[i]
		if s.exec || s.data == nil || !s.program() {
			continue
		}
		for at := (s.lo + 7) &^ 7; at+8 <= s.hi; at += 8 {
			if v := le.Uint64(s.data[at-s.lo:]); im.plausible(v) {
				fn(im.place(v))
			}
		}
	}
}
