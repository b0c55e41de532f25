package differ_test

import (
	"errors"
	"testing"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/differ/asm"
	"github.com/fother/fother/specs/arch"
)

func FuzzDiff(f *testing.F) {
	const one = "\t.text\n\t.globl f\n\t.type f, @function\nf:\n\tmovl count.0(%rip), %eax\n\tjmp .L2\n.L2:\tcall g\n\tleaq .LC0(%rip), %rdi\n\tret\n\t.size f, .-f\n" +
		"\t.section .rodata.str1.1,\"aMS\",@progbits,1\n.LC0:\n\t.string \"x\"\n\t.local count.0\n\t.comm count.0,4,4\n"
	const two = "\t.text\n\t.type g, @function\ng:\n\tmovl count.1(%rip), %eax\n\tjmp .L3\n\tcall f\n.L3:\n\tret\n\t.size g, .-g\n" +
		"\t.section .data.rel.ro,\"aw\"\n.LC0:\n\t.quad .LC0, .LC1, g\n.LC1:\n\t.quad .LC0+8\n\t.set a, .LC1+4\n\t.local count.1\n\t.comm count.1,8,8\n"
	f.Add([]byte(one), []byte(two), false)
	f.Add([]byte(two), []byte(one), false)
	f.Add([]byte(one), []byte(one), true)
	f.Fuzz(func(t *testing.T, original, patched []byte, arm bool) {
		in := differ.Input{Unit: "fuzz.c", Arch: arch.X86_64, Original: original, Patched: patched}
		if arm {
			in.Arch = arch.AArch64
		}
		set, err := differ.DiffBoth(t, in)
		var refused *differ.RefusalError
		var syntax *asm.SyntaxError
		if err != nil && !errors.As(err, &refused) && !errors.As(err, &syntax) {
			t.Errorf("error of an unknown kind: %v", err)
		}
		if err == nil && set == nil || refused != nil && (set == nil || set.Assembly != nil || len(refused.Refusals) == 0) {
			t.Errorf("%v, %v", set, err)
		}
		if err == nil && string(original) == string(patched) && set.Assembly != nil {
			t.Errorf("a unit and itself differ:\n%s", set.Assembly)
		}
	})
}
