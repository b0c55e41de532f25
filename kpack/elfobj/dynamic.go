package elfobj

import (
	"debug/elf"
	"fmt"
)

// Dynamic is what a file asks of the dynamic linker.
type Dynamic struct {
	SOName string   // DT_SONAME, or empty
	Needed []string // DT_NEEDED, in order
	// Flags and Flags1 are DT_FLAGS and DT_FLAGS_1.
	Flags  elf.DynFlag
	Flags1 elf.DynFlag1
	// Now is set if all references are bound before the program starts, so
	// that JUMP_SLOT entries are never lazy.
	Now bool
	// Symbolic is set if the object's own definitions come first (-Bsymbolic).
	Symbolic bool
}

// Dynamic returns what the file asks of the dynamic linker. The error is
// [ErrNoDynamic] if the file is not linked dynamically.
func (f *File) Dynamic() (*Dynamic, error) {
	t, err := f.dynamic()
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, f.wrap(ErrNoDynamic)
	}
	d, err := t.decode(f.dynString(t))
	if err != nil {
		return nil, f.wrap(fmt.Errorf("dynamic section: %w", err))
	}
	return d, nil
}

// dynamicTable holds the entries of PT_DYNAMIC, up to DT_NULL.
type dynamicTable struct{ entries []dynEntry }

type dynEntry struct {
	tag elf.DynTag
	val uint64
}

// get returns the value of the first entry with tag, or 0.
func (t *dynamicTable) get(tag elf.DynTag) uint64 {
	v, _ := t.lookup(tag)
	return v
}

func (t *dynamicTable) lookup(tag elf.DynTag) (uint64, bool) {
	for _, e := range t.entries {
		if e.tag == tag {
			return e.val, true
		}
	}
	return 0, false
}

func parseDynamic(b []byte) *dynamicTable {
	t := &dynamicTable{}
	for ; len(b) >= dynSize; b = b[dynSize:] {
		tag := elf.DynTag(int64(le.Uint64(b)))
		if tag == elf.DT_NULL {
			break
		}
		t.entries = append(t.entries, dynEntry{tag, le.Uint64(b[8:])})
	}
	return t
}

// readDynamic returns the file's PT_DYNAMIC, or nil if it has none.
func (f *File) readDynamic() (*dynamicTable, error) {
	for _, p := range f.Segments {
		if p.Type != elf.PT_DYNAMIC {
			continue
		}
		b, ok := f.slice(p.Off, p.Filesz)
		if !ok {
			return nil, f.wrap(fmt.Errorf("dynamic section: %#x bytes at offset %#x: outside the file", p.Filesz, p.Off))
		}
		return parseDynamic(b), nil
	}
	return nil, nil
}

// dynString returns access to the string table that t names.
func (f *File) dynString(t *dynamicTable) stringAt {
	table, ok := f.loaded(t.get(elf.DT_STRTAB), t.get(elf.DT_STRSZ))
	return func(off uint32) (string, error) {
		if !ok {
			return "", fmt.Errorf("string table at %#x: outside the file", t.get(elf.DT_STRTAB))
		}
		return stringTable(table).at(off)
	}
}

func (t *dynamicTable) decode(str stringAt) (*Dynamic, error) {
	d := &Dynamic{}
	for _, e := range t.entries {
		switch e.tag {
		case elf.DT_SONAME, elf.DT_NEEDED:
			s, err := str(uint32(min(e.val, 1<<32-1)))
			if err != nil {
				return nil, fmt.Errorf("%v: %w", e.tag, err)
			}
			if e.tag == elf.DT_SONAME {
				d.SOName = s
			} else {
				d.Needed = append(d.Needed, s)
			}
		case elf.DT_FLAGS:
			d.Flags = elf.DynFlag(e.val)
		case elf.DT_FLAGS_1:
			d.Flags1 = elf.DynFlag1(e.val)
		case elf.DT_BIND_NOW:
			d.Now = true
		case elf.DT_SYMBOLIC:
			d.Symbolic = true
		}
	}
	d.Now = d.Now || d.Flags&elf.DF_BIND_NOW != 0 || d.Flags1&elf.DF_1_NOW != 0
	d.Symbolic = d.Symbolic || d.Flags&elf.DF_SYMBOLIC != 0
	return d, nil
}
