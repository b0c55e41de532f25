package differ

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// Fix is what the caller knows of the change in the source that made the
// builds differ. It is used for reasons only.
type Fix struct {
	// Tree is the folder that the names of Files are relative to, and Dir the
	// one in which the unit was compiled: absolute paths, as in debug data.
	Tree, Dir string
	Files     []FixFile
}

// FixFile is a file that the fix changes.
type FixFile struct {
	Name      string // relative to the tree
	Outside   bool   // something changes outside of all functions
	Functions []FixFunction
}

// FixFunction is a function of a file that the fix changes, whether it changes
// itself or not.
type FixFunction struct {
	Name string
	Edit Edit
	// Lo and Hi are its first and last line in the original build, 0 if it is
	// not in that; Grown is by how many lines it is longer in the patched one.
	Lo, Hi, Grown int
}

// Edit says what a fix does to the source of a function.
type Edit uint8

// The edits. Unknown is for functions that are in no file of the [Fix], or
// cannot be found there.
const (
	EditUnknown Edit = iota
	Unedited
	EditedBody
	EditedSignature
	EditAdded
	EditRemoved
)

// edited reports whether the source of a function that is in both builds
// differs.
func (e Edit) edited() bool { return e == EditedBody || e == EditedSignature }

// at returns the function of f that has the line of the original build.
func (f *FixFile) at(line int) *FixFunction {
	for i := range f.Functions {
		if fn := &f.Functions[i]; fn.Lo > 0 && line >= fn.Lo && line <= fn.Hi {
			return fn
		}
	}
	return nil
}

// file returns the file of that name, or nil.
func (f *Fix) file(name string) *FixFile {
	for i := range f.Files {
		if f.Files[i].Name == name {
			return &f.Files[i]
		}
	}
	return nil
}

// mayBe reports whether debug data may mean a file of the fix by a name that is
// none: builds can have other paths put in.
func (f *Fix) mayBe(name string) bool {
	return path.IsAbs(name) && slices.ContainsFunc(f.Files, func(file FixFile) bool { return path.Base(file.Name) == path.Base(name) })
}

// relative returns the name in the tree of a file that debug data names, or
// its path if it is elsewhere.
func (f *Fix) relative(dir, name string) string {
	if !path.IsAbs(name) && !path.IsAbs(dir) {
		dir = path.Join(f.Dir, dir)
	}
	if !path.IsAbs(name) {
		name = path.Join(dir, name)
	}
	name = path.Clean(name)
	if rel, ok := strings.CutPrefix(name, f.Tree+"/"); ok {
		return rel
	}
	return name
}

// named returns what the fix does to the function that is called symbol in the
// given unit, by its name alone: nil if that does not tell.
func (f *Fix) named(unit, symbol string) *FixFunction {
	var found *FixFunction
	for i := range f.Files {
		if !f.relevant(unit, f.Files[i].Name) {
			continue
		}
		for k := range f.Files[i].Functions {
			fn := &f.Files[i].Functions[k]
			if !named(symbol, fn.Name) {
				continue
			}
			if found != nil && found.Edit != fn.Edit {
				return nil
			}
			found = fn
		}
	}
	return found
}

// artificial is the base name of what the link-time optimizer makes of several
// files.
const artificial = "<artificial>"

// relevant reports whether a file may be part of the unit: its source, or one
// that others include.
func (f *Fix) relevant(unit, file string) bool {
	return file == unit || path.Base(unit) == artificial || !slices.Contains([]string{".c", ".cc", ".cp", ".cxx", ".cpp", ".c++", ".C"}, path.Ext(file))
}

// named reports whether a symbol may be that of a function that is called name
// in the source.
func named(symbol, name string) bool {
	if !strings.HasPrefix(symbol, "_Z") {
		return base(symbol) == name
	}
	if coded(name) {
		return false
	}
	for p := range strings.SplitSeq(name, "::") {
		if !strings.Contains(symbol, strconv.Itoa(len(p))+p) {
			return false
		}
	}
	return true
}

// coded reports whether mangled names have a code for the function: operators,
// constructors, destructors. Source: Itanium C++ ABI, 5.1.3 and 5.1.4.3.
func coded(name string) bool {
	parts := strings.Split(name, "::")
	last := parts[len(parts)-1]
	return strings.HasPrefix(last, "operator") || strings.HasPrefix(last, "~") || len(parts) > 1 && last == parts[len(parts)-2]
}
