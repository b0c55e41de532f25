package kpack

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fother/fother/specs"
)

// The section of thread-local symbols of the target, and the table of what is
// known of thread-local symbols.
const (
	sectionTLS     = ".kpatch.tls"
	sectionThreads = ".kpatch.threads"
	threadSize     = 48
	threadFixed    = 1
)

func get64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// threadTable returns the content of .kpatch.threads.
func (p *Patch) threadTable() []byte {
	var b []byte
	for i, s := range p.Symbols {
		t := s.Thread
		if t == nil {
			continue
		}
		flags := uint32(0)
		if t.Fixed {
			flags = threadFixed
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(i+1))
		b = binary.LittleEndian.AppendUint32(b, flags)
		b = binary.LittleEndian.AppendUint64(b, uint64(t.Offset))
		for _, a := range []specs.VAddr{t.Slot, t.Pair, t.Module, t.Descriptor} {
			b = binary.LittleEndian.AppendUint64(b, uint64(a))
		}
	}
	return b
}

// threads reads .kpatch.threads, which has one row for each thread-local
// symbol, in their order.
func (d *decoder) threads() error {
	var b []byte
	if d.file.Section(sectionThreads) != nil {
		var err error
		if b, err = d.content(sectionThreads); err != nil {
			return err
		}
	}
	for i := range d.patch.Symbols {
		s := &d.patch.Symbols[i]
		if d.elf[i+1].Type != elf.STT_TLS {
			continue
		}
		if len(b) < threadSize || binary.LittleEndian.Uint32(b) != uint32(i+1) {
			return fmt.Errorf("symbol %q: thread-local, and not in %s", s.Name, sectionThreads)
		}
		if err := d.thread(s, b); err != nil {
			return fmt.Errorf("symbol %q: %w", s.Name, err)
		}
		b = b[threadSize:]
	}
	if len(b) > 0 {
		return fmt.Errorf("section %s: %d bytes too many", sectionThreads, len(b))
	}
	return nil
}

// thread reads the row b of the thread-local symbol s.
func (d *decoder) thread(s *Symbol, b []byte) error {
	flags := binary.LittleEndian.Uint32(b[4:])
	t := &ThreadLocal{Fixed: flags == threadFixed, Offset: int64(get64(b[8:]))}
	if s.Binding == Carried || flags > threadFixed || t.Fixed && s.Binding != Original || s.Func {
		return errors.New("is no thread-local variable of the original")
	}
	if t.Offset < -maxMemory-maxThreadAlign || t.Offset > maxMemory+maxThreadAlign {
		return fmt.Errorf("offset %#x from the thread pointer", t.Offset)
	}
	image := d.patch.Target.Image
	for i, to := range []*specs.VAddr{&t.Slot, &t.Pair, &t.Module, &t.Descriptor} {
		size := specs.VAddr(8)
		if i&1 == 1 {
			size = 16
		}
		*to = specs.VAddr(get64(b[16+8*i:]))
		if *to != 0 && (!image.Contains(*to) || image.Hi-*to < size || *to%8 != 0) {
			return fmt.Errorf("entry %v is outside the target or not aligned", *to)
		}
	}
	s.Thread = t
	return nil
}

// checkThread refuses a relocation that does not suit its symbol.
func checkThread(s Symbol, h howto) error {
	switch t := s.Thread; {
	case (t != nil) != (h.tls != tlsNone):
		return errThreadPlain
	case t == nil:
	case h.tls == tlsDirect && !t.Fixed, h.tls == tlsInBlock && s.Binding != Original:
		return errors.New("has no such place")
	}
	return nil
}
