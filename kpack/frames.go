package kpack

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// FindObject is the function that an unwinder asks where the call frame
// information of an address is, with its version. Source: the GNU C library
// manual, "Dynamic Linker Introspection"; libgcc asks it since GCC 12.
const (
	FindObject        = "_dl_find_object"
	FindObjectVersion = "GLIBC_2.35"
)

// Finder is what a patch brings so that the process's own unwinder finds the
// call frame information of the new code: a function that takes the place of
// [FindObject]. It answers for the patch's code, and leaves all else to the
// function whose address is at Next. It calls nothing and keeps no state, so
// any thread may run it at any time.
//
// The word at Map is the address of the target's struct link_map, by which a
// profiler that asks the same function may learn what the code belongs to. The
// caller of Link writes it.
type Finder struct {
	Entry, Next, Map specs.Addr // 0 if the patch has none
}

// HasFinder reports whether patches for an architecture bring one, if they have
// call frame information.
func HasFinder(a *arch.Arch) bool {
	m, err := machineOf(a)
	return err == nil && m.finderSize > 0
}

// Slots returns the addresses in a process of an object's GOT entries for a
// symbol that it imports.
func Slots(im *elfobj.Image, name string) ([]specs.Addr, error) {
	m, err := machineOf(im.Arch)
	if err != nil {
		return nil, err
	}
	return im.Slots(name, m.globDat, m.jumpSlot)
}

// Throwing are the symbols that tell that a file has to do with exceptions.
var Throwing = []string{"__cxa_throw", "__gxx_personality_v0", "_Unwind_Resume"}

// Exceptions reports whether the new code has exception tables.
func (p *Patch) Exceptions() bool {
	for i := range p.Symbols {
		if name := p.Symbols[i].Name; strings.HasPrefix(name, "DW.ref.") || personality(name) {
			return true
		}
	}
	return false
}

// personality reports whether gcc and clang call the routine by that name that
// reads exception tables. Source: Itanium C++ ABI: Exception Handling, 2.5.
func personality(name string) bool {
	return strings.HasPrefix(name, "__") && strings.Contains(name, "_personality_v")
}

// unwinder refuses a patch for a target that throws, if nothing leads the
// unwinder to the new code: that exceptions go through it is not seen in its
// tables alone.
func (b *builder) unwinder() error {
	throws := b.patch.Exceptions()
	for _, name := range Throwing {
		// Programs that are linked statically have parts of the unwinder from the
		// C library, which uses them for threads that are cancelled.
		_, linked := b.original.globals[name]
		_, dynamic := b.original.dynamic[name]
		throws = throws || dynamic || linked && name != "_Unwind_Resume"
	}
	if !throws {
		return nil
	}
	if b.machine.finderSize == 0 {
		return hint("patch a program that has no exceptions, or build the fix into the next release", errors.New("exceptions on "+b.patch.Arch.Name+" are not supported yet"))
	}
	_, own := b.original.globals["_Unwind_RaiseException"]
	if _, asks := b.original.dynamic[FindObject]; own && !asks {
		return hint("in the next release, link without -static", errors.New("exceptions cannot go through the new code: the unwinder is linked in statically, and does not ask "+FindObject))
	}
	return nil
}

// frames returns the index of the section with the call frame information, or
// -1.
func (p *Patch) frames() int {
	for i := range p.Sections {
		if p.Sections[i].Name == ehFrame {
			return i
		}
	}
	return -1
}

// finderHeader is the size of the .eh_frame_hdr that the finder answers with,
// finderCells that of the cells behind it: the next finder, the link map.
const (
	finderHeader = 8
	finderCells  = 16
)

// finder fills in what makes the process's unwinder find the frames.
func (k *linker) finder() (Finder, error) {
	l := k.layout
	if l.finder == 0 {
		return Finder{}, nil
	}
	at := func(off uint64) specs.Addr { return k.base + specs.Addr(off) }
	header := k.memory[l.frameHeader:]
	// Version 1, a relative pointer of 4 bytes, no table (LSB core, "The
	// .eh_frame_hdr section").
	copy(header, []byte{1, 0x1b, 0xff, 0xff})
	binary.LittleEndian.PutUint32(header[4:], uint32(l.sections[k.patch.frames()]-(l.frameHeader+4)))
	f := Finder{Entry: at(l.finder), Next: at(l.frameHeader + finderHeader), Map: at(l.frameHeader + finderHeader + 8)}
	text := specs.Range[specs.Addr]{Lo: at(l.Text.Offset), Hi: at(l.Text.Offset + l.Text.Size)}
	return f, k.machine.finder(k.memory[l.finder:], f.Entry, text, at(l.frameHeader), f.Next, f.Map)
}
