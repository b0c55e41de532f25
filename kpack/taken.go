package kpack

import (
	"debug/elf"
	"encoding/binary"
	"slices"
	"strings"
)

// addressesTaken returns the names of new functions whose address the new code
// or data takes, other than to call them. Who got it may keep it where nobody
// can find it: the kernel (signal handlers, threads that begin), the C library
// in a mangled word (atexit). Of a redirected function the address stays the
// original's.
//
// Labels inside a function, of jump tables and exception tables, do not count,
// nor do call frame information and virtual tables: while there is an object of
// the class it has the table's address in a plain word.
func (p *Patch) addressesTaken(m *machine) []string {
	entries := p.newFunctions()
	tables := slices.DeleteFunc(slices.Clone(p.Symbols), func(s Symbol) bool {
		return s.Binding != Carried || !strings.HasPrefix(s.Name, "_ZTV") && !strings.HasPrefix(s.Name, "_ZTC")
	})
	taken := map[string]bool{}
	for i, s := range p.Sections {
		if s.Name == ehFrame {
			continue
		}
		for _, r := range s.Relocs {
			h, sym := m.relocs[r.Type], p.Symbols[r.Symbol]
			if h.call || sym.Binding != Carried || sym.Thread != nil || inTable(tables, place{i, r.Offset}) {
				continue
			}
			if s.Kind == Text && m.slotCall != nil && m.slotCall(s.Data, r) {
				continue
			}
			at := sym.Value
			if !h.got {
				at += uint64(r.Addend)
			}
			if s.Kind == Text && h.value == valueRel && !h.got {
				at += m.pcBias
			}
			taken[entries[place{sym.Section, at}]] = true
		}
		if s.Kind == Text {
			for _, at := range m.addresses(s.Data) {
				taken[entries[place{i, at}]] = true
			}
		}
	}
	var names []string
	for name := range taken {
		if name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// place is an offset in a section of the patch.
type place struct {
	section int
	offset  uint64
}

// inTable reports whether a place is in one of the virtual tables, which have
// names of their own. Source: Itanium C++ ABI, "Virtual Tables and RTTI".
func inTable(tables []Symbol, at place) bool {
	return slices.ContainsFunc(tables, func(s Symbol) bool {
		return s.Section == at.section && at.offset >= s.Value && at.offset-s.Value < s.Size
	})
}

// newFunctions are the names of the carried functions that replace none of the
// target, by where they begin.
func (p *Patch) newFunctions() map[place]string {
	entries := map[place]string{}
	for i, s := range p.Symbols {
		redirected := slices.ContainsFunc(p.Functions, func(f Function) bool { return f.Symbol == i })
		if s.Binding == Carried && s.Func && !redirected {
			entries[place{s.Section, s.Value}] = strings.TrimSuffix(s.Name, carriedSuffix)
		}
	}
	for _, f := range p.Functions { // whatever other names it has
		s := p.Symbols[f.Symbol]
		delete(entries, place{s.Section, s.Value})
	}
	return entries
}

// addressesX86_64 returns the offsets in code that its instructions may take the
// address of without a relocation: the assembler resolves lea LABEL(%rip) if
// the label is in the same section.
func addressesX86_64(code []byte) (offsets []uint64) {
	const lea, ripRelative = 0x8d, 0x05
	for i := 0; i+6 <= len(code); i++ {
		if code[i] == lea && code[i+1]&0xc7 == ripRelative {
			offsets = append(offsets, uint64(i+6)+uint64(int64(int32(binary.LittleEndian.Uint32(code[i+2:])))))
		}
	}
	return offsets
}

// slotCallX86_64 knows call *NAME@GOTPCREL(%rip) and jmp, as -fno-plt makes them: ff /2
// and ff /4. Their relocation is of no other instruction with such bytes before
// the field (x86-64 psABI, "Optimize GOTPCRELX Relocations").
func slotCallX86_64(code []byte, r Reloc) bool {
	const group, call, jump = 0xff, 0x15, 0x25
	if elf.R_X86_64(r.Type) != elf.R_X86_64_GOTPCRELX || r.Offset < 2 || r.Offset > uint64(len(code)) {
		return false
	}
	return code[r.Offset-2] == group && (code[r.Offset-1] == call || code[r.Offset-1] == jump)
}

// addressesAArch64 does the same for adr. Source: Arm ARM, "PC-rel. addressing".
func addressesAArch64(code []byte) (offsets []uint64) {
	for i := 0; i+4 <= len(code); i += 4 {
		if w := binary.LittleEndian.Uint32(code[i:]); w&0x9f000000 == 0x10000000 {
			distance := int64(int32(w<<8)>>13)<<2 | int64(w>>29&3)
			offsets = append(offsets, uint64(int64(i)+distance))
		}
	}
	return offsets
}

// pcBiasX86_64 is how far behind a field of 4 bytes the instruction ends, from
// where x86-64 counts. With a constant behind the field it is more, but no such
// instruction takes an address.
const pcBiasX86_64 = 4
