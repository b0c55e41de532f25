package verify

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs/testenv"
)

// harmless reports whether a byte of the program may change without anybody
// noticing: padding, what the dynamic linker writes over, and a branch that
// goes to no-ops before the same instruction.
func harmless(im, changed *image, v uint64) bool {
	for at := v - 7; at <= v; at++ {
		if _, ok := im.relocs[at]; ok {
			return true
		}
	}
	s := im.section(v)
	if !s.exec {
		b := im.bytes(v, 2)
		return within(im.objs, v) == nil && len(b) == 2 && b[0] == 0 && (b[1] == 0 || zeros(im.bytes(v-1, 1)))
	}
	e := within(im.funcs, v)
	if e == nil {
		return true
	}
	b := im.body(e)
	_, n, _, _ := b.find(v)
	code := b.parts[0].code
	if n == len(code) || v < code[n].addr {
		return true
	}
	var in insn
	im.isa.decode(changed.bytes(code[n].addr, maxInsn), code[n].addr, &in)
	return in.refs == 1 && (in.ref[0].use == useBranch || in.ref[0].use == useCall) && im.lands(in.ref[0].value) == im.lands(code[n].ref[0].value)
}

// sameReloc reports whether a changed byte of a relocation means nothing: one
// that is at something without a name (crt's __dso_handle, which points to
// itself), the addend of a copy, the two ways of filling a GOT entry.
func sameReloc(im, changed *image, s *elfobj.Section, off uint64) bool {
	data, err := s.Data()
	if err != nil || s.Entsize != 24 {
		return false
	}
	at := le.Uint64(data[off/24*24:])
	a, b := im.relocs[at], changed.relocs[at]
	a.typ, b.typ = 0, 0
	return within(im.objs, at) == nil && len(im.labels[at]) > 0 || a == b || a.kind == relocCopy && off%24 >= 16
}

// TestEveryByte changes single bits of a build and asks whether the change is
// found.
func TestEveryByte(t *testing.T) {
	rounds := 60
	if testenv.Long() {
		rounds = 3000
	}
	for _, flavour := range []string{"gcc -O2", "gcc -O2 -no-pie -fno-pie", "clang -O2 -fPIC -shared", "gcc -O0"} {
		t.Run(flavour, func(t *testing.T) {
			t.Parallel()
			f := build(t, flavour, "testdata/program.c")
			im, err := newImage(f, "original")
			if err != nil {
				t.Fatal(err)
			}
			data := fileBytes(t, f)
			rnd := rand.New(rand.NewPCG(1, 2))
			for _, name := range []string{".text", ".rodata", ".data", ".data.rel.ro", ".init_array", ".rela.dyn", ".rela.plt"} {
				s := f.Section(name)
				if s == nil {
					continue
				}
				for range rounds {
					off := rnd.Uint64N(s.Size)
					changed := bytes.Clone(data)
					changed[s.Offset+off] ^= 1 << rnd.UintN(8)
					g, err := elfobj.Parse(changed)
					if err != nil {
						continue
					}
					r, err := Compare(f, g, nil)
					if err != nil {
						continue
					}
					if !differs(r) && !harmless(im, r.c.right, uint64(s.Addr)+off) && !sameReloc(im, r.c.right, s, off) {
						t.Errorf("%s+%#x: %#x became %#x, which was not found", name, off, data[s.Offset+off], changed[s.Offset+off])
					}
				}
			}
		})
	}
}

func differs(r *Report) bool {
	for range r.Changes() {
		return true
	}
	for _, d := range r.Data {
		if d.Verdict != Same {
			return true
		}
	}
	return false
}

// fileBytes returns the whole file.
func fileBytes(t testing.TB, f *elfobj.File) []byte {
	t.Helper()
	matches, err := filepath.Glob(filepath.Join(filepath.Dir(t.TempDir()), "*", "program"))
	if err != nil || len(matches) == 0 {
		t.Fatalf("no program: %v", err)
	}
	data, err := os.ReadFile(matches[0])
	if err != nil || len(data) != f.Size() {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	return data
}
