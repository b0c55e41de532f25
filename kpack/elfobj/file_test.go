package elfobj

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

const library = `
#include <stdio.h>
#include <string.h>
int counter = 7;
static int zeros[300];
__attribute__((visibility("protected"))) int guarded(int x) { return zeros[x]; }
__attribute__((visibility("hidden"), noinline)) int inner(int x) { zeros[0] = x; return x + counter; }
int old(int x) { return inner(x); }
int fresh(int x) { return inner(x + 1); }
#ifdef VERSIONED
__asm__(".symver old,entry@V_1");
__asm__(".symver fresh,entry@@V_2");
#endif
char *text(char *s) { puts("literal"); return strchr(s, 'x'); }
int *address(void) { return &counter; }
extern int weak_one(void) __attribute__((weak));
int maybe(void) { return weak_one ? weak_one() : 0; }
`

// fixtures builds one file of each kind for a.
func fixtures(t testing.TB, a *arch.Arch) map[string]string {
	t.Helper()
	script := filepath.Join(outputs, "versions")
	if err := os.WriteFile(script, []byte("V_1 { global: *; };\nV_2 { global: fresh; } V_1;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shared := []string{"-shared", "-fPIC", "-Wl,--build-id"}
	return map[string]string{
		"object":     build(t, a, library, "-c", "-ffunction-sections"),
		"shared":     build(t, a, library, append(shared, "-DVERSIONED", "-Wl,-soname,libkind.so.1", "-Wl,--version-script="+script)...),
		"now":        build(t, a, library, append(shared, "-Wl,-z,now", "-Wl,-Bsymbolic", "-Wl,--hash-style=sysv")...),
		"executable": build(t, a, waiting, "-no-pie", "-Wl,--build-id"),
		"pie":        build(t, a, waiting, "-pie", "-Wl,--build-id=0x1234abcd", "-Wl,-z,lazy"),
		"relocs":     build(t, a, waiting, "-Wl,--emit-relocs"),
	}
}

// everyFixture runs f for each kind of file of each architecture.
func everyFixture(t *testing.T, f func(t *testing.T, kind, path string, file *File)) {
	for _, a := range arch.All {
		t.Run(a.Name, func(t *testing.T) {
			for kind, path := range fixtures(t, a) {
				t.Run(kind, func(t *testing.T) {
					file, err := Open(path)
					if err != nil {
						t.Fatal(err)
					}
					if file.Arch != a {
						t.Errorf("architecture %v: want %v", file.Arch, a)
					}
					f(t, kind, path, file)
				})
			}
		})
	}
}

// TestLikeDebugELF compares sections, symbols and versions with the standard
// library's reader.
func TestLikeDebugELF(t *testing.T) {
	everyFixture(t, func(t *testing.T, kind, path string, f *File) {
		want, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer want.Close()
		for i, s := range want.Sections {
			got := f.Sections[i]
			if got.Name != s.Name || got.Type != s.Type || got.Flags != s.Flags || uint64(got.Addr) != s.Addr || got.Size != s.Size {
				t.Errorf("section %d: %+v: want %+v", i, got, s.SectionHeader)
			}
		}
		syms, err := f.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		wantSyms, err := want.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		compareSymbols(t, syms, wantSyms)
		if kind == "object" {
			return
		}
		dyn, err := f.DynSymbols()
		if err != nil {
			t.Fatal(err)
		}
		wantDyn, err := want.DynamicSymbols()
		if err != nil {
			t.Fatal(err)
		}
		compareSymbols(t, dyn, wantDyn)
	})
}

func compareSymbols(t *testing.T, got []Symbol, want []elf.Symbol) {
	t.Helper()
	if len(got) != len(want)+1 || got[0] != (Symbol{}) {
		t.Fatalf("%d symbols: want %d and symbol 0", len(got), len(want)+1)
	}
	for i, w := range want {
		g := got[i+1]
		name := g.Name
		if g.Type == elf.STT_SECTION {
			name = "" // ours has the section's
		}
		if name != w.Name || byte(g.Bind)<<4|byte(g.Type) != w.Info || g.Other != w.Other || g.Section != w.Section ||
			g.Value != w.Value || g.Size != w.Size || g.Version != w.Version || g.Library != w.Library {
			t.Errorf("symbol %d: %+v: want %+v", i+1, g, w)
		}
	}
}

func symbol(t *testing.T, syms []Symbol, name, version string) Symbol {
	t.Helper()
	for _, s := range syms {
		if s.Name == name && s.Version == version {
			return s
		}
	}
	t.Fatalf("no symbol %s@%s", name, version)
	return Symbol{}
}

func TestSymbolKinds(t *testing.T) {
	for _, a := range arch.All {
		paths := fixtures(t, a)
		f, err := Open(paths["shared"])
		if err != nil {
			t.Fatal(err)
		}
		dyn, err := f.DynSymbols()
		if err != nil {
			t.Fatal(err)
		}
		if s := symbol(t, dyn, "entry", "V_1"); !s.VersionHidden || !s.Defined() {
			t.Errorf("entry@V_1: %+v: want it defined and hidden", s)
		}
		if s := symbol(t, dyn, "entry", "V_2"); s.VersionHidden || !s.Defined() {
			t.Errorf("entry@@V_2: %+v: want it defined and the default", s)
		}
		if s := symbol(t, dyn, "guarded", "V_1"); s.Vis != elf.STV_PROTECTED {
			t.Errorf("guarded: %+v: want it protected", s)
		}
		if s := symbol(t, dyn, "weak_one", ""); s.Bind != elf.STB_WEAK || s.Defined() {
			t.Errorf("weak_one: %+v: want it weak and undefined", s)
		}
		if f, err = Open(paths["object"]); err != nil {
			t.Fatal(err)
		}
		syms, err := f.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		if s := symbol(t, syms, "inner", ""); s.Vis != elf.STV_HIDDEN {
			t.Errorf("inner: %+v: want it hidden", s)
		}
		s := symbol(t, syms, "zeros", "")
		n, ok := s.InSection()
		if !ok || f.Sections[n].Name != ".bss" || f.Sections[n].Type != elf.SHT_NOBITS {
			t.Errorf("zeros: %+v in section %d: want .bss", s, n)
		}
		if data, err := f.Sections[n].Data(); err != nil || data != nil {
			t.Errorf(".bss: data %d bytes, %v: want none", len(data), err)
		}
	}
}

func TestRelocs(t *testing.T) {
	call := map[*arch.Arch]uint32{arch.X86_64: uint32(elf.R_X86_64_PLT32), arch.AArch64: uint32(elf.R_AARCH64_CALL26)}
	slot := map[*arch.Arch]uint32{arch.X86_64: uint32(elf.R_X86_64_JMP_SLOT), arch.AArch64: uint32(elf.R_AARCH64_JUMP_SLOT)}
	glob := map[*arch.Arch]uint32{arch.X86_64: uint32(elf.R_X86_64_GLOB_DAT), arch.AArch64: uint32(elf.R_AARCH64_GLOB_DAT)}
	everyFixture(t, func(t *testing.T, kind, path string, f *File) {
		switch kind {
		case "object":
			syms, err := f.Symbols()
			if err != nil {
				t.Fatal(err)
			}
			n := slices.IndexFunc(f.Sections, func(s Section) bool { return s.Name == ".text.text" })
			relocs, err := f.Relocs(n)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(relocs, func(r Reloc) bool { return r.Type == call[f.Arch] && syms[r.Symbol].Name == "puts" }) {
				t.Errorf("relocations %+v: want a call of puts", relocs)
			}
			if !slices.ContainsFunc(relocs, func(r Reloc) bool { return strings.HasPrefix(syms[r.Symbol].Name, ".") }) {
				t.Errorf("relocations %+v: want one by a section symbol", relocs)
			}
		case "relocs":
			n := slices.IndexFunc(f.Sections, func(s Section) bool { return s.Name == ".text" })
			if relocs, err := f.Relocs(n); err != nil || len(relocs) == 0 {
				t.Errorf("kept relocations: %d, %v", len(relocs), err)
			}
		case "shared":
			dyn, err := f.DynSymbols()
			if err != nil {
				t.Fatal(err)
			}
			relocs, err := f.DynRelocs()
			if err != nil {
				t.Fatal(err)
			}
			has := func(typ uint32, name string) {
				t.Helper()
				if !slices.ContainsFunc(relocs, func(r Reloc) bool { return r.Type == typ && dyn[r.Symbol].Name == name }) {
					t.Errorf("relocations %+v: want %d for %s", relocs, typ, name)
				}
			}
			has(slot[f.Arch], "puts")
			has(glob[f.Arch], "counter")
			if want := relocCount(t, path); len(relocs) != want {
				t.Errorf("%d dynamic relocations: want readelf's %d", len(relocs), want)
			}
		}
	})
}

// relocCount returns the number of relocations that readelf(1) lists.
func relocCount(t *testing.T, path string) int {
	t.Helper()
	out, err := exec.Command("readelf", "-rW", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(out), " R_")
}

func TestDynamic(t *testing.T) {
	everyFixture(t, func(t *testing.T, kind, _ string, f *File) {
		d, err := f.Dynamic()
		switch kind {
		case "object":
			if !errors.Is(err, ErrNoDynamic) {
				t.Errorf("error %v: want %v", err, ErrNoDynamic)
			}
			return
		case "shared":
			if d.SOName != "libkind.so.1" || d.Symbolic {
				t.Errorf("%+v: want libkind.so.1, not symbolic", d)
			}
		case "now":
			if !d.Now || !d.Symbolic {
				t.Errorf("%+v: want now and symbolic", d)
			}
		case "pie":
			if d.Now {
				t.Errorf("%+v: want lazy", d)
			}
		}
		if err != nil || !slices.Equal(d.Needed, []string{"libc.so.6"}) {
			t.Errorf("%+v, %v: want libc.so.6 needed", d, err)
		}
	})
}

func TestReadAt(t *testing.T) {
	everyFixture(t, func(t *testing.T, kind, _ string, f *File) {
		if kind != "shared" {
			return
		}
		syms, err := f.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		counter, zeros := symbol(t, syms, "counter", ""), symbol(t, syms, "zeros", "")
		if b, err := f.ReadAt(specs.VAddr(counter.Value), counter.Size); err != nil || !bytes.Equal(b, []byte{7, 0, 0, 0}) {
			t.Errorf("counter: % x, %v", b, err)
		}
		if b, err := f.ReadAt(specs.VAddr(zeros.Value), zeros.Size); err != nil || !bytes.Equal(b, make([]byte, 1200)) {
			t.Errorf("zeros: %d bytes, %v", len(b), err)
		}
		for _, n := range []uint64{1 << 20, 1 << 40, ^uint64(0)} {
			if b, err := f.ReadAt(specs.VAddr(counter.Value), n); err == nil {
				t.Errorf("%d bytes of %#x asked", len(b), n)
			}
		}
	})
}

func TestBuildID(t *testing.T) {
	path := build(t, arch.AArch64, waiting, "-Wl,--build-id=0x1234abcd")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, data []byte, want specs.BuildID) {
		t.Helper()
		f, err := Parse(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if id, err := f.BuildID(); id != want || (want == "") != errors.Is(err, ErrNoBuildID) {
			t.Errorf("%s: %q, %v: want %q", name, id, err, want)
		}
	}
	check("whole", data, "1234abcd")
	noSections := bytes.Clone(data)
	clear(noSections[40:48]) // e_shoff
	clear(noSections[60:64]) // e_shnum, e_shstrndx
	check("no sections", noSections, "1234abcd")
	noSegments := bytes.Clone(data)
	clear(noSegments[56:58]) // e_phnum
	check("no segments", noSegments, "1234abcd")
	clear(noSegments[40:48])
	check("neither", noSegments, "")
	for name, data := range map[string][]byte{"whole": data, "no sections": noSections} {
		if id, err := ReadBuildID(bytes.NewReader(data)); err != nil || id != "1234abcd" {
			t.Errorf("%s: ReadBuildID %q, %v", name, id, err)
		}
	}
}

// TestManySections has more sections than fit st_shndx and e_shnum.
func TestManySections(t *testing.T) {
	const n = 66000
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, ".section .text.f%d,\"ax\"\nf%d: .byte 0\n", i, i)
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.s"), filepath.Join(dir, "out.o")
	if err := os.WriteFile(in, []byte(s.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(compiler(t, arch.X86_64), "-c", "-o", out, in).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	f, err := Open(out)
	if err != nil {
		t.Fatal(err)
	}
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, s := range syms {
		if !strings.HasPrefix(s.Name, "f") {
			continue
		}
		seen++
		if n, ok := s.InSection(); !ok || f.Sections[n].Name != ".text."+s.Name {
			t.Fatalf("%+v: want it in .text.%s", s, s.Name)
		}
	}
	if seen != n {
		t.Errorf("%d symbols: want %d", seen, n)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if out, err := exec.Command("mkfifo", fifo).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir: "not a regular file", fifo: "not a regular file", script: "not an ELF file", dir + "/none": "no such file",
	} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v: want %q and the path", path, err, want)
		}
	}
}

func BenchmarkReadBuildID(b *testing.B) {
	path := build(b, arch.X86_64, waiting, "-Wl,--build-id")
	for b.Loop() {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ReadBuildID(f); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

func BenchmarkSymbols(b *testing.B) {
	path, err := os.Executable() // a large symbol table
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		f, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.Symbols(); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(f.Size()))
	}
}
