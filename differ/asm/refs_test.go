package asm

import (
	"slices"
	"testing"

	"github.com/fother/fother/specs/arch"
)

// Rows: statement, symbols in it; a "*" is put before the target of a direct
// branch and a "-" before one that is subtracted.
var x86Refs = []struct {
	kind Kind
	text string
	want []string
}{
	{Insn, "ret", nil},
	{Insn, "movl\t%edi, %eax", nil},
	{Insn, "movl\tcount.0(%rip), %eax", []string{"count.0"}},
	{Insn, "movl\t$.LC0, %edi", []string{".LC0"}},
	{Insn, "movl\t$count+4, %edi", []string{"count"}},
	{Insn, "movq\tplain(,%rdi,4), %rax", []string{"plain"}},
	{Insn, "addl\t$1, %fs:tl@tpoff", []string{"tl"}},
	{Insn, "movq\tstderr@GOTPCREL(%rip), %rax", []string{"stderr"}},
	{Insn, "call\tputs@PLT", []string{"*puts"}},
	{Insn, "call\t*puts@GOTPCREL(%rip)", []string{"puts"}},
	{Insn, "call\t*8(%rdx,%rax)", nil},
	{Insn, "jmp\t*%rax", nil},
	{Insn, "notrack jmp\t*%rax", nil},
	{Insn, "jmp\t*.L7(,%rdi,8)", []string{".L7"}},
	{Insn, "jne\t.L3", []string{"*.L3"}},
	{Insn, "jne 1b", nil},
	{Insn, "rep stosq", nil},
	{Insn, "lock addl\t$1, n(%rip)", []string{"n"}},
	{Insn, "data16\tleaq\tx@tlsgd(%rip), %rdi", []string{"x"}},
	{Insn, "vaddps\t(%rax), %zmm0, %zmm1{%k1}{z}", nil},
	{Insn, "vaddps\t{rn-sae}, %zmm0, %zmm1, %zmm2", nil},
	{Insn, "{vex} vpdpbusd\ta(%rip), %ymm0, %ymm1", []string{"a"}},
	{Insn, "call\t\"strange name\"", []string{"*strange name"}},
	{Insn, "fstpt\t-16(%rbp)", nil},
	{Insn, "fxch\t%st(1)", nil},
	{Insn, "movabsq\t$.L2-.Lpic, %rax", []string{".L2", "-.Lpic"}},
	{Data, ".long\t.L3-.L4", []string{".L3", "-.L4"}},
	{Data, ".long\t1073217536", nil},
	{Data, ".quad\tops+16", []string{"ops"}},
	{Data, ".byte\t0x1e,'a,'#", nil},
	{Data, ".long\t(.L3 - .) / 4", []string{".L3"}},
	{Literal, ".string\t\"call puts\"", nil},
	{CFI, ".cfi_lsda 0x1b,.LLSDA0", []string{".LLSDA0"}},
	{CFI, ".cfi_offset rbx, -16", nil},
}

var a64Refs = []struct {
	kind Kind
	text string
	want []string
}{
	{Insn, "ret", nil},
	{Insn, "add\tw0, w1, w0, lsl 1", nil},
	{Insn, "bl\tputs", []string{"*puts"}},
	{Insn, "blr\tx1", nil},
	{Insn, "br\tx16", nil},
	{Insn, "bic\tx0, x1, x2", nil},
	{Insn, "beq\t.L5", []string{"*.L5"}},
	{Insn, "b.ne\t.L5", []string{"*.L5"}},
	{Insn, "cbz\tx19, .L1", []string{"*.L1"}},
	{Insn, "tbnz\tw0, #3, .L9", []string{"*.L9"}},
	{Insn, "tbnz\tw0, 3, 1f", nil},
	{Insn, "adrp\tx2, .LANCHOR0+4", []string{".LANCHOR0"}},
	{Insn, "adrp\tx0, :got:stderr", []string{"stderr"}},
	{Insn, "ldr\tx0, [x0, :got_lo12:stderr]", []string{"stderr"}},
	{Insn, "ldr\tw1, [x2, #:lo12:n]", []string{"n"}},
	{Insn, "ldr\tx0, .LC0", []string{".LC0"}},
	{Insn, "ldr\tx0, =table", []string{"table"}},
	{Insn, "ldr\tw0, [x0]", nil},
	{Insn, "ldr\tw0, [x0, x1, lsl 2]", nil},
	{Insn, "add\tx2, x2, #:tprel_hi12:tl, lsl #12", []string{"tl"}},
	{Insn, "stp\tx29, x30, [sp, -32]!", nil},
	{Insn, "mrs\tx2, tpidr_el0", nil},
	{Insn, "fmov\td0, 1.5e+0", nil},
	{Insn, "cset\tw0, eq", nil},
	{Data, ".byte\t(.L3 - .Lrtx4) / 4", []string{".L3", "-.Lrtx4"}},
	{Data, ".xword\tneg", []string{"neg"}},
	{Mark, ".tlsdesccall tl", []string{"tl"}},
}

func TestRefs(t *testing.T) {
	check := func(a *arch.Arch, kind Kind, text string, want []string) {
		d, err := DialectOf(a)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range d.Refs(nil, kind, text) {
			name := r.Name(text)
			if r.Branch {
				name = "*" + name
			}
			if r.Minus {
				name = "-" + name
			}
			got = append(got, name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v: %q: got %q, want %q", a, text, got, want)
		}
	}
	for _, r := range x86Refs {
		check(arch.X86_64, r.kind, r.text, r.want)
	}
	for _, r := range a64Refs {
		check(arch.AArch64, r.kind, r.text, r.want)
	}
}

// TestLoadBySlot: loads that set a whole general register go by a slot, all
// else stays as it is, to be refused.
func TestLoadBySlot(t *testing.T) {
	for stmt, want := range map[string]string{
		"movq\tx(%rip), %rdi":     "movq\tx@GOTPCREL(%rip), %rdi\n\t{disp32} movq\t0(%rdi), %rdi",
		"movl\tx(%rip), %r9d":     "movq\tx@GOTPCREL(%rip), %r9\n\t{disp32} movl\t0(%r9), %r9d",
		"movl\t4+x(%rip), %ebp":   "movq\tx@GOTPCREL(%rip), %rbp\n\t{disp32} movl\t4(%rbp), %ebp",
		"movslq\tx+8(%rip), %r12": "movq\tx@GOTPCREL(%rip), %r12\n\t{disp32} movslq\t8(%r12), %r12",
		"movzbl\tx(%rip), %eax":   "movq\tx@GOTPCREL(%rip), %rax\n\t{disp32} movzbl\t0(%rax), %eax",
		"movq\tx(%rip), %rsp":     "",
		"movq\tx(%rip), %xmm0":    "",
		"movw\tx(%rip), %ax":      "",
		"movb\tx(%rip), %al":      "",
		"movq\t%rax, x(%rip)":     "",
		"addl\tx(%rip), %eax":     "",
		"movl\tx(%rip), %rax":     "",
		"movl\ty(%rip), %eax":     "",
		"movq\tx-8(%rip), %rax":   "",
		"movq\tx+128(%rip), %rax": "",
		"movq\tx(,%rax,8), %rax":  "",
	} {
		if got, ok := x86_64.LoadBySlot(stmt, "x"); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v; want %q", stmt, got, ok, want)
		}
	}
}

func TestSlotToAddress(t *testing.T) {
	for _, r := range []struct {
		a          *arch.Arch
		stmt, want string
	}{
		{arch.X86_64, "movq\tx@GOTPCREL(%rip), %rax", "leaq\tx.kpatch(%rip), %rax"},
		{arch.X86_64, "call\t*x@GOTPCREL(%rip)", "call\tx.kpatch"},
		{arch.X86_64, "jmp\t*x@GOTPCREL(%rip)", "jmp\tx.kpatch"},
		{arch.X86_64, "cmpq\tx@GOTPCREL(%rip), %rax", ""},
		{arch.X86_64, "movq\tx(%rip), %rax", ""},
		{arch.AArch64, "adrp\tx3, :got:x", "adrp\tx3, x.kpatch"},
		{arch.AArch64, "ldr\tx0, [x3, :got_lo12:x]", "add\tx0, x3, :lo12:x.kpatch"},
		{arch.AArch64, "ldr\tx0, [x3, #:got_lo12:x]", "add\tx0, x3, :lo12:x.kpatch"},
		{arch.AArch64, "ldr\tx0, [x3, :lo12:x]", ""},
	} {
		d, err := DialectOf(r.a)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := d.SlotToAddress(r.stmt, "x", "x.kpatch")
		if ok != (r.want != "") || ok && got != r.want {
			t.Errorf("%q: %q, %v; want %q", r.stmt, got, ok, r.want)
		}
	}
}
