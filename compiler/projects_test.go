package compiler

import (
	"path/filepath"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// TestBuildSystems builds projects plainly and under capture, and compares.
func TestBuildSystems(t *testing.T) {
	tests := map[string]struct {
		programs []string
		files    map[string]string
		commands []string
		clean    string
		want     map[string]string // units by deliverable
	}{
		"libtool": {
			programs: []string{"libtool", "gcc", "make"},
			files: map[string]string{
				"lib.c":  "static int n;\nint lib(int x) { return n += x; }\n",
				"aux.c":  "int aux(int x) { return x + 2; }\n",
				"main.c": "int lib(int), aux(int);\nint main(int argc, char **argv) { return lib(argc) + aux(argc); }\n",
				"Makefile": `LT = libtool --tag=CC --quiet
all: main
libone.la: lib.lo libaux.la
	$(LT) --mode=link gcc -g -O2 -o $@ lib.lo libaux.la -rpath /nowhere
libaux.la: aux.lo
	$(LT) --mode=link gcc -g -O2 -o $@ aux.lo
main: main.o libone.la
	$(LT) --mode=link gcc -g -O2 -o $@ main.o libone.la
%.lo: %.c
	$(LT) --mode=compile gcc -g -O2 -c $< -o $@
main.o: main.c
	gcc -g -O2 -c $<
`,
			},
			commands: []string{"make -j4"},
			clean:    "rm -rf .libs main *.la *.lo *.o",
			want:     map[string]string{"libone.so.0.0.0": "aux.c lib.c", "main": "main.c"},
		},
		"cmake": {
			programs: []string{"cmake", "gcc", "g++", "make"},
			files: map[string]string{
				"CMakeLists.txt": `cmake_minimum_required(VERSION 3.10)
project(p C CXX)
include(CheckFunctionExists)
check_function_exists(strlen HAVE_STRLEN)
add_library(st STATIC st.c)
set_target_properties(st PROPERTIES POSITION_INDEPENDENT_CODE ON)
add_library(ob OBJECT ob.c)
add_library(sh SHARED sh.cc)
target_link_libraries(sh st)
add_executable(main main.c $<TARGET_OBJECTS:ob>)
target_link_libraries(main sh)
`,
				"st.c":   "int st(int x) { return x + 3; }\n",
				"ob.c":   "int ob(int x) { return x + 4; }\n",
				"sh.cc":  "extern \"C\" int st(int);\nextern \"C\" int sh(int x) { return st(x); }\n",
				"main.c": "int sh(int), ob(int);\nint main(int argc, char **argv) { return sh(argc) + ob(argc); }\n",
			},
			commands: []string{"cmake -S . -B out -DCMAKE_BUILD_TYPE=RelWithDebInfo", "cmake --build out -j4"},
			clean:    "rm -rf out",
			want:     map[string]string{"libsh.so": "sh.cc st.c", "main": "main.c ob.c"},
		},
		"aarch64": {
			programs: []string{"aarch64-linux-gnu-gcc", "aarch64-linux-gnu-ld"},
			files: map[string]string{
				"one.c": "int helper(int);\nint main(int argc, char **argv) { return helper(argc); }\n",
				"two.c": "int helper(int n) { return n - 1; }\n",
				"lib.c": "int lib(int n) { return n - 1; }\n",
			},
			commands: []string{
				"aarch64-linux-gnu-gcc -O2 -g -pipe -c one.c two.c && aarch64-linux-gnu-ld -r -o both.o one.o two.o && aarch64-linux-gnu-gcc -s -o one both.o",
				"aarch64-linux-gnu-gcc -O2 -g -shared -fPIC -o lib.so lib.c",
			},
			clean: "rm -f *.o one lib.so",
			want:  map[string]string{"one": "one.c two.c", "lib.so": "lib.c"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			testenv.Needs(t, tt.programs...)
			dir, store := t.TempDir(), t.TempDir()
			tree(t, dir, tt.files)
			plain(t, dir, tt.commands...)
			want := binaries(snapshot(t, dir))
			plain(t, dir, tt.clean)
			c := capture(t, dir, store, specs.StageOriginal, nil, tt.commands...)
			sameFiles(t, want, binaries(snapshot(t, dir)))
			// CMake keeps the programs that it tried the compiler with.
			if n := len(c.Deliverables()); n < len(tt.want) || n > len(tt.want) && name != "cmake" {
				t.Errorf("%d deliverables, want %d", n, len(tt.want))
			}
			for base, units := range tt.want {
				l := deliverable(t, c, base)
				if got := sources(l.Units()); got != units || l.BuildID == "" || l.NoSymbols != "" {
					t.Errorf("%s: build-id %q, units %q, want %q; %s", base, l.BuildID, got, units, l.NoSymbols)
				}
				for _, u := range l.Units() {
					if !filepath.IsAbs(u.Source) || u.Arch == nil || (u.Arch.Name == "aarch64") != (name == "aarch64") {
						t.Errorf("%s: source %q, architecture %v", base, u.Source, u.Arch)
					}
				}
			}
			if len(c.Unseen) != 0 {
				t.Errorf("unseen %v", c.Unseen)
			}
		})
	}
}
