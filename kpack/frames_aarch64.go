package kpack

import "github.com/fother/fother/specs"

// finderAArch64 is int _dl_find_object(void *pc, struct dl_find_object *result)
// for one range of addresses. The fields are flags, start, end, link map and
// .eh_frame_hdr, 8 bytes each (glibc, dlfcn.h). The five pairs of an ADRP and
// what adds the low bits are filled by putFinderAArch64. AAPCS64 leaves x2 to
// x5 and x16 to the function called.
var finderAArch64 = []uint32{
	btiC,
	0x90000002, // adrp x2, lo
	0x91000042, // add x2, x2, :lo12:lo
	0xeb02001f, // cmp x0, x2
	0x540001c3, // b.lo pass
	0x90000003, // adrp x3, hi
	0x91000063, // add x3, x3, :lo12:hi
	0xeb03001f, // cmp x0, x3
	0x54000142, // b.hs pass
	0xa900083f, // stp xzr, x2, [x1]
	0x90000004, // adrp x4, map
	0xf9400084, // ldr x4, [x4, :lo12:map]
	0xa9011023, // stp x3, x4, [x1, #16]
	0x90000005, // adrp x5, header
	0x910000a5, // add x5, x5, :lo12:header
	0xf9001025, // str x5, [x1, #32]
	0x52800000, // mov w0, #0
	0xd65f03c0, // ret
	// pass:
	0x90000010, // adrp x16, next
	0xf9400210, // ldr x16, [x16, :lo12:next]
	0xd61f0200, // br x16
}

func putFinderAArch64(dst []byte, at specs.Addr, text specs.Range[specs.Addr], header, next, linkMap specs.Addr) error {
	putWords(dst, finderAArch64...)
	page := howto{value: valuePage}
	for _, gap := range []struct {
		adrp int // index of the ADRP; the next instruction has the low bits
		to   specs.Addr
		load uint // log2 of the bytes that are loaded, 0 for an ADD
	}{{1, text.Lo, 0}, {5, text.Hi, 0}, {10, linkMap, 3}, {13, header, 0}, {18, next, 3}} {
		off := 4 * gap.adrp
		if err := adr(12)(dst[off:], page.compute(uint64(gap.to), 0, uint64(at)+uint64(off))); err != nil {
			return err
		}
		if err := lo12(gap.load)(dst[off+4:], int64(gap.to)); err != nil {
			return err
		}
	}
	return nil
}
