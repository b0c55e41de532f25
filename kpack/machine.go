package kpack

import (
	"fmt"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// machine is what package kpack knows of an architecture beyond arch.Arch.
type machine struct {
	arch   *arch.Arch
	relocs map[uint32]howto
	// relocName is the psABI's name of any relocation type.
	relocName func(typ uint32) string
	// globDat and jumpSlot are the dynamic relocation types of GOT entries.
	globDat, jumpSlot uint32
	// irelative is that of a GOT entry for what a resolver of the file returns.
	irelative uint32
	tls       tlsMachine
	// relaxed returns how many bytes before and after a relocated field the
	// linker may have changed too.
	relaxed func(typ uint32) (before, after int)

	stubSize int
	// stub writes the code at address at that jumps to where slot points.
	stub func(dst []byte, at, slot specs.Addr) error
	// thunkSize and thunk: code that calls an ifunc's resolver, stores what it
	// returned in slot, and jumps there with all argument registers as they
	// were.
	thunkSize int
	thunk     func(dst []byte, at, slot, resolver specs.Addr) error

	// veneerSize, a multiple of 16, and veneer: code that jumps to an address anywhere,
	// with all registers as they were but those that a linker's veneer may change; 0
	// where branches reach all of an object.
	veneerSize int
	veneer     func(dst []byte, to specs.Addr)

	// veneered returns where a linked branch at at leads by a veneer that the linker
	// of the target made; nil where linkers make none.
	veneered func(branch []byte, at specs.VAddr, read func(specs.VAddr, uint64) ([]byte, error)) (specs.VAddr, bool)

	// countSize, a multiple of countAlign, and count: code that adds 1 to the
	// 64-bit word at counter and goes to an address with all registers as they
	// were but those that a veneer may change.
	countSize int
	count     func(dst []byte, at, counter, to specs.Addr) error

	// finderSize and finder: code that answers where the frames of text are,
	// whose .eh_frame_hdr is at header, in the object that linkMap says, and
	// else goes where next says; 0 if that is not known.
	finderSize int
	finder     func(dst []byte, at specs.Addr, text specs.Range[specs.Addr], header, next, linkMap specs.Addr) error

	// hooks is nil where there is no code for them.
	hooks *hookMachine

	// padding returns how many bytes at the start of b are what assemblers and
	// linkers put between functions.
	padding func(b []byte) int

	redirect func(entry []byte, from, to specs.Addr) (specs.Addr, []byte, error)
	// jumpsTo returns the address of a jump, not a call, in code at at that
	// leads to taken, or may do so.
	jumpsTo func(code []byte, at specs.VAddr, taken specs.Range[specs.VAddr]) (specs.VAddr, bool)
	// indirect returns the address of a jump in code at at that may lead to
	// where comesBack does not look; nil if it looks at all that compilers make.
	indirect func(code []byte, at specs.VAddr) (specs.VAddr, bool)
	// gateSize is the length in bytes of a gate with its addresses, gate its code
	// without them.
	gateSize int
	gate     func(want uint32) []byte
	// move appends to m the first instructions of code at at, so many that n
	// bytes are covered, and a jump to what follows them.
	move func(m *moved, code []byte, at specs.VAddr, n int) error
	// undo returns the length of the instruction at the start of code, which runs
	// after those in before, and code that takes it back; false if it cannot be.
	undo func(before, code []byte) (int, []byte, bool)
	// onward returns a jump, and the relocation for it at field.
	onward func() (jump []byte, field int, r Reloc)
	// prologue reports whether code begins with what no table of jumps leads to;
	// nil where indirect is.
	prologue func(code []byte) bool
	// address is the relocation type of an address of 8 bytes.
	address uint32
	// addresses returns the offsets in code that its instructions may take the
	// address of; pcBias is by how much the addend of a relative field in code
	// is less than the distance from its target.
	addresses func(code []byte) []uint64
	pcBias    uint64
	// slotCall reports whether a relocation of code is of an instruction that
	// calls or jumps through a GOT entry, so that the address goes nowhere else;
	// nil where several instructions do that together.
	slotCall func(code []byte, r Reloc) bool
	// maxEntry is the most bytes that a redirection overwrites.
	maxEntry int
}

func machineOf(a *arch.Arch) (*machine, error) {
	for _, m := range []*machine{machineX86_64, machineAArch64} {
		if m.arch == a {
			return m, nil
		}
	}
	return nil, fmt.Errorf("architecture %v: no relocations known", a)
}

// value says how a relocation's value is computed. S is the symbol's address
// (or that of its stub or GOT entry), A the addend, P the place.
type value int

const (
	valueAbs  value = iota // S + A
	valueRel               // S + A - P
	valuePage              // Page(S + A) - Page(P), pages of 4 KiB
)

// threadUse says what S is in a relocation for thread-local storage.
type threadUse int

const (
	tlsNone       threadUse = iota
	tlsDirect               // the symbol's distance from the thread pointer (local exec)
	tlsInBlock              // the symbol's offset in its block
	tlsInitial              // the address of a GOT entry that holds the distance (initial exec)
	tlsGeneral              // the address of the symbol's pair of GOT entries (general dynamic)
	tlsLocal                // that of the pair for the target's block (local dynamic)
	tlsDescriptor           // that of the symbol's TLS descriptor

	tlsEntry = tlsInitial // the first of those that are the address of an entry
)

// howto describes one relocation type.
type howto struct {
	name  string
	size  int // bytes of the field
	value value
	got   bool // S is the GOT entry's address
	// tls is set if the symbol has to be thread-local; else it must not be.
	tls threadUse
	// branch relocations may go to a stub when the symbol is an imported
	// function; those of calls and jumps only can refer to nothing else.
	branch, call bool
	// near says that the field reaches a megabyte or less: it cannot refer to the
	// target, and S is a GOT entry of the patch even if the target has one.
	near bool
	// low says that the value must be a small absolute address, which limits
	// where the patch can be mapped.
	low bool
	put func(field []byte, v int64) error
}

func (h howto) compute(s uint64, addend int64, p uint64) int64 {
	switch h.value {
	case valueRel:
		return int64(s + uint64(addend) - p)
	case valuePage:
		return int64((s+uint64(addend))&^0xfff - p&^0xfff)
	default:
		return int64(s + uint64(addend))
	}
}

func fits(v int64, bits uint) bool { return v>>(bits-1) == 0 || v>>(bits-1) == -1 }

// rangeError reports a value that a field cannot hold.
func rangeError(v int64, bits int) error {
	return fmt.Errorf("value %#x does not fit into %d bits", v, bits)
}
