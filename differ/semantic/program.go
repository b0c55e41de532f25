package semantic

import (
	"debug/dwarf"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/fother/fother/kpack/elfobj"
)

// Errors of [Open] and [Compare] for debug data that says nothing of types.
var (
	ErrNoData = errors.New("no debug data")
	ErrForm   = errors.New("debug data of a form that is not read")
)

// Bounds on debug data, which may be damaged.
const (
	maxSection = 1 << 30 // bytes, uncompressed
	maxUnits   = 1 << 20
	maxNodes   = 1 << 23 // of one unit
	maxNesting = 1 << 10
)

// Program is the debug data of one linked file. It may be used by several
// goroutines.
type Program struct {
	data     *dwarf.Data
	units    []*unit
	objects  map[string]bool     // variables with storage, by name without numbers
	aliases  map[string][]string // symbols at the address of a function
	exported map[string]bool     // functions that other files can name
	// places are the link-time addresses of variables by symbol, addresses those
	// that locations name by their number (.debug_addr).
	places    map[string][]uint64
	addresses []byte
}

// unit is a compilation unit.
type unit struct {
	off, end dwarf.Offset // of its first entry, and behind its last
	whole    bool         // a compilation unit, and not a part of one
	source   string       // absolute path
	producer string
	lang     int64
	code     bool // it has functions

	mu    sync.Mutex
	tree  *tree
	keep  bool // another unit refers to it
	entry *dwarf.Entry
}

// Open reads the debug data of a linked file. The error is [ErrNoData] if there
// is none.
func Open(f *elfobj.File) (*Program, error) {
	sections, err := f.DebugSections(maxSection, openZstd)
	if err != nil {
		return nil, err
	}
	if len(sections["info"]) == 0 {
		return nil, ErrNoData
	}
	if len(sections["types"]) > 0 {
		return nil, errTypeUnits
	}
	data, err := sections.DWARF()
	if err != nil {
		return nil, err
	}
	p := &Program{data: data, addresses: sections["addr"]}
	if err := p.findUnits(sections["info"], f); err != nil {
		return nil, err
	}
	return p, p.symbols(f)
}

var errTypeUnits = fmt.Errorf("%w: type units (-fdebug-types-section)", ErrForm)

// findUnits reads the headers of the units and their first entries. Source:
// DWARF 5, section 7.5.1.
func (p *Program) findUnits(info []byte, f *elfobj.File) error {
	heads, err := headers(info)
	if err != nil {
		return err
	}
	for _, u := range heads {
		r := p.data.Reader()
		r.Seek(u.off)
		e, err := r.Next()
		if err != nil {
			return err
		}
		if e == nil {
			continue
		}
		if e.Val(dwarf.AttrDwoName) != nil || e.Val(attrGNUDwoName) != nil || e.Tag == dwarf.TagSkeletonUnit {
			return fmt.Errorf("%w: split debug data (-gsplit-dwarf)", ErrForm)
		}
		u.whole = e.Tag == dwarf.TagCompileUnit
		u.source, _ = e.Val(dwarf.AttrName).(string)
		if dir, _ := e.Val(dwarf.AttrCompDir).(string); !filepath.IsAbs(u.source) {
			u.source = filepath.Join(dir, u.source)
		}
		u.producer, _ = e.Val(dwarf.AttrProducer).(string)
		u.lang, _ = e.Val(dwarf.AttrLanguage).(int64)
		u.code = e.Val(dwarf.AttrLowpc) != nil || e.Val(dwarf.AttrRanges) != nil
		u.entry = e
		p.units = append(p.units, u)
	}
	return nil
}

const attrGNUDwoName = dwarf.Attr(0x2130) // before DWARF 5

// headers finds where units begin and end.
func headers(info []byte) ([]*unit, error) {
	var units []*unit
	for at := uint64(0); at < uint64(len(info)); {
		b, wide := info[at:], uint64(4)
		if len(b) < 12 {
			return nil, fmt.Errorf(".debug_info: %d bytes at %#x are no unit", len(b), at)
		}
		size, head := uint64(le.Uint32(b)), uint64(4)
		if size == 0xffffffff {
			size, head, wide = le.Uint64(b[4:]), 12, 8
		}
		left := uint64(len(b)) - head
		if size > left || size < 2 || len(units) == maxUnits {
			return nil, fmt.Errorf(".debug_info: unit of %#x bytes at %#x: outside the section", size, at)
		}
		version := le.Uint16(b[head:])
		first := head + 2 + wide + 1
		if version >= 5 {
			first++
			const typeUnit, skeleton, splitCompile, splitType = 2, 4, 5, 6
			switch b[head+2] {
			case typeUnit, splitType:
				return nil, errTypeUnits
			case skeleton, splitCompile:
				first += 8
			}
		}
		if first < head+size {
			units = append(units, &unit{off: dwarf.Offset(at + first), end: dwarf.Offset(at + head + size)})
		}
		at += head + size
	}
	return units, nil
}

// symbols notes what the symbol tables say of objects and functions.
func (p *Program) symbols(f *elfobj.File) error {
	p.objects, p.aliases, p.exported = map[string]bool{}, map[string][]string{}, map[string]bool{}
	p.places = map[string][]uint64{}
	syms, err := f.Symbols()
	if err != nil && !errors.Is(err, elfobj.ErrNoSymbols) {
		return err
	}
	dynamic, err := f.DynSymbols()
	if err != nil && !errors.Is(err, elfobj.ErrNoSymbols) {
		return err
	}
	at := map[uint64][]string{}
	for _, s := range syms {
		switch s.Type {
		case elf.STT_OBJECT, elf.STT_TLS, elf.STT_COMMON, elf.STT_NOTYPE:
			p.objects[stem(s.Name)] = true
			if s.Defined() && s.Type == elf.STT_OBJECT {
				p.places[s.Name] = append(p.places[s.Name], s.Value)
			}
		case elf.STT_FUNC, elf.STT_GNU_IFUNC:
			if s.Defined() {
				at[s.Value] = append(at[s.Value], s.Name)
			}
		}
	}
	for _, names := range at {
		for _, n := range names {
			p.aliases[n] = names
		}
	}
	for _, s := range dynamic {
		if s.Defined() && (s.Type == elf.STT_FUNC || s.Type == elf.STT_GNU_IFUNC) {
			p.exported[s.Name] = true
			for _, alias := range at[s.Value] {
				p.exported[alias] = true
			}
		}
	}
	return nil
}

// stem is a symbol's name without what compilers append: count.0, f.part.0.
func stem(name string) string {
	if i := strings.IndexByte(name, '.'); i > 0 {
		return name[:i]
	}
	return name
}

func openZstd(r io.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}
