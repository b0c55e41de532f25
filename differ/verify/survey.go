package verify

import (
	"slices"
	"strings"
)

// body is a decoded function: its main part, then its cold ones.
type body struct {
	parts []part
	tls   int // 1 if it uses thread-local storage, -1 if not, 0 if not known
}

type part struct {
	ent  *entity
	code []insn // without no-ops
}

// decode returns the code of e and of its cold parts.
func (im *image) decode(e *entity) *body {
	b := &body{parts: make([]part, 0, 1+len(e.cold))}
	for _, p := range append([]*entity{e}, e.cold...) {
		b.parts = append(b.parts, part{p, im.decodePart(nil, p)})
	}
	return b
}

// decodePart appends the instructions of one range to code.
func (im *image) decodePart(code []insn, e *entity) []insn {
	data := im.bytes(e.addr, e.size)
	code = slices.Grow(code, len(data)/4+1)
	pad := 0
	for at := 0; at < len(data); {
		code = append(code, insn{})
		in := &code[len(code)-1]
		im.isa.decode(data[at:], e.addr+uint64(at), in)
		at += int(in.size)
		if in.nop {
			pad += int(in.size)
			code = code[:len(code)-1]
			continue
		}
		in.pad = uint8(min(pad, 255))
		pad = 0
	}
	if im.isa.fuse != nil {
		code = im.isa.fuse(code, im)
	}
	if im.isa.track != nil {
		im.isa.track(code, e)
	}
	return code
}

// find returns the part and the index in it of the instruction at v; no-ops
// belong to the instruction after them. inside is v's offset in it.
func (b *body) find(v uint64) (part, index int, inside uint64, ok bool) {
	for i := range b.parts {
		p := &b.parts[i]
		if v < p.ent.addr || v >= p.ent.end() {
			continue
		}
		n, _ := slices.BinarySearchFunc(p.code, v, func(in insn, v uint64) int {
			switch {
			case in.end() <= v:
				return -1
			case in.addr-uint64(in.pad) > v:
				return 1
			}
			return 0
		})
		if n < len(p.code) && v < p.code[n].addr && p.ent.img.lands(v) == p.code[n].addr {
			return i, n, 0, true // at no-ops before it, not inside of one
		}
		if n == len(p.code) {
			return i, n, v - p.ent.end(), true
		}
		return i, n, v - p.code[n].addr, true
	}
	return 0, 0, 0, false
}

// lands returns the address of the first instruction from v on that is no
// no-op.
func (im *image) lands(v uint64) uint64 {
	var in insn
	for range 64 {
		b := im.bytes(v, maxInsn)
		if len(b) == 0 {
			return v
		}
		if im.isa.decode(b, v, &in); !in.nop {
			return v
		}
		v += uint64(in.size)
	}
	return v
}

// survey decodes all code once: it notes where data begins and who uses it.
func (im *image) survey() {
	im.users = map[uint64][]*entity{}
	var code []insn
	for _, e := range im.funcs {
		owner := e
		if e.parent != nil {
			owner = e.parent
		}
		code = im.decodePart(code[:0], e)
		for i := range code {
			for _, r := range code[i].ref[:code[i].refs] {
				im.use(r, owner)
			}
		}
	}
	for _, list := range [][]*entity{im.objs} {
		for _, e := range list {
			im.marks = append(im.marks, e.addr, e.end())
		}
	}
	for v := range im.labels {
		im.marks = append(im.marks, v)
	}
	for _, table := range im.lsda {
		im.marks = append(im.marks, table)
	}
	im.pointers()
	slices.Sort(im.marks)
	im.marks = slices.Compact(im.marks)
}

// use notes that owner's code refers to something outside code.
func (im *image) use(r ref, owner *entity) {
	if r.use == useTLS || r.use == useMaybe && !im.absolute() {
		return
	}
	s := im.section(r.value)
	if s != nil && s.exec {
		im.usePool(r, owner)
	}
	if s == nil || s.exec || s.got {
		return
	}
	if list := im.users[r.value]; len(list) == 0 || list[len(list)-1] != owner {
		im.users[r.value] = append(list, owner)
	}
	im.marks = append(im.marks, r.value)
}

// usePool notes that owner's code refers to a constant among code, and to what that is
// the address of.
func (im *image) usePool(r ref, owner *entity) {
	if r.use != useAccess && r.use != useTake || !im.place(r.value).pool() {
		return
	}
	im.marks = append(im.marks, r.value)
	if v, ok := im.word(r.value); ok && im.absolute() && im.plausible(v) {
		if s := im.section(v); s != nil && !s.exec {
			im.use(ref{use: useTake, value: v}, owner)
		}
	}
}

// absolute reports whether code can hold addresses as numbers: a patch can if
// its target can.
func (im *image) absolute() bool { return im.fixed && (im.outer == nil || im.outer.fixed) }

// pointers marks what data points to.
func (im *image) pointers() {
	mark := func(v uint64) {
		if s := im.section(v); s != nil && !s.exec {
			im.marks = append(im.marks, v)
			if im.users[v] == nil {
				im.users[v] = []*entity{}
			}
		}
	}
	for _, r := range im.relocs {
		if r.kind == relocRelative {
			mark(r.addend)
		}
	}
	if !im.fixed {
		return
	}
	for i := range im.secs {
		s := &im.secs[i]
		if s.exec || s.data == nil || !s.program() {
			continue
		}
		for at := (s.lo + 7) &^ 7; at+8 <= s.hi; at += 8 {
			if v := le.Uint64(s.data[at-s.lo:]); im.plausible(v) {
				mark(v)
			}
		}
	}
}

// program reports whether the section holds what the program itself uses, not
// tables for the dynamic linker and the unwinder.
func (s *section) program() bool {
	for _, p := range []string{".interp", ".note", ".gnu.", ".dyn", ".rel", ".hash", ".eh_frame", ".gcc_except_table", ".comment"} {
		if strings.HasPrefix(s.name, p) {
			return false
		}
	}
	return true
}

// plausible reports whether a number in a fixed image may be an address.
func (im *image) plausible(v uint64) bool {
	if _, _, ok := im.imported(v); ok {
		return true
	}
	if len(im.labels[v]) > 0 {
		return true
	}
	s := im.section(v)
	if s == nil {
		return im.outer != nil && im.outer.plausible(v)
	}
	return s.program() && (!s.exec || s.plt || within(im.funcs, v) != nil)
}

// extent returns how far what begins at v goes at most: up to the next mark or
// the end of its section.
func (im *image) extent(v uint64) uint64 {
	s := im.section(v)
	if s == nil {
		return 0
	}
	end := s.hi
	if i, _ := slices.BinarySearch(im.marks, v+1); i < len(im.marks) {
		end = min(end, im.marks[i])
	}
	return end - v
}
