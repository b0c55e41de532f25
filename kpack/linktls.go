package kpack

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fother/fother/specs"
)

// thread notes what a relocation to a thread-local symbol needs of the patch's
// own. What the target has is used as it is.
func (w *want) thread(t ThreadLocal, h howto) {
	switch h.tls {
	case tlsInitial:
		w.offset = w.offset || t.Slot == 0 || t.Offset != 0
	case tlsGeneral, tlsLocal:
		w.pair = w.pair || t.Pair == 0
	case tlsDescriptor:
		w.descriptor = w.descriptor || t.Descriptor == 0
	}
}

// thread fills in what the layout gave the thread-local symbol s.
func (k *linker) thread(s Symbol, x extras) error {
	if x.offset == 0 && x.pair == 0 && x.descriptor == 0 {
		return nil
	}
	if k.threads == nil {
		return errors.New("is thread-local, and nothing is known of the process's threads")
	}
	place, err := k.threads(s)
	if err != nil {
		return err
	}
	put := func(at uint64, v uint64) { binary.LittleEndian.PutUint64(k.memory[at:], v) }
	if x.pair != 0 {
		if place.Module == 0 {
			return errors.New("is thread-local in an object whose module id is not known")
		}
		put(x.pair, place.Module)
		put(x.pair+8, place.Offset)
	}
	if (x.offset != 0 || x.descriptor != 0) && !place.Static {
		return fmt.Errorf("is thread-local in an object that each thread has elsewhere, and %s has no entry for it", k.patch.Target.Name)
	}
	if x.offset != 0 {
		put(x.offset, uint64(place.TP))
	}
	if x.descriptor != 0 {
		copy(k.memory[k.layout.resolver:], k.machine.tls.resolver)
		put(x.descriptor, uint64(k.base)+k.layout.resolver)
		put(x.descriptor+8, uint64(place.TP))
	}
	return nil
}

// threadTarget returns S of a relocation for thread-local storage.
func (k *linker) threadTarget(h howto, s Symbol, x extras) (specs.Addr, error) {
	own, has := uint64(0), specs.VAddr(0)
	switch h.tls {
	case tlsDirect:
		return specs.Addr(s.Thread.Offset), nil
	case tlsInBlock:
		return specs.Addr(s.Value), nil
	case tlsInitial:
		own, has = x.offset, s.Thread.Slot
	case tlsGeneral, tlsLocal:
		own, has = x.pair, s.Thread.Pair
	case tlsDescriptor:
		own, has = x.descriptor, s.Thread.Descriptor
	default:
		return 0, errThreadPlain
	}
	if own != 0 {
		return k.base + specs.Addr(own), nil
	}
	return k.bias.Addr(has), nil
}

// ThreadEntries returns where the entries of the patch's own GOT for the
// thread-local symbol i are, in bytes from the base of the patch's memory, 0
// for those that it does not have: a word for the offset from the thread
// pointer, a pair for __tls_get_addr, a descriptor.
func (l Layout) ThreadEntries(i int) (offset, pair, descriptor uint64) {
	x := l.symbols[i]
	return x.offset, x.pair, x.descriptor
}
