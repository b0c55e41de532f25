package kpack

import (
	"debug/elf"
	"errors"
	"slices"
	"strings"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// symbolIndex finds the symbols of a linked file by name. Local symbols are
// kept with the STT_FILE symbol that precedes them (gABI, "Symbol Table").
type symbolIndex struct {
	file    *elfobj.File
	globals map[string]elfobj.Symbol
	locals  map[string][]localSymbol
	// functions are the names at each address of a function.
	functions map[specs.VAddr][]string
	// groups are the numbers of the STT_FILE symbols of each name, last is that
	// of the last one. members are the functions and variables of each group.
	groups  map[string][]int
	last    int
	members map[int][]string
	// dynamic are the dynamic symbols: of several versions of a name the
	// default one. ambiguous are the names imported in several versions.
	dynamic   map[string]elfobj.Symbol
	ambiguous map[string]bool
	// slots are the GOT entries that the dynamic linker fills for them, bound
	// the names that it looks up for the file's own references.
	slots map[string]slot
	bound map[string]bool
	// indirect are the GOT entries that hold what the file's own indirect
	// functions are, by the addresses of their resolvers. Start-up code or the
	// dynamic linker fills them before anything else of the file runs.
	indirect map[specs.VAddr]specs.VAddr
	// threads are those of thread-local symbols.
	threads tlsIndex
	// lazy is set if JUMP_SLOT entries may be bound at the first call.
	lazy, pie bool
}

// shared reports whether the file is a shared library.
func (x *symbolIndex) shared() bool { return x.file.Type == elf.ET_DYN && !x.pie && len(x.dynamic) > 0 }

type localSymbol struct {
	elfobj.Symbol
	source string // name of the STT_FILE group, "" before the first
	group  int    // number of the group
}

// wasGlobal reports whether l was a global symbol in the unit that defines it.
// ld puts those after the symbols of all units, behind an STT_FILE symbol
// without a name.
func (x *symbolIndex) wasGlobal(l localSymbol) bool {
	return l.Vis != elf.STV_DEFAULT || l.source == "" && l.group > 0 && l.group == x.last
}

type slot struct {
	addr specs.VAddr
	lazy bool
}

func newSymbolIndex(f *elfobj.File, m *machine) (*symbolIndex, error) {
	x := &symbolIndex{
		file: f, globals: map[string]elfobj.Symbol{}, locals: map[string][]localSymbol{}, groups: map[string][]int{}, members: map[int][]string{}, functions: map[specs.VAddr][]string{},
		dynamic: map[string]elfobj.Symbol{}, ambiguous: map[string]bool{}, slots: map[string]slot{}, bound: map[string]bool{},
		indirect: map[specs.VAddr]specs.VAddr{},
	}
	if err := x.readDynamic(m); err != nil {
		return nil, err
	}
	syms, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	source, group := "", 0
	for _, s := range syms {
		if s.Type == elf.STT_FUNC && s.Defined() && s.Size > 0 {
			x.functions[specs.VAddr(s.Value)] = append(x.functions[specs.VAddr(s.Value)], s.Name)
		}
		switch {
		case s.Type == elf.STT_FILE:
			source = s.Name
			group++
			x.groups[source] = append(x.groups[source], group)
		case !s.Defined() || s.Type == elf.STT_SECTION || s.Name == "":
		case s.Bind == elf.STB_LOCAL:
			x.locals[s.Name] = append(x.locals[s.Name], localSymbol{s, source, group})
			if named(s) {
				x.members[group] = append(x.members[group], s.Name)
			}
		default:
			// ld appends the version: NAME@@VERSION for the default one, and
			// NAME@VERSION for copy relocations and for versions that only
			// references made to an older library have.
			name, version, versioned := strings.Cut(s.Name, "@")
			if !versioned || strings.HasPrefix(version, "@") {
				x.globals[name] = s
			} else if _, taken := x.globals[name]; !taken && !x.shared() {
				x.globals[name] = s
			}
		}
	}
	x.last = group
	return x, nil
}

// readDynamic fills dynamic, slots, bound and indirect. A static executable has
// the last only.
func (x *symbolIndex) readDynamic(m *machine) error {
	relocs, err := x.file.DynRelocs()
	if err != nil {
		return err
	}
	for _, r := range relocs {
		if r.Type == m.irelative {
			x.indirect[specs.VAddr(r.Addend)] = specs.VAddr(r.Offset)
		}
	}
	dynamic, err := x.file.Dynamic()
	if errors.Is(err, elfobj.ErrNoDynamic) {
		return nil
	} else if err != nil {
		return err
	}
	x.lazy, x.pie = !dynamic.Now, dynamic.Flags1&elf.DF_1_PIE != 0
	syms, err := x.file.DynSymbols()
	if err != nil {
		return err
	}
	chosen := map[string]int{}
	for i, s := range syms {
		if s.Name == "" {
			continue
		}
		old, taken := x.dynamic[s.Name]
		if taken && !old.Defined() && !s.Defined() {
			x.ambiguous[s.Name] = true
		}
		if !taken || s.Defined() && (!old.Defined() || !s.VersionHidden) {
			x.dynamic[s.Name], chosen[s.Name] = s, i
		}
	}
	x.readThreads(slices.DeleteFunc(slices.Clone(relocs), func(r elfobj.Reloc) bool {
		return r.Symbol < 0 || r.Symbol > 0 && (r.Symbol >= len(syms) || chosen[syms[r.Symbol].Name] != r.Symbol)
	}), syms, m)
	for _, r := range relocs {
		if r.Symbol <= 0 || r.Symbol >= len(syms) || chosen[syms[r.Symbol].Name] != r.Symbol {
			continue
		}
		name, lazy := syms[r.Symbol].Name, r.Type == m.jumpSlot && x.lazy
		x.bound[name] = true
		if r.Type != m.globDat && r.Type != m.jumpSlot {
			continue
		}
		if old, ok := x.slots[name]; !ok || old.lazy {
			x.slots[name] = slot{specs.VAddr(r.Offset), lazy}
		}
	}
	return nil
}
