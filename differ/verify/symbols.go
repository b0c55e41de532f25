package verify

import (
	"cmp"
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/fother/fother/kpack/elfobj"
)

// readSymbols makes entities of .symtab.
func (im *image) readSymbols(f *elfobj.File) error {
	syms, err := f.Symbols()
	if err != nil {
		return err
	}
	if len(syms) > maxSymbols {
		return fmt.Errorf("%d symbols: want at most %d", len(syms), maxSymbols)
	}
	im.tls.read(f, syms)
	index := map[key]*entity{}
	file, seen := "", map[string]int{}
	for i := range syms {
		s := &syms[i]
		if s.Type == elf.STT_FILE {
			file = fileKey(s.Name, seen)
			continue
		}
		if s.Section == elf.SHN_ABS && !s.Extended && s.Name != "" {
			im.numbers[s.Value] = append(im.numbers[s.Value], s.Name)
		}
		if _, ok := s.InSection(); !ok || s.Type == elf.STT_SECTION || s.Type == elf.STT_TLS || s.Name == "" {
			continue
		}
		im.symbol(s, file, index)
	}
	im.order()
	im.sizes()
	im.gaps()
	im.seeThrough()
	im.attachCold()
	return nil
}

type key struct {
	addr uint64
	fn   bool
}

// fileKey tells apart files of one name by their order. Names that the
// compiler makes up for temporary files say nothing.
func fileKey(name string, seen map[string]int) string {
	if strings.HasPrefix(name, "cc") && strings.Contains(name, ".") || strings.HasSuffix(name, "<artificial>") {
		name = "<temporary>"
	}
	seen[name]++
	if name == "" || name == "<temporary>" {
		return name
	}
	return fmt.Sprintf("%s#%d", name, seen[name])
}

// symbol adds a symbol to the entity at its address.
func (im *image) symbol(s *elfobj.Symbol, file string, index map[key]*entity) {
	sec := im.section(s.Value)
	name, _, _ := strings.Cut(s.Name, "@")
	fn := s.Type == elf.STT_FUNC || s.Type == elf.STT_GNU_IFUNC
	if sec == nil || sec.plt || !fn && s.Type != elf.STT_OBJECT || !fn && s.Size == 0 || fn != sec.exec {
		if mapping(name) {
			return
		}
		if exceptionTable(name) {
			return
		}
		im.labels[s.Value] = append(im.labels[s.Value], name)
		if sec == nil || !sec.exec || sec.plt || s.Bind == elf.STB_LOCAL && strings.HasPrefix(name, ".") {
			return
		}
		fn = true // hand-written code without a type
	}
	if !fn && s.Bind == elf.STB_LOCAL && exceptionTable(name) {
		return
	}
	k := key{s.Value, fn}
	e := index[k]
	if e == nil {
		e = &entity{img: im, addr: s.Value, fn: fn}
		index[k] = e
		if fn {
			im.funcs = append(im.funcs, e)
		} else {
			im.objs = append(im.objs, e)
		}
	}
	e.size = max(e.size, min(s.Size, sec.hi-s.Value))
	local := s.Bind == elf.STB_LOCAL
	n := symName{name: name, local: local, weak: s.Bind == elf.STB_WEAK}
	if local {
		n.file = file
	}
	e.names = append(e.names, n)
}

// exceptionTable reports whether a symbol is clang's for the exception table of
// a function, with a number that says nothing. Tables are compared with their
// functions, which call frame information gives them to.
func exceptionTable(name string) bool {
	n, ok := strings.CutPrefix(name, "GCC_except_table")
	return ok && strings.Trim(n, "0123456789") == ""
}

// mapping reports whether a symbol only tells code from data. Source:
// AAELF64, "Mapping symbols".
func mapping(name string) bool {
	return name == "$x" || name == "$d" || strings.HasPrefix(name, "$x.") || strings.HasPrefix(name, "$d.")
}

// order sorts entities by address and their names by what they are best called.
func (im *image) order() {
	for _, list := range [][]*entity{im.funcs, im.objs} {
		slices.SortFunc(list, func(a, b *entity) int { return cmp.Compare(a.addr, b.addr) })
		for _, e := range list {
			slices.SortFunc(e.names, func(a, b symName) int {
				return cmp.Or(compareBool(a.local, b.local), compareBool(a.weak, b.weak), cmp.Compare(a.name, b.name), cmp.Compare(a.file, b.file))
			})
		}
	}
	for _, e := range im.objs {
		s := im.section(e.addr)
		e.content = s != nil && !s.write && e.names[0].local && unstable(e.name())
	}
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// sizes gives functions without a size all bytes up to the next one.
func (im *image) sizes() {
	for i, e := range im.funcs {
		if e.size > 0 {
			continue
		}
		end := im.section(e.addr).hi
		if i+1 < len(im.funcs) {
			end = min(end, im.funcs[i+1].addr)
		}
		e.size = end - e.addr
	}
}

// gaps makes entities of code between functions that no symbol covers.
func (im *image) gaps() {
	var extra []*entity
	for i := range im.secs {
		s := &im.secs[i]
		if !s.exec || s.plt {
			continue
		}
		at, after := s.lo, s.name
		from, _ := slices.BinarySearchFunc(im.funcs, s.lo, func(e *entity, v uint64) int { return cmp.Compare(e.addr, v) })
		for _, e := range im.funcs[from:] {
			if e.addr >= s.hi {
				break
			}
			if e.addr > at {
				extra = im.gap(extra, at, e.addr, after)
			}
			at, after = max(at, e.end()), e.name()
		}
		if at < s.hi {
			extra = im.gap(extra, at, s.hi, after)
		}
	}
	im.funcs = append(im.funcs, extra...)
	slices.SortFunc(im.funcs, func(a, b *entity) int { return cmp.Compare(a.addr, b.addr) })
}

// gap appends an entity for the code in [lo, hi), without its padding.
func (im *image) gap(list []*entity, lo, hi uint64, after string) []*entity {
	code := im.bytes(lo, hi-lo)
	var in insn
	from, to := -1, 0
	for at := 0; at < len(code); at += int(in.size) {
		if code[at] == 0 || code[at] == 0xcc {
			in.size = 1
			continue
		}
		im.isa.decode(code[at:], lo+uint64(at), &in)
		if !in.nop {
			if from < 0 {
				from = at
			}
			to = at + int(in.size)
		}
	}
	if from < 0 {
		return list
	}
	return append(list, &entity{
		img: im, addr: lo + uint64(from), size: uint64(to - from), fn: true, gap: true,
		names: []symName{{name: "code after " + after, local: true}},
	})
}

// attachCold makes NAME.cold part of NAME.
func (im *image) attachCold() {
	byName := map[string][]*entity{}
	for _, e := range im.funcs {
		for _, n := range e.names {
			byName[n.name] = append(byName[n.name], e)
		}
	}
	for _, e := range im.funcs {
		base, ok := coldOf(e.name())
		if !ok || !e.names[0].local {
			continue
		}
		e.parent = bestParent(byName[base], e.names[0].file)
		if e.parent != nil {
			e.parent.cold = append(e.parent.cold, e)
		}
	}
	im.funcs = slices.DeleteFunc(im.funcs, func(e *entity) bool { return e.size == 0 })
}

// coldOf returns the name of the function that NAME.cold or NAME.cold.N is
// part of.
func coldOf(name string) (string, bool) {
	i := strings.LastIndex(name, ".cold")
	if i <= 0 || strings.Trim(name[i+5:], ".0123456789") != "" {
		return "", false
	}
	return name[:i], true
}

// bestParent returns the function that a cold part of the given file belongs
// to: the file's own, else a global one, else one that the linker made local
// because it is hidden, which lies behind all files.
func bestParent(candidates []*entity, file string) *entity {
	var global, hidden *entity
	for _, e := range candidates {
		for _, n := range e.names {
			switch {
			case n.local && n.file == file:
				return e
			case !n.local:
				global = e
			case n.file == "":
				hidden = e
			}
		}
	}
	if global == nil {
		return hidden
	}
	return global
}

// unstable reports whether a name has a number that says nothing: that of a
// static variable in a function, or of a clone.
func unstable(name string) bool {
	_, changed := family(name)
	return changed
}

// family returns the name with the numbers after dots, and those of closures
// and types without a name, taken out, and whether there were any.
func family(name string) (string, bool) {
	name, closure := closures(name)
	base, changed := withoutNumbers(name)
	return base, changed || closure
}

func withoutNumbers(name string) (string, bool) {
	var b strings.Builder
	changed := false
	for i := 0; i < len(name); i++ {
		b.WriteByte(name[i])
		if name[i] != '.' || i == 0 {
			continue
		}
		j := i + 1
		for j < len(name) && name[j] >= '0' && name[j] <= '9' {
			j++
		}
		if j > i+1 && (j == len(name) || name[j] == '.') {
			b.WriteByte('#')
			changed, i = true, j-1
		}
	}
	if !changed {
		return name, false
	}
	return b.String(), true
}

// tlsBlock is the template of thread-local storage.
type tlsBlock struct {
	size  uint64 // rounded up to its alignment
	align uint64
	end   uint64 // link-time address where it ends
	// addr is the link-time address of what the block begins with, which is
	// filled bytes; the rest is zero.
	addr, filled uint64
	syms         []tlsSym
}

type tlsSym struct {
	name         string
	offset, size uint64
}

func (t *tlsBlock) read(f *elfobj.File, syms []elfobj.Symbol) {
	for _, p := range f.Segments {
		if p.Type == elf.PT_TLS {
			t.align = max(p.Align, 1)
			t.size = (p.Memsz + t.align - 1) / t.align * t.align
			t.end = p.Vaddr + t.size
			t.addr, t.filled = p.Vaddr, p.Filesz
		}
	}
	for _, s := range syms {
		if _, ok := s.InSection(); ok && s.Type == elf.STT_TLS && s.Size > 0 {
			t.syms = append(t.syms, tlsSym{s.Name, s.Value, s.Size})
		}
	}
	slices.SortFunc(t.syms, func(a, b tlsSym) int { return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(a.name, b.name)) })
}

// at names what lies at an offset in the block, "" if nothing does.
func (t *tlsBlock) at(offset uint64) string {
	for _, s := range t.syms {
		if s.offset <= offset && offset < s.offset+max(s.size, 1) {
			return fmt.Sprintf("%s+%#x", s.name, offset-s.offset)
		}
	}
	return ""
}
