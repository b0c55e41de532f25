package kpack

import (
	"debug/elf"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// TestReentry: a call that is under way must not come back to where the jump to
// the new code will be.
func TestReentry(t *testing.T) {
	tests := map[string]struct {
		arch      *arch.Arch
		body, end string // of f, and what stands in other sections
		want      string // in the error; empty if f is fine
	}{
		"no loop":            {arch.X86_64, "push %rbx\ncall g\npop %rbx\nret", "", ""},
		"loop behind":        {arch.X86_64, "push %rbx\n.p2align 3\n1: call g\njmp 1b", "", ""},
		"loop inside":        {arch.X86_64, "push %rbx\n1: call g\njmp 1b", "", "back to the first 5 bytes"},
		"far loop inside":    {arch.X86_64, "push %rbx\n1: call g\n.rept 50\ncall g\n.endr\njmp 1b", "", "back to the first 5 bytes"},
		"conditional":        {arch.X86_64, "push %rbx\n1: call g\n.rept 50\ncall g\n.endr\njnz 1b\nret", "", "back to the first 5 bytes"},
		"loop at the start":  {arch.X86_64, "1: call g\njmp 1b", "", "back to the first 5 bytes"},
		"calls itself":       {arch.X86_64, "sub $8, %rsp\ncall f\nadd $8, %rsp\nret", "", ""},
		"landing pad":        {arch.X86_64, "endbr64\npush %rbx\n1: call g\njmp 1b", "", "back to the first 9 bytes"},
		"from the cold part": {arch.X86_64, "push %rbx\n1: call g\njmp f.cold", ".globl f.cold\nf.cold: jmp 1b\n.size f.cold, .-f.cold", "back to the first 5 bytes"},
		// eb f8 is a jump to f+1 only for who begins to read at the wrong byte.
		"inside an immediate":       {arch.X86_64, "push %rbx\nnop\nnop\nnop\nnop\nmov $0xf8eb, %eax\nret", "", ""},
		"with what is not decoded":  {arch.X86_64, "push %rbx\nnop\nnop\nnop\nnop\nmov $0xf8eb, %eax\nvzeroupper\nret", "", "back to the first 5 bytes"},
		"not decoded, and no alarm": {arch.X86_64, "push %rbx\nnop\nnop\nnop\nnop\nvzeroupper\nret", "", ""},
		"table of distances":        {arch.X86_64, "push %rbx\n1: call g\nlea table(%rip), %rdx\nmovslq (%rdx,%rax,4), %rax\nadd %rdx, %rax\njmp *%rax\n2: ret", ".section .rodata\n.align 4\ntable: .long 2b-table, 2b-table, 1b-table", "back to the first 5 bytes"},
		"table, harmless":           {arch.X86_64, "push %rbx\n.p2align 3\n1: call g\nlea table(%rip), %rdx\nmovslq (%rdx,%rax,4), %rax\nadd %rdx, %rax\njmp *%rax\n2: ret", ".section .rodata\n.align 4\ntable: .long 2b-table, 2b-table, 1b-table", ""},
		"table of addresses":        {arch.X86_64, "push %rbx\n1: call g\njmp *table(,%rax,8)", ".data\n.align 8\ntable: .quad 1b", "address of its first instructions"},
		"its own address":           {arch.X86_64, "push %rbx\ncall g\nret", ".data\n.align 8\n.quad f", ""},
		"aarch64, loop behind":      {arch.AArch64, "stp x29, x30, [sp, -16]!\n1: bl g\nb 1b", "", ""},
		"aarch64, at the start":     {arch.AArch64, "1: bl g\nb 1b", "", "back to the first 4 bytes"},
		"aarch64, landing pad":      {arch.AArch64, "hint 34\n1: bl g\ncbz x0, 1b\nret", "", "back to the first 8 bytes"},
		"aarch64, signed":           {arch.AArch64, "hint 25\n1: bl g\ntbz x0, 3, 1b\nret", "", "back to the first 8 bytes"},
		"aarch64, conditional":      {arch.AArch64, "hint 25\n1: bl g\nb.ne 1b\nret", "", "back to the first 8 bytes"},
		// What tables does not see: a table of 1-byte distances in instructions.
		"aarch64, table":          {arch.AArch64, "stp x29, x30, [sp, -16]!\n1: bl g\nadrp x1, table\nadd x1, x1, :lo12:table\nldrb w0, [x1, w0, uxtw]\nadr x1, 2f\nadd x0, x1, w0, sxtb 2\nbr x0\n2: ret", ".section .rodata\ntable: .byte (1b-2b)/4, 0", "address in a register"},
		"aarch64, in cold part":   {arch.AArch64, "stp x29, x30, [sp, -16]!\nbl g\nb f.cold", ".globl f.cold\nf.cold: br x17\n.size f.cold, .-f.cold", "address in a register"},
		"aarch64, signed pointer": {arch.AArch64, "bl g\n.arch armv8.3-a\nbraaz x3", "", "address in a register"},
		"aarch64, signed, salt":   {arch.AArch64, "bl g\n.arch armv8.3-a\nbrab x3, sp", "", "address in a register"},
		"aarch64, no jumps":       {arch.AArch64, "bl g\nblr x3\n.arch armv8.3-a\nblraa x3, x4\nblrabz x3\nretaa\nret x3", "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b, f := assembled(t, tt.arch, tt.body, tt.end)
			if err := b.reentry(f); tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestIndirectHint: the user reads which function it is, and what to do.
func TestIndirectHint(t *testing.T) {
	b, f := assembled(t, arch.AArch64, "bl g\nbr x0", "")
	hint := interface{ Hint() string }(nil)
	if err := b.reentry(f); !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "leave f out of next_call") {
		t.Errorf("error %v, hint %v", err, hint)
	}
}

// assembled links a program of f with the given body.
func assembled(t *testing.T, a *arch.Arch, body, end string) (*builder, Function) {
	t.Helper()
	testenv.Needs(t, a.Tuple+"-as")
	at := filepath.Join(t.TempDir(), "f")
	write(t, at+".s", fmt.Sprintf(`
	.text
	.globl _start, f, g
_start:	.skip 64
	.type f, STT_FUNC
	.balign 16
f:	%s
	.size f, .-f
	.skip 64
g:	ret
%s
`, body, end))
	tool(t, a.Tuple+"-as", "-o", at+".o", at+".s")
	tool(t, a.Tuple+"-ld", "-o", at, at+".o")
	m, err := machineOf(a)
	if err != nil {
		t.Fatal(err)
	}
	b := &builder{in: BuildInput{Arch: a, Original: open(t, at)}, machine: m}
	syms, err := b.in.Original.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	f := Function{Name: "f", NextCall: true}
	for _, s := range syms {
		r := specs.Range[specs.VAddr]{Lo: specs.VAddr(s.Value), Hi: specs.VAddr(s.Value + s.Size)}
		switch {
		case s.Name == "f" && s.Type == elf.STT_FUNC:
			f.Original = r
		case s.Name == "f.cold":
			f.Cold = r
		}
	}
	if f.Entry, err = b.in.Original.ReadAt(f.Original.Lo, maxEntryBytes); err != nil {
		t.Fatal(err)
	}
	return b, f
}
