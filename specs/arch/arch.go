package arch

import (
	"debug/elf"
	"fmt"
)

// Arch is one architecture. Values are compared by pointer; the only ones are
// the package's variables.
type Arch struct {
	// Name is the psABI's and uname -m's name.
	Name string
	// GoName is the GOARCH of a host of this architecture.
	GoName string
	// Machine is the e_machine of its ELF files. All are little endian,
	// ELFCLASS64.
	Machine elf.Machine
	// Tuple is the GNU machine-vendor-os triplet of its Linux toolchain, as in
	// <tuple>-gcc.
	Tuple string

	// MinInsn is the length in bytes of the shortest instruction; all
	// instructions begin at multiples of it.
	MinInsn int
	// JumpSize is the length in bytes of the direct jump that replaces a
	// function's entry.
	JumpSize int
	// JumpReach is how far that jump can go, in bytes either way from its own
	// address. A patch's memory lies within this distance of the functions
	// that it changes and of the code that it calls.
	JumpReach uint64
	// ThreadsBelow is set if the static TLS blocks of a thread lie below its
	// thread pointer (variant II), not above.
	ThreadsBelow bool
	// PageSizes are the page sizes that its kernels use, in bytes.
	PageSizes []uint64
}

func (a *Arch) String() string { return a.Name }

// X86_64 is the AMD64 architecture. Source: System V psABI for x86-64.
var X86_64 = &Arch{
	Name: "x86_64", GoName: "amd64", Machine: elf.EM_X86_64, Tuple: "x86_64-linux-gnu",
	MinInsn: 1, JumpSize: 5, JumpReach: 1<<31 - 1<<20, ThreadsBelow: true, PageSizes: []uint64{4 << 10},
}

// AArch64 is the 64-bit state of Armv8-A. Source: AAELF64, Arm ARM C6.2.26 (B).
var AArch64 = &Arch{
	Name: "aarch64", GoName: "arm64", Machine: elf.EM_AARCH64, Tuple: "aarch64-linux-gnu",
	MinInsn: 4, JumpSize: 4, JumpReach: 1<<27 - 1<<20, PageSizes: []uint64{4 << 10, 16 << 10, 64 << 10},
}

// All are the architectures that Fother makes patches for.
var All = []*Arch{X86_64, AArch64}

// ByMachine returns the architecture of ELF files with e_machine m.
func ByMachine(m elf.Machine) (*Arch, error) {
	for _, a := range All {
		if a.Machine == m {
			return a, nil
		}
	}
	return nil, fmt.Errorf("machine %v is not supported", m)
}

// ByGoName returns the architecture whose GOARCH is name.
func ByGoName(name string) (*Arch, error) {
	for _, a := range All {
		if a.GoName == name {
			return a, nil
		}
	}
	return nil, fmt.Errorf("architecture %q is not supported", name)
}
