package verify

import (
	"fmt"

	"golang.org/x/arch/arm64/arm64asm"
	"golang.org/x/arch/x86/x86asm"
)

// textX86_64 shows an instruction to a person.
func textX86_64(code []byte, addr uint64) string {
	in, err := x86asm.Decode(code, 64)
	if err != nil || in.Len != len(code) {
		return fmt.Sprintf("% x", code)
	}
	return fmt.Sprintf("%q", x86asm.GNUSyntax(in, addr, nil))
}

// textAArch64 shows an instruction to a person.
func textAArch64(code []byte, _ uint64) string {
	in, err := arm64asm.Decode(code)
	if err != nil {
		return fmt.Sprintf("% x", code)
	}
	return fmt.Sprintf("%q", arm64asm.GNUSyntax(in))
}
