package kpack

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/arch/arm64/arm64asm"
	"golang.org/x/arch/x86/x86asm"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// TestFinderX86_64: the gaps of the finder are where its instructions have
// their displacements, and its jumps lead to its last instruction.
func TestFinderX86_64(t *testing.T) {
	const at, header, next, linkMap = specs.Addr(0x7000_0000), specs.Addr(0x6fff_0010), specs.Addr(0x6fff_0018), specs.Addr(0x6fff_0020)
	text := specs.Range[specs.Addr]{Lo: 0x6fff_1000, Hi: 0x7000_1000}
	code := make([]byte, len(finderX86_64))
	if err := putFinderX86_64(code, at, text, header, next, linkMap); err != nil {
		t.Fatal(err)
	}
	var addresses, jumps []specs.Addr
	last := specs.Addr(0)
	for i := len(endbr64); i < len(code)-1; {
		inst, err := x86asm.Decode(code[i:], 64)
		if err != nil {
			t.Fatalf("%#x: %v", i, err)
		}
		last = at + specs.Addr(i)
		i += inst.Len
		for _, arg := range inst.Args {
			switch a := arg.(type) {
			case x86asm.Mem:
				if a.Base == x86asm.RIP {
					addresses = append(addresses, at+specs.Addr(i)+specs.Addr(int32(a.Disp)))
				}
			case x86asm.Rel:
				jumps = append(jumps, at+specs.Addr(i)+specs.Addr(a))
			}
		}
	}
	if want := []specs.Addr{text.Lo, text.Hi, linkMap, header, next}; len(addresses) != 5 || [5]specs.Addr(addresses) != [5]specs.Addr(want) {
		t.Errorf("refers to %v, want %v", addresses, want)
	}
	for _, to := range jumps {
		if to != last {
			t.Errorf("jumps to %v, want %v", to, last)
		}
	}
	if len(jumps) != 2 || putFinderX86_64(code, at, text, header, at<<16, linkMap) == nil {
		t.Errorf("%d jumps, or a cell out of reach is accepted", len(jumps))
	}
}

// TestFinderAArch64: each ADRP and the instruction behind it lead to what they
// are for, the branches to the last part, and cells out of reach are refused.
func TestFinderAArch64(t *testing.T) {
	const at, header, next, linkMap = specs.Addr(0x7000_0abc), specs.Addr(0x6fff_0010), specs.Addr(0x6fff_0018), specs.Addr(0x6fff_0020)
	text := specs.Range[specs.Addr]{Lo: 0x6fff_1000, Hi: 0x7000_1000}
	code := make([]byte, 4*len(finderAArch64))
	if err := putFinderAArch64(code, at, text, header, next, linkMap); err != nil {
		t.Fatal(err)
	}
	pages := map[arm64asm.Reg]specs.Addr{}
	var addresses, branches []specs.Addr
	for i := 0; i < len(code); i += 4 {
		inst, err := arm64asm.Decode(code[i:])
		if err != nil && i > 0 { // package arm64asm does not know "bti c"
			t.Fatalf("%#x: %v", i, err)
		}
		pc, word := at+specs.Addr(i), binary.LittleEndian.Uint32(code[i:])
		rn := arm64asm.Reg(word>>5&31) + arm64asm.X0
		switch inst.Op {
		case arm64asm.ADRP:
			pages[inst.Args[0].(arm64asm.Reg)] = pc&^0xfff + specs.Addr(inst.Args[1].(arm64asm.PCRel))
		case arm64asm.ADD:
			addresses = append(addresses, pages[rn]+specs.Addr(word>>10&0xfff))
		case arm64asm.LDR:
			addresses = append(addresses, pages[rn]+specs.Addr(word>>10&0xfff)<<3)
		case arm64asm.B:
			branches = append(branches, pc+specs.Addr(inst.Args[1].(arm64asm.PCRel)))
		}
	}
	if want := []specs.Addr{text.Lo, text.Hi, linkMap, header, next}; !slices.Equal(addresses, want) {
		t.Errorf("refers to %v, want %v", addresses, want)
	}
	if pass := at + 4*18; !slices.Equal(branches, []specs.Addr{pass, pass}) {
		t.Errorf("branches to %v, want twice %v", branches, pass)
	}
	if putFinderAArch64(code, at, text, header, at<<16, linkMap) == nil || putFinderAArch64(code, at, text, header, next+1, linkMap) == nil {
		t.Error("a cell out of reach, or an odd one, is accepted")
	}
}

// TestFinderLayout: header and cell do not overlap anything, the frames end in
// zeros, and the header leads to them.
func TestFinderLayout(t *testing.T) {
	frames := []byte{4, 0, 0, 0, 1, 2, 3, 4}
	p := &Patch{Arch: machineX86_64.arch, Sections: []Section{
		{Name: ".kpatch.text", Kind: Text, Align: 16, Size: 3, Data: []byte{0x90, 0x90, 0xc3}},
		{Name: ehFrame, Kind: ROData, Align: 8, Size: 8, Data: frames},
		{Name: ".kpatch.rodata", Kind: ROData, Align: 1, Size: 5, Data: []byte("12345")},
	}}
	l, err := p.Layout(4096, 100)
	if err != nil {
		t.Fatal(err)
	}
	const base = 0x10000
	im, err := p.Link(l, base, 0, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := l.Offset(1)
	if string(im.ROData[at:at+12]) != string(frames)+"\x00\x00\x00\x00" {
		t.Errorf("frames: % x", im.ROData[at:at+12])
	}
	header := uint64(im.Finder.Next) - base - finderHeader
	h := im.ROData[header:]
	if got := header + 4 + uint64(int32(binary.LittleEndian.Uint32(h[4:]))); string(h[:4]) != "\x01\x1b\xff\xff" || got != at {
		t.Errorf("header % x leads to %#x, want %#x", h[:8], got, at)
	}
	if end := l.Offset(2) + 5; header < end || im.Finder.Next%8 != 0 {
		t.Errorf("header at %#x: the constants end at %#x", header, end)
	}
	if e := uint64(im.Finder.Entry) - base - l.Text.Offset; e < 3 || e+uint64(len(finderX86_64)) > l.Text.Size {
		t.Errorf("finder at %#x of %#x bytes of code", e, l.Text.Size)
	}
}

// TestBuildUnwinder: without a finder nothing of a target that throws is
// patched, whatever its tables say. The target may only import what throws.
func TestBuildUnwinder(t *testing.T) {
	without := *machineAArch64
	without.finderSize = 0
	for _, c := range []struct {
		m       *machine
		imports string
		refused bool
		defines string
	}{
		{m: &without, defines: "_Unwind_Resume"},
		{m: &without, defines: "__cxa_throw", refused: true},
		{m: &without, imports: "_Unwind_Resume", refused: true},
		{m: &without, imports: "__cxa_throw", refused: true},
		{m: &without, imports: "printf"},
		{m: machineAArch64, imports: "_Unwind_Resume"},
		{m: machineX86_64, imports: "_Unwind_Resume"},
	} {
		x := &symbolIndex{dynamic: map[string]elfobj.Symbol{c.imports: {Name: c.imports}}, globals: map[string]elfobj.Symbol{c.defines: {Name: c.defines}}}
		b := &builder{machine: c.m, original: x, patch: &Patch{Arch: c.m.arch}}
		if err := b.unwinder(); (err != nil) != c.refused {
			t.Errorf("%s that imports %q, defines %q: %v", c.m.arch.Name, c.imports, c.defines, err)
		}
	}
}
