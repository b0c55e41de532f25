package pipeline

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/magefiles/internal/machine"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// gateBodies are functions of aarch64 whose first instructions depend on where
// they are, or sign the return address. Their third argument is the address of g.
// A leading "@" puts the first instruction at the end of a page.
var gateBodies = []string{
	"add w0, w0, #1\n ret",
	"adrp x1, table\n add x1, x1, :lo12:table\n ldr w0, [x1, w0, uxtw #2]\n ret",
	"adr x1, 1f\n ldr w0, [x1]\n ret\n 1: .long 77",
	"b g",
	"cbz w0, 1f\n mov w0, #7\n ret\n 1: mov w0, #8\n ret",
	"cbnz w0, 1f\n mov w0, #7\n ret\n 1: mov w0, #8\n ret",
	"tbnz w0, #0, 1f\n mov w0, #7\n ret\n 1: mov w0, #8\n ret",
	"bti c\n tbz w0, #1, 1f\n mov w0, #7\n ret\n 1: mov w0, #8\n ret",
	"stp x29, x30, [sp, -16]!\n bl g\n ldp x29, x30, [sp], 16\n ret",
	"br x2",
	"paciasp\n stp x29, x30, [sp, -16]!\n bl g\n ldp x29, x30, [sp], 16\n autiasp\n ret",
	"@paciasp\n stp x29, x30, [sp, -16]!\n bl g\n ldp x29, x30, [sp], 16\n autiasp\n ret",
	"@pacibsp\n stp x29, x30, [sp, -16]!\n bl g\n ldp x29, x30, [sp], 16\n autibsp\n ret",
	"1: add w0, w0, #3\n cmp w0, #20\n b.lt 1b\n ret",
}

const gateMain = `
#include <stdio.h>
typedef int f(int, int, int (*)(int));
extern f *functions[], *last[];
extern int g(int);
int main(void) {
	for (f **p = functions; p < last; p++)
		for (int x = 0; x < 3; x++) printf("%d %d\n", (int)(p - functions), (*p)(x, 5, g));
	return 0;
}
`

// gateProgram builds the program below dir, and a patch of all of its functions.
func gateProgram(t *testing.T, dir string) *kpack.Patch {
	t.Helper()
	var s, fix strings.Builder
	s.WriteString(".text\n.globl g\n.type g, %function\ng: add w0, w0, #1000\n ret\n.size g, .-g\n")
	fix.WriteString(".section .kpatch.text,\"ax\",%progbits\n")
	var functions []kpack.BuildFunction
	table := ""
	for i, body := range gateBodies {
		align := ".balign 16"
		if body[0] == '@' {
			align, body = ".balign 4096\n.skip 4092", body[1:]
		}
		fmt.Fprintf(&s, "%s\n.globl f%d\n.type f%[2]d, %%function\nf%[2]d: %s\n.size f%[2]d, .-f%[2]d\n", align, i, body)
		fmt.Fprintf(&fix, ".globl f%d.kpatch\n.type f%[1]d.kpatch, %%function\nf%[1]d.kpatch: add w0, w0, #%d\n ret\n.size f%[1]d.kpatch, .-f%[1]d.kpatch\n", i, 2000+i)
		functions = append(functions, kpack.BuildFunction{Original: fmt.Sprint("f", i), Label: fmt.Sprintf("f%d.kpatch", i), Reason: "test"})
		table += fmt.Sprintf(".quad f%d\n", i)
	}
	s.WriteString(".data\n.balign 8\ntable: .long 3, 5, 7, 9\n.globl cell\n.balign 8\ncell: .quad 0\n")
	s.WriteString(".section .room,\"ax\",%progbits\n.globl room\n.balign 4096\nroom: .skip 65536\n")
	s.WriteString(".section .rodata\n.globl functions, last\n.balign 8\nfunctions:\n" + table + "last:\n.section .note.GNU-stack,\"\",%progbits\n")
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"gate.s": s.String(), "fix.s": fix.String(), "main.c": gateMain} {
		if err := os.WriteFile(at(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tuple := arch.AArch64.Tuple
	for _, c := range [][]string{
		{tuple + "-as", "-march=armv8.5-a", "-o", at("gate.o"), at("gate.s")}, {tuple + "-as", "-o", at("fix.o"), at("fix.s")},
		{tuple + "-gcc", "-static", "-no-pie", "-Wl,--build-id", "-o", at("gate"), at("gate.o"), at("main.c")},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
	open := func(name string) *elfobj.File {
		f, err := elfobj.Open(at(name))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	p, err := kpack.Build(kpack.BuildInput{
		Arch: arch.AArch64, Name: "gate", Original: open("gate"), Patched: open("gate"),
		Meta:  kpack.Meta{Name: "test", Series: specs.DefaultSeries, Level: 1},
		Units: []kpack.BuildUnit{{Name: "gate.s", Object: open("fix.o"), OriginalObject: open("gate.o"), Functions: functions}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// throughGates writes a copy of the program in which all entries lead to gates
// that are shut or open, or to the new bodies.
func throughGates(t *testing.T, dir string, p *kpack.Patch, mode string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(dir, "gate")
	f, err := elfobj.Open(bin)
	check(err)
	file, err := os.ReadFile(bin)
	check(err)
	put := func(at specs.Addr, b []byte) {
		for _, s := range f.Sections {
			if s.Addr != 0 && uint64(at)-uint64(s.Addr) < s.Size {
				copy(file[s.Offset+uint64(at)-uint64(s.Addr):], b)
				return
			}
		}
		t.Fatalf("%v is in no section", at)
	}
	symbols := map[string]specs.Addr{}
	all, err := f.Symbols()
	check(err)
	for _, s := range all {
		symbols[s.Name] = specs.Addr(s.Value)
	}
	l, err := p.Layout(4096, 64)
	check(err)
	im, err := p.Link(l, symbols["room"], 0, nil, nil)
	check(err)
	put(symbols["room"]+specs.Addr(l.Text.Offset), im.Text)
	for i, fn := range p.Functions {
		skip, to := 0, im.Gates[i]
		if fn.Through != nil {
			skip = fn.Through.Skip
		}
		if mode == "direct" {
			to = im.Jumps[i]
		}
		site, jump, err := kpack.Redirect(p.Arch, fn.Entry, skip, specs.Addr(fn.Original.Lo), to)
		check(err)
		gate, err := kpack.GateCode(p.Arch, symbols["cell"], 0x12345678, im.Copies[i], im.Jumps[i])
		check(err)
		put(site, jump)
		put(im.Gates[i], gate)
	}
	if mode == "open" {
		put(symbols["cell"], []byte{0x78, 0x56, 0x34, 0x12})
	}
	check(os.WriteFile(bin+"-"+mode, file, 0o755))
}

// TestGatesOnAArch64 runs gates and copies of first instructions on an emulated
// machine: those of commits of which the tool was killed in the middle.
func TestGatesOnAArch64(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: boots an emulated machine")
	}
	for _, err := range []error{machine.Check(), tools.Check("aarch64-linux-gnu-gcc")} {
		if err != nil {
			testenv.Skip(t, err.Error())
		}
	}
	job := t.TempDir()
	p := gateProgram(t, job)
	through := 0
	for _, f := range p.Functions {
		if f.Alone != "" {
			t.Errorf("function %s: %s", f.Name, f.Alone)
		}
		if f.Through != nil {
			through++
		}
	}
	if through != 2 {
		t.Errorf("%d functions have their jump later, want 2", through)
	}
	const script = "./gate >plain\nfor mode in shut open direct; do ./gate-$mode >$mode || echo \"BAD $mode $?\"; done\n" +
		"cmp plain shut && echo \"SAME shut\"\ncmp open direct && echo \"SAME open\"\nsed 's/^/OPEN /' open\n"
	for _, mode := range []string{"shut", "open", "direct"} {
		throughGates(t, job, p, mode)
	}
	if err := os.WriteFile(filepath.Join(job, "run.sh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	var console bytes.Buffer
	status, err := machine.Run(t.Context(), machine.Options{Dir: job, Console: io.MultiWriter(&console, t.Output())})
	if err != nil || status != 0 {
		t.Fatalf("exit status %d: %v", status, err)
	}
	wants := []string{"SAME shut", "SAME open"}
	for i := range gateBodies {
		wants = append(wants, fmt.Sprintf("OPEN %d %d", i, 2000+i+2))
	}
	for _, want := range wants {
		if !strings.Contains(console.String(), want) {
			t.Errorf("no %q", want)
		}
	}
}
