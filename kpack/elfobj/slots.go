package elfobj

import (
	"bytes"
	"debug/elf"
	"fmt"
	"slices"

	"github.com/fother/fother/specs"
)

// maxTables bounds the string table and the relocations that are read of an
// object in memory, in bytes each.
const maxTables = 64 << 20

// relocationTables are the addresses and sizes of a dynamic object's relocations.
var relocationTables = [][2]elf.DynTag{{elf.DT_RELA, elf.DT_RELASZ}, {elf.DT_JMPREL, elf.DT_PLTRELSZ}}

// Names reports whether the dynamic string table has a name, or a longer one
// that ends so: a symbol of the object, defined or not, may have it.
func (i *Image) Names(name string) (bool, error) {
	d, err := i.dynamic()
	if err != nil || d == nil {
		return false, i.wrap(err)
	}
	table, err := i.dynamicTable(d, elf.DT_STRTAB, elf.DT_STRSZ)
	return bytes.Contains(table, []byte(name+"\x00")), i.wrap(err)
}

// Slots returns the run-time addresses of the object's GOT entries for a
// symbol that it does not define: where relocations of the given types put its
// address. Several are sorted.
func (i *Image) Slots(name string, types ...uint32) ([]specs.Addr, error) {
	if found, err := i.Names(name); err != nil || !found {
		return nil, err
	}
	slots, err := i.slots(name, types)
	return slots, i.wrap(err)
}

func (i *Image) slots(name string, types []uint32) ([]specs.Addr, error) {
	d, err := i.dynamic()
	if err != nil {
		return nil, err
	}
	t, err := i.table()
	if err != nil {
		return nil, err
	}
	known := map[int]bool{} // symbols: whether it is the one
	var found []specs.Addr
	for _, tags := range relocationTables {
		data, err := i.dynamicTable(d, tags[0], tags[1])
		if err != nil {
			return nil, err
		}
		for ; len(data) >= relaSize; data = data[relaSize:] {
			r := decodeReloc(data)
			if r.Symbol <= 0 || !slices.Contains(types, r.Type) {
				continue
			}
			is, seen := known[r.Symbol]
			if !seen {
				if is, err = i.undefined(t, r.Symbol, name); err != nil {
					return nil, err
				}
				known[r.Symbol] = is
			}
			if at := i.Bias.Addr(specs.VAddr(r.Offset)); is && i.inside(at, 8) == nil {
				found = append(found, at)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// undefined reports whether dynamic symbol n has the given name and no
// definition in the object.
func (i *Image) undefined(t *lookupTable, n int, name string) (bool, error) {
	entry, err := i.bytes(t.symtab, uint64(n)*symSize, symSize)
	if err != nil {
		return false, err
	}
	if le.Uint16(entry[6:]) != uint16(elf.SHN_UNDEF) {
		return false, nil
	}
	s, err := i.cstring(t.strtab, le.Uint32(entry))
	return s == name, err
}

// dynamic reads PT_DYNAMIC; nil if the object has none.
func (i *Image) dynamic() (*dynamicTable, error) {
	for n := range i.Segments {
		if p := &i.Segments[n]; p.Type == elf.PT_DYNAMIC {
			b, err := i.segment(p, maxDynamic)
			if err != nil {
				return nil, fmt.Errorf("dynamic section: %w", err)
			}
			return parseDynamic(b), nil
		}
	}
	return nil, nil
}

// dynamicTable reads the table whose address and size two entries give; nil if
// there is none.
func (i *Image) dynamicTable(d *dynamicTable, addr, size elf.DynTag) ([]byte, error) {
	v, ok := d.lookup(addr)
	n := d.get(size)
	if !ok || n == 0 {
		return nil, nil
	}
	if n > maxTables {
		return nil, fmt.Errorf("%v: %d bytes: want at most %d", addr, n, maxTables)
	}
	a, err := i.pointer(v)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", addr, err)
	}
	return i.bytes(a, 0, n)
}
