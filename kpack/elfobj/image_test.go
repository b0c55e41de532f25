package elfobj

import (
	"bufio"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// child starts the program that build made, waits for its first line, and
// returns its memory and the base of each mapped object by path.
func child(t testing.TB, path string) (*os.File, map[string]specs.Addr) {
	t.Helper()
	cmd := exec.Command(path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close() // it reads its input, and ends with it
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return memory(t, cmd.Process.Pid)
}

func memory(t testing.TB, pid int) (*os.File, map[string]specs.Addr) {
	t.Helper()
	dir := "/proc/" + strconv.Itoa(pid)
	mem, err := os.Open(dir + "/mem")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	maps, err := os.ReadFile(dir + "/maps")
	if err != nil {
		t.Fatal(err)
	}
	bases := map[string]specs.Addr{}
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		lo, _, _ := strings.Cut(f[0], "-")
		a, err := strconv.ParseUint(lo, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := bases[f[5]]; !ok {
			bases[f[5]] = specs.Addr(a)
		}
	}
	return mem, bases
}

// hostArch skips the test where no process of a supported architecture runs.
func hostArch(t testing.TB) *arch.Arch {
	t.Helper()
	out, err := exec.Command("uname", "-m").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range arch.All {
		if a.Name == strings.TrimSpace(string(out)) {
			return a
		}
	}
	testenv.Skip(t, "no supported architecture")
	return nil
}

const waiting = `
#include <stdio.h>
#include <string.h>
char area[64];
int twice(int x) { return 2*x; }
int main(void) {
	memcpy(area, "x", 2);
	puts("ready");
	fflush(stdout);
	getchar();
	return 0;
}
`

func TestOpenImageProcess(t *testing.T) {
	a := hostArch(t)
	for _, flags := range [][]string{{"-pie"}, {"-no-pie", "-fno-pie"}, {"-pie", "-s"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			path := build(t, a, waiting, append(flags, "-rdynamic", "-Wl,--build-id", "-Wl,--hash-style=both")...)
			mem, bases := child(t, path)
			checkExecutable(t, mem, path, bases[path])
			checkLibc(t, mem, bases)
			checkVDSO(t, mem, bases["[vdso]"])
		})
	}
}

func checkExecutable(t *testing.T, mem *os.File, path string, base specs.Addr) {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := OpenImage(mem, base)
	if err != nil {
		t.Fatal(err)
	}
	if f.Type == elf.ET_EXEC != (img.Bias == 0) {
		t.Errorf("bias %#x of %v", uint64(img.Bias), f.Type)
	}
	if img.Range.Lo != img.Bias.Addr(f.Image().Lo) || img.Range.Hi != img.Bias.Addr(f.Image().Hi) {
		t.Errorf("range %v: want %v, moved by the bias", img.Range, f.Image())
	}
	want, err := f.BuildID()
	if err != nil {
		t.Fatal(err)
	}
	if id, err := img.BuildID(); err != nil || id != want {
		t.Errorf("build-id %q, %v: want %q", id, err, want)
	}
	dyn, err := f.DynSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range dyn {
		if s.Name != "twice" {
			continue
		}
		got, ok, err := img.Lookup("twice", "")
		if err != nil || !ok || got.Value != uint64(img.Bias.Addr(specs.VAddr(s.Value))) || got.Size != s.Size {
			t.Errorf("twice: %+v, %v, %v: want %+v", got, ok, err, s)
		}
	}
	checkSlots(t, img, f)
	eh, err := f.EHFrame()
	if err != nil {
		t.Fatal(err)
	}
	addr, hdr, err := img.EHFrameHdr()
	if err != nil || addr != img.Bias.Addr(eh.HdrAddr) || string(hdr) != string(eh.Hdr) {
		t.Errorf(".eh_frame_hdr at %v, %d bytes, %v: want %v, %d bytes", addr, len(hdr), err, img.Bias.Addr(eh.HdrAddr), len(eh.Hdr))
	}
}

// checkSlots compares the GOT entries of an import in memory with those in the
// file.
func checkSlots(t *testing.T, img *Image, f *File) {
	t.Helper()
	relocs, err := f.DynRelocs()
	if err != nil {
		t.Fatal(err)
	}
	dyn, err := f.DynSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range relocs {
		if r.Symbol == 0 || dyn[r.Symbol].Name != "puts" {
			continue
		}
		want := img.Bias.Addr(specs.VAddr(r.Offset))
		if got, err := img.Relocated(r.Type); err != nil || !slices.Contains(got, want) || !slices.IsSorted(got) {
			t.Errorf("relocated by type %d: %v, %v: want %v among them", r.Type, got, err, want)
		}
		if got, err := img.Relocated(r.Type + 1000); err != nil || len(got) != 0 {
			t.Errorf("relocated by another type: %v, %v", got, err)
		}
		if got, err := img.Slots("puts", r.Type); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("slots of puts: %v, %v: want %v", got, err, want)
		}
		if got, err := img.Slots("puts", r.Type+1); err != nil || len(got) != 0 {
			t.Errorf("slots of another type: %v, %v", got, err)
		}
	}
	for _, name := range []string{"twice", "no_such_function"} {
		if got, err := img.Slots(name, 6, 7, 1025, 1026); err != nil || len(got) != 0 {
			t.Errorf("slots of %s: %v, %v", name, got, err)
		}
	}
	table := f.Section(".got.plt")
	if table == nil {
		table = f.Section(".got") // with -z now
	}
	if got, err := img.PLTGOT(); err != nil || !img.Dynamic() || table == nil || got != img.Bias.Addr(table.Addr) {
		t.Errorf("DT_PLTGOT %v, %v: want it at %+v", got, err, table)
	}
	if found, err := img.Names("puts"); err != nil || !found {
		t.Errorf("puts is no name of the object: %v", err)
	}
}

func checkLibc(t *testing.T, mem *os.File, bases map[string]specs.Addr) {
	t.Helper()
	img := openLibc(t, mem, bases)
	for _, tt := range []struct {
		name, version string
		typ           elf.SymType
		found         string // version, "-" if none
	}{
		{"memcpy", "GLIBC_2.14", elf.STT_GNU_IFUNC, "GLIBC_2.14"},
		{"memcpy", "", elf.STT_GNU_IFUNC, "GLIBC_2.14"},
		{"memcpy", "GLIBC_2.2.5", elf.STT_FUNC, "GLIBC_2.2.5"},
		{"memcpy", "GLIBC_2.3", 0, "-"},
		{"puts", "", elf.STT_FUNC, "GLIBC_2.2.5"},
		{"no_such_function", "", 0, "-"},
	} {
		if img.Arch != arch.X86_64 {
			break // other versions there
		}
		s, ok, err := img.Lookup(tt.name, tt.version)
		if err != nil {
			t.Errorf("%s@%s: %v", tt.name, tt.version, err)
			continue
		}
		if ok != (tt.found != "-") || ok && (s.Version != tt.found || s.Type != tt.typ || !img.Range.Contains(specs.Addr(s.Value))) {
			t.Errorf("%s@%s: %+v, %v: want %s, %v", tt.name, tt.version, s, ok, tt.found, tt.typ)
		}
	}
}

func openLibc(t testing.TB, mem *os.File, bases map[string]specs.Addr) *Image {
	t.Helper()
	for path, base := range bases {
		if strings.HasPrefix(filepath.Base(path), "libc.so") || strings.HasPrefix(filepath.Base(path), "libc-") {
			img, err := OpenImage(mem, base)
			if err != nil {
				t.Fatal(err)
			}
			return img
		}
	}
	t.Fatal("no libc among the mapped objects")
	return nil
}

func checkVDSO(t *testing.T, mem *os.File, base specs.Addr) {
	t.Helper()
	img, err := OpenImage(mem, base)
	if err != nil {
		t.Fatal(err)
	}
	name, version := "__vdso_gettimeofday", "LINUX_2.6"
	if img.Arch == arch.AArch64 {
		name, version = "__kernel_gettimeofday", "LINUX_2.6.39"
	}
	s, ok, err := img.Lookup(name, version)
	if err != nil || !ok || !img.Range.Contains(specs.Addr(s.Value)) {
		t.Errorf("%s: %+v, %v, %v: want it inside %v", name, s, ok, err, img.Range)
	}
	if _, _, err := img.EHFrameHdr(); err != nil {
		t.Error(err)
	}
}

// TestLookupLikeLinker compares every dynamic symbol of libc's file with what
// Lookup finds in memory.
func TestLookupLikeLinker(t *testing.T) {
	a := hostArch(t)
	mem, bases := child(t, build(t, a, waiting))
	img := openLibc(t, mem, bases)
	var path string
	for p, base := range bases {
		if base == img.Base {
			path = p
		}
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	syms, err := f.DynSymbols()
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, s := range syms {
		if !s.Defined() || s.Type == elf.STT_TLS || s.Section == elf.SHN_ABS || s.Bind == elf.STB_LOCAL {
			continue
		}
		checked++
		got, ok, err := img.Lookup(s.Name, s.Version)
		if err != nil || !ok || got.Value != uint64(img.Bias.Addr(specs.VAddr(s.Value))) || got.Version != s.Version {
			t.Errorf("%s@%s: %+v, %v, %v: want %#x", s.Name, s.Version, got, ok, err, s.Value)
		}
	}
	if checked < 1000 {
		t.Errorf("%d symbols checked: want a libc's", checked)
	}
}

func BenchmarkOpenImageBuildID(b *testing.B) {
	path := build(b, hostArch(b), waiting, "-Wl,--build-id")
	mem, bases := child(b, path)
	for b.Loop() {
		img, err := OpenImage(mem, bases[path])
		if err != nil {
			b.Fatal(err)
		}
		if _, err := img.BuildID(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	mem, bases := child(b, build(b, hostArch(b), waiting))
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			if _, ok, err := openLibc(b, mem, bases).Lookup("memcpy", ""); err != nil || !ok {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("again", func(b *testing.B) {
		img := openLibc(b, mem, bases)
		for b.Loop() {
			if _, ok, err := img.Lookup("memcpy", ""); err != nil || !ok {
				b.Fatal(ok, err)
			}
		}
	})
}
