package specs

import "fmt"

// VAddr is a link-time virtual address: the address space of a linked ELF
// file's program headers and symbol values (gABI, "Program Header").
type VAddr uint64

// Addr is a run-time address in one process.
type Addr uint64

// Bias is the load bias of an object in one process: run-time address minus
// link-time address, modulo 2^64. It is 0 for executables that are not
// position independent.
type Bias uint64

// Addr returns the run-time address of v in an object loaded with bias b.
func (b Bias) Addr(v VAddr) Addr { return Addr(uint64(v) + uint64(b)) }

// VAddr returns the link-time address of a in an object loaded with bias b.
func (b Bias) VAddr(a Addr) VAddr { return VAddr(uint64(a) - uint64(b)) }

func (v VAddr) String() string { return fmt.Sprintf("%#x", uint64(v)) }
func (a Addr) String() string  { return fmt.Sprintf("%#x", uint64(a)) }

// Range is the half-open interval [Lo, Hi) of one address space.
type Range[T VAddr | Addr] struct{ Lo, Hi T }

// Contains reports whether a lies in r.
func (r Range[T]) Contains(a T) bool { return r.Lo <= a && a < r.Hi }

// Overlaps reports whether r and o have an address in common.
func (r Range[T]) Overlaps(o Range[T]) bool { return r.Lo < o.Hi && o.Lo < r.Hi }

// Size returns the number of bytes in r.
func (r Range[T]) Size() uint64 { return uint64(r.Hi - r.Lo) }

func (r Range[T]) String() string { return fmt.Sprintf("[%#x, %#x)", uint64(r.Lo), uint64(r.Hi)) }
