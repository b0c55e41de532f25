package unwind

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// cfi makes an .eh_frame by hand.
type cfi struct {
	aug     string
	augData []byte
	ra      byte
	initial []byte // the CIE's instructions
	insns   []byte // the FDE's
	noTerm  bool
}

const (
	frameAddr = 0x10000
	codeAddr  = 0x400000
	codeSize  = 0x1000
	stackAddr = 0x7f0000
)

// bytes returns a CIE with code alignment 1 and data alignment -8, and one FDE
// for codeSize bytes at codeAddr.
func (c cfi) bytes() []byte {
	cie := slices.Concat([]byte{0, 0, 0, 0, 1}, []byte(c.aug), []byte{0, 1, 0x78, c.ra})
	fde := binary.LittleEndian.AppendUint64(nil, codeAddr)
	fde = binary.LittleEndian.AppendUint64(fde, codeSize)
	if strings.HasPrefix(c.aug, "z") {
		cie = append(append(cie, byte(len(c.augData))), c.augData...)
		fde = append(fde, 0)
	}
	out := record(append(cie, c.initial...))
	back := binary.LittleEndian.AppendUint32(nil, uint32(len(out)+4))
	out = append(out, record(slices.Concat(back, fde, c.insns))...)
	if !c.noTerm {
		out = append(out, 0, 0, 0, 0)
	}
	return out
}

// record pads b with DW_CFA_nop and puts its length before it.
func record(b []byte) []byte {
	for len(b)%8 != 4 {
		b = append(b, 0)
	}
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// words is memory of 64-bit words from an address on.
func words(addr uint64, w ...uint64) io.ReaderAt {
	var b []byte
	for _, v := range w {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return memory{addr, b}
}

type memory struct {
	addr uint64
	b    []byte
}

func (m memory) ReadAt(b []byte, off int64) (int, error) {
	if uint64(off) < m.addr {
		return 0, errors.New("not mapped")
	}
	return bytes.NewReader(m.b).ReadAt(b, off-int64(m.addr))
}

// row says what one step from codeAddr+0x10 must give.
type rowTest struct {
	name  string
	arch  *arch.Arch
	cfi   cfi
	regs  map[int]uint64
	mask  uint64
	stack []uint64 // from stackAddr on

	cfa  specs.Addr
	next specs.Addr     // the caller's pc, 0 if there is none
	want map[int]uint64 // the caller's registers
	err  string
}

var x86Initial = []byte{0x0c, 7, 8, 0x90, 1} // CFA = rsp+8, ra at CFA-8

func rowTests() []rowTest {
	x86 := func(insns ...byte) cfi { return cfi{ra: 16, initial: x86Initial, insns: insns} }
	arm := func(insns ...byte) cfi { return cfi{ra: 30, initial: []byte{0x0c, 31, 0}, insns: insns} }
	sp := map[int]uint64{7: stackAddr, 6: 0x66, 3: 0x33}
	armSP := map[int]uint64{31: stackAddr, 29: 0x29, 30: 0x5000}
	return append([]rowTest{
		{name: "initial row", cfi: x86(), regs: sp, stack: []uint64{0x5000}, cfa: stackAddr + 8, next: 0x5000,
			want: map[int]uint64{7: stackAddr + 8, 6: 0x66, 3: 0x33}},
		{name: "offsets", cfi: x86(0x0e, 24, 0x86, 2, 0x05, 3, 3), regs: sp, stack: []uint64{0xb, 0xa, 0x5000},
			cfa: stackAddr + 24, next: 0x5000, want: map[int]uint64{6: 0xa, 3: 0xb}},
		{name: "advance up to", cfi: x86(0x50, 0x0e, 16), regs: sp, stack: []uint64{0, 0x5000}, cfa: stackAddr + 16, next: 0x5000},
		{name: "advance past", cfi: x86(0x51, 0x0e, 16), regs: sp, stack: []uint64{0x5000}, cfa: stackAddr + 8, next: 0x5000},
		{name: "advance 1", cfi: x86(0x02, 0x11, 0x0e, 16), regs: sp, stack: []uint64{0x5000}, cfa: stackAddr + 8, next: 0x5000},
		{name: "advance 2", cfi: x86(0x03, 0x10, 0, 0x0e, 16), regs: sp, stack: []uint64{0, 0x5000}, cfa: stackAddr + 16, next: 0x5000},
		{name: "advance 4", cfi: x86(0x04, 0x10, 0, 0, 0, 0x0e, 16), regs: sp, stack: []uint64{0, 0x5000}, cfa: stackAddr + 16, next: 0x5000},
		{name: "set loc", cfi: x86(append([]byte{0x01}, append(binary.LittleEndian.AppendUint64(nil, codeAddr+0x11), 0x0e, 16)...)...),
			regs: sp, stack: []uint64{0x5000}, cfa: stackAddr + 8, next: 0x5000},
		{name: "frame pointer", cfi: x86(0x0c, 6, 16, 0x86, 2), regs: map[int]uint64{7: stackAddr, 6: stackAddr + 8}, stack: []uint64{0, 0x66, 0x5000},
			cfa: stackAddr + 24, next: 0x5000, want: map[int]uint64{6: 0x66, 7: stackAddr + 24}},
		{name: "def cfa register", cfi: x86(0x0d, 6), regs: map[int]uint64{7: stackAddr, 6: stackAddr + 8}, stack: []uint64{0, 0x5000}, cfa: stackAddr + 16, next: 0x5000},
		{name: "signed factors", cfi: x86(0x12, 7, 0x7e, 0x11, 3, 2), regs: sp, stack: []uint64{0xb, 0x5000}, cfa: stackAddr + 16, next: 0x5000, want: map[int]uint64{3: 0xb}},
		{name: "def cfa offset sf", cfi: x86(0x13, 0x7e), regs: sp, stack: []uint64{0, 0x5000}, cfa: stackAddr + 16, next: 0x5000},
		{name: "negative offset", cfi: x86(0x0e, 16, 0x2f, 3, 1), regs: sp, stack: []uint64{0, 0x5000, 0, 0xb}, cfa: stackAddr + 16, next: 0x5000, want: map[int]uint64{3: 0xb}},
		{name: "remember and restore", cfi: x86(0x0a, 0x0e, 64, 0x86, 5, 0x0b), regs: sp, stack: []uint64{0x5000}, cfa: stackAddr + 8, next: 0x5000, want: map[int]uint64{6: 0x66}},
		{name: "restore", cfi: x86(0x86, 5, 0xc6, 0x06, 3), regs: sp, stack: []uint64{0x5000}, cfa: stackAddr + 8, next: 0x5000, want: map[int]uint64{6: 0x66, 3: 0x33}},
		{name: "same value", cfi: x86(0x08, 0), regs: map[int]uint64{7: stackAddr, 0: 9}, stack: []uint64{0x5000}, cfa: stackAddr + 8, next: 0x5000, want: map[int]uint64{0: 9}},
		{name: "register", cfi: x86(0x09, 3, 6), regs: sp, stack: []uint64{0x5000}, cfa: stackAddr + 8, next: 0x5000, want: map[int]uint64{3: 0x66, 6: 0x66}},
		{name: "val offset", cfi: x86(0x14, 3, 1, 0x15, 6, 0x7f), regs: sp, stack: []uint64{0x5000}, cfa: stackAddr + 8, next: 0x5000,
			want: map[int]uint64{3: stackAddr, 6: stackAddr + 16}},
		{name: "expression", cfi: x86(0x10, 3, 2, 0x38, 0x1c), regs: sp, stack: []uint64{0x5000, 0xb}, cfa: stackAddr + 8, next: 0x5000, want: map[int]uint64{3: 0x5000}},
		{name: "val expression", cfi: x86(0x16, 3, 2, 0x38, 0x22), regs: sp, stack: []uint64{0x5000}, cfa: stackAddr + 8, next: 0x5000, want: map[int]uint64{3: stackAddr + 16}},
		{name: "CFA by expression", cfi: x86(0x0f, 3, 0x77, 0, 0x06), regs: sp, stack: []uint64{stackAddr + 16, 0x5000}, cfa: stackAddr + 16, next: 0x5000},
		{name: "PLT", // ld's: rsp+8, and 8 more once the relocation index was pushed
			cfi:  x86(0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22),
			regs: sp, stack: []uint64{0x5000}, cfa: stackAddr + 8, next: 0x5000},
		{name: "args size, vector register, nop", cfi: x86(0x2e, 16, 0x05, 17, 4, 0), regs: sp, stack: []uint64{0x5000}, cfa: stackAddr + 8, next: 0x5000},
		{name: "outermost", cfi: x86(0x07, 16), regs: sp, cfa: stackAddr + 8},
		{name: "signal", cfi: cfi{aug: "zS", ra: 16, initial: []byte{0x0f, 3, 0x77, 8, 0x06, 0x10, 16, 2, 0x77, 0, 0x10, 7, 2, 0x77, 8}},
			regs: sp, stack: []uint64{0x5000, 0x1000}, cfa: 0x1000, next: 0x5000, want: map[int]uint64{7: 0x1000}},

		{name: "caller-saved CFA", cfi: x86(0x0c, 0, 8), regs: sp, err: "does not go up"},
		{name: "down", cfi: x86(0x0d, 6), regs: sp, err: "does not go up"},
		{name: "no CFA", cfi: cfi{ra: 16}, regs: sp, err: "no CFA"},
		{name: "no return address", cfi: cfi{ra: 16, initial: []byte{0x0c, 7, 8}}, regs: sp, err: "not known"},
		{name: "zero", cfi: x86(), regs: sp, stack: []uint64{0}, err: "zero"},
		{name: "no memory", cfi: x86(), regs: sp, err: "cannot be read"},
		{name: "sparc", cfi: x86(0x2d), regs: sp, err: "not this architecture"},
		{name: "no state", cfi: x86(0x0b), regs: sp, err: "no remembered state"},
		{name: "states", cfi: x86(bytes.Repeat([]byte{0x0a}, 100)...), regs: sp, err: "too many"},
		{name: "unknown", cfi: x86(0x3f), regs: sp, err: "not known"},
		{name: "truncated", cfi: x86(0x0f, 0xff, 0x7f), regs: sp, err: "too early"},
		{name: "endless expression", cfi: x86(0x0f, 3, 0x2f, 0xfd, 0xff), regs: sp, err: "too many operations"},
		{name: "augmentation", cfi: cfi{aug: "zX", ra: 16, initial: x86Initial}, regs: sp, err: "augmentation"},
		{name: "column", cfi: cfi{ra: 17, initial: x86Initial}, regs: sp, err: "column 17"},
	}, aarch64Rows(arm, armSP)...)
}

func aarch64Rows(arm func(...byte) cfi, regs map[int]uint64) []rowTest {
	const pac = 0x007f_0000_0000_0000
	a := arch.AArch64
	return []rowTest{
		{name: "leaf", arch: a, cfi: arm(), regs: regs, cfa: stackAddr, next: 0x5000, want: map[int]uint64{31: stackAddr, 29: 0x29}},
		{name: "frame record", arch: a, cfi: arm(0x0e, 32, 0x9d, 4, 0x9e, 3), regs: regs, stack: []uint64{0x77, 0x6000},
			cfa: stackAddr + 32, next: 0x6000, want: map[int]uint64{29: 0x77, 31: stackAddr + 32}},
		{name: "signed", arch: a, cfi: arm(0x0e, 16, 0x9e, 1, 0x2d), mask: pac, regs: regs, stack: []uint64{0, 0x0055_0000_0000_6000},
			cfa: stackAddr + 16, next: 0x6000},
		{name: "signed twice is not", arch: a, cfi: arm(0x0e, 16, 0x9e, 1, 0x2d, 0x2d), mask: pac, regs: regs, stack: []uint64{0, 0x0055_0000_0000_6000},
			cfa: stackAddr + 16, next: 0x0055_0000_0000_6000},
		{name: "signed with pc", arch: a, cfi: arm(0x2c), mask: pac, regs: map[int]uint64{31: stackAddr, 30: pac | 0x6000}, cfa: stackAddr, next: 0x6000},
		{name: "key B", arch: a, cfi: cfi{aug: "zRB", augData: []byte{0}, ra: 30, initial: []byte{0x0c, 31, 0}, insns: []byte{0x2d}}, mask: pac,
			regs: map[int]uint64{31: stackAddr, 30: pac | 0x6000}, cfa: stackAddr, next: 0x6000},
		{name: "restored state keeps the sign", arch: a, cfi: arm(0x2d, 0x0a, 0x2d, 0x0b), mask: pac,
			regs: map[int]uint64{31: stackAddr, 30: pac | 0x6000}, cfa: stackAddr, next: 0x6000},
		{name: "link register elsewhere", arch: a, cfi: arm(0x09, 30, 9), regs: map[int]uint64{31: stackAddr, 9: 0x6000}, cfa: stackAddr, next: 0x6000},
		{name: "another column", arch: a, cfi: cfi{ra: 15, initial: []byte{0x0c, 31, 0}, insns: []byte{0x09, 15, 9}}, regs: map[int]uint64{31: stackAddr, 9: 0x6000}, cfa: stackAddr, next: 0x6000},
		{name: "another column without a rule", arch: a, cfi: cfi{ra: 15, initial: []byte{0x0c, 31, 0}}, regs: map[int]uint64{31: stackAddr, 15: 0x6000}, err: "not known"},
		{name: "return address above the CFA", arch: a, cfi: arm(0x11, 30, 0x7f), regs: regs, stack: []uint64{0x77, 0x6000}, err: "above the CFA"},
		{name: "return address above the CFA later", arch: a, cfi: arm(0x60, 0x11, 30, 0x7f), regs: regs, err: "above the CFA"},
		{name: "vector CFA", arch: a, cfi: arm(0x0f, 3, 0x92, 46, 0), regs: regs, err: "not known"},
		{name: "outermost", arch: a, cfi: arm(0x07, 30), regs: regs, cfa: stackAddr},
	}
}

func TestRows(t *testing.T) {
	for _, tt := range rowTests() {
		if tt.arch == nil {
			tt.arch = arch.X86_64
		}
		t.Run(tt.arch.Name+"/"+tt.name, func(t *testing.T) { tt.run(t) })
	}
}

func (tt *rowTest) run(t *testing.T) {
	c, err := tt.context()
	var f Frame
	last := false
	if err == nil {
		f, last, err = c.step()
	}
	if tt.err != "" {
		if err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Fatalf("error %v: want %q", err, tt.err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if f.CFA != tt.cfa || last != (tt.next == 0) || !last && specs.Addr(c.pc) != tt.next {
		t.Errorf("CFA %v, caller %#x, last %v: want CFA %v, caller %v", f.CFA, c.pc, last, tt.cfa, tt.next)
	}
	for n, v := range tt.want {
		if c.known>>n&1 == 0 || c.regs[n] != v {
			t.Errorf("register %d is %#x, known %v: want %#x", n, c.regs[n], c.known>>n&1 != 0, v)
		}
	}
}

// context returns the frame that the test steps from. Return addresses are
// never in the object.
func (tt *rowTest) context() (*context, error) {
	r := specs.Range[specs.Addr]{Lo: codeAddr, Hi: codeAddr + codeSize}
	o, err := New(tt.arch, r, Section{}, Section{frameAddr, tt.cfi.bytes()})
	if err != nil {
		return nil, err
	}
	w, err := NewWalker(tt.arch, words(stackAddr, tt.stack...), func(specs.Addr) *Object { return o })
	if err != nil {
		return nil, err
	}
	w.stack.reset()
	c := &context{walker: w, abi: w.abi, pc: codeAddr + 0x10, known: w.abi.all, mask: tt.mask, exact: true}
	for n, v := range tt.regs {
		c.regs[n] = v
	}
	return c, nil
}

// TestCallerSavedIsLost: a register that calls do not preserve is unknown in
// the caller, and so is a CFA that is made from it.
func TestCallerSavedIsLost(t *testing.T) {
	tt := rowTest{arch: arch.X86_64, cfi: cfi{ra: 16, initial: x86Initial}, regs: map[int]uint64{7: stackAddr, 0: 5}, stack: []uint64{0x5000}}
	c, err := tt.context()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.step(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.reg(0); !errors.Is(err, ErrLost) {
		t.Errorf("rax: %v: want %v", err, ErrLost)
	}
	if _, err := c.reg(3); err != nil {
		t.Errorf("rbx: %v", err)
	}
}

// TestReturnAddressRule: the row of a return address is that of the call, one
// byte earlier.
func TestReturnAddressRule(t *testing.T) {
	c := cfi{ra: 16, initial: x86Initial, insns: []byte{0x50, 0x0e, 16}} // from +0x10
	tt := rowTest{arch: arch.X86_64, cfi: c, regs: map[int]uint64{7: stackAddr}, stack: []uint64{0x5000, 0x6000}}
	for exact, want := range map[bool]uint64{true: 0x6000, false: 0x5000} {
		c, err := tt.context()
		if err != nil {
			t.Fatal(err)
		}
		c.exact = exact
		if _, _, err := c.step(); err != nil || c.pc != want {
			t.Errorf("exact %v: caller %#x, %v: want %#x", exact, c.pc, err, want)
		}
	}
}

func TestTooDeep(t *testing.T) {
	// A frame that calls itself for ever: the frame limit ends it.
	stack := slices.Repeat([]uint64{codeAddr + 0x10}, maxFrames+10)
	tt := rowTest{arch: arch.X86_64, cfi: cfi{ra: 16, initial: x86Initial}, stack: stack}
	c, err := tt.context()
	if err != nil {
		t.Fatal(err)
	}
	regs := Registers{PC: codeAddr + 0x10}
	regs.R[7] = stackAddr
	frames, err := c.walker.Walk(&regs, nil)
	if !errors.Is(err, ErrTooDeep) || len(frames) != maxFrames {
		t.Errorf("%d frames, %v: want %d, %v", len(frames), err, maxFrames, ErrTooDeep)
	}
}

func FuzzCFI(f *testing.F) {
	for _, tt := range rowTests() {
		f.Add(tt.cfi.bytes(), tt.arch == arch.AArch64)
	}
	stack := make([]uint64, 64)
	for i := range stack {
		stack[i] = codeAddr + uint64(i)
	}
	f.Fuzz(func(t *testing.T, frame []byte, arm bool) {
		a := arch.X86_64
		if arm {
			a = arch.AArch64
		}
		r := specs.Range[specs.Addr]{Lo: codeAddr, Hi: codeAddr + codeSize}
		o, err := New(a, r, Section{}, Section{frameAddr, frame})
		if (o == nil) == (err == nil) {
			t.Fatalf("object %v, error %v", o, err)
		}
		if err != nil {
			return
		}
		w, err := NewWalker(a, words(stackAddr, stack...), func(specs.Addr) *Object { return o })
		if err != nil {
			t.Fatal(err)
		}
		regs := Registers{PC: codeAddr + 16}
		regs.R[7], regs.R[31] = stackAddr, stackAddr
		frames, err := w.Walk(&regs, nil)
		if len(frames) == 0 && err == nil {
			t.Fatal("no frames and no error")
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{1, 0x1b, 3, 0x3b, 0, 1, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0}, uint64(codeAddr))
	f.Fuzz(func(t *testing.T, hdr []byte, pc uint64) {
		frame := cfi{ra: 16, initial: x86Initial}.bytes()
		r := specs.Range[specs.Addr]{Lo: codeAddr, Hi: codeAddr + codeSize}
		o, err := New(arch.X86_64, r, Section{frameAddr - 0x100, hdr}, Section{frameAddr, frame})
		if err != nil {
			return
		}
		if off, err := o.find(pc); err == nil && off >= uint64(len(frame)) {
			t.Fatalf("FDE at %#x of %#x bytes", off, len(frame))
		}
	})
}

// TestSigcontext: code that is the rt_sigreturn system call needs no CFI; the
// interrupted registers are where the kernel put them.
func TestSigcontext(t *testing.T) {
	offsets := map[*arch.Arch]struct{ first, pc int }{
		arch.X86_64:  {40, 168},                        // r8 in struct sigcontext, rip
		arch.AArch64: {128 + 176 + 8, 128 + 176 + 264}, // x0, pc
	}
	for a, abi := range abis {
		t.Run(a.Name, func(t *testing.T) {
			b := make([]byte, 4096)
			copy(b, abi.sigreturn)
			const sp = 64 // from stackAddr, where the code is
			for n := range 40 {
				le.PutUint64(b[sp+offsets[a].first+8*n:], uint64(0x1000+n))
			}
			le.PutUint64(b[sp+offsets[a].pc:], 0x5000)
			w, err := NewWalker(a, memory{stackAddr, b}, func(specs.Addr) *Object { return nil })
			if err != nil {
				t.Fatal(err)
			}
			regs := Registers{PC: stackAddr}
			regs.R[abi.sp] = stackAddr + sp
			frames, err := w.Walk(&regs, nil)
			if !errors.Is(err, ErrNoObject) || len(frames) != 2 || !frames[0].Signal || frames[1].PC != 0x5000 || frames[1].At != 0x5000 {
				t.Fatalf("frames %+v, %v: want a signal frame and the interrupted one", frames, err)
			}
			want := map[*arch.Arch]specs.Addr{arch.X86_64: 0x1000 + 15, arch.AArch64: 0x1000 + 31}[a] // rsp, sp
			if frames[0].CFA != want {
				t.Errorf("interrupted stack pointer %v: want %v", frames[0].CFA, want)
			}
			regs.PC += 4
			if frames, err := w.Walk(&regs, nil); len(frames) != 1 || err == nil {
				t.Errorf("elsewhere: frames %+v, %v", frames, err)
			}
		})
	}
}

// TestFromPRStatus reads register sets in which every word is its index.
func TestFromPRStatus(t *testing.T) {
	for a, want := range map[*arch.Arch]struct{ sp, pc, fp uint64 }{
		arch.X86_64:  {19, 16, 4}, // rsp, rip, rbp in struct user_regs_struct
		arch.AArch64: {31, 32, 29},
	} {
		b := make([]byte, 8*40)
		for n := range 40 {
			le.PutUint64(b[8*n:], uint64(n))
		}
		r, err := FromPRStatus(a, b)
		fp := map[*arch.Arch]int{arch.X86_64: 6, arch.AArch64: 29}[a]
		if err != nil || r.R[abis[a].sp] != want.sp || uint64(r.PC) != want.pc || r.R[fp] != want.fp {
			t.Errorf("%v: %+v, %v: want %+v", a, r, err, want)
		}
		if _, err := FromPRStatus(a, b[:100]); err == nil {
			t.Errorf("%v: a short register set", a)
		}
	}
}
