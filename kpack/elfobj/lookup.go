package elfobj

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"

	"github.com/fother/fother/specs"
)

const (
	maxString = 4 << 10 // bytes, of a name in memory
	// maxChain bounds the symbols of one hash bucket that are looked at; in
	// real tables they are a handful.
	maxChain = 1 << 16
)

// lookupTable is where an image's dynamic symbols are, in run-time addresses;
// 0 is absent.
type lookupTable struct {
	symtab, strtab specs.Addr
	gnuHash, hash  specs.Addr
	versym         specs.Addr
	versions       map[uint16]version // of verdef
}

// Lookup finds the definition of a dynamic symbol as ld.so does in one object
// (glibc, elf/dl-lookup.c): a version must match by name, but an object
// without versions, and a symbol without one, match every version. Without a
// version, a symbol of the base version is taken, else the default version.
//
// The symbol's Value is a run-time address; that of an STT_GNU_IFUNC is its
// resolver, that of STT_TLS an offset. The boolean is false if the object does
// not define the symbol, or has no dynamic symbols at all.
func (i *Image) Lookup(name, version string) (Symbol, bool, error) {
	t, err := i.table()
	if err != nil {
		return Symbol{}, false, i.wrap(err)
	}
	if t == nil || name == "" || len(name) >= maxString {
		return Symbol{}, false, nil
	}
	m := match{image: i, table: t, name: append([]byte(name), 0), version: version}
	switch {
	case t.gnuHash != 0:
		err = m.gnuHash()
	case t.hash != 0:
		err = m.sysvHash()
	default:
		err = errors.New("neither DT_GNU_HASH nor DT_HASH")
	}
	if err != nil {
		return Symbol{}, false, i.wrap(fmt.Errorf("symbol %q: %w", name, err))
	}
	if m.found == nil {
		m.found = m.fallback
	}
	if m.found == nil {
		return Symbol{}, false, nil
	}
	m.found.Name = name
	return *m.found, true, nil
}

// readLookupTable reads PT_DYNAMIC; nil if the object has none.
func (i *Image) readLookupTable() (*lookupTable, error) {
	d, err := i.dynamic()
	if err != nil || d == nil {
		return nil, err
	}
	t, err := i.locate(d)
	if err != nil {
		return nil, fmt.Errorf("dynamic section: %w", err)
	}
	return t, nil
}

func (i *Image) locate(d *dynamicTable) (*lookupTable, error) {
	t := &lookupTable{}
	var verdef specs.Addr
	for tag, to := range map[elf.DynTag]*specs.Addr{
		elf.DT_SYMTAB: &t.symtab, elf.DT_STRTAB: &t.strtab, elf.DT_GNU_HASH: &t.gnuHash,
		elf.DT_HASH: &t.hash, elf.DT_VERSYM: &t.versym, elf.DT_VERDEF: &verdef,
	} {
		v, ok := d.lookup(tag)
		if !ok {
			continue
		}
		a, err := i.pointer(v)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", tag, err)
		}
		*to = a
	}
	if t.symtab == 0 || t.strtab == 0 {
		return nil, errors.New("no DT_SYMTAB or no DT_STRTAB")
	}
	if verdef == 0 {
		return t, nil
	}
	t.versions = map[uint16]version{}
	at := func(off, n uint64) ([]byte, error) { return i.bytes(verdef, off, n) }
	str := func(off uint32) (string, error) { return i.cstring(t.strtab, off) }
	err := readVerdef(t.versions, min(d.get(elf.DT_VERDEFNUM), maxVersions), 2*maxVersions, at, str)
	if err != nil {
		return nil, fmt.Errorf("version definitions: %w", err)
	}
	return t, nil
}

// pointer returns the run-time address that DT_* value v stands for. ld.so
// adds the bias in place, but not in objects that it does not load itself
// (the vDSO), in read-only dynamic sections, nor before it has started.
func (i *Image) pointer(v uint64) (specs.Addr, error) {
	if i.Range.Contains(specs.Addr(v)) {
		return specs.Addr(v), nil
	}
	a := i.Bias.Addr(specs.VAddr(v))
	return a, i.inside(a, 1)
}

// bytes returns n bytes at off from a, all inside the object.
func (i *Image) bytes(a specs.Addr, off, n uint64) ([]byte, error) {
	at := a + specs.Addr(off)
	if at < a {
		return nil, errors.New("extent wraps around")
	}
	if err := i.inside(at, n); err != nil {
		return nil, err
	}
	return i.mem.read(at, n)
}

// cstring returns the string at off from a.
func (i *Image) cstring(a specs.Addr, off uint32) (string, error) {
	var s []byte
	for at := a + specs.Addr(off); len(s) < maxString; {
		n := min(pageSize-uint64(at)%pageSize, uint64(i.Range.Hi-min(at, i.Range.Hi)))
		b, err := i.bytes(at, 0, max(n, 1))
		if err != nil {
			return "", err
		}
		if end := bytes.IndexByte(b, 0); end >= 0 {
			return string(append(s, b[:end]...)), nil
		}
		s, at = append(s, b...), at+specs.Addr(n)
	}
	return "", fmt.Errorf("string at %v: not terminated", a+specs.Addr(off))
}

func (i *Image) word(a specs.Addr, off uint64) (uint32, error) {
	b, err := i.bytes(a, off, 4)
	if err != nil {
		return 0, err
	}
	return le.Uint32(b), nil
}
