package differ_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// TestLTO compares the units that gcc -flto hands to the assembler: the static
// functions and variables of two files have one name, told apart by numbers.
func TestLTO(t *testing.T) {
	testenv.Needs(t, "gcc")
	one := `
static int state;
__attribute__((noinline)) static int step(int x) { state += x; return state * 2; }
int one(int x) { return step(x) + 1; }
`
	two := `
#include <stdio.h>
static int state = 7;
__attribute__((noinline)) static int step(int x) { state ^= x; return state - 2; }
int one(int);
int main(int c, char **v) { printf("%d %d\n", one(c), step(c)); return state; }
`
	build := func(one string) []byte {
		dir := t.TempDir()
		for name, text := range map[string]string{"one.c": one, "two.c": two} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("gcc", "-O2", "-flto", "-flto-partition=one", "-frandom-seed=1", "-save-temps", "-o", "out", "two.c", "one.c")
		cmd.Dir = dir
		if msg, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, msg)
		}
		names, err := filepath.Glob(filepath.Join(dir, "*ltrans0*.s"))
		if err != nil || len(names) != 1 {
			t.Fatalf("%q, %v", names, err)
		}
		text, err := os.ReadFile(names[0])
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	in := differ.Input{Unit: "ltrans0", Arch: arch.X86_64, Original: build(one),
		Patched: build(strings.Replace(one, "state * 2", "state * 2 + (state > 100)", 1))}
	set, err := differ.DiffBoth(t, in)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range set.Functions {
		if f.Verdict != differ.Same && f.Verdict != differ.Changed {
			t.Errorf("%+v", f)
		}
	}
	if n := strings.Count(string(set.Assembly), "@function"); n != 1 {
		t.Errorf("%d functions carried, want 1:\n%s", n, set.Assembly)
	}
	for _, d := range set.Data {
		if d.Verdict != differ.Same {
			t.Errorf("%+v", d)
		}
	}
}
