package verify

// use says what an instruction does with an address that it holds.
type use uint8

const (
	useNone   use = iota
	useBranch     // goes there
	useCall       // goes there and comes back
	useAccess     // reads or writes there
	useTake       // takes the address itself
	useMaybe      // an absolute number that may be an address, or one with a register added
	useTLS        // an offset from the thread pointer
)

// ref is an operand that holds an address, or may hold one.
type ref struct {
	use use
	// size is how many bytes at the target an access touches at least, 0 if
	// that is not known.
	size uint8
	// value is the link-time address, or the number if use is useMaybe.
	value uint64
}

// flow says where control goes after an instruction.
type flow uint8

const (
	flowNext flow = iota // to the next instruction, perhaps elsewhere too
	flowStop             // elsewhere
)

// maxInsn is the length of the longest instruction in bytes.
const maxInsn = 15

// insn is one instruction.
type insn struct {
	addr uint64 // link-time address
	size uint8  // bytes; at least the architecture's shortest instruction
	// pad is the number of bytes of no-ops before it, at most 255.
	pad  uint8
	flow flow
	nop  bool // has no effect at all
	bad  bool // was not understood: shape has the bytes as they are
	refs uint8
	ref  [2]ref
	// shape is the instruction with the fields of refs zeroed and with one
	// form for all that the assembler and linker may write in several.
	shape [maxInsn + 1]byte
	// via is set if the linker may have gone through the GOT or not: ref[0] is
	// then the address of the GOT entry, and shape that of the direct form.
	via bool
}

func (in *insn) add(r ref) {
	in.ref[in.refs] = r
	in.refs++
}

func (in *insn) end() uint64 { return in.addr + uint64(in.size) }

// generalTLS reports whether a reference to a pair of GOT entries is one of the
// general dynamic model, which x86-64 pads with a prefix. Source: x86-64
// psABI, "Thread-Local Storage", table of code sequences.
func (in *insn) generalTLS() bool { return in.shape[0] == 0x66 }
