package compiler

import (
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"

	"github.com/fother/fother/compiler/internal/store"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// Capture is what one build did. It is immutable once loaded.
type Capture struct {
	Stage specs.Stage
	Units []*Unit // in the order in which they were assembled
	Links []*Link // in the order in which they were linked
	// Unseen are the linked files that stood in the tree after the build and
	// that no captured link made, sorted by path.
	Unseen []Unseen

	linked map[string]bool         // paths of linked files that stood in the tree at the end
	noText map[specs.Digest]string // why an object is no unit's
}

// Unit is one assembly text.
type Unit struct {
	// Source is the absolute path of its source file, as far as it can be
	// told; "<artificial>" as base name for units of the link-time optimizer.
	Source string
	// Text is the path of the stored assembly text.
	Text       string
	TextDigest specs.Digest
	// Object is the path of the stored copy of the object.
	Object       string
	ObjectDigest specs.Digest
	// ObjectPath is where the object was in the build tree, or a temporary
	// name or nothing if the compiler linked at once.
	ObjectPath string
	// Arch is nil if the object is for a machine that is not supported.
	Arch *arch.Arch
	// Includes are the files that the text takes in with .include and .incbin.
	Includes []Include
	// Assembler is the program that assembled the text, and Args its arguments
	// in Dir; see also OwnAssembler.
	Assembler string
	Args      []string
	Dir       string
	// LTO is set if the text holds the link-time optimizer's intermediate
	// code.
	LTO bool
	// Kept is set if it was not assembled in this build, but in the one that
	// this one continues: see Options.Base.
	Kept bool

	run string // of the link that this unit is part of, or empty
}

// Include is a file that an assembly text takes in.
type Include struct {
	Path   string // in the build
	File   string // stored copy
	Digest specs.Digest
}

// LinkKind says what a link makes.
type LinkKind int

// The kinds of linked files.
const (
	Executable LinkKind = iota
	Shared
	Relocatable // ld -r
)

func (k LinkKind) String() string { return [...]string{"executable", "shared", "relocatable"}[k] }

// Link is one run of a linker.
type Link struct {
	// Output is the absolute path in the build tree: where it was linked or, if
	// the build then moved or installed it and left nothing there, where a file
	// with its build-id was when the build ended.
	Output  string
	Kind    LinkKind
	BuildID specs.BuildID // empty if the output has none
	// File is the path of the stored output with all its symbols. Its
	// allocated sections are those of the output, build-id apart if the link
	// stripped symbols.
	File   string
	Digest specs.Digest // of the output as it was linked
	// Linker is the program that linked it.
	Linker string
	// NoSymbols says why File lacks symbols, and is empty if it has them.
	NoSymbols string
	// Inputs are the objects that took part, in link order. Those of relocatable
	// links and link-time optimization are resolved: see Input.
	Inputs []Input
	// NoInputs says why Inputs are not known, and is empty if they are.
	NoInputs string
	// Kept is set if it was not linked in this build: see Unit.Kept.
	Kept bool

	run string
}

// Input is an object that took part in a link. One of Unit and Link is set,
// or neither, if capture did not see how the object was made.
type Input struct {
	Path   string // absolute, in the build
	Member string // of the archive at Path, or empty
	Digest specs.Digest
	Unit   *Unit
	// Link is the relocatable link that made the object.
	Link *Link
	// Gone is set if the object did not outlive the link; Digest is then zero.
	Gone bool
	// NoText says why there is no unit, if capture saw the object being made.
	NoText string
}

// Name returns the input as linkers write it, ARCHIVE(MEMBER).
func (in Input) Name() string {
	if in.Member == "" {
		return in.Path
	}
	return in.Path + "(" + in.Member + ")"
}

// Units returns the units that make up l, in link order, also those that came
// through relocatable links. A unit that was linked twice is there twice.
func (l *Link) Units() []*Unit {
	var units []*Unit
	for in := range l.leaves() {
		if in.Unit != nil {
			units = append(units, in.Unit)
		}
	}
	return units
}

// leaves yields the inputs of l with relocatable links replaced by theirs.
func (l *Link) leaves() func(yield func(Input) bool) {
	return func(yield func(Input) bool) { l.walk(yield) }
}

func (l *Link) walk(yield func(Input) bool) bool {
	for _, in := range l.Inputs {
		if in.Link == nil {
			if !yield(in) {
				return false
			}
		} else if !in.Link.walk(yield) {
			return false
		}
	}
	return true
}

// Deliverables returns for each path the last executable or shared library
// that was linked there, in the order of the links. What a configure script
// or a build system linked to try something out is not among them: it is gone
// when the build ends.
func (c *Capture) Deliverables() []*Link {
	last := map[string]*Link{}
	for _, l := range c.Links {
		if l.Kind != Relocatable {
			last[l.Output] = l
		}
	}
	var out []*Link
	for _, l := range c.Links {
		if last[l.Output] == l && c.linked[l.Output] {
			out = append(out, l)
		}
	}
	return out
}

// Load reads what the build of stage left in the store.
func Load(dir string, stage specs.Stage) (*Capture, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := store.At(dir)
	records, err := s.Records(stage)
	if err != nil {
		return nil, err
	}
	linked, err := s.Linked(stage)
	if err != nil {
		return nil, err
	}
	c := &Capture{Stage: stage, linked: map[string]bool{}, noText: map[specs.Digest]string{}}
	var links []*store.Link
	for _, r := range records {
		if a := r.Assembly; a != nil && a.NoText != "" {
			c.noText[a.Object] = a.NoText
			continue
		}
		if r.Assembly != nil {
			c.Units = append(c.Units, newUnit(s, r))
			continue
		}
		links = append(links, r.Link)
		c.Links = append(c.Links, newLink(s, r))
	}
	newResolver(s, c).resolve(links)
	c.tree(linked)
	return c, nil
}

// tree takes in what stood in the tree after the build.
func (c *Capture) tree(linked []store.Linked) {
	place := map[specs.BuildID]string{} // the first path of each build-id
	for _, f := range linked {
		c.linked[f.Path] = true
		if _, ok := place[f.BuildID]; !ok && f.BuildID != "" {
			place[f.BuildID] = f.Path
		}
	}
	digests, ids, paths := map[specs.Digest]bool{}, map[specs.BuildID]bool{}, map[string]bool{}
	for _, l := range c.Links {
		digests[l.Digest], ids[l.BuildID], paths[l.Output] = true, true, true
		if p := place[l.BuildID]; p != "" && !c.linked[l.Output] {
			l.Output = p
		}
	}
	for _, f := range linked {
		// A file without a build-id that was changed after the link, by strip
		// for example, is known by its name.
		seen := digests[f.Digest] || f.BuildID != "" && ids[f.BuildID] || f.BuildID == "" && paths[f.Path]
		if !seen {
			c.Unseen = append(c.Unseen, Unseen{Path: f.Path, Digest: f.Digest})
		}
	}
}

// Unseen is a file that capture did not see being made.
type Unseen struct {
	Path   string
	Digest specs.Digest
}

func newUnit(s *store.Store, r *store.Record) *Unit {
	a := r.Assembly
	u := &Unit{
		Source: a.Source, Text: s.Blob(a.Text), TextDigest: a.Text,
		Object: s.Blob(a.Object), ObjectDigest: a.Object, ObjectPath: a.Output,
		Assembler: r.Program, Args: r.Args, Dir: r.Dir, LTO: a.LTO, Kept: r.Kept, run: r.Parent,
	}
	for _, f := range a.Includes {
		u.Includes = append(u.Includes, Include{Path: f.Path, File: s.Blob(f.Digest), Digest: f.Digest})
	}
	u.Arch = machineOf(u.Object)
	return u
}

// machineOf returns the architecture of the ELF file at path, or nil.
func machineOf(path string) *arch.Arch {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var h [20]byte
	if _, err := f.ReadAt(h[:], 0); err != nil || string(h[:4]) != elf.ELFMAG {
		return nil
	}
	a, err := arch.ByMachine(elf.Machine(binary.LittleEndian.Uint16(h[18:])))
	if err != nil {
		return nil
	}
	return a
}

func newLink(s *store.Store, record *store.Record) *Link {
	r := record.Link
	l := &Link{
		Output: r.Output, BuildID: r.BuildID, File: s.Blob(r.Symbols), Digest: r.Digest,
		Linker: record.Program, NoSymbols: r.NoSymbols, NoInputs: r.NoInputs, Kept: record.Kept, run: r.Run,
	}
	switch r.Kind {
	case "shared":
		l.Kind = Shared
	case "relocatable":
		l.Kind = Relocatable
	}
	return l
}

// Temporary reports whether the compiler made the name of u's object up,
// because it linked at once.
func (u *Unit) Temporary() bool {
	return u.ObjectPath == "" || isTemporary(u.ObjectPath) || clangTemp.MatchString(u.ObjectPath)
}

// OwnAssembler returns the command of the compiler's own assembler, but for -o
// and the text, if it made u's object. It is nil for a program of its own, such
// as binutils' as.
func (u *Unit) OwnAssembler() []string {
	if len(u.Args) == 0 || u.Args[0] != "-cc1as" {
		return nil
	}
	return append([]string{u.Assembler}, u.Args...)
}

// isTemporary reports whether path is a name that gcc makes up: /tmp/ccXXXXXX
// and a suffix.
func isTemporary(path string) bool {
	base := filepath.Base(path)
	return len(base) >= 8 && strings.HasPrefix(base, "cc") && !strings.ContainsAny(base[:8], "._-") &&
		(len(base) == 8 || base[8] == '.')
}
