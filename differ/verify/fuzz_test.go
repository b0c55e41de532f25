package verify

import (
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs/arch"
)

// FuzzDecode: the decoders take every byte, and never more than there are.
func FuzzDecode(f *testing.F) {
	for _, code := range []string{
		"\xe8\x00\x00\x00\x00", "\x48\x8d\x3d\x01\x02\x03\x04", "\xff\x25\x00\x00\x00\x00", "\x0f\x84\x00\x01\x00\x00\x74\x05\xc3",
		"\x66\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00", "\xc5\xfb\x10\x05\x00\x00\x00\x00", "\x62\xf1\x7c\x48\x28\x05\x00\x00\x00\x00",
		"\x64\x48\x8b\x04\x25\x28\x00\x00\x00", "\x48\xc7\xc0\x00\x00\x40\x00", "\x8f\xe8\x78\xa2\xc1\x10", "\xc7\xf8\x00\x00\x00\x00",
		"\x00\x00\x00\x90\x00\x04\x40\xf9\xc0\x03\x5f\xd6", "\x41\xd0\x3b\xd5\x21\x04\x00\x91",
	} {
		f.Add([]byte(code), uint64(0x1000))
	}
	f.Fuzz(func(t *testing.T, code []byte, addr uint64) {
		for _, isa := range isas {
			im := &image{isa: isa, secs: []section{{lo: addr &^ 3, hi: addr&^3 + uint64(len(code)), data: code, exec: true}}}
			if im.secs[0].hi < im.secs[0].lo || len(code) == 0 {
				return
			}
			e := &entity{img: im, addr: addr &^ 3, size: uint64(len(code)), fn: true}
			var in insn
			for at := 0; at < len(code); at += int(in.size) {
				isa.decode(code[at:], e.addr+uint64(at), &in)
				if in.size == 0 || int(in.size) > len(code)-at {
					t.Fatalf("%v: %d bytes of % x", isa.arch, in.size, code[at:])
				}
				if in.via {
					isa.direct(&in)
				}
				isa.text(code[at:][:in.size], in.addr)
			}
			code := im.decodePart(nil, e)
			for i := 1; i < len(code); i++ {
				if code[i].addr < code[i-1].end() {
					t.Fatalf("%v: instructions overlap at %#x", isa.arch, code[i].addr)
				}
			}
			b := &body{parts: []part{{e, code}}}
			b.find(addr)
			b.threads()
		}
	})
}

// FuzzCompare: damaged files are refused or compared, without a panic.
func FuzzCompare(f *testing.F) {
	file := build(f, "gcc -Os", "testdata/program.c")
	data := fileBytes(f, file)
	f.Add(uint32(0x200), byte(1), uint32(0x3000), byte(0xff))
	f.Add(uint32(len(data)-100), byte(0x80), uint32(len(data)-2000), byte(7))
	f.Fuzz(func(t *testing.T, at uint32, x byte, at2 uint32, y byte) {
		changed := append([]byte(nil), data...)
		changed[int(at)%len(data)] ^= x
		changed[int(at2)%len(data)] ^= y
		g, err := elfobj.Parse(changed)
		if err != nil || g.Arch != arch.X86_64 {
			return
		}
		if r, err := Compare(file, g, nil); err == nil {
			Check(r, Covered{})
		}
		if r, err := Compare(g, g, nil); err == nil {
			Check(r, Covered{})
		}
	})
}
