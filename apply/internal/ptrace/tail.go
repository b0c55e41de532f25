package ptrace

import (
	"bytes"
	"fmt"

	"github.com/fother/fother/specs"
)

const (
	// tailPage is the size in bytes of what is looked at: the smallest page.
	tailPage = 4096
	// tailGap is kept between the last code byte and what is written.
	tailGap = 16
)

// tailOf returns where size bytes fit in the zero tail of a page, -1 if
// nowhere.
func tailOf(page []byte, size int) int {
	at := (len(bytes.TrimRight(page, "\x00")) + tailGap + 15) &^ 15
	if at+size > len(page) {
		return -1
	}
	return at
}

// Tail returns the end of a mapping of code, where the code for system calls of a
// tool that is killed is left if it is the first of those of [Group.NewAgent], and whether that is
// so: there has to be room, and nothing left yet.
func Tail(mem *Mem, r specs.Range[specs.Addr]) (b []byte, ok bool) {
	if alwaysFits == 0 || r.Size() < tailPage || len(leftovers(mem, []specs.Range[specs.Addr]{r})) > 0 {
		return nil, false
	}
	b, err := mem.Read(r.Hi-tailPage, tailPage)
	return b, err == nil && tailOf(b, alwaysFits) >= 0
}

// findTail returns the address of size zero bytes in the last page of one of
// the ranges.
func findTail(mem *Mem, code []specs.Range[specs.Addr], size int) (specs.Addr, error) {
	for _, r := range code {
		if r.Size() < tailPage {
			continue
		}
		b, err := mem.Read(r.Hi-tailPage, tailPage)
		if err != nil {
			continue
		}
		if at := tailOf(b, size); at >= 0 {
			return r.Hi - tailPage + specs.Addr(at), nil
		}
	}
	return 0, fmt.Errorf("no executable page of the process has %d free bytes at its end", size)
}
