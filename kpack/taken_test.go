package kpack

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// takenS takes the addresses of some functions, in all the ways that compilers
// know, and only calls others, jumps to them, or has tables and frames of them.
var takenS = map[*arch.Arch]string{
	arch.X86_64: `
	.section .kpatch.text,"ax",@progbits
	.globl slot_called, slot_loaded, global_lea, global_got, global_called
	.type entry, @function
entry:	.cfi_startproc
	leaq own_lea(%rip), %rdi
	leaq global_lea(%rip), %rsi
	leaq entry(%rip), %rsi
	movq global_got@GOTPCREL(%rip), %rdx
	movl $absolute, %edi
	call called
	call global_called@PLT
	call *slot_called@GOTPCREL(%rip)
	jmp *slot_called@GOTPCREL(%rip)
	movl slot_loaded@GOTPCREL(%rip), %eax
	jmp called
	.cfi_endproc
	.irp name, slot_called, slot_loaded, own_lea, global_lea, global_got, absolute, called, global_called, quad, distance
	.type \name, @function
\name:	.cfi_startproc
	ret
1:	nop
	.cfi_endproc
	.endr
	.section .kpatch.rodata,"a",@progbits
	.quad quad, distance-.
	.long 1b-.
_ZTV1A.kpatch: .quad 0, 0, called
`,
	arch.AArch64: `
	.section .kpatch.text,"ax",%progbits
	.globl global_lea, global_got, global_called
	.type entry, %function
entry:	.cfi_startproc
	adr x0, own_lea
	adrp x1, global_lea
	add x1, x1, :lo12:global_lea
	adr x1, entry
	adrp x2, :got:global_got
	ldr x2, [x2, :got_lo12:global_got]
	adrp x3, absolute
	add x3, x3, :lo12:absolute
	bl called
	bl global_called
	b called
	.cfi_endproc
	.irp name, own_lea, global_lea, global_got, absolute, called, global_called, quad, distance
	.type \name, %function
\name:	.cfi_startproc
	ret
1:	nop
	.cfi_endproc
	.endr
	.section .kpatch.rodata,"a",%progbits
	.xword quad, distance-.
	.word 1b-.
_ZTV1A.kpatch: .xword 0, 0, called
`,
}

func TestAddressesTaken(t *testing.T) {
	for _, a := range arch.All {
		t.Run(a.Name, func(t *testing.T) {
			as := a.Tuple + "-as"
			testenv.Needs(t, as)
			object := filepath.Join(t.TempDir(), "a.o")
			tool(t, as, "-o", object, write(t, object+".s", takenS[a]))
			p := byHand(t, a, open(t, object), nil)
			for i := range p.Symbols {
				if p.Symbols[i].Name == "_ZTV1A.kpatch" {
					p.Symbols[i].Size = 24
					continue
				}
				p.Symbols[i].Func = p.Symbols[i].Name != "" && p.Symbols[i].Name[0] != '$'
				if p.Symbols[i].Name == "entry" {
					p.Functions = append(p.Functions, Function{Name: "entry", Symbol: i})
				}
			}
			m, err := machineOf(a)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"absolute", "distance", "global_got", "global_lea", "own_lea", "quad"}
			if a == arch.X86_64 {
				want = append(want, "slot_loaded")
			}
			if got := p.addressesTaken(m); len(p.Functions) != 1 || !slices.Equal(got, want) {
				t.Errorf("taken %q, want %q", got, want)
			}
		})
	}
}
