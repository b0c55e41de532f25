package kpack

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// farS is a program whose two pieces of code lie as far apart as the linker is told.
const farS = `
	.text
	.globl _start, near, next
	.type _start, %function
_start:	bl near
	.size _start, .-_start
	.type near, %function
near:	stp x29, x30, [sp, #-16]!
	bl away
	ldp x29, x30, [sp], #16
	ret
	.size near, .-near
	.type next, %function
next:	ret
	.size next, .-next
	.section .away,"ax",%progbits
	.globl away, beyond
	.type away, %function
away:	add x0, x0, #1
	ret
	.size away, .-away
	.type beyond, %function
beyond:	mov x0, #2
	ret
	.size beyond, .-beyond
`

// farFix are the new bodies of functions of farS.
var farFix = map[string]string{
	"near":   "stp x29, x30, [sp, #-16]!\nbl away\nbl next\nbl away\nldp x29, x30, [sp], #16\nb away\n",
	"beyond": "mov x0, #3\nret\n",
}

// farPatch builds a patch of the given functions of farS, in which away is at an address.
func farPatch(t *testing.T, away string, functions ...string) (*Patch, error) {
	t.Helper()
	tuple := arch.AArch64.Tuple
	testenv.Needs(t, tuple+"-as")
	at := filepath.Join(t.TempDir(), "far")
	tool(t, tuple+"-as", "-o", at+".o", write(t, at+".s", farS))
	fix := ".section .kpatch.text,\"ax\",%progbits\n"
	for _, f := range functions {
		fix += fmt.Sprintf(".globl %s.kpatch\n.type %[1]s.kpatch, %%function\n%[1]s.kpatch:\n%s.size %[1]s.kpatch, .-%[1]s.kpatch\n", f, farFix[f])
	}
	tool(t, tuple+"-as", "-o", at+".p.o", write(t, at+".p.s", fix))
	tool(t, tuple+"-ld", "--build-id", "-Ttext=0x400000", "--section-start=.away="+away, "-o", at, at+".o")
	u := BuildUnit{Name: "far.s", Object: open(t, at+".p.o"), OriginalObject: open(t, at+".o")}
	for _, f := range functions {
		u.Functions = append(u.Functions, BuildFunction{Original: f, Label: f + ".kpatch", Reason: "test"})
	}
	return Build(BuildInput{
		Arch: arch.AArch64, Name: "far", Original: open(t, at), Patched: open(t, at),
		Meta: Meta{Name: "test", Series: specs.DefaultSeries, Level: 1}, Units: []BuildUnit{u},
	})
}

// TestVeneers: what a branch reaches it leads to, wherever the patch lies; all else by one
// veneer for each place.
func TestVeneers(t *testing.T) {
	p, err := farPatch(t, "0x8800000", "near")
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.Layout(4096, 64)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.veneers) != 2 {
		t.Errorf("room for %d veneers: want those of away and next", len(l.veneers))
	}
	address := map[string]uint64{}
	for _, v := range p.Symbols {
		if v.Binding == Original {
			address[v.Name] = v.Value
		}
	}
	for _, c := range []struct {
		base    specs.Addr
		veneers string
	}{
		{0x300000, "away"}, {0x500000, "away"}, {0x7000000, ""},
	} {
		im, err := p.Link(l, c.base, 0, nil, nil)
		if err != nil {
			t.Fatalf("at %v: %v", c.base, err)
		}
		text := c.base + specs.Addr(l.Text.Offset)
		for i, callee := range map[int]string{1: "away", 2: "next", 3: "away", 5: "away"} {
			from := im.Entries[0] + specs.Addr(4*i)
			w := binary.LittleEndian.Uint32(im.Text[from-text:])
			to := from + specs.Addr(4*signed(w, 0, 26))
			if strings.Contains(c.veneers, callee) {
				code := im.Text[to-text:][:16]
				if got := fmt.Sprintf("%x", code[:8]); got != "50000058"+"00025fd6" {
					t.Errorf("at %v: the veneer of %s is %s", c.base, callee, got)
				}
				to = specs.Addr(binary.LittleEndian.Uint64(code[8:]))
			}
			if uint64(to) != address[callee] {
				t.Errorf("at %v: instruction %d leads to %v, want %s at %#x", c.base, i, to, callee, address[callee])
			}
		}
	}
}

// TestSpread: functions that no memory is near are refused by name.
func TestSpread(t *testing.T) {
	_, err := farPatch(t, "0x14000000", "near", "beyond")
	if err == nil || !strings.Contains(err.Error(), "function beyond: lies 316 MiB behind near") {
		t.Errorf("error %v", err)
	}
}

// TestCallByVeneer: a static function that others call by the linker's veneer is found.
func TestCallByVeneer(t *testing.T) {
	const static = `
	.text
	.globl _start
	.type _start, %function
_start:	bl away
	.size _start, .-_start
	.section .away,"ax",%progbits
	.type away, %function
away:	ret
	.size away, .-away
`
	tuple := arch.AArch64.Tuple
	testenv.Needs(t, tuple+"-as")
	at := filepath.Join(t.TempDir(), "far")
	tool(t, tuple+"-as", "-o", at+".o", write(t, at+".s", static))
	tool(t, tuple+"-ld", "-Ttext=0x400000", "--section-start=.away=0x14000000", "-o", at, at+".o")
	x, err := newSymbolIndex(open(t, at), machineAArch64)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPlacement(x, machineAArch64, open(t, at+".o"))
	if err != nil {
		t.Fatal(err)
	}
	if _, addr, err := p.find("away"); err != nil || addr != 0x14000000 {
		t.Errorf("away is at %v, error %v", addr, err)
	}
}
