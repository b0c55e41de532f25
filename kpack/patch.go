package kpack

import (
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// Patch is a .kpatch file in memory: everything that apply needs to change
// one target, independent of any process. It is immutable once made.
type Patch struct {
	Arch   *arch.Arch
	Target Target
	Meta   Meta

	Sections  []Section
	Symbols   []Symbol
	Functions []Function
	// Hooks are in the order in which they run.
	Hooks []Hook
	// Variables are the writable objects among the symbols.
	Variables []Variable
}

// Target identifies the linked file that a patch is for.
type Target struct {
	BuildID specs.BuildID
	// Name is the file's base name, for people.
	Name string
	// Image is the range of link-time addresses that its PT_LOAD segments
	// take up.
	Image specs.Range[specs.VAddr]
	// Threads is the size in bytes of its block of thread-local storage
	// (PT_TLS), or 0 if the patch refers to nothing there.
	Threads uint64
}

// Meta is what a patch says about itself. Nothing in it changes how the patch
// is applied, but Series and Level, which say what it replaces, Consistency,
// and AddressTaken.
type Meta struct {
	Name        string       `json:"name"`
	Series      specs.Series `json:"series"`
	Level       specs.Level  `json:"level"`
	Description string       `json:"description,omitempty"`
	CVEs        []string     `json:"cves,omitempty"`
	// Producer is the compiler's identification, from the units' .ident.
	Producer string `json:"producer,omitempty"`
	// Consistency is that of the spec, whose functions may be in other targets
	// of the release. Function.NextCall says it of each function of this one.
	Consistency specs.Consistency `json:"consistency,omitzero"`
	// AddressTaken are new functions whose address the new code may hand to
	// somebody who keeps it where it cannot be found. The memory of such a patch
	// is never freed.
	AddressTaken []string `json:"address_taken,omitempty"`
	// Unchecked says what was not compared of the two builds for lack of debug
	// data, for people.
	Unchecked []string `json:"unchecked,omitempty"`
}

// Kind says what memory a section goes to.
type Kind int

const (
	Text   Kind = iota // mapped r-x
	ROData             // mapped r--
	Data               // mapped rw-
	BSS                // mapped rw-, not stored in the file
)

// Section is a piece of new memory. Its own offset in that memory is chosen
// by [Patch.Layout].
type Section struct {
	Name  string // ".kpatch.text", …
	Kind  Kind
	Align uint64 // a power of two
	Size  uint64 // bytes of memory
	Data  []byte // Size bytes; nil for BSS
	// Relocs apply to Data, by rising Offset.
	Relocs []Reloc
}

// Reloc is an ELF RELA relocation of a section.
type Reloc struct {
	Offset uint64 // bytes from the section's start
	Type   uint32 // R_X86_64_*, R_AARCH64_*
	Symbol int    // index in Patch.Symbols
	Addend int64
}

// Binding says what a symbol's value is.
type Binding int

const (
	// Carried symbols lie in a section of the patch; Value is the offset in
	// it.
	Carried Binding = iota
	// Original symbols lie in the target; Value is the link-time address.
	Original
	// Imported symbols are defined by another object of the process, or may
	// be preempted by one; see Symbol.Import.
	Imported
)

// Symbol is anything a relocation can refer to.
type Symbol struct {
	Name    string
	Binding Binding
	Section int    // index in Patch.Sections, if Carried
	Value   uint64 // see Binding
	Size    uint64 // bytes, 0 if not known
	Func    bool   // STT_FUNC
	Import  *Import
	// Thread is set for thread-local symbols (STT_TLS). The Value of one of the
	// target is then an offset in its block.
	Thread *ThreadLocal
}

// Import says how the dynamic linker would find a symbol.
type Import struct {
	// Version is the symbol version that the reference is bound to, such as
	// GLIBC_2.14, or empty. Source: .gnu.version_r of the patched build.
	Version string
	// Slot is the link-time address of the target's own GOT entry for the
	// symbol, or 0 if it has none.
	Slot specs.VAddr
	// Lazy is set if the slot belongs to a JUMP_SLOT relocation of an object
	// that does not ask for immediate binding: before the first call it
	// points back into the target's PLT.
	Lazy bool
}

// Function is one function whose entry is redirected.
type Function struct {
	Name string `json:"name"`
	// File is the unit that defines it.
	File string `json:"file"`
	// Reason says why it is in the patch.
	Reason string `json:"reason"`
	// NextCall is set if calls of it that are under way may end in the old
	// code; see [specs.Consistency].
	NextCall bool `json:"next_call,omitempty"`
	// Original is the range of link-time addresses of the body in the target.
	Original specs.Range[specs.VAddr] `json:"-"`
	// Cold is the range of its cold part, which the compiler put elsewhere
	// (NAME.cold), or empty.
	Cold specs.Range[specs.VAddr] `json:"-"`
	// Room is the number of bytes from Original.Lo that a redirection may
	// overwrite: the body and the padding that follows it.
	Room uint64 `json:"-"`
	// Digest is the SHA-256 of the body as it is in the target's file.
	Digest specs.Digest `json:"-"`
	// Entry are the first bytes at Original.Lo, at most 32 and at most Room.
	Entry []byte `json:"-"`
	// Symbol is the index in Patch.Symbols of the new body.
	Symbol int `json:"-"`
	// Through is where the jump at the entry leads, nil if it leads to the new
	// body.
	Through *Through `json:"-"`
	// Copy is where the original goes on while its entry leads to a gate, nil if
	// it cannot; see [GateCode].
	Copy *Copy `json:"-"`
	// Alone says why there is no Copy. The function cannot change together with
	// others like it whose entries are in other pages.
	Alone string `json:"alone,omitempty"`
}

// Called returns the link-time addresses of the target's code to which the patch's code
// calls and jumps directly, its copies too, each as often as it does. On x86-64 they are
// less the 4 bytes from the operand to the next instruction, and all of an object is within
// reach; on aarch64 those out of reach of the patch's memory go by veneers.
func (p *Patch) Called() []specs.VAddr {
	m, err := machineOf(p.Arch)
	if err != nil {
		return nil
	}
	var all []specs.VAddr
	for _, s := range p.Sections {
		for _, r := range s.Relocs {
			if y := &p.Symbols[r.Symbol]; m.relocs[r.Type].call && y.Binding == Original && y.Thread == nil {
				all = append(all, specs.VAddr(y.Value+uint64(r.Addend)))
			}
		}
	}
	return all
}
