package unwind

import (
	"errors"
	"fmt"
)

// entry is an entry of .eh_frame, not yet decoded; offsets are into the
// section.
type entry struct {
	start, body, next uint64
	size              uint64 // of what follows the length, 0 for the terminator
	cie               uint64 // offset of the FDE's CIE, cieItself in a CIE
}

const cieItself = ^uint64(0)

// cie is a common information entry.
type cie struct {
	codeAlign uint64
	dataAlign int64
	ra        uint64 // return address column
	hasAug    bool   // FDEs have augmentation data
	fdeEnc    uint8
	signal    bool // 'S': the caller was interrupted, it did not call
	// initial is the row before the FDE's first instruction, run once.
	initial *row
}

// fde is a frame description entry: how to unwind from [lo, hi).
type fde struct {
	cie    *cie
	lo, hi uint64
	insns  reader
}

// entry reads the lengths and the kind of the entry at off.
func (o *Object) entry(off uint64) (entry, error) {
	if off >= uint64(len(o.frame)) {
		return entry{}, errShort
	}
	r := reader{b: o.frame[off:]}
	size := uint64(r.u32())
	e := entry{start: off, size: size, body: off + 8, next: off + 4 + size, cie: cieItself}
	if r.err != nil || size == 0 {
		return e, r.err
	}
	if size >= 0xfffffff0 {
		return e, fmt.Errorf("entry at %#x: 64-bit DWARF is not supported", o.addr+off)
	}
	if size < 4 || size > uint64(len(o.frame))-off-4 {
		return e, fmt.Errorf("entry at %#x: %d bytes: outside the section", o.addr+off, size)
	}
	// In an FDE this is the distance back from here to its CIE.
	if back := uint64(r.u32()); back != 0 {
		if back > off+4 {
			return e, fmt.Errorf("entry at %#x: its CIE is outside the section", o.addr+off)
		}
		e.cie = off + 4 - back
	}
	return e, nil
}

// body returns a reader of e after its CIE pointer.
func (o *Object) bodyOf(e entry) reader {
	return reader{b: o.frame[e.body:e.next], addr: o.addr + e.body}
}

// parseFDE decodes e; CIEs that were decoded before are in cies.
func (o *Object) parseFDE(e entry, cies map[uint64]*cie) (*fde, error) {
	if e.size == 0 || e.cie == cieItself {
		return nil, fmt.Errorf("entry at %#x: not an FDE", o.addr+e.start)
	}
	c, ok := cies[e.cie]
	if !ok {
		var err error
		if c, err = o.parseCIE(e.cie); err != nil {
			return nil, fmt.Errorf("CIE at %#x: %w", o.addr+e.cie, err)
		}
		cies[e.cie] = c
	}
	r := o.bodyOf(e)
	f := &fde{cie: c}
	f.lo = r.pointer(c.fdeEnc, 0)
	size := r.value(c.fdeEnc)
	if c.hasAug {
		r.bytes(r.uleb())
	}
	f.hi, f.insns = f.lo+size, r
	if r.err == nil && f.hi < f.lo {
		r.err = errors.New("range wraps around")
	}
	if r.err != nil {
		return nil, fmt.Errorf("FDE at %#x: %w", o.addr+e.start, r.err)
	}
	return f, nil
}

func (o *Object) parseCIE(off uint64) (*cie, error) {
	e, err := o.entry(off)
	if err != nil {
		return nil, err
	}
	if e.size == 0 || e.cie != cieItself {
		return nil, errors.New("not a CIE")
	}
	r := o.bodyOf(e)
	version := r.u8()
	aug := r.cstring()
	switch version {
	case 1, 3:
	case 4:
		if size, seg := r.u8(), r.u8(); size != 8 || seg != 0 {
			return nil, fmt.Errorf("addresses of %d bytes, segments of %d", size, seg)
		}
	default:
		return nil, fmt.Errorf("version %d is not supported", version)
	}
	c := &cie{codeAlign: r.uleb(), dataAlign: r.sleb()}
	if version == 1 {
		c.ra = uint64(r.u8())
	} else {
		c.ra = r.uleb()
	}
	if err := c.augment(&r, aug); err != nil {
		return nil, err
	}
	if r.err != nil {
		return nil, r.err
	}
	if !o.abi.follows(c.ra) {
		return nil, fmt.Errorf("return address column %d is not supported", c.ra)
	}
	m := machine{abi: o.abi, cie: c}
	if err := m.run(r, ^uint64(0)); err != nil {
		return nil, err
	}
	c.initial = &m.row
	return c, nil
}

// augment reads the augmentation data that aug describes.
// Source: LSB core, "The Common Information Entry Format"; 'B' AADWARF64.
func (c *cie) augment(r *reader, aug string) error {
	if aug == "" {
		return nil
	}
	if aug[0] != 'z' {
		return fmt.Errorf("augmentation %q is not supported", aug)
	}
	c.hasAug = true
	size := r.uleb()
	start := r.pos
	for _, ch := range aug[1:] {
		switch ch {
		case 'R':
			c.fdeEnc = r.u8()
		case 'L':
			r.u8()
		case 'P':
			enc := r.u8()
			r.value(enc)
		case 'S':
			c.signal = true
		case 'B': // return addresses are signed with key B: stripped alike
		default:
			return fmt.Errorf("augmentation %q is not supported", aug)
		}
	}
	if r.err != nil {
		return r.err
	}
	if used := uint64(r.pos - start); size < used {
		return fmt.Errorf("augmentation %q: %d bytes: want %d", aug, size, used)
	} else {
		r.bytes(size - used)
	}
	return r.err
}
