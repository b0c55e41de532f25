package shim

import "testing"

// TestShortForms: the address of a symbol and rax or eax make the short form,
// all else stays as it is.
func TestShortForms(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"\tcmpq\t$twice, %rax\n", "\t.byte\t0x48, 0x3d\n\t.reloc\t., R_X86_64_32S, twice\n\t.long\t0\n"},
		{"\tcmpq\t$table+8, %rax         # comment\n", "\t.byte\t0x48, 0x3d\n\t.reloc\t., R_X86_64_32S, table+8\n\t.long\t0\n"},
		{"\taddl\t$.L.str-4, %eax\n", "\t.byte\t0x5\n\t.reloc\t., R_X86_64_32, .L.str-4\n\t.long\t0\n"},
		{"\ttestq\t$x, %rax\n", "\t.byte\t0x48, 0xa9\n\t.reloc\t., R_X86_64_32S, x\n\t.long\t0\n"},
		{"\tcmpq\t$twice, %rdi\n", ""},
		{"\tcmpq\t$twice, %r8\n", ""},
		{"\tcmpq\t$100, %rax\n", ""},
		{"\tcmpq\t$a-b, %rax\n", ""},
		{"\tcmpq\ttwice, %rax\n", ""},
		{"\tmovq\t$twice, %rax\n", ""},
	} {
		if c.want == "" {
			c.want = c.text
		}
		if got := string(shortForms([]byte(c.text))); got != c.want {
			t.Errorf("%q became %q, want %q", c.text, got, c.want)
		}
	}
}
