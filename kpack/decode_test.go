package kpack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// sealed sets the digest of a file whose content was changed.
func sealed(t *testing.T, b []byte) []byte {
	t.Helper()
	if !seal(b) {
		t.Fatal("the file has no digest")
	}
	return b
}

// seal does it, if the file has room for one where Encode puts it.
func seal(b []byte) bool {
	f, err := elfobj.Parse(b)
	if err != nil || f.Section(sectionNote) == nil {
		return false
	}
	// The digest's note follows those of the version and the BuildID (SHA-1).
	const behind = (noteHeaderSize + 4) + (noteHeaderSize + 20) + noteHeaderSize
	at := f.Section(sectionNote).Offset
	if at > uint64(len(b)) || uint64(len(b))-at < behind+sha256.Size {
		return false
	}
	copy(b[at+behind:], make([]byte, sha256.Size))
	sum := sha256.Sum256(b)
	copy(b[at+behind:], sum[:])
	return true
}

// TestDecodeHostile changes good files and seals them again: what is wrong
// must be told by its content.
func TestDecodeHostile(t *testing.T) {
	good, err := fixture(t, arch.X86_64).Encode()
	if err != nil {
		t.Fatal(err)
	}
	row := func(name string, off uint64) func(b []byte, f *elfobj.File) []byte {
		return func(b []byte, f *elfobj.File) []byte { return b[f.Section(name).Offset+off:] }
	}
	header := func(name string, off int) func(b []byte, f *elfobj.File) []byte {
		return func(b []byte, f *elfobj.File) []byte {
			for i := range f.Sections {
				if f.Sections[i].Name == name {
					return b[int(binary.LittleEndian.Uint64(b[40:]))+64*i+off:]
				}
			}
			t.Fatalf("no section %s", name)
			return nil
		}
	}
	const flags, size, align = 8, 32, 48
	tests := map[string]struct {
		at    func([]byte, *elfobj.File) []byte
		value uint64
		want  string
	}{
		"function outside":         {row(sectionFunctions, 0), 1 << 40, "outside the target"},
		"function without size":    {row(sectionFunctions, 8), 0, "outside the target"},
		"function wraps":           {row(sectionFunctions, 8), 1<<64 - 1, "outside the target"},
		"room smaller than size":   {row(sectionFunctions, 16), 1, "outside the target"},
		"room wraps":               {row(sectionFunctions, 16), 1<<64 - 1, "outside the target"},
		"symbol and entry":         {row(sectionFunctions, 40+32), 1<<64 - 1, "entry of"},
		"no entry bytes":           {row(sectionFunctions, 40+32), 1, "entry of 0 bytes"},
		"import of no symbol":      {row(sectionImports, 0), 1 << 31, "entry for symbol"},
		"slot outside":             {row(sectionImports, 8), 1 << 50, "slot"},
		"slot not aligned":         {row(sectionImports, 8), 0x403ffb, "slot"},
		"version outside":          {row(sectionImports, 16), 1<<32 - 1, "entry for symbol"},
		"huge bss":                 {header(".kpatch.bss", size), 1 << 32, "not allowed"},
		"wrapping bss":             {header(".kpatch.bss", size), 1<<64 - 1, "not allowed"},
		"alignment":                {header(".kpatch.text", align), 1 << 16, "not allowed"},
		"no power of two":          {header(".kpatch.text", align), 3, "power of two"},
		"writable code":            {header(".kpatch.text", flags), 7, "not allowed"},
		"thread-local":             {header(".kpatch.bss", flags), 0x403, "not allowed"},
		"code becomes data":        {header(".kpatch.text", flags), 2, "is not code"},
		"relocation outside":       {row(".rela.kpatch.text", 0), 1 << 20, ".rela.kpatch.text"},
		"relocation across an end": {row(".rela.eh_frame", 0), 0, ""}, // offset 0 is fine: the test of the test
		"relocation type":          {row(".rela.kpatch.text", 8), 1<<32 | 255, "type 255"},
		"relocation symbol 0":      {row(".rela.kpatch.text", 8), 2, "symbol 0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bad := bytes.Clone(good)
			f, err := elfobj.Parse(bad)
			if err != nil {
				t.Fatal(err)
			}
			binary.LittleEndian.PutUint64(tt.at(bad, f), tt.value)
			if strings.Contains(tt.want, "power of two") {
				if _, err := Decode(bad); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				return
			}
			p, err := Decode(sealed(t, bad))
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if _, err := p.Layout(4096, 0); err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestEncodeRefuses: nothing is written that would not be read.
func TestEncodeRefuses(t *testing.T) {
	tests := map[string]struct {
		change func(*Patch)
		want   string
	}{
		"escape sequence":  {func(p *Patch) { p.Meta.Name = "a\x1b[2J" }, "control characters"},
		"function's name":  {func(p *Patch) { p.Functions[0].Name = "a\nb" }, "control characters"},
		"endless text":     {func(p *Patch) { p.Meta.CVEs = []string{strings.Repeat("C", maxText+1)} }, "is longer"},
		"lines":            {func(p *Patch) { p.Meta.Description = "one\n\ttwo\n" }, ""},
		"level":            {func(p *Patch) { p.Meta.Level = 0 }, "level 0"},
		"series":           {func(p *Patch) { p.Meta.Series = "../x" }, "series"},
		"target":           {func(p *Patch) { p.Target.Name = "../x" }, "base name"},
		"overlap":          {func(p *Patch) { p.Functions = append(p.Functions, p.Functions[0]) }, "overlap"},
		"order of symbols": {func(p *Patch) { p.Symbols = append(p.Symbols, Symbol{Name: "late"}) }, "must precede"},
		"version": {func(p *Patch) {
			p.Symbols[len(p.Symbols)-1].Import = &Import{Version: strings.Repeat("V", maxVersionName+1)}
		}, "version of more than"},
		"entry at the end": {func(p *Patch) {
			s := &p.Symbols[p.Functions[0].Symbol]
			s.Value = p.Sections[s.Section].Size
		}, "is not code"},
	}
	good, err := fixture(t, arch.X86_64).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := Decode(good)
			if err != nil {
				t.Fatal(err)
			}
			tt.change(p)
			_, err = p.Encode()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestBuildDeterministic: the same input gives the same bytes.
func TestBuildDeterministic(t *testing.T) {
	var first []byte
	for range 3 {
		b, err := fixture(t, arch.X86_64).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		} else if !bytes.Equal(first, b) {
			t.Fatal("two builds of one patch differ")
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	data, err := fixture(b, arch.X86_64).Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLayout(b *testing.B) {
	p := fixture(b, arch.X86_64)
	for b.Loop() {
		if _, err := p.Layout(4096, 1024); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLink(b *testing.B) {
	p := fixture(b, arch.X86_64, "-fPIE", "-pie")
	l, err := p.Layout(4096, 1024)
	if err != nil {
		b.Fatal(err)
	}
	const bias = 0x555500000000
	resolve := func(Symbol) (specs.Addr, bool, error) { return 0x7fff00001000, true, nil }
	for b.Loop() {
		if _, err := p.Link(l, bias+0x1000000, bias, resolve, nil); err != nil {
			b.Fatal(err)
		}
	}
}
