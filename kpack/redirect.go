package kpack

import (
	"errors"
	"fmt"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// ErrTooShort is the class of functions that have no room for a jump.
var ErrTooShort = errors.New("function is too short to be redirected")

func tooShort(need, have int) error {
	return fmt.Errorf("%w: the jump needs %d bytes and there is room for %d", ErrTooShort, need, have)
}

// Redirect returns the bytes that make the function at run-time address from
// go to the address to, and the address where they have to be written. entry
// are the bytes at from that may be overwritten, as they are before any
// redirection. A landing pad at the entry stays one, and so do the first skip
// bytes. It fails with ErrTooShort, or if to is out of the jump's reach.
func Redirect(a *arch.Arch, entry []byte, skip int, from, to specs.Addr) (site specs.Addr, code []byte, err error) {
	m, err := machineOf(a)
	if err != nil {
		return 0, nil, err
	}
	return m.jumpFrom(entry, skip, from, to)
}

func (m *machine) jumpFrom(entry []byte, skip int, from, to specs.Addr) (specs.Addr, []byte, error) {
	if skip == 0 {
		return m.redirect(entry, from, to)
	}
	if len(entry) < skip+m.arch.JumpSize {
		return 0, nil, tooShort(skip+m.arch.JumpSize, len(entry))
	}
	// No landing pad is behind the first instruction.
	return m.redirect(entry[skip:], from+specs.Addr(skip), to)
}
