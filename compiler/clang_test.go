package compiler

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// doors are the ways by which clang is captured.
func doors() map[string]string {
	return map[string]string{"folder of tools": "clang", "compiler wrapper": fotherCC + " clang"}
}

// oneDoor reports whether a case has its turn by a door: by the compiler wrapper
// only some have, but all if everything is tried.
func oneDoor(door, name string, both ...string) bool {
	return door != "compiler wrapper" || slices.Contains(both, name) || testenv.Long()
}

// TestClang: what clang's own assembler assembles is captured, in every form of
// command line. What is not is refused by name.
func TestClang(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds many projects")
	}
	testenv.Needs(t, "clang")
	patch := map[string]string{"two.c": "int helper(int n) { return n - 2; }\n"}
	tests := map[string]struct {
		command string // CC stands for the compiler
		want    string // what the error says; empty: no error
	}{
		"object":         {"CC -c one.c && CC -c two.c && CC -Wl,--build-id -o one one.o two.o", ""},
		"debug":          {"CC -g -O2 -c one.c && CC -g -O2 -otwo.o -c two.c && CC -Wl,--build-id -o one one.o two.o", ""},
		"archive":        {"CC -c one.c two.c && ar rc lib.a two.o && CC -Wl,--build-id -o one one.o lib.a", ""},
		"in one step":    {"CC -Wl,--build-id -o one one.c two.c", ""},
		"one, debug":     {"CC -O1 -g -pipe -Wl,--build-id -o one ./one.c ./two.c", ""},
		"response file":  {"echo '-Os -ffunction-sections -c' two.c > args && CC -c one.c && CC @args && CC -Wl,--build-id -o one one.o two.o", ""},
		"standard input": {"CC -c one.c && CC -x c -c -o two.o - < two.c && CC -Wl,--build-id -o one one.o two.o", ""},
		"saved":          {"CC -save-temps -c one.c two.c && CC -Wl,--build-id -o one one.o two.o", ""},
		"stripped":       {"CC -g -c one.c two.c && strip -g two.o && CC -Wl,--build-id -o one one.o two.o", ""},
		"lld":            {"CC -fuse-ld=lld -Wl,--build-id -o one one.c two.c", ""},
		"cross":          {"CC --target=aarch64-linux-gnu -O2 -c one.c two.c && CC -target aarch64-linux-gnu -Wl,--build-id -o one one.o two.o", ""},
		"cross, as":      {"CC --target=aarch64-linux-gnu -fno-integrated-as -Wl,--build-id -o one one.c two.c", ""},
		"passed on":      {"CC -Xclang -mrelax-all -mllvm -inline-threshold=99 -Wl,--build-id -o one one.c two.c", ""},
		"cross, in file": {"echo '--target=aarch64-linux-gnu -O2' > args && CC @args -Wl,--build-id -o one one.c two.c", ""},
		"GNU's own as":   {"CC -fno-integrated-as -Wl,--build-id -o one one.c two.c", ""},
		"by path":        {"/usr/bin/clang -c one.c two.c && CC -Wl,--build-id -o one one.o two.o", "two.o differs, and was made by a tool that capture did not see"},
		"lto":            {"CC -flto -c one.c two.c && CC -flto -fuse-ld=lld -Wl,--build-id -o one one.o two.o", "two.o differs, and its assembly text cannot be captured: it holds clang's intermediate code"},
		"lto in one":     {"CC -flto -fuse-ld=lld -Wl,--build-id -o one one.c two.c", "differs, and was made by a tool that capture did not see"},
		"instrumented":   {"CC --coverage -c one.c two.c && CC -no-pie -Wl,--build-id,--unresolved-symbols=ignore-all -o one one.o two.o", ""},
		"bitcode in it":  {"CC -c one.c && CC -fembed-bitcode -c two.c && CC -Wl,--build-id -o one one.o two.o", "two.o differs, and its assembly text cannot be captured: clang ends with status"},
	}
	for door, compiler := range doors() {
		for name, tt := range tests {
			if !oneDoor(door, name, "object", "in one step", "response file", "standard input", "lto") {
				continue
			}
			t.Run(door+"/"+name, func(t *testing.T) {
				if strings.Contains(tt.command, "aarch64") {
					testenv.Needs(t, "aarch64-linux-gnu-gcc")
				}
				if strings.Contains(tt.command, "lld") {
					testenv.Needs(t, "ld.lld")
				}
				original, patched := twoBuilds(t, project, patch, strings.ReplaceAll(tt.command, "CC ", compiler+" "))
				pairs, err := Compare(original, patched)
				if tt.want == "" {
					want := "one: two.c>two.c"
					if name == "standard input" {
						want = "one: ->-"
					}
					if got := changes(pairs); err != nil || got != want {
						t.Errorf("changes %q, error %v", got, err)
					}
					return
				}
				var advice *HintError
				if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, ErrUnseen) && !errors.Is(err, ErrNoText) || !errors.As(err, &advice) {
					t.Errorf("error %v, want %q with a hint", err, tt.want)
				}
				if err != nil && strings.Contains(err.Error(), "one.o differs") {
					t.Errorf("error %v names an object that is the same", err)
				}
			})
		}
	}
}

// TestClangIdentity: what clang makes is what a plain build makes, and so is
// what it writes beside it.
func TestClangIdentity(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds many projects")
	}
	testenv.Needs(t, "clang", "clang++", "make")
	tests := map[string]string{
		"O0":       "-O0",
		"O2 debug": "-O2 -g -MD -MP",
		"pipe":     "-O3 -g -pipe -ffunction-sections -Wp,-MMD,$@.d",
		"size":     "-Os -fcf-protection -save-stats=obj --serialize-diagnostics $@.dia",
		"strip":    "-O1 -s -ftime-trace",
		"lld":      "-O2 -fuse-ld=lld -Wno-unused-command-line-argument",
	}
	for name, flags := range tests {
		for door, cc := range doors() {
			if !oneDoor(door, name, "O2 debug", "size") {
				continue
			}
			t.Run(name+"/"+door, func(t *testing.T) {
				if name == "lld" {
					testenv.Needs(t, "ld.lld")
				}
				dir := t.TempDir()
				tree(t, dir, project)
				build := "make -j2 'LDFLAGS=-Wl,--build-id' CC=clang CXX=clang++ CFLAGS='" + flags + "'"
				plain(t, dir, build)
				want := snapshot(t, dir)
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				tree(t, dir, project)
				build = strings.Replace(build, "CC=clang CXX=clang++", "CC='"+cc+"' CXX='"+cc+"++'", 1)
				c := capture(t, dir, filepath.Join(t.TempDir(), "a store"), specs.StageOriginal, nil, build)
				got := snapshot(t, dir)
				for _, files := range []map[string][]byte{want, got} {
					for name := range files {
						if strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".stats") {
							files[name] = nil // figures of the run
						}
					}
				}
				sameFiles(t, want, got)
				checkProject(t, c, false, want)
			})
		}
	}
}

// TestClangNames: a link called cc that leads to clang is one of its names, and
// ccache in front of it changes nothing, under its own name or as a link.
func TestClangNames(t *testing.T) {
	testenv.Needs(t, "clang")
	clang, err := exec.LookPath("clang")
	if err != nil {
		t.Fatal(err)
	}
	patch := map[string]string{"two.c": "int helper(int n) { return n - 2; }\n"}
	for name, compiler := range map[string]string{"cc": "cc", "ccache": "ccache clang", "masquerade": "clang"} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			path := bin + ":" + os.Getenv("PATH")
			// What ccache does when it is disabled: it runs the next compiler on
			// PATH that is not itself.
			ccache := "#!/bin/sh\ncase $0 in */ccache) name=$1; shift;; *) name=${0##*/};; esac\n" +
				"for d in $(echo \"$PATH\" | tr : ' '); do test $d != " + bin + " && test -x $d/$name && exec $d/$name \"$@\"; done\nexit 1\n"
			switch name {
			case "cc":
				err = os.Symlink(clang, filepath.Join(bin, "cc"))
			case "ccache":
				err = os.WriteFile(filepath.Join(bin, "ccache"), []byte(ccache), 0o755)
			case "masquerade":
				err = os.WriteFile(filepath.Join(bin, "clang"), []byte(ccache), 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", path)
			original, patched := twoBuilds(t, project, patch, compiler+" -c one.c two.c && "+compiler+" -Wl,--build-id -o one one.o two.o")
			pairs, err := Compare(original, patched)
			if got := changes(pairs); err != nil || got != "one: two.c>two.c" {
				t.Errorf("changes %q, error %v", got, err)
			}
		})
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
