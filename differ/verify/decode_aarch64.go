package verify

import (
	"github.com/fother/fother/specs/arch"
)

var isaAArch64 = &isa{
	arch:   arch.AArch64,
	decode: func(code []byte, addr uint64, in *insn) { *in = insn{addr: addr, size: 4} },
	text:   textAArch64,
}
