package elfobj

import (
	"debug/elf"
	"errors"
	"fmt"
)

// A symbol version index has its "hidden" bit above the index proper.
// Source: LSB core, "Symbol Version Table".
const (
	verHidden = 0x8000
	verIndex  = 0x7fff
	verGlobal = 1 // VER_NDX_GLOBAL: defined, without a version

	verFlagBase = 1 // VER_FLG_BASE: the file's own name, not a version

	verdefSize, verdauxSize         = 20, 8
	verneedSize, vernauxSize        = 16, 16
	maxVersions                     = verIndex + 1
	errVersionsMsg                  = "version records form no list"
	maxVersionRecords        uint64 = 1 << 17
)

// version is what a version index stands for.
type version struct {
	name   string
	needed string // the file of a verneed entry (vn_file)
	base   bool   // VER_FLG_BASE
}

// recordsAt gives access to version records: n bytes at offset off from the
// first record. Records are read by offset because they form lists, and in
// memory nothing says where the lists end.
type recordsAt func(off, n uint64) ([]byte, error)

// stringAt gives access to the string table.
type stringAt func(off uint32) (string, error)

// walker bounds the number of steps through version records.
type walker struct {
	at    recordsAt
	steps uint64 // left
}

// next reads n bytes at off, one step.
func (w *walker) next(off, n uint64) ([]byte, error) {
	if w.steps == 0 {
		return nil, errors.New(errVersionsMsg)
	}
	w.steps--
	return w.at(off, n)
}

// readVerdef adds the versions that count Verdef records define.
func readVerdef(to map[uint16]version, count, steps uint64, at recordsAt, str stringAt) error {
	w := walker{at, min(steps, maxVersionRecords)}
	for off := uint64(0); count > 0; count-- {
		b, err := w.next(off, verdefSize)
		if err != nil {
			return err
		}
		flags, ndx := le.Uint16(b[2:]), le.Uint16(b[4:])&verIndex
		aux, next := uint64(le.Uint32(b[12:])), uint64(le.Uint32(b[16:]))
		a, err := w.next(off+aux, verdauxSize) // the first names it, others its parents
		if err != nil {
			return err
		}
		name, err := str(le.Uint32(a))
		if err != nil {
			return err
		}
		to[ndx] = version{name: name, base: flags&verFlagBase != 0}
		if next == 0 {
			return nil
		}
		off += next
	}
	return nil
}

// readVerneed adds the versions that count Verneed records ask for.
func readVerneed(to map[uint16]version, count, steps uint64, at recordsAt, str stringAt) error {
	w := walker{at, min(steps, maxVersionRecords)}
	for off := uint64(0); count > 0; count-- {
		b, err := w.next(off, verneedSize)
		if err != nil {
			return err
		}
		auxes, next := le.Uint16(b[2:]), uint64(le.Uint32(b[12:]))
		library, err := str(le.Uint32(b[4:]))
		if err != nil {
			return err
		}
		if err := readVernaux(to, &w, off+uint64(le.Uint32(b[8:])), auxes, library, str); err != nil {
			return err
		}
		if next == 0 {
			return nil
		}
		off += next
	}
	return nil
}

func readVernaux(to map[uint16]version, w *walker, off uint64, count uint16, library string, str stringAt) error {
	for ; count > 0; count-- {
		b, err := w.next(off, vernauxSize)
		if err != nil {
			return err
		}
		name, err := str(le.Uint32(b[8:]))
		if err != nil {
			return err
		}
		to[le.Uint16(b[6:])&verIndex] = version{name: name, needed: library}
		next := uint64(le.Uint32(b[12:]))
		if next == 0 {
			return nil
		}
		off += next
	}
	return nil
}

// addVersions sets the versions of syms, the symbols of section n.
func (f *File) addVersions(n int, syms []Symbol) error {
	v := f.find(elf.SHT_GNU_VERSYM)
	if v < 0 || f.Sections[v].Link != uint32(n) {
		return nil
	}
	name := f.sectionName(v)
	indices, err := f.entries(v, 2)
	if err != nil {
		return err
	}
	if len(indices) != 2*len(syms) {
		return fmt.Errorf("%s: %d versions for %d symbols", name, len(indices)/2, len(syms))
	}
	versions, err := f.readVersions()
	if err != nil {
		return err
	}
	for i := range syms {
		ndx := le.Uint16(indices[2*i:])
		if ndx&verIndex <= verGlobal {
			continue
		}
		ver, ok := versions[ndx&verIndex]
		if !ok {
			return fmt.Errorf("%s: symbol %q: no version %d", name, syms[i].Name, ndx&verIndex)
		}
		syms[i].Version, syms[i].Library = ver.name, ver.needed
		syms[i].VersionHidden = ndx&verHidden != 0
	}
	return nil
}

// readVersions reads .gnu.version_d and .gnu.version_r.
func (f *File) readVersions() (map[uint16]version, error) {
	versions := map[uint16]version{}
	for i := range f.Sections {
		s := &f.Sections[i]
		read := readVerdef
		switch s.Type {
		case elf.SHT_GNU_VERDEF:
		case elf.SHT_GNU_VERNEED:
			read = readVerneed
		default:
			continue
		}
		names, err := f.strings(uint64(s.Link))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.sectionName(i), err)
		}
		data, err := s.Data()
		if err != nil {
			return nil, err
		}
		at := func(off, n uint64) ([]byte, error) {
			if off > uint64(len(data)) || n > uint64(len(data))-off {
				return nil, fmt.Errorf("record at %#x: outside the section", off)
			}
			return data[off : off+n], nil
		}
		if err := read(versions, uint64(s.Info), uint64(len(data))/verdauxSize, at, names.at); err != nil {
			return nil, fmt.Errorf("%s: %w", f.sectionName(i), err)
		}
	}
	return versions, nil
}
