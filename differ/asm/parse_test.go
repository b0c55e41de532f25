package asm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs/arch"
)

const sample = `	.file	"a.c"
	.section	.rodata.str1.1,"aMS",@progbits,1
.LC0:
	.ascii	"one; # "
	.string	"/* two */"
.LC1:
	.string	"three"
	.text
	.p2align 4
	.globl	f
	.type	f, @function
f:
.LFB0:
	.cfi_startproc
	cmpl	$5, %edi # comment
	ja	.L3; nop
	.section	.rodata
	.align 4
.L4:
	.long	.L3-.L4
	.text
.L3:	ret
	.cfi_endproc
.LFE0:
	.section	.text.unlikely,"ax",@progbits
	.cfi_startproc
	.type	f.cold, @function
f.cold:
	call	abort@PLT
	.cfi_endproc
	.text
	.size	f, .-f
	.section	.text.unlikely
	.size	f.cold, .-f.cold
	.local	count.0
	.comm	count.0,4,4
	.data
	.align 4
	.type	x, @object
	.size	x, 8
x:
	.long	1
	.long	2
	.set	y, x+4
	.section	.debug_info,"",@progbits
	.long	0x1d9
	.string	".text"
	.ident	"GCC: (test) 1"
`

func parse(t testing.TB, text string) *Unit {
	t.Helper()
	d, err := DialectOf(arch.X86_64)
	if err != nil {
		t.Fatal(err)
	}
	u, err := Parse("a.s", text, d)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestParse(t *testing.T) {
	u := parse(t, sample)
	if u.Producer != "GCC: (test) 1" {
		t.Errorf("producer %q", u.Producer)
	}
	for _, w := range []struct {
		name  string
		kind  SectionKind
		ord   int32
		bytes int32
		add   int64
	}{
		{".LC0", ROData, 0, 2, 0}, {".LC1", ROData, 0, 1, 0}, {"f", Text, 0, 4, 0}, {".L3", Text, 3, 4, 0},
		{".L4", ROData, 0, 1, 0}, {"f.cold", Text, 0, 1, 0}, {"count.0", Zero, 0, 1, 0},
		{"x", Writable, 0, 2, 0}, {"y", Writable, 0, 2, 4}, {".LFE0", Text, 4, 4, 0},
	} {
		id := u.Lookup(w.name)
		if id < 0 || u.Symbols[id].Where != InItem {
			t.Errorf("%s is not defined", w.name)
			continue
		}
		s := u.Symbols[id]
		if k := u.SectionOf(s.Item).Kind; k != w.kind || s.Ord != w.ord || s.Add != w.add || u.Items[s.Item].Bytes != w.bytes {
			t.Errorf("%s: %v, statement %d of %d, %+d; want %+v", w.name, k, s.Ord, u.Items[s.Item].Bytes, s.Add, w)
		}
	}
	if s := u.Symbols[u.Lookup("f")]; s.Bind != Global || s.Type != "function" || s.Line != 12 {
		t.Errorf("f: %+v", s)
	}
	if s := u.Symbols[u.Lookup("count.0")]; s.Bind != Local {
		t.Errorf("count.0: %+v", s)
	}
}

// TestEveryByteOnce holds that each statement that makes bytes outside debug
// sections belongs to one item.
func TestEveryByteOnce(t *testing.T) {
	u := parse(t, sample)
	seen := make(map[uint32]bool)
	n := 0
	for i := range u.Items {
		for _, st := range u.Items[i].Stmts {
			if seen[st.Lo] {
				t.Errorf("line %d twice", st.Line)
			}
			seen[st.Lo] = true
			if st.Kind.Bytes() {
				n++
			}
		}
	}
	if want := 12; n != want {
		t.Errorf("%d statements make bytes, want %d", n, want)
	}
}

func TestSyntaxErrors(t *testing.T) {
	d, err := DialectOf(arch.X86_64)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"\tnop\n\t.nonsense 1\n":            "a.s:2: unknown directive",
		"\tnop\n\tnop":                      "a.s:2: the file ends in the middle of a line",
		"x:\n\t.long 1\nx:\n":               "a.s:3: symbol is defined twice",
		"\t.pushsection .data\n":            "a.s:1: .pushsection without .popsection",
		"\t.popsection\n":                   "a.s:1: .popsection without .pushsection",
		"f.kpatch:\n":                       "a.s:1: the name ends in .kpatch",
		"\tnop\n/* never closed\n":          "a.s:2: comment without an end",
		"\t.section\n":                      "a.s:1: section without a name",
		"\t.text 3\n":                       "a.s:1: subsections are not supported",
		"\tnop\n\t.intel_syntax noprefix\n": "a.s:2: Intel syntax is not supported: \".intel_syntax noprefix\"",
		"\tmov eax, [rdi]\n":                "a.s:1: no instruction of x86_64 in the syntax that gcc and clang write by default: \"mov eax, [rdi]\"",
		"\tldr\tx0, [sp, 8]\n":              "a.s:1: no instruction of x86_64",
		"\t.section x,\"a\u00e9\"\n":        "a.s:1: section flags are not understood",
	} {
		_, err := Parse("a.s", text, d)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// TestOtherArchitecture reads x86 assembly as A64.
func TestOtherArchitecture(t *testing.T) {
	_, err := Parse("a.s", "\t.text\nf:\n\tmovl\t%edi, %eax\n", &aarch64)
	if want := "a.s:3: no instruction of aarch64"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestLimits holds that each limit is an error that names it.
func TestLimits(t *testing.T) {
	for text, want := range map[string]string{
		strings.Repeat("\t.globl a,b,c,d,e\n", 3):             "a.s:1: more than 4 symbols in one unit: ",
		".a:\n.b:\n.c:\n.d:\n.e:\n":                           "a.s:5: more than 4 symbols in one unit: \".e:\"",
		strings.Repeat("\t.data\n\t.align 4\n\t.long 1\n", 9): "more than 6 functions and objects in one unit: ",
		strings.Repeat("\tnop\n", 99):                         "a.s:50: more than 50 statements in one unit: ",
	} {
		p := newParser("a.s", text, &x86_64, newNameTable(0), newRoom(0, 0))
		p.max = limits{symbols: 4, items: 6, statements: 50}
		if err := p.run(); err == nil || !strings.Contains("a.s"+err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample, false)
	f.Add("\t.set .LANCHOR0,. + 0\nx:\n\t.word 1\n", true)
	f.Add("a = b\nb = a\n\t.quad a\n", false)
	f.Add("#APP\n1:\tnop;jmp 1b\n\t.pushsection t,\"a\"\n\t.quad 1b\n\t.popsection\n#NO_APP\n", false)
	files, _ := filepath.Glob("../testdata/*.txtar")
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil && strings.Contains(name, "syntax") {
			f.Add(string(b), false)
		}
	}
	f.Fuzz(func(t *testing.T, text string, arm bool) {
		d := &x86_64
		if arm {
			d = &aarch64
		}
		u, err := Parse("fuzz.s", text, d)
		if err != nil {
			return
		}
		for i := range u.Items {
			bytes := int32(0)
			for _, st := range u.Items[i].Stmts {
				for _, r := range d.Refs(nil, st.Kind, u.TextOf(st)) {
					if r.Name(u.TextOf(st)) == "" {
						t.Errorf("reference without a name in %q", u.TextOf(st))
					}
				}
				if st.Kind.Bytes() {
					bytes++
				}
			}
			if bytes != u.Items[i].Bytes {
				t.Errorf("item %d counts %d of %d statements", i, u.Items[i].Bytes, bytes)
			}
		}
		for _, s := range u.Symbols {
			if s.Where == InItem && (s.Item < 0 || s.Item >= int32(len(u.Items)) || s.Ord > u.Items[s.Item].Bytes) {
				t.Errorf("symbol %+v is outside its item", s)
			}
		}
	})
}
