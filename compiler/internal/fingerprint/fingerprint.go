// Package fingerprint tells whether two relocatable objects bring the same to a
// link, whatever their debug data, symbol tables and notes are.
package fingerprint

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// Print is a digest of what an object brings to a link, apart from its symbol
// table: it outlives strip --strip-debug and objcopy --add-section.
type Print specs.Digest

// ErrEmpty says that an object brings nothing to a link.
var ErrEmpty = errors.New("nothing in it is allocated")

// Of returns the fingerprint of the relocatable object at path: its
// allocated sections in order, each with its relocations, whose symbols are
// taken by name.
func Of(path string) (Print, error) {
	f, err := elfobj.Open(path)
	if err != nil {
		return Print{}, err
	}
	if f.Type != elf.ET_REL {
		return Print{}, fmt.Errorf("%s: not a relocatable object", path)
	}
	symbols, err := f.Symbols()
	if err != nil && !errors.Is(err, elfobj.ErrNoSymbols) {
		return Print{}, err
	}
	h, found := sha256.New(), false
	for i := range f.Sections {
		s := &f.Sections[i]
		if s.Flags&elf.SHF_ALLOC == 0 || s.Size == 0 {
			continue
		}
		found = true
		if err := printSection(h, f, i, symbols); err != nil {
			return Print{}, err
		}
	}
	if !found {
		return Print{}, ErrEmpty
	}
	return Print(h.Sum(nil)), nil
}

func printSection(h hash.Hash, f *elfobj.File, n int, symbols []elfobj.Symbol) error {
	s := &f.Sections[n]
	data, err := s.Data()
	if err != nil {
		return err
	}
	// Group membership is a flag that objcopy may drop.
	fmt.Fprintf(h, "%q %d %d %d %d\n", s.Name, s.Type, s.Flags&^elf.SHF_GROUP, s.Size, s.Align)
	h.Write(data)
	relocs, err := f.Relocs(n)
	if err != nil {
		return err
	}
	var b [20]byte
	for _, r := range relocs {
		binary.LittleEndian.PutUint64(b[:], r.Offset)
		binary.LittleEndian.PutUint32(b[8:], r.Type)
		binary.LittleEndian.PutUint64(b[12:], uint64(r.Addend))
		h.Write(b[:])
		if r.Symbol > 0 && r.Symbol < len(symbols) {
			y := symbols[r.Symbol]
			section := ""
			if i := int(y.Section); y.Section < elf.SHN_LORESERVE && i < len(f.Sections) {
				section = f.Sections[i].Name
			}
			fmt.Fprintf(h, "%q %q %d\n", y.Name, section, y.Value)
		}
	}
	return nil
}
