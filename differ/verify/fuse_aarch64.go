package verify

import "slices"

// fuseAArch64 joins "adrp reg, page" and "add reg, reg, offset" to the "adr reg, place"
// that lld and mold make of them, behind a no-op, where the place is near.
// Source: AAELF64, "Relocation optimization".
func fuseAArch64(code []insn, im *image) []insn {
	pairs := func(i int) bool {
		if i+1 >= len(code) || code[i+1].pad != 0 || code[i].bad || code[i+1].bad {
			return false
		}
		w, next := word(le.Uint32(code[i].shape[:])), word(le.Uint32(code[i+1].shape[:]))
		return w&0x9f000000 == 0x90000000 && next&0xffc00000 == 0x91000000 && next.rd() == w.rd() && next.rn() == w.rd()
	}
	var led []uint64 // where branches lead
	for i := range code {
		if code[i].refs > 0 && code[i].ref[0].use == useBranch {
			led = append(led, code[i].ref[0].value)
		}
	}
	slices.Sort(led)
	out := code[:0]
	for i := 0; i < len(code); i++ {
		in := code[i]
		if pairs(i) {
			add := code[i+1]
			if _, between := slices.BinarySearch(led, add.addr); !between {
				w, next := word(le.Uint32(im.bytes(in.addr, 4))), word(le.Uint32(add.shape[:]))
				in.addr, in.pad = add.addr, uint8(min(int(in.pad)+4, 255))
				in.setWord(0x10000000|w&0x1f, 0)
				in.add(ref{use: useTake, value: page(w, add.addr-4) + next.bits(10, 12)})
				i++
			}
		}
		out = append(out, in)
	}
	return out
}
