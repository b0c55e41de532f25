package kpack

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/arch/x86/x86asm"

	"github.com/fother/fother/specs"
)

// jumpsToX86_64 looks for a jump into taken in code at at. Bytes that look like
// one inside another instruction are told apart only if all code is understood.
func jumpsToX86_64(code []byte, at specs.VAddr, taken specs.Range[specs.VAddr]) (specs.VAddr, bool) {
	first := -1
	for i := range code {
		if to, ok := maybeJump(code[i:]); ok && taken.Contains(at+specs.VAddr(i)+to) {
			first = i
			break
		}
	}
	if first < 0 {
		return 0, false
	}
	for i := 0; i < len(code); {
		if bytes.HasPrefix(code[i:], endbr64) {
			i += len(endbr64)
			continue
		}
		// The lengths of vector instructions (VEX, EVEX) are not relied on.
		inst, err := x86asm.Decode(code[i:], 64)
		if err != nil || inst.Op == 0 || code[i] == 0xc4 || code[i] == 0xc5 || code[i] == 0x62 {
			return at + specs.VAddr(first), true
		}
		next := at + specs.VAddr(i+inst.Len)
		if rel, ok := inst.Args[0].(x86asm.Rel); ok && inst.Op != x86asm.CALL && taken.Contains(next+specs.VAddr(rel)) {
			return at + specs.VAddr(i), true
		}
		i += inst.Len
	}
	return 0, false
}

// maybeJump returns how far from its first byte the jump leads that code may
// begin with: jmp and jcc of both lengths, loop and jrcxz. Source: Intel SDM,
// volume 2.
func maybeJump(code []byte) (specs.VAddr, bool) {
	op := code[0]
	switch {
	case len(code) >= 2 && (op == 0xeb || op>>4 == 7 || op>>2 == 0xe0>>2):
		return 2 + specs.VAddr(int8(code[1])), true
	case len(code) >= 5 && op == 0xe9:
		return 5 + specs.VAddr(int32(binary.LittleEndian.Uint32(code[1:]))), true
	case len(code) >= 6 && op == 0x0f && code[1]>>4 == 8:
		return 6 + specs.VAddr(int32(binary.LittleEndian.Uint32(code[2:]))), true
	}
	return 0, false
}
