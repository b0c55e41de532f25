package compiler

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// TestClang: clang's own assembler goes round the shims, in both of which the
// build can be captured. What differs is then refused by name.
func TestClang(t *testing.T) {
	testenv.Needs(t, "clang")
	patch := map[string]string{"two.c": "int helper(int n) { return n - 2; }\n"}
	doors := map[string]string{"folder of tools": "clang", "compiler wrapper": fotherCC + " clang"}
	tests := map[string]struct {
		command string // CC stands for the compiler
		want    string // what the error says; empty: no error
	}{
		"object":       {"CC -c one.c && CC -c two.c && CC -Wl,--build-id -o one one.o two.o", "two.o differs, and was made by a tool that capture did not see"},
		"archive":      {"CC -c one.c two.c && ar rc lib.a two.o && CC -Wl,--build-id -o one one.o lib.a", "lib.a(two.o) differs, and was made by a tool that capture did not see"},
		"in one step":  {"CC -Wl,--build-id -o one one.c two.c", "differs, and was made by a tool that capture did not see"},
		"lld":          {"CC -fuse-ld=lld -Wl,--build-id -o one one.c two.c", "differs, and was made by a tool that capture did not see"},
		"lto":          {"CC -flto -c one.c two.c && CC -flto -fuse-ld=lld -Wl,--build-id -o one one.o two.o", "two.o differs, and was made by a tool that capture did not see"},
		"GNU's own as": {"CC -fno-integrated-as -Wl,--build-id -o one one.c two.c", ""},
	}
	for door, compiler := range doors {
		for name, tt := range tests {
			t.Run(door+"/"+name, func(t *testing.T) {
				if strings.Contains(tt.command, "lld") {
					testenv.Needs(t, "ld.lld")
				}
				original, patched := twoBuilds(t, project, patch, strings.ReplaceAll(tt.command, "CC ", compiler+" "))
				pairs, err := Compare(original, patched)
				if tt.want == "" {
					if got := changes(pairs); err != nil || got != "one: two.c>two.c" {
						t.Errorf("changes %q, error %v", got, err)
					}
					return
				}
				var advice *HintError
				if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, ErrUnseen) || !errors.As(err, &advice) {
					t.Errorf("error %v, want %q with a hint", err, tt.want)
				}
				if err != nil && strings.Contains(err.Error(), "one.o differs") {
					t.Errorf("error %v names an object that is the same", err)
				}
			})
		}
	}
}

// TestLinkers reads what every linker that gcc knows says it took: objects,
// and of an archive the members that are used.
func TestLinkers(t *testing.T) {
	patch := map[string]string{"used.c": "static int count;\nint used(int n) { return count -= n; }\n"}
	for _, linker := range []string{"bfd", "gold", "lld", "mold"} {
		t.Run(linker, func(t *testing.T) {
			testenv.Needs(t, "gcc", "make", "ld."+linker)
			original, patched := twoBuilds(t, project, patch, "make prog LDFLAGS='-Wl,--build-id -fuse-ld="+linker+"'")
			prog := deliverable(t, original, "prog")
			if got := sources(prog.Units()); got != "main.c used.c" {
				t.Errorf("prog is made of %q", got)
			}
			if prog.NoInputs != "" || prog.NoSymbols != "" {
				t.Errorf("no inputs: %q, no symbols: %q", prog.NoInputs, prog.NoSymbols)
			}
			pairs, err := Compare(original, patched)
			if got := changes(pairs); err != nil || got != "prog: used.c>used.c" {
				t.Errorf("changes %q, error %v", got, err)
			}
		})
	}
}

// TestLinkersIdentity: with every linker the output is that of a plain build.
func TestLinkersIdentity(t *testing.T) {
	for _, linker := range []string{"lld", "mold"} {
		t.Run(linker, func(t *testing.T) {
			testenv.Needs(t, "gcc", "make", "ld."+linker)
			dir := t.TempDir()
			build := "make prog LDFLAGS='-Wl,--build-id -fuse-ld=" + linker + "'"
			tree(t, dir, project)
			plain(t, dir, build)
			want := binaries(snapshot(t, dir))
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			tree(t, dir, project)
			capture(t, dir, filepath.Join(t.TempDir(), "store"), specs.StageOriginal, nil, build)
			sameFiles(t, want, binaries(snapshot(t, dir)))
		})
	}
}
