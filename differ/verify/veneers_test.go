package verify

import (
	"encoding/binary"
	"testing"
)

// TestVeneersAArch64: what linkers make is told from code that only looks like it.
func TestVeneersAArch64(t *testing.T) {
	const at, data = 0x400720, 0x1122334455667788
	for _, c := range []struct {
		name string
		code []uint32
		to   uint64 // 0 if it is none
		stub uint64 // the word through which it goes, 0 for none
	}{
		{"ld.bfd", []uint32{0x9009e010, 0x9100c210, 0xd61f0200, 0}, 0x14000030, 0},
		{"lld, fixed", []uint32{0x58000050, 0xd61f0200, 0x55667788, 0x11223344}, data, 0},
		{"of a patch", []uint32{0x58000050, 0xd65f0200, 0x55667788, 0x11223344}, 0, at + 8},
		{"another register", []uint32{0x9009e011, 0x9100c210, 0xd61f0200, 0}, 0, 0},
		{"added to another", []uint32{0x9009e010, 0x9100c230, 0xd61f0200, 0}, 0, 0},
		{"a call", []uint32{0x9009e010, 0x9100c210, 0xd63f0200, 0}, 0, 0},
		{"cut off", []uint32{0x58000050, 0xd61f0200, 0x55667788}, 0, 0},
	} {
		var code []byte
		for _, w := range c.code {
			code = binary.LittleEndian.AppendUint32(code, w)
		}
		if to, ok := veneerAArch64(code, at); to != c.to || ok != (c.to != 0) {
			t.Errorf("%s: leads to %#x, %v, want %#x", c.name, to, ok, c.to)
		}
		if slot, ok := stubAArch64(code, at); slot != c.stub || ok != (c.stub != 0) {
			t.Errorf("%s: goes through %#x, %v, want %#x", c.name, slot, ok, c.stub)
		}
	}
}
