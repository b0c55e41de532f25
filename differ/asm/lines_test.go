package asm

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// pieces are lines, and parts of them, of which tests make texts.
var pieces = []string{
	"f:\n", ".LC0:\n", ".LC1: # c\n", "x.1:\n", "1:\n", ".L:\n", "a:\n", "\t.text\n", "\t.data\n", "\t.bss 0\n", "\t.section\t.rodata\n",
	"\t.section .rodata\n", "\t.section\t.text.f,\"axG\",@progbits,f,comdat\n", "\t.section\t.text.f,\"axG\",@progbits,g,comdat\n",
	"\t.section\t.debug_info,\"\",@progbits\n", "\t.section\t.rodata.str1.1,\"aMS\",@progbits,1\n",
	"\t.section\t.rodata.str1.8,\"aMS\",@progbits,1; nop\n", "\t.pushsection .x,\"a\"\n", "\t.popsection\n", "\t.previous\n",
	"\t.globl\tf\n", "\t.globl f\n", "\t.globl\tf, g\n", "\t.weak\tf\n", "\t.weak\tg # c\n", "\t.local\tg\n", "\t.hidden\tf\n", "\t.globl\t\"q r\"\n",
	"\t.type\tf, @function\n", "\t.type\tx.1,@object\n", "\t.type\tf, %function\n", "\t.type\tf STT_FUNC\n", "\t.type\tf, @Object # c\n",
	"\t.size\tf, .-f\n", "\t.size\tx.1, 8\n", "\t.size\tf,.-f\n", "\t.size\tf, 4 # c\n", "\t.size\tf, \n", "\t.comm\tz,4,4\n", "\t.set\ty, x.1+4\n",
	"\t.long\t1\n", "\t.long\t1 \n", "\t.quad\tf\n", "\t.quad\tf+8 # c\n", "\t.value\t.L1-.L2\n", "\t.byte 'a\n", "\t.long = 5\n", "\t.quadx\t5\n",
	"\t.uleb128 .L2-.L1\n", "\t.sleb128\t-1\n", "\t.zero\t8\n", "\t.string\t\"a\"\n", "\t.string\t\"\\\"\"\n", "\t.string\t\"\\\\\"\n", "\t.ascii\t\"\", \"b\"\n",
	"\t.string\t\"a\n", "\t.string\t\"a\\\"\n", "\t.string\t\"# ; \" # c\n", "\t.double\t1.5\n", "\t.align 8\n", "\t.p2align\t4,,10\n", "\t.p2align 4, 0x90\n",
	"\t.cfi_startproc\n", "\t.cfi_endproc\n", "\t.cfi_personality 0x3,DW.ref.p\n", "\t.loc 1 2 3\n", "\t.file\t\"a.c\"\n", "\t.ident\t\"GCC\"\n",
	"\tmovq\t%rax, x.1(%rip)\n", "\tcall\tf@PLT # c\n", "\trep stosq\n", "\tret\n", "\tret\t\n", "\tjmp\t1b; nop\n", "\tmovb\t$'a', %al\n",
	"\tldr\tx0, [x1]\n", "\tadd\tx0, x0, #4\n", "\tfoo = 5\n", "\tfoo:\tret\n", "\t{disp32} ret\n", "\t\tret\n", "  ret\n", "\n", "\t\n",
	"# comment\n", "#APP\n", "#NO_APP\n", "\t#APP\n", "/ x\n", "\tret // x\n", "\tret\r\n", "\t.arch armv8-a\n", "\t.macro\n", "\t.unknown\t1\n", "\t)\n",
}

// spelled returns what a unit holds, as one may read it.
func spelled(u *Unit) string {
	var b strings.Builder
	for i := range u.Sections {
		s := &u.Sections[i]
		fmt.Fprintf(&b, "section %q %q %q %v %d\n", s.Name, s.Flags, s.Args, s.Kind, s.Items)
	}
	for i := range u.Items {
		it := &u.Items[i]
		fmt.Fprintf(&b, "item %d %d %d %d %v %v %d %d %q\n", it.Section, it.Line, it.Symbols, it.Bytes, it.Common, it.Split, it.Foreign, it.Inner, it.Mode)
		for _, st := range it.Stmts {
			fmt.Fprintf(&b, "\t%d %d %q\n", st.Kind, st.Line, u.TextOf(st))
		}
	}
	for i := range u.Symbols {
		fmt.Fprintf(&b, "symbol %+v\n", u.Symbols[i])
	}
	return b.String() + fmt.Sprint(u.Producer, u.Versions)
}

// sameSlow fails the test if a text says something else when it is read without
// the short cuts for lines as compilers write them: none begins with a space.
func sameSlow(t *testing.T, text string, d *Dialect) {
	t.Helper()
	slow := strings.TrimSuffix(" "+strings.ReplaceAll(text, "\n", "\n "), " ")
	u, err := Parse("a.s", text, d)
	v, errSlow := Parse("a.s", slow, d)
	if err == nil && errSlow == nil {
		if a, b := spelled(u), spelled(v); a != b {
			t.Fatalf("%q\n%s\nand slowly\n%s", text, a, b)
		}
		return
	}
	if err == nil || errSlow == nil {
		t.Fatalf("%q: %v, and slowly %v", text, err, errSlow)
	}
	a, b := err.(*SyntaxError), errSlow.(*SyntaxError)
	if a.Line != b.Line || a.Reason != b.Reason {
		t.Fatalf("%q: %v, and slowly %v", text, err, errSlow)
	}
}

func TestLines(t *testing.T) {
	for _, d := range dialects {
		sameSlow(t, sample, d)
		for _, a := range pieces {
			for _, b := range pieces {
				sameSlow(t, "\t.data\n"+a+b, d)
			}
		}
		random := rand.New(rand.NewPCG(1, 2))
		for range 2000 {
			var text strings.Builder
			for range 2 + random.IntN(8) {
				text.WriteString(pieces[random.IntN(len(pieces))])
			}
			sameSlow(t, text.String(), d)
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add(sample)
	for _, p := range pieces {
		f.Add("\t.data\n" + p)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, d := range dialects {
			sameSlow(t, text, d)
		}
	})
}
