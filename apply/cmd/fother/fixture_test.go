package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// program is a program that prints the answer of a function, 2, for each line
// that it reads. Its build-id is its own, so that no other process on the
// machine has it.
type program struct {
	dir, bin string
	id       specs.BuildID
	original *elfobj.File // the program
	unit     *elfobj.File // its object
}

const programSource = `
#include <stdio.h>
volatile int one = 1;
__attribute__((noipa)) int answer(int x) { return x + one; }
__attribute__((noipa)) int other(int x) { return x - one; }
int main(void) { char l[9]; while (fgets(l, 9, stdin)) { printf("%d\n", answer(1) + other(1)); fflush(stdout); } return 0; }
`

// fixtureDir is made by TestMain and removed after all tests.
var (
	fixtureDir  string
	fixtureOnce sync.Once
	fixtureMade *program
)

// fixture compiles the program, once.
func fixture(t testing.TB) *program {
	t.Helper()
	testenv.Needs(t, "gcc", "as", "ld")
	fixtureOnce.Do(func() { fixtureMade = compile(t, fixtureDir) })
	if fixtureMade == nil {
		t.Fatal("the program was not made")
	}
	return fixtureMade
}

func compile(t testing.TB, dir string) *program {
	t.Helper()
	return compileSource(t, dir, programSource)
}

// compileSource compiles another program, or library, with the functions answer
// and other.
func compileSource(t testing.TB, dir, source string, flags ...string) *program {
	t.Helper()
	id := make([]byte, 20)
	rand.Read(id)
	p := &program{dir: dir, bin: filepath.Join(dir, "prog"), id: specs.BuildID(hex.EncodeToString(id))}
	write(t, p.bin+".c", []byte(source))
	execute(t, "gcc", append([]string{"-O1", "-c", "-o", p.bin + ".o", p.bin + ".c"}, flags...)...)
	execute(t, "gcc", append([]string{"-Wl,--build-id=0x" + string(p.id), "-o", p.bin, p.bin + ".o"}, flags...)...)
	p.original, p.unit = openELF(t, p.bin), openELF(t, p.bin+".o")
	return p
}

// patch returns a patch file with which the answer is 40 more than the level.
// Only of series other than the default the function "other" is patched, so
// that they coexist: it then is 100 times the level.
func (p *program) patch(t testing.TB, series specs.Series, level specs.Level) []byte {
	t.Helper()
	function, value := "answer", 40+int(level)
	if series != specs.DefaultSeries {
		function, value = "other", 100*int(level)
	}
	return p.build(t, series, level, function, value).encode(t)
}

type built struct{ *kpack.Patch }

func (b built) encode(t testing.TB) []byte {
	t.Helper()
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (p *program) build(t testing.TB, series specs.Series, level specs.Level, function string, value int) built {
	t.Helper()
	on, code := arch.X86_64, "movl $%d, %%eax"
	if p.original.Arch == arch.AArch64 {
		on, code = arch.AArch64, "mov w0, %d"
	}
	asm := filepath.Join(t.TempDir(), "patch.s")
	write(t, asm, fmt.Appendf(nil, `
	.section .kpatch.text,"ax",@progbits
	.globl %[1]s.kpatch
	.type %[1]s.kpatch, @function
%[1]s.kpatch:
	%[2]s
	ret
	.size %[1]s.kpatch, .-%[1]s.kpatch
`, function, fmt.Sprintf(code, value)))
	execute(t, "as", "-o", asm+".o", asm)
	patch, err := kpack.Build(kpack.BuildInput{
		Arch: on, Name: "prog", Original: p.original, Patched: p.original,
		Meta: kpack.Meta{Name: "the-fix", Series: series, Level: level},
		Units: []kpack.BuildUnit{{Name: "prog.c", Object: openELF(t, asm+".o"), OriginalObject: p.unit,
			Functions: []kpack.BuildFunction{{Original: function, Label: function + ".kpatch", Reason: "test"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return built{patch}
}

// foreign returns a patch like data's for a build-id that nothing runs.
func foreign(t testing.TB, data []byte, id specs.BuildID) []byte {
	t.Helper()
	p, err := kpack.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	other := *p
	other.Target.BuildID = id
	return built{&other}.encode(t)
}

// bundleOf packs patch files of one release.
func bundleOf(t testing.TB, level specs.Level, files ...[]byte) []byte {
	t.Helper()
	data, err := bundle.Encode(bundle.Manifest{Name: "the-fix", Series: specs.DefaultSeries, Level: level}, files)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func openELF(t testing.TB, path string) *elfobj.File {
	t.Helper()
	f, err := elfobj.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func execute(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
