package differ_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// BenchmarkDiff measures a unit in which one function near the top gains a
// branch, so that all later labels are renumbered. Bytes are both inputs. The
// unit is made up; SQLITE3_C names the amalgamation to measure instead.
func BenchmarkDiff(b *testing.B) {
	dir := b.TempDir()
	original, patched := bigUnit(b)
	in := differ.Input{Unit: "big.c", Arch: arch.X86_64}
	in.Original = compileText(b, dir, "a", original)
	in.Patched = compileText(b, dir, "b", patched)
	b.SetBytes(int64(len(in.Original) + len(in.Patched)))
	b.ReportAllocs()
	for b.Loop() {
		set, err := differ.Diff(in)
		if err != nil {
			b.Fatal(err)
		}
		if n := bytes.Count(set.Assembly, []byte("@function")); n != 1 {
			b.Fatalf("%d functions carried", n)
		}
	}
}

func compileText(b *testing.B, dir, name, text string) []byte {
	b.Helper()
	testenv.Needs(b, "gcc")
	source, out := filepath.Join(dir, name+".c"), filepath.Join(dir, name+".s")
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	if msg, err := exec.Command("gcc", "-O2", "-w", "-S", "-o", out, source).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, msg)
	}
	s, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// bigUnit returns the sources of the two builds.
func bigUnit(b *testing.B) (original, patched string) {
	b.Helper()
	if name := os.Getenv("SQLITE3_C"); name != "" {
		text, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		at := strings.LastIndex(string(text), "SQLITE_API int sqlite3_status64(") // behind the declaration
		if at < 0 {
			b.Fatalf("%s is not sqlite3's amalgamation", name)
		}
		args, body, _ := strings.Cut(string(text[at:]), "){")
		return string(text), string(text[:at]) + args + "){ if( op==12345 ) return 7; " + body
	}
	var s strings.Builder
	s.WriteString("#include <stdio.h>\n#include <string.h>\nstatic int total;\n")
	for i := range 600 {
		fmt.Fprintf(&s, `
int f%d(int x, const char *s) {
	static int count; static const int table[] = {%d, 2, 3, 4};
	if (x > %d) { printf("%%d many %d\n", x); count++; }
	for (int i = 0; s[i]; i++) {
		switch (s[i] - x) {
		case 0: total += table[i & 3]; break; case 1: count += i; break; case 2: puts(s + i); break;
		case 3: total ^= strlen(s); break; case 4: return count; case 5: x++; putchar(x); break; }
	}
	return x * %d + count + total; }
`, i, i, i, i, i+3)
	}
	original = s.String()
	return original, strings.Replace(original, "if (x > 3) {", "if (x > 3) { if (s[0] == 'q') return 5;", 1)
}
