package asm_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/differ/asm"
	"github.com/fother/fother/specs/arch"
)

// TestEscapes: tables that are indexed are told from those whose address is
// stored, passed or returned.
func TestEscapes(t *testing.T) {
	d, err := asm.DialectOf(arch.X86_64)
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[string]bool{
		"movq table(,%rax,8), %rax; ret":                                        false,
		"call *table(,%rax,8)":                                                  false,
		"leaq table(%rip), %rdx; movq (%rdx,%rax,8), %rax; call *%rax":          false,
		"leaq table(%rip), %rdi; call enroll":                                   true,
		"leaq table(%rip), %rdi; jmp enroll":                                    true,
		"movl $table, %edi; call enroll":                                        true,
		"leaq table(%rip), %rdi; movl (%rdi,%rax,4), %edi; call enroll":         false,
		"leaq table(%rip), %rax; ret":                                           true,
		"leaq table(%rip), %rax; movq (%rax), %rax; ret":                        false,
		"leaq table(%rip), %rax; movq %rax, registered(%rip)":                   true,
		"movq $table, registered(%rip)":                                         true,
		"movq $table+8, (%rdi)":                                                 true,
		"pushq $table":                                                          true,
		"cmpq $table, %rax":                                                     false,
		"leaq table(%rip), %rax; movq %rax, -8(%rbp); movq -8(%rbp), %rax; ret": true,
		"leaq table(%rip), %rax; movq %rax, -8(%rbp); movq -8(%rbp), %rax; movq (%rax), %rax; movq $0, -8(%rbp); ret": false,
		"leaq table(%rip), %rbx; .L3:; movq (%rbx), %rdi; call strcmp; addq $16, %rbx; cmpq %rbx, %rbp; jne .L3; ret": false,
		"leaq table(%rip), %rbx; salq $4, %rax; leaq 8(%rbx,%rax), %rax; ret":                                         true,
		"leaq table(%rip), %rax; movq %rax, %xmm0; movhps other(%rip), %xmm0; movups %xmm0, (%rdi)":                   true,
		"movq table@GOTPCREL(%rip), %rsi; movq %rsi, 8(%rdi)":                                                         true,
		"leaq table(%rip), %rax; movslq (%rax,%rdx,4), %rdx; addq %rdx, %rax; xorl %eax, %eax; ret":                   false,
		"leaq table(%rip), %r8; movl (%r8,%rax), %r8d; call f":                                                        false,
	} {
		lines := strings.Split(code, "; ")
		for i, l := range lines {
			op, args, _ := strings.Cut(l, " ")
			lines[i] = strings.TrimSuffix(op+"\t"+args, "\t")
		}
		refs := d.Refs(nil, asm.Insn, lines[0])
		if len(refs) == 0 || refs[0].Name(lines[0]) != "table" {
			t.Fatalf("%s: references %v", code, refs)
		}
		rest := slices.DeleteFunc(lines[1:], func(l string) bool { return strings.HasSuffix(l, ":") })
		if got := d.Escapes(lines[0], refs[0], slices.Values(rest)); got != want {
			t.Errorf("%s: escapes %v, want %v", code, got, want)
		}
	}
}
