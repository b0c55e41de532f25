package kpack

import (
	"fmt"

	"github.com/fother/fother/specs"
)

// Through is the way round a page boundary inside of the jump at an entry, which
// could not be written at once. The jump comes a few instructions later, and
// leads to code that takes back what these have done before it goes on in the
// new body.
type Through struct {
	// Symbol is the index in Patch.Symbols of the code.
	Symbol int
	// Skip is the number of bytes of the original before the jump.
	Skip int
}

// skip returns how many bytes of the original run before the jump.
func (f *Function) skip() int {
	if f.Through == nil {
		return 0
	}
	return f.Through.Skip
}

// smallestPage is that of all architectures, in bytes.
const smallestPage = 4096

// around finds the first place for the jump of a function at addr that lies in
// one page: how many bytes have to come before, and the code that takes them
// back. Both are 0 if it is the entry.
func (m *machine) around(entry []byte, addr specs.VAddr) (skip int, undo []byte, err error) {
	for {
		site, jump, err := m.jumpFrom(entry, skip, specs.Addr(addr), specs.Addr(addr))
		if err != nil {
			return 0, nil, err
		}
		last := site + specs.Addr(len(jump)) - 1
		if site/smallestPage == last/smallestPage {
			return skip, undo, nil
		}
		n, back, ok := m.undo(entry[:skip], entry[skip:])
		if !ok {
			return 0, nil, hint("leave the function as it is and change its callers; in the next release, compile it with -falign-functions=16",
				fmt.Errorf("its first instructions at %v lie across two pages, and cannot be overwritten at once", addr))
		}
		skip, undo = skip+n, append(back, undo...)
	}
}

// placeThrough appends the code of f.Through to the section s.
func (b *builder) placeThrough(s *Section, f *Function) {
	s.Data = append(s.Data, make([]byte, -len(s.Data)&15)...)
	base := len(s.Data)
	s.Data = append(s.Data, b.undos[f.Original.Lo]...)
	jump, field, r := b.machine.onward()
	r.Offset, r.Symbol = uint64(len(s.Data)+field), f.Symbol
	s.Data, s.Relocs = append(s.Data, jump...), append(s.Relocs, r)
	f.Through.Symbol = len(b.patch.Symbols)
	b.patch.Symbols = append(b.patch.Symbols, Symbol{Name: f.Name + ".entry", Binding: Carried, Section: len(b.patch.Sections), Value: uint64(base), Func: true})
}
