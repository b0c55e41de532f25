package elfobj

import (
	"debug/elf"
	"slices"

	"github.com/fother/fother/specs"
)

// Dynamic reports whether the object has a dynamic section. A program that is
// linked statically at a fixed address has none.
func (i *Image) Dynamic() bool {
	return slices.ContainsFunc(i.Segments, func(p elf.ProgHeader) bool { return p.Type == elf.PT_DYNAMIC })
}

// Relocated returns the run-time addresses inside the object that dynamic
// relocations of the given types are about, sorted. Without a dynamic section
// there are none.
func (i *Image) Relocated(types ...uint32) ([]specs.Addr, error) {
	d, err := i.dynamic()
	if err != nil || d == nil {
		return nil, i.wrap(err)
	}
	var found []specs.Addr
	for _, tags := range relocationTables {
		data, err := i.dynamicTable(d, tags[0], tags[1])
		if err != nil {
			return nil, i.wrap(err)
		}
		for ; len(data) >= relaSize; data = data[relaSize:] {
			r := decodeReloc(data)
			if at := i.Bias.Addr(specs.VAddr(r.Offset)); slices.Contains(types, r.Type) && i.inside(at, 8) == nil {
				found = append(found, at)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// PLTGOT returns the run-time address that DT_PLTGOT names, 0 if the object has
// none: psABIs say which of the global offset tables begins there.
func (i *Image) PLTGOT() (specs.Addr, error) {
	d, err := i.dynamic()
	if err != nil || d == nil {
		return 0, i.wrap(err)
	}
	v, ok := d.lookup(elf.DT_PLTGOT)
	if !ok {
		return 0, nil
	}
	a, err := i.pointer(v)
	if err != nil {
		return 0, i.wrap(err)
	}
	return a, nil
}
