package unwind

import (
	"encoding/binary"
	"errors"
)

var le = binary.LittleEndian

var (
	errShort    = errors.New("ends too early")
	errEncoding = errors.New("pointer encoding is not supported")
)

// Pointer encodings. Source: LSB core, "DWARF Exception Header Encoding".
const (
	peOmit     = 0xff
	peIndirect = 0x80
	peFormat   = 0x0f
	peApply    = 0x70

	peAbsptr  = 0x00
	peULEB    = 0x01
	peUdata2  = 0x02
	peUdata4  = 0x03
	peUdata8  = 0x04
	peSLEB    = 0x09
	peSdata2  = 0x0a
	peSdata4  = 0x0b
	peSdata8  = 0x0c
	pePcrel   = 0x10
	peDatarel = 0x30
)

// reader reads bytes in order. The first failure sticks; values read after it
// are zeros.
type reader struct {
	b    []byte
	pos  int
	addr uint64 // address of b[0]
	err  error
}

func (r *reader) left() int { return len(r.b) - r.pos }

func (r *reader) bytes(n uint64) []byte {
	if r.err != nil || n > uint64(r.left()) {
		if r.err == nil {
			r.err = errShort
		}
		r.pos = len(r.b)
		return nil
	}
	b := r.b[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return b
}

func (r *reader) u8() uint8 {
	if r.pos < len(r.b) {
		r.pos++
		return r.b[r.pos-1]
	}
	r.bytes(1)
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.bytes(2); b != nil {
		return le.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.bytes(4); b != nil {
		return le.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return le.Uint64(b)
	}
	return 0
}

// uleb reads an unsigned LEB128 number of at most 64 bits.
func (r *reader) uleb() uint64 {
	var v uint64
	for shift := 0; ; shift += 7 {
		c := r.u8()
		if r.err != nil {
			return 0
		}
		if shift >= 63 && c > 1 {
			r.fail(errors.New("LEB128 number of more than 64 bits"))
			return 0
		}
		v |= uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			return v
		}
	}
}

// sleb reads a signed LEB128 number of at most 64 bits.
func (r *reader) sleb() int64 {
	var v uint64
	for shift := 0; ; {
		c := r.u8()
		if r.err != nil {
			return 0
		}
		if shift >= 63 && c != 0 && c != 0x7f {
			r.fail(errors.New("LEB128 number of more than 64 bits"))
			return 0
		}
		v |= uint64(c&0x7f) << shift
		shift += 7
		if c&0x80 == 0 {
			if shift < 64 && c&0x40 != 0 {
				v |= ^uint64(0) << shift
			}
			return int64(v)
		}
	}
}

// cstring reads a string that ends with a zero byte.
func (r *reader) cstring() string {
	for n := r.pos; n < len(r.b); n++ {
		if r.b[n] == 0 {
			s := string(r.b[r.pos:n])
			r.pos = n + 1
			return s
		}
	}
	r.fail(errShort)
	return ""
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.pos = len(r.b)
}

// value reads a number in the format of pointer encoding enc.
func (r *reader) value(enc uint8) uint64 {
	switch enc & peFormat {
	case peAbsptr, peUdata8, peSdata8:
		return r.u64()
	case peULEB:
		return r.uleb()
	case peUdata2:
		return uint64(r.u16())
	case peUdata4:
		return uint64(r.u32())
	case peSLEB:
		return uint64(r.sleb())
	case peSdata2:
		return uint64(int64(int16(r.u16())))
	case peSdata4:
		return uint64(int64(int32(r.u32())))
	}
	r.fail(errEncoding)
	return 0
}

// pointer reads an encoded pointer; data is the base of peDatarel.
func (r *reader) pointer(enc uint8, data uint64) uint64 {
	at := r.addr + uint64(r.pos)
	v := r.value(enc)
	if enc&peIndirect != 0 {
		r.fail(errEncoding)
		return 0
	}
	switch enc & peApply {
	case peAbsptr:
		return v
	case pePcrel:
		return at + v
	case peDatarel:
		return data + v
	}
	r.fail(errEncoding)
	return 0
}
