package elfobj

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// readAll asks a file for everything. Each answer is an error or a value; what
// it asks may be refused.
func readAll(t testing.TB, data []byte) {
	f, err := Parse(data)
	if (f == nil) == (err == nil) {
		t.Fatalf("file %v, error %v", f, err)
	}
	if err != nil {
		return
	}
	f.BuildID()
	syms, err := f.Symbols()
	exclusive(t, "symbols", syms != nil, err)
	dyn, err := f.DynSymbols()
	exclusive(t, "dynamic symbols", dyn != nil, err)
	for i := range f.Sections {
		if relocs, err := f.Relocs(i); err == nil {
			for _, r := range relocs {
				if r.Symbol >= len(syms) && syms != nil {
					t.Fatalf("relocation by symbol %d of %d", r.Symbol, len(syms))
				}
			}
		}
		f.Sections[i].Data()
	}
	f.DynRelocs()
	d, err := f.Dynamic()
	exclusive(t, "dynamic section", d != nil, err)
	f.EHFrame()
	f.ReadAt(f.Image().Lo, 16)
	f.ReadAt(f.Image().Lo, f.Image().Size())
}

func exclusive(t testing.TB, what string, value bool, err error) {
	t.Helper()
	if value == (err != nil) {
		t.Fatalf("%s: value %v, error %v", what, value, err)
	}
}

// readImage maps the file's segments as a process would, and asks the image
// for everything.
func readImage(t testing.TB, data []byte) {
	img, err := OpenImage(mapped(data), fakeBase)
	if (img == nil) == (err == nil) {
		t.Fatalf("image %v, error %v", img, err)
	}
	if err != nil {
		return
	}
	img.BuildID()
	img.EHFrameHdr()
	img.PLTGOT()
	slots, err := img.Relocated(7, 8, 1025, 1026)
	for _, a := range slots {
		if err != nil || !img.Range.Contains(a) {
			t.Fatalf("relocated place %v outside %v, %v", a, img.Range, err)
		}
	}
	for _, name := range []string{"entry", "counter", "puts", "text"} {
		img.Lookup(name, "")
		img.Lookup(name, "V_1")
	}
}

const fakeBase = 0x7f0000000000

// process is memory of a fake process, from fakeBase on.
type process []byte

func (p process) ReadAt(b []byte, off int64) (int, error) {
	if off < fakeBase || off >= fakeBase+int64(len(p)) {
		return 0, errors.New("not mapped")
	}
	n := copy(b, p[off-fakeBase:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// mapped returns the memory of a process in which data is mapped. Segments
// that lie about themselves are left out.
func mapped(data []byte) process {
	const limit = 1 << 18
	f, err := Parse(data)
	if err != nil {
		return process(data[:min(len(data), 4096)])
	}
	p := make(process, max(4096, min(limit, uint64(f.Image().Hi))))
	copy(p, data[:min(len(data), 4096)])
	for _, s := range f.Segments {
		if s.Type == elf.PT_LOAD && s.Vaddr < uint64(len(p)) {
			copy(p[s.Vaddr:], data[s.Off:][:s.Filesz])
		}
	}
	return p
}

// TestImageLikeFile looks symbols up in a fake process, by either hash table.
func TestImageLikeFile(t *testing.T) {
	everyFixture(t, func(t *testing.T, kind, path string, f *File) {
		if f.Type != elf.ET_DYN {
			return
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		img, err := OpenImage(mapped(data), fakeBase)
		if err != nil {
			t.Fatal(err)
		}
		dyn, err := f.DynSymbols()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range dyn[1:] {
			if s.Bind == elf.STB_LOCAL {
				continue
			}
			got, ok, err := img.Lookup(s.Name, s.Version)
			if err != nil || ok != s.Defined() {
				t.Errorf("%s@%s: %+v, %v, %v: want %v", s.Name, s.Version, got, ok, err, s.Defined())
				continue
			}
			if _, in := s.InSection(); in && got.Value != fakeBase+s.Value {
				t.Errorf("%s@%s: %#x: want %#x", s.Name, s.Version, got.Value, fakeBase+s.Value)
			}
			if _, ok, err := img.Lookup(s.Name+"_not", ""); ok || err != nil {
				t.Errorf("%s_not: %v, %v", s.Name, ok, err)
			}
		}
		if kind == "shared" {
			lookupVersions(t, img)
		}
	})
}

func lookupVersions(t *testing.T, img *Image) {
	t.Helper()
	first, ok1, err1 := img.Lookup("entry", "V_1")
	second, ok2, err2 := img.Lookup("entry", "V_2")
	byDefault, ok3, err3 := img.Lookup("entry", "")
	if !ok1 || !ok2 || !ok3 || errors.Join(err1, err2, err3) != nil {
		t.Fatal("entry not found:", ok1, ok2, ok3, err1, err2, err3)
	}
	if first.Value == second.Value || byDefault.Value != second.Value {
		t.Errorf("entry: V_1 %#x, V_2 %#x, default %#x", first.Value, second.Value, byDefault.Value)
	}
	if s, ok, err := img.Lookup("entry", "V_3"); ok || err != nil {
		t.Errorf("entry@V_3: %+v, %v, %v", s, ok, err)
	}
}

// TestDamage changes every byte of headers and tables, and cuts files short.
func TestDamage(t *testing.T) {
	for _, a := range arch.All {
		for kind, path := range fixtures(t, a) {
			t.Run(a.Name+"/"+kind, func(t *testing.T) {
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				f, err := Parse(data)
				if err != nil {
					t.Fatal(err)
				}
				damage(t, data, headers(f))
				for n := 0; n < len(data); n += 1 + n/40 {
					readAll(t, data[:n:n])
					readImage(t, data[:n:n])
				}
			})
		}
	}
}

// headers returns the file ranges that hold more than content.
func headers(f *File) [][2]uint64 {
	shoff := le.Uint64(f.data[40:])
	r := [][2]uint64{{0, ehdrSize + uint64(len(f.Segments))*phdrSize}, {shoff, shoff + uint64(len(f.Sections))*shdrSize}}
	for _, s := range f.Sections {
		switch s.Type {
		case elf.SHT_DYNAMIC, elf.SHT_GNU_VERDEF, elf.SHT_GNU_VERNEED, elf.SHT_GNU_VERSYM, elf.SHT_GNU_HASH,
			elf.SHT_HASH, elf.SHT_NOTE, elf.SHT_DYNSYM:
			r = append(r, [2]uint64{s.Offset, s.Offset + s.Size})
		}
	}
	return r
}

func damage(t *testing.T, data []byte, ranges [][2]uint64) {
	bad := bytes.Clone(data)
	for _, r := range ranges {
		for i := r[0]; i < r[1]; i++ {
			for _, v := range []byte{0xff, data[i] ^ 0x10} {
				bad[i] = v
				readAll(t, bad)
				readImage(t, bad)
			}
			bad[i] = data[i]
		}
	}
}

// TestErrorsName: an error says which section and which symbol.
func TestErrorsName(t *testing.T) {
	path := build(t, arch.X86_64, library, "-c")
	for name, tt := range map[string]struct {
		edit func(f *File, data []byte)
		want string
	}{
		"class":   {func(_ *File, b []byte) { b[4] = 1 }, "ELFCLASS32 is not supported: want a 64-bit file"},
		"order":   {func(_ *File, b []byte) { b[5] = 2 }, "ELFDATA2MSB is not supported: want a little-endian file"},
		"machine": {func(_ *File, b []byte) { b[18] = 8 }, "machine EM_MIPS is not supported"},
		"type":    {func(_ *File, b []byte) { b[16] = 4 }, "file type ET_CORE is not supported"},
		"symbol section": {func(f *File, b []byte) {
			le.PutUint16(b[f.Section(".symtab").Offset+symSize*5+6:], 0x1000)
		}, `.symtab: symbol ".LC0" (5): no section 4096`},
		"symbol name": {func(f *File, b []byte) {
			le.PutUint32(b[f.Section(".symtab").Offset+symSize*5:], 1<<30)
		}, ".symtab: symbol 5: name: string at 0x40000000: outside the string table"},
		"reloc": {func(f *File, b []byte) {
			le.PutUint32(b[f.Section(".rela.text").Offset+12:], 9999)
		}, ".rela.text: relocation 0: no symbol 9999"},
	} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		tt.edit(f, data)
		if got := firstError(data); got == nil || !bytes.Contains([]byte(got.Error()), []byte(tt.want)) {
			t.Errorf("%s: error %v: want %q", name, got, tt.want)
		}
	}
}

func firstError(data []byte) error {
	f, err := Parse(data)
	if err != nil {
		return err
	}
	if _, err := f.Symbols(); err != nil {
		return err
	}
	for i := range f.Sections {
		if _, err := f.Relocs(i); err != nil {
			return err
		}
	}
	return nil
}

// TestLyingSizes: counts in a small file do not make large allocations.
func TestLyingSizes(t *testing.T) {
	h := make([]byte, 4096)
	copy(h, "\x7fELF\x02\x01\x01")
	le.PutUint16(h[16:], uint16(elf.ET_DYN))
	le.PutUint16(h[18:], uint16(elf.EM_X86_64))
	le.PutUint16(h[54:], phdrSize)
	le.PutUint16(h[58:], shdrSize)
	le.PutUint64(h[40:], 64) // section 0 has the counts
	le.PutUint64(h[64+32:], 1<<40)
	if _, err := Parse(h); err == nil {
		t.Error("2^40 sections")
	}
	le.PutUint64(h[32:], 64)
	le.PutUint16(h[56:], 0xfffe)
	if _, err := OpenImage(process(h), specs.Addr(fakeBase)); err == nil {
		t.Error("65534 segments")
	}
}

// FuzzParse has small seeds: minimizing large ones takes all the time.
func FuzzParse(f *testing.F) {
	for _, a := range arch.All {
		for _, path := range []string{
			build(f, a, "int f(int x) { return x; }", "-c"),
			build(f, a, "int puts(char *); int f(char *x) { return puts(x); }", "-shared", "-fPIC", "-nostdlib", "-s",
				"-Wl,--build-id", "-Wl,--hash-style=both", "-Wl,-z,max-page-size=4096", "-Wl,-z,noseparate-code"),
		} {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		readAll(t, data)
		readImage(t, data)
		ReadBuildID(bytes.NewReader(data))
	})
}
