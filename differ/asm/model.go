package asm

import (
	"fmt"
	"strings"
)

// Kind tells what a statement is.
type Kind uint8

// The kinds of statements that a [Unit] keeps.
const (
	Insn    Kind = iota // an instruction
	Data                // a directive that makes bytes and may name symbols
	Folded              // the whole body of a function; see Fold
	Literal             // a directive that makes bytes and names no symbol
	Label               // a named or .L label
	Number              // a numeric label, as in "1:"
	Align               // alignment; its padding counts for nothing
	CFI                 // call frame information
	Mark                // makes no bytes but belongs to the code around it
)

// Bytes reports whether a statement of kind k makes bytes that count.
func (k Kind) Bytes() bool { return k <= Literal }

// Stmt is one statement. Lo and Hi are byte offsets into the unit's text,
// without the spaces, comments and labels around it.
type Stmt struct {
	Lo, Hi uint32
	Line   uint32 // from 1
	Kind   Kind
}

// SectionKind says what a section's content is to a running program.
type SectionKind uint8

// The kinds of sections.
const (
	Ignored SectionKind = iota // debug data, notes, comments: not part of the running program
	Text
	ROData
	RelRO // constant once relocated
	Writable
	Zero     // .bss
	TLS      // .tdata and .tbss
	Init     // constructors and destructors
	Metadata // exception tables
	Custom   // a name that only the author and the linker know
)

func (k SectionKind) String() string {
	return [...]string{"ignored", "code", "constant data", "constant data with relocations", "writable data",
		"zeroed data", "thread-local data", "constructors", "exception tables", "a section of its own"}[k]
}

// Section is one section of the unit.
type Section struct {
	Name  string
	Flags string // as written: "ax", "aMS", …
	Args  string // the rest of the directive: type, entry size, group
	Kind  SectionKind
	// Items in the order of their bytes, each once.
	Items []int32

	open    int32  // item that takes the next bytes, or -1
	last    int32  // item that took the last bytes, or -1
	sized   int32  // function that .size ended just now, -1, or hidden
	buried  string // a name in a folded body that has the section's last bytes: of code the last function's
	pending []Stmt // alignment and CFI for the next item
	labels  []int32
}

// Mergeable reports whether the linker may fold the section's content.
func (s *Section) Mergeable() bool { return strings.ContainsRune(s.Flags, 'M') }

// Group reports whether the section is in a COMDAT group.
func (s *Section) Group() bool { return strings.ContainsRune(s.Flags, 'G') }

// Bind is a symbol's binding.
type Bind uint8

// The bindings.
const (
	Local Bind = iota
	Global
	Weak
)

// Where says what a symbol's name stands for.
type Where uint8

// The kinds of places.
const (
	Undefined  Where = iota
	InItem           // Ord statements into Item, plus Add bytes
	Loose            // a position outside all items, which only debug data uses
	Absolute         // a number
	Expression       // an expression that is not one symbol and a number
)

// Symbol is a name: a label, a common symbol, or an undefined reference that
// has attributes.
type Symbol struct {
	Name          string
	Number        int32 // of the name, see [Unit.Number]
	Item          int32 // of an Expression that has a dot, where that is; -1 if there is none
	Ord           int32 // statements that make bytes between the item's begin and the label
	Line          uint32
	Add           int64  // bytes
	Set           string // expression of .set, or the target of .weakref
	Vis           string // "hidden", "protected", "internal" or ""
	Type          string // "function", "object", "tls_object", "gnu_indirect_function", … or ""
	Size          string // expression
	Where         Where
	WeakRef       bool
	Bind          Bind
	declaredLocal bool // by a .local directive
}

// LocalLabel reports whether the name stays out of the object file.
func (s *Symbol) LocalLabel() bool { return IsLocalLabel(s.Name) }

// IsLocalLabel reports whether name begins like a label that the assembler
// leaves out of the object file.
func IsLocalLabel(name string) bool { return len(name) > 1 && name[0] == '.' && name[1] == 'L' }

// Item is a run of statements of one section that is compared and carried as a
// whole.
type Item struct {
	Section int32
	Line    uint32
	// Symbols at the item's begin, .L labels among them, in text order.
	Symbols []int32
	Stmts   []Stmt
	// Bytes is the number of statements that make bytes.
	Bytes int32
	// Written is set if inline assembly began the item: inside a function or at the
	// level of the file.
	Written bool
	// Labelled is set if local labels stand before the item, which are not in Symbols.
	Labelled bool
	// Common is the statement of a .comm or .lcomm symbol.
	Common bool
	// Split is set when bytes without a label follow after an alignment: the
	// item may be longer than it looks.
	Split bool
	// Foreign is the line where inline assembly inside the item switched to a
	// section of its own, or 0.
	Foreign uint32
	// Into is that section, if Foreign is set.
	Into int32
	// Inner is a named symbol in the middle of the item, or -1.
	Inner int32
	// Mode is the .arch, .cpu or .arch_extension directives in force.
	Mode string
}

// Unit is one parsed assembly file. It is not changed after [Parse], except
// that [Unit.Resolve] makes symbols and [Unit.FoldOf] notes where it was.
type Unit struct {
	File     string
	Text     string
	Dialect  *Dialect
	Sections []Section
	Symbols  []Symbol
	Items    []Item
	Producer string   // of the first .ident
	Versions []string // .symver directives, in order
	// Bound has what the numeric labels stand for that a statement mentions, in the
	// order of its text, if one of them is in another item; by Stmt.Lo.
	Bound map[uint32][]Place
	// Folds are the functions' bodies that were left out, by rising offset.
	Folds []Fold

	// Clash is set if a symbol is defined both in a folded body and elsewhere, or
	// if a folded body is not where code is: all statements tell more then.
	Clash bool

	// table has the names, and index the symbols by their numbers, plus one.
	table *nameTable
	index []int32
	// labels are those that the bodies define, and foldOf tells which of Folds
	// a body is, plus one. Folds refer to as many names as mentions, which have the
	// first numbers.
	labels   *foldLabels
	foldOf   []int32
	asked    int // fold that FoldOf was asked for last
	mentions int
}

// TextOf returns the statement's text.
func (u *Unit) TextOf(s Stmt) string { return u.Text[s.Lo:s.Hi] }

// SectionOf returns the section of item i.
func (u *Unit) SectionOf(i int32) *Section { return &u.Sections[u.Items[i].Section] }

// SyntaxError is assembly that is not understood.
type SyntaxError struct {
	File   string
	Line   int
	Text   string // the line or statement, at most 200 bytes
	Reason string
	// Path is where the text is, for people. The caller may set it.
	Path string
}

func (e *SyntaxError) Error() string {
	if e.Path != "" {
		return fmt.Sprintf("%s: line %d of the assembly text %s: %s: %q", e.File, e.Line, e.Path, e.Reason, e.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %q", e.File, e.Line, e.Reason, e.Text)
}

// Hint says what the author can do.
func (e *SyntaxError) Hint() string {
	if e.Reason == intelSyntax {
		return "build without -masm=intel, which gives the same code, and write inline assembly in AT&T syntax"
	}
	return "fother reads AT&T syntax as gcc and clang write it; leave hand-written files as they are, or write what they do without macros and in one file"
}
