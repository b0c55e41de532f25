package apply

import "github.com/fother/fother/specs/arch"

// body chooses the code of the architecture that the tests run on.
func body(x86_64, aarch64 string) string {
	if testArch == arch.AArch64 {
		return aarch64
	}
	return x86_64
}

// aarch64Frame and aarch64Back are what a function of aarch64 that calls others
// begins and ends with.
const (
	aarch64Frame = "\n\tstp x29, x30, [sp, -16]!\n\t.cfi_def_cfa_offset 16\n\t.cfi_offset 29, -16\n\t.cfi_offset 30, -8\n"
	aarch64Back  = "\n\tldp x29, x30, [sp], 16\n\t.cfi_def_cfa_offset 0\n\tret\n"
)

// aarch64Change is code of aarch64 that changes a word at once: op is an
// instruction for register, w3 or x3. It uses x1, x3 and w4.
func aarch64Change(variable, register, op string) string {
	return "\n\tadrp x1, " + variable + "\n\tadd x1, x1, :lo12:" + variable + "\n9:\tldaxr " + register + ", [x1]\n\t" + op +
		"\n\tstlxr w4, " + register + ", [x1]\n\tcbnz w4, 9b\n"
}
