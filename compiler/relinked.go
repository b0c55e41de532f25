package compiler

import (
	"bytes"
	"debug/elf"
	"reflect"
	"slices"
	"strings"

	"github.com/fother/fother/kpack/elfobj"
)

// namesMoved reports whether the two linked files of p are the same for
// whoever runs them: they differ at most in their build-ids, in where names
// stand in the dynamic string table, and in what is not loaded. A linker puts
// the names that a program imports in the order in which the libraries have
// them, so another library changes a program that is otherwise linked as
// before.
func (p Pair) namesMoved() (bool, error) {
	a, err := elfobj.Open(p.Original.File)
	if err != nil {
		return false, err
	}
	b, err := elfobj.Open(p.Patched.File)
	if err != nil {
		return false, err
	}
	if a.Type != b.Type || a.Entry != b.Entry || a.Flags != b.Flags || a.Arch != b.Arch {
		return false, nil
	}
	before, after := loaded(a), loaded(b)
	if len(before) != len(after) {
		return false, nil
	}
	for i := range before {
		if same, err := sameSection(before[i], after[i]); err != nil || !same {
			return false, err
		}
	}
	return sameDynamic(a, b)
}

// loaded returns the sections of f that are part of its image in memory.
func loaded(f *elfobj.File) []*elfobj.Section {
	var list []*elfobj.Section
	for i := range f.Sections {
		if f.Sections[i].Flags&elf.SHF_ALLOC != 0 {
			list = append(list, &f.Sections[i])
		}
	}
	return list
}

// sameSection compares two sections, but for the contents of those that names
// are in or that refer to them by their place; [sameDynamic] reads these.
func sameSection(a, b *elfobj.Section) (bool, error) {
	if a.Name != b.Name || a.Type != b.Type || a.Flags != b.Flags || a.Addr != b.Addr || a.Size != b.Size {
		return false, nil
	}
	before, err := a.Data()
	if err != nil {
		return false, err
	}
	after, err := b.Data()
	switch {
	case err != nil:
		return false, err
	case a.Type == elf.SHT_DYNSYM || a.Name == ".note.gnu.build-id":
		return true, nil
	case a.Type == elf.SHT_STRTAB:
		return slices.Equal(names(before), names(after)), nil
	}
	return bytes.Equal(before, after), nil
}

// names returns the names in a string table, sorted.
func names(table []byte) []string {
	all := strings.Split(string(table), "\x00")
	slices.Sort(all)
	return all
}

// sameDynamic compares the dynamic symbols, which carry the versions that they
// are imported with, and the names in the dynamic sections.
func sameDynamic(a, b *elfobj.File) (bool, error) {
	before, err := a.DynSymbols()
	if err != nil {
		return false, err
	}
	after, err := b.DynSymbols()
	if err != nil || len(before) != len(after) {
		return false, err
	}
	for i := range before {
		if before[i] != after[i] {
			return false, nil
		}
	}
	x, err := a.Dynamic()
	if err != nil {
		return false, err
	}
	y, err := b.Dynamic()
	return err == nil && reflect.DeepEqual(x, y), err
}
