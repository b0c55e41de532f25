package bundle

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// TestShrinksObjects: patches hold code that is not linked yet, with relocations.
// That of the C library, in pieces of 64 KiB or a little more, stands for it.
func TestShrinksObjects(t *testing.T) {
	testenv.Needs(t, "gcc")
	out, err := exec.Command("gcc", "-print-file-name=libc.a").Output()
	if err != nil {
		t.Fatal(err)
	}
	library, err := os.ReadFile(strings.TrimSpace(string(out)))
	if err != nil {
		testenv.Skip(t, "the C library's libc.a is not installed")
	}
	var s kpack.Section
	pieces, worst := 0, 0
	for _, object := range members(t, library) {
		a := appendText(t, &s, object)
		if len(s.Data) < 64<<10 {
			continue
		}
		file := patchFile(t, a, idA, s.Data, func(p *kpack.Patch) { p.Sections[0].Relocs = s.Relocs })
		percent := 100 * len(encode(t, release(), file)) / len(file)
		pieces, worst, s = pieces+1, max(worst, percent), kpack.Section{}
		if percent > 60 {
			t.Errorf("piece %d: %d bytes shrink to %d %%, want at most 60", pieces, len(file), percent)
		}
	}
	t.Logf("%d pieces shrink to %d %% at most", pieces, worst)
	if pieces < 5 {
		t.Errorf("%d pieces are too few", pieces)
	}
}

// members returns the objects of an archive (ar(5), the System V form).
func members(t *testing.T, library []byte) (objects [][]byte) {
	t.Helper()
	rest, ok := bytes.CutPrefix(library, []byte("!<arch>\n"))
	for ok && len(rest) >= 60 {
		size, err := strconv.Atoi(strings.TrimSpace(string(rest[48:58])))
		if err != nil || 60+size > len(rest) {
			t.Fatalf("member of %q bytes, %v", rest[48:58], err)
		}
		if data := rest[60 : 60+size]; bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
			objects = append(objects, data)
		}
		rest = rest[min(len(rest), 60+size+size%2):]
	}
	return objects
}

// calls are the types of relocations that take functions.
var calls = map[*arch.Arch][]uint32{
	arch.X86_64: {uint32(elf.R_X86_64_PC32), uint32(elf.R_X86_64_PLT32)}, arch.AArch64: {uint32(elf.R_AARCH64_CALL26)},
}

// appendText appends an object's code to a section, and returns its
// architecture.
func appendText(t *testing.T, s *kpack.Section, object []byte) *arch.Arch {
	t.Helper()
	f, err := elfobj.Parse(object)
	if err != nil {
		t.Fatal(err)
	}
	for i := range f.Sections {
		if f.Sections[i].Name != ".text" {
			continue
		}
		data, err := f.Sections[i].Data()
		if err != nil {
			t.Fatal(err)
		}
		relocs, err := f.Relocs(i)
		if err != nil {
			t.Fatal(err)
		}
		at := uint64(len(s.Data))
		for _, r := range relocs {
			if slices.Contains(calls[f.Arch], r.Type) { // the test's two symbols are functions
				s.Relocs = append(s.Relocs, kpack.Reloc{Offset: at + r.Offset, Type: r.Type, Symbol: r.Symbol % 2, Addend: r.Addend})
			}
		}
		s.Data = append(s.Data, data...)
	}
	return f.Arch
}
