package kpack

import (
	"bytes"

	"github.com/fother/fother/specs"
)

// countX86_64 adds 1 to a counter and goes to an address. It changes nothing but
// flags, which have no meaning at a function's entry (psABI, 3.2.1); DF stays.
//
// The addition is not locked: threads that call at the same moment may be
// counted once. Locked it takes ten times as long as the rest of a short
// function, and a thread that calls in a loop is then found in it at every stop.
func countX86_64(dst []byte, at, counter, to specs.Addr) error {
	const inc, jump = 7, 12 // where the instructions end
	n := copy(dst, []byte{
		0x48, 0xff, 0x05, 0, 0, 0, 0, // incq counter(%rip)
		0xe9, 0, 0, 0, 0, // jmp to
	})
	copy(dst[n:], bytes.Repeat([]byte{0xcc}, len(dst)-n))
	if err := putS32(dst[inc-4:], int64(counter-at)-inc); err != nil {
		return err
	}
	return putS32(dst[jump-4:], int64(to-at)-jump)
}
