package verify

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fother/fother/specs"
)

// Patch is a patch as it is linked for a pretend place in memory, with its
// target where that was linked (load bias 0).
type Patch struct {
	// Memory are the pieces of the patch's memory by address.
	Memory []Piece
	// Symbols are what the patch brings.
	Symbols []PatchSymbol
	// Functions are the new bodies of functions that are redirected.
	Functions []PatchFunction
	// Imports are the pretend addresses of imported symbols: outside of target
	// and patch, with ImportRoom bytes for each. The names are NAME or
	// NAME@VERSION.
	Imports map[specs.VAddr]string
	// Threads are the patch's own GOT entries for thread-local storage.
	Threads Threads
}

// ImportRoom is how far apart the pretend addresses of imports are at least, in
// bytes: what lies less behind one is a place in that symbol.
const ImportRoom = 1 << 16

// Piece is a part of a patch's memory.
type Piece struct {
	// Name is that of the section in the patch, "" for what is in none.
	Name  string
	Addr  specs.VAddr
	Data  []byte
	Exec  bool
	Write bool
	// Linker is set for what the linker of patches adds: GOT entries, and stubs
	// of imports if Exec is set too.
	Linker bool
}

// PatchSymbol is a function or object that a patch brings.
type PatchSymbol struct {
	Name string // of the patched build, "" if it has none
	Addr specs.VAddr
	Size uint64 // bytes
	Func bool
}

// PatchFunction is a function that a patch redirects.
type PatchFunction struct {
	Name     string // in the original build
	Original specs.Range[specs.VAddr]
	Entry    specs.VAddr // of the new body
}

// CheckPatch compares what a patch brings with the patched build: each new
// body with the function of that build, each new object with the object. It
// returns what differs, sorted by name.
func CheckPatch(r *Report, p Patch) ([]Finding, error) {
	im, err := patchImage(p, r.c.left)
	if err != nil {
		return nil, err
	}
	k := &patchChecker{
		report: r, image: im, redirected: map[*entity]bool{},
		c: &comparison{left: im, right: r.c.right, literals: r.c.literals, seen: map[anonPair]bool{}, tlsMoved: r.c.tlsMoved},
	}
	for _, f := range p.Functions {
		k.redirect(f)
	}
	k.correlate()
	for _, e := range im.funcs {
		if e.parent == nil {
			k.function(e)
		}
	}
	for _, e := range im.objs {
		k.object(e)
	}
	for _, list := range [][]*entity{im.funcs, im.objs} {
		for _, e := range list {
			for _, b := range e.pairs {
				b.pairs = slices.DeleteFunc(b.pairs, func(a *entity) bool { return a == e })
			}
		}
	}
	sortFindings(k.out)
	return k.out, nil
}

// patchImage makes an image of a patch.
func patchImage(p Patch, target *image) (*image, error) {
	im := &image{
		name: "patch", isa: target.isa, fixed: true, outer: target, tls: target.tls,
		labels: map[uint64][]string{}, numbers: target.numbers, bodies: map[*entity]*body{}, relocs: map[uint64]dynReloc{},
	}
	for v, name := range p.Imports {
		im.imports = append(im.imports, pretend{uint64(v), name})
	}
	slices.SortFunc(im.imports, func(a, b pretend) int { return cmp.Compare(a.addr, b.addr) })
	for _, m := range p.Memory {
		if len(m.Data) == 0 {
			continue
		}
		s := section{
			name: "the patch's memory", lo: uint64(m.Addr), hi: uint64(m.Addr) + uint64(len(m.Data)), data: m.Data,
			exec: m.Exec, write: m.Write, got: m.Linker && !m.Exec, plt: m.Linker && m.Exec,
		}
		if tables := (section{name: m.Name}); m.Name != "" && !tables.program() {
			s.name = m.Name
		}
		if target.section(s.lo) != nil || target.section(s.hi-1) != nil {
			return nil, fmt.Errorf("the patch's memory at %v is in its target", m.Addr)
		}
		im.secs = append(im.secs, s)
	}
	slices.SortFunc(im.secs, func(a, b section) int { return cmp.Compare(a.lo, b.lo) })
	for i := range im.secs[:max(0, len(im.secs)-1)] {
		if im.secs[i].hi > im.secs[i+1].lo {
			return nil, fmt.Errorf("pieces of the patch's memory overlap at %#x", im.secs[i+1].lo)
		}
	}
	im.patchThreads(p.Threads)
	if err := im.patchSymbols(p.Symbols); err != nil {
		return nil, err
	}
	im.order()
	im.attachCold()
	im.readFrames()
	im.survey()
	return im, nil
}

func (im *image) patchSymbols(syms []PatchSymbol) error {
	index := map[key]*entity{}
	for _, s := range syms {
		sec := im.section(uint64(s.Addr))
		if s.Name == "" || s.Size == 0 || !s.Func && exceptionTable(s.Name) {
			continue
		}
		if sec == nil || s.Size > sec.hi-uint64(s.Addr) || s.Func != sec.exec {
			return fmt.Errorf("symbol %q: %d bytes at %v: not in the patch's memory", s.Name, s.Size, s.Addr)
		}
		k := key{uint64(s.Addr), s.Func}
		e := index[k]
		if e == nil {
			e = &entity{img: im, addr: uint64(s.Addr), fn: s.Func}
			index[k] = e
			if s.Func {
				im.funcs = append(im.funcs, e)
			} else {
				im.objs = append(im.objs, e)
			}
		}
		e.size = max(e.size, s.Size)
		_, cold := coldOf(s.Name)
		e.names = append(e.names, symName{name: s.Name, local: cold || unstable(s.Name)})
	}
	return nil
}

type patchChecker struct {
	report     *Report
	image      *image
	c          *comparison
	redirected map[*entity]bool
	out        []Finding
}

func (k *patchChecker) find(name, format string, args ...any) {
	k.out = append(k.out, Finding{Name: name, Reason: fmt.Sprintf(format, args...)})
}

// redirect pairs the new body of a function with that of the patched build.
func (k *patchChecker) redirect(f PatchFunction) {
	body := within(k.image.funcs, uint64(f.Entry))
	if body == nil || body.addr != uint64(f.Entry) {
		k.find(f.Name, "its new body at %v is no function of the patch", f.Entry)
		return
	}
	old := within(k.report.c.left.funcs, uint64(f.Original.Lo))
	switch {
	case old == nil || old.span() != f.Original:
		k.find(f.Name, "the patch redirects %v, where the original has no such function", f.Original)
		return
	case !old.called(f.Name):
		k.find(f.Name, "the patch redirects %v, which is %s", f.Original, old.name())
		return
	case len(old.pairs) == 0:
		k.find(f.Name, "the patch redirects it, but the patched build does not have it")
		return
	}
	k.redirected[body] = true
	for _, e := range old.pairs {
		if len(old.pairs) == 1 || e.called(body.name()) {
			k.c.pair(body, e)
		}
	}
}

// correlate pairs all else that the patch brings by name. Local names may stand
// for several things; the first whose content is the same is taken.
func (k *patchChecker) correlate() {
	byName := map[nameKey][]*entity{}
	for _, list := range [][]*entity{k.c.right.funcs, k.c.right.objs} {
		for _, e := range list {
			for _, n := range e.names {
				key := nameKey{n.name, fmt.Sprint(e.fn)}
				byName[key] = append(byName[key], e)
			}
		}
	}
	for _, list := range [][]*entity{k.image.funcs, k.image.objs} {
		for _, e := range list {
			if len(e.pairs) > 0 || e.parent != nil {
				continue
			}
			if all := byName[nameKey{e.name(), fmt.Sprint(e.fn)}]; len(all) > 0 {
				k.c.pair(e, k.choose(e, all))
			}
		}
	}
}

// choose picks the entity that looks most like e.
func (k *patchChecker) choose(e *entity, all []*entity) *entity {
	for _, o := range all {
		if len(all) == 1 || e.fn && outline(e) == outline(o) || !e.fn && e.size == o.size && k.c.object(e, o) == nil {
			return o
		}
	}
	return all[0]
}

// function compares a function of the patch with the patched build's.
func (k *patchChecker) function(e *entity) {
	if len(e.pairs) == 0 {
		k.find(e.name(), "the patch brings a function that the patched build does not have")
		return
	}
	for _, o := range e.pairs {
		if d := k.c.walk(e, o); d != nil {
			k.find(e.name(), "the patch's code is not the patched build's: in the patch %s (+%#x), in the build %s (+%#x)",
				d.Original, d.OriginalOffset, d.Patched, d.PatchedOffset)
		}
	}
}

// object compares an object of the patch with the patched build's.
func (k *patchChecker) object(e *entity) {
	if len(e.pairs) == 0 {
		k.find(e.name(), "the patch brings an object that the patched build does not have")
		return
	}
	for _, o := range e.pairs {
		if o.writable() && slices.ContainsFunc(o.pairs, func(a *entity) bool { return a.img == k.report.c.left }) {
			k.find(e.name(), "the patch brings a copy of a variable that the original has")
		}
		if d := k.c.object(e, o); d != nil {
			k.find(e.name(), "the patch's data is not the patched build's: in the patch it %s, in the build it %s (+%#x)",
				d.Original, d.Patched, d.OriginalOffset)
		}
	}
}
