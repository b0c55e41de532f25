package elfobj

import (
	"debug/dwarf"
	"debug/elf"
)

// DebugSections are the sections with debug data of a file by the names that
// DWARF has for them: "info" is .debug_info.
type DebugSections map[string][]byte

// DebugSections returns those that are there, inflated. limit, in bytes, and
// zstd are those of [Section.Uncompressed], of which the errors are.
func (f *File) DebugSections(limit uint64, zstd Opener) (DebugSections, error) {
	all := make(DebugSections)
	for _, name := range []string{"abbrev", "info", "line", "ranges", "str", "addr", "line_str", "str_offsets", "rnglists", "types"} {
		s := f.Section(".debug_" + name)
		if s == nil {
			s = f.Section(".zdebug_" + name)
		}
		if s == nil || s.Type == elf.SHT_NOBITS {
			continue
		}
		data, err := s.Uncompressed(limit, zstd)
		if err != nil {
			return nil, err
		}
		all[name] = data
	}
	return all, nil
}

// DWARF opens them, but for type units (.debug_types).
func (d DebugSections) DWARF() (*dwarf.Data, error) {
	data, err := dwarf.New(d["abbrev"], nil, nil, d["info"], d["line"], nil, d["ranges"], d["str"])
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"addr", "line_str", "str_offsets", "rnglists"} {
		if err := data.AddSection(".debug_"+name, d[name]); err != nil {
			return nil, err
		}
	}
	return data, nil
}
