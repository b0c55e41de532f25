package kpack

import "github.com/fother/fother/specs"

// countAlign is the alignment in bytes of the code that counts one function's
// calls.
const countAlign = 16

// count makes the code by which function i counts its calls before it goes to
// the address to, and returns where that code is: to itself if nothing is
// counted.
func (k *linker) count(im *Image, i int, to specs.Addr) (specs.Addr, error) {
	l, m := k.layout, k.machine
	if l.Counters.Size == 0 {
		return to, nil
	}
	off := l.counts + uint64(i)*uint64(m.countSize)
	at, counter := k.base+specs.Addr(off), k.base+specs.Addr(l.Counters.Offset+8*uint64(i))
	im.Counters = append(im.Counters, counter)
	return at, m.count(k.memory[off:off+uint64(m.countSize)], at, counter, to)
}
