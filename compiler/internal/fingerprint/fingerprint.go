// Package fingerprint tells whether two relocatable objects bring the same to a
// link, whatever their debug data, symbol tables and notes are.
package fingerprint

import (
	"bytes"
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
func Of(path string) (Print, error) { return of(path, nil) }

// Masked returns the fingerprint of the object at path as it would be if it had
// the bytes of the object at low wherever those at low and high differ: there
// it must have the byte is. What the three have besides may differ.
func Masked(path, low, high string, is byte) (Print, error) {
	a, err := allocated(low)
	if err != nil {
		return Print{}, err
	}
	b, err := allocated(high)
	if err != nil {
		return Print{}, err
	}
	return of(path, func(n int, data []byte) []byte {
		if n >= len(a) || n >= len(b) || len(a[n]) != len(data) || len(b[n]) != len(data) {
			return data
		}
		data = bytes.Clone(data)
		for i := range data {
			if a[n][i] != b[n][i] && data[i] == is {
				data[i] = a[n][i]
			}
		}
		return data
	})
}

// allocated returns what the allocated sections of an object hold, in order.
func allocated(path string) (all [][]byte, err error) {
	_, err = of(path, func(_ int, data []byte) []byte {
		all = append(all, data)
		return data
	})
	return all, err
}

// of is [Of]. The content of the n-th allocated section is what change returns
// for it, if there is one.
func of(path string, change func(n int, data []byte) []byte) (Print, error) {
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
	h, found := sha256.New(), 0
	for i := range f.Sections {
		s := &f.Sections[i]
		if s.Flags&elf.SHF_ALLOC == 0 || s.Size == 0 {
			continue
		}
		data, err := s.Data()
		if err != nil {
			return Print{}, err
		}
		if change != nil {
			data = change(found, data)
		}
		found++
		if err := printSection(h, f, i, data, symbols); err != nil {
			return Print{}, err
		}
	}
	if found == 0 {
		return Print{}, ErrEmpty
	}
	return Print(h.Sum(nil)), nil
}

func printSection(h hash.Hash, f *elfobj.File, n int, data []byte, symbols []elfobj.Symbol) error {
	s := &f.Sections[n]
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
