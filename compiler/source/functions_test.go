package source

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEdits: what a fix does to functions is found in C and C++ as people write
// it.
func TestEdits(t *testing.T) {
	for _, test := range []struct {
		name, file, from, to string
		want                 []string // NAME EDIT LO-HI GROWN, and "outside"
	}{
		{"a body", "a.c", "int f(int a)\n{\n\treturn a;\n}\nint g(void) { return 1; }\n",
			"int f(int a)\n{\n\tif (!a)\n\t\treturn 1;\n\treturn a;\n}\nint g(void) { return 1; }\n",
			[]string{"f body 1-4 2", "g same 5-5 0"}},
		{"comments and blanks", "a.c", "int f(int a)\n{\n\treturn a; /* x */\n}\n", "// y\nint f(int a) {\n\n\treturn   a; // z\n}\n",
			[]string{"f same 1-4 0"}},
		{"strings are no comments", "a.c", "char *f(void) { return \"/* a */\"; }\n", "char *f(void) { return \"/* b */\"; }\n", []string{"f body 1-1 0"}},
		{"a parameter's type", "a.c", "static int f(int a, char *b)\n{\n\treturn a;\n}\n", "static int f(long a, char *b)\n{\n\treturn a;\n}\n", []string{"f signature 1-4 0"}},
		{"a parameter more", "a.c", "int f(const char *s, int (*cb)(int))\n{ return 0; }\n", "int f(const char *s, int (*cb)(int), unsigned n)\n{ return 0; }\n", []string{"f signature 1-2 0"}},
		{"names of parameters", "a.c", "int f(struct x *a, int (*cb)(int), char b[2])\n{ return 0; }\n", "int f(struct x *q, int (*call)(int), char c[2])\n{ return 0; }\n", []string{"f body 1-2 0"}},
		{"static", "a.c", "static int f(int a)\n{ return 0; }\n", "int f(int a)\n{ return 0; }\n", []string{"f body 1-2 0"}},
		{"added and removed", "a.c", "int old(void) { return 1; }\nint g(void) { return 1; }\n", "int g(void) { return 1; }\nint more(void) { return 2; }\n",
			[]string{"old removed 1-1 0", "g same 2-2 0", "more added 0-0 0"}},
		{"a macro", "a.h", "#define N 1\nstatic inline int f(int a) { return a + N; }\n", "#define N 2\nstatic inline int f(int a) { return a + N; }\n", []string{"f same 2-2 0", "outside"}},
		{"attributes and macros before and behind", "a.c",
			"EXPORT(f)\n__attribute__((noinline)) int f(int a) NOTHROW(1)\n{\n\treturn a;\n}\n", "EXPORT(f)\n__attribute__((noinline)) int f(int a) NOTHROW(1)\n{\n\treturn -a;\n}\n",
			[]string{"f body 1-5 0"}},
		{"parameters declared behind the list", "a.c", "static int\nf(a, b)\n\tint a;\n\tchar *b;\n{\n\treturn a;\n}\nint g(void) { return 0; }\n",
			"static int\nf(a, b)\n\tint a;\n\tchar *b;\n{\n\treturn 2;\n}\nint g(void) { return 0; }\n", []string{"f body 1-7 0", "g same 8-8 0"}},
		{"conditions", "a.c", "#ifdef A\nint f(int a)\n{\n#else\nint f(long a)\n{\n#endif\n\treturn 1;\n}\nint g(void) { return 0; }\n",
			"#ifdef A\nint f(int a)\n{\n#else\nint f(long a)\n{\n#endif\n\treturn 2;\n}\nint g(void) { return 0; }\n", []string{"f body 5-9 0", "g same 10-10 0"}},
		{"data is no function", "a.c", "struct ops o = { .f = g(1) };\nint a[] = { 1, 2 };\nenum e { A = sizeof(int) };\n", "struct ops o = { .f = g(2) };\nint a[] = { 1, 2 };\nenum e { A = sizeof(int) };\n", []string{"outside"}},
		{"a function that returns one", "a.c", "int (*f(int a))(int)\n{ return g; }\n", "int (*f(int a))(int)\n{ return h; }\n", []string{"f body 1-2 0"}},
		{"methods", "a.cc", "namespace n {\nclass C {\npublic:\n\tint inside(int a) const { return a; }\n\tint outside(int);\n};\nint C::outside(int a)\n{\n\treturn a;\n}\n}\n",
			"namespace n {\nclass C {\npublic:\n\tint inside(int a) const { return -a; }\n\tint outside(int);\n};\nint C::outside(int a)\n{\n\treturn -a;\n}\n}\n",
			[]string{"inside body 4-4 0", "C::outside body 7-10 0"}},
		{"initialisers", "a.cc", "C::C(int a) : x(a), y{a}, z{ a }\n{\n\tgo();\n}\nbool C::operator==(const C &o) { return 1; }\n", "C::C(int a) : x(a), y{a}, z{ a }\n{\n\tstop();\n}\nbool C::operator==(const C &o) { return 0; }\n",
			[]string{"C::C body 1-4 0", "C::operator== body 5-5 0"}},
		{"a file of another kind", "a.S", "f:\tret\n", "f:\tnop\n\tret\n", []string{"outside"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := editOf(test.file, linesOf(test.from), linesOf(test.to))
			if got := describe(e); !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func linesOf(text string) (lines []line) {
	for i, s := range splitLines(text) {
		lines = append(lines, line{s, i + 1})
	}
	return lines
}

func describe(e FileEdit) (all []string) {
	for _, f := range e.Functions {
		all = append(all, fmt.Sprintf("%s %s %d-%d %d", f.Name, [...]string{"same", "body", "signature", "added", "removed"}[f.Edit], f.Lo, f.Hi, f.Grown))
	}
	if e.Outside {
		all = append(all, "outside")
	}
	return all
}

// TestEditsOfPatches: the tree is read as it was before the patches, a file
// that they add has only functions that are added, and nothing is written.
func TestEditsOfPatches(t *testing.T) {
	dir := t.TempDir()
	text := "int f(void)\n{\n\treturn 1;\n}\n"
	for name, text := range map[string]string{
		"tree/src/a.c": text,
		"one.patch":    "--- a/src/a.c\n+++ b/src/a.c\n@@ -1,4 +1,4 @@\n int f(void)\n {\n-\treturn 1;\n+\treturn 2;\n }\n",
		"two.patch":    "--- /dev/null\n+++ b/src/b.c\n@@ -0,0 +1 @@\n+int g(void) { return 2; }\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree := filepath.Join(dir, "tree")
	edits, err := Edits(tree, []string{filepath.Join(dir, "one.patch"), filepath.Join(dir, "two.patch")})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range edits {
		got = append(got, e.Name+": "+strings.Join(describe(e), ", "))
	}
	if want := []string{"src/a.c: f body 1-4 0", "src/b.c: g added 0-0 0"}; !slices.Equal(got, want) {
		t.Errorf("edits %q, want %q", got, want)
	}
	if data, err := os.ReadFile(filepath.Join(tree, "src/a.c")); err != nil || string(data) != text {
		t.Errorf("the tree has changed: %v\n%s", err, data)
	}
	if _, err := Edits(tree, []string{filepath.Join(dir, "one.patch"), filepath.Join(dir, "one.patch")}); err == nil {
		t.Error("a patch that does not apply is taken")
	}
}
