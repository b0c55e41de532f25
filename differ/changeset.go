package differ

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fother/fother/specs/arch"
)

// Suffix is what the names of carried functions and data end in.
const Suffix = ".kpatch"

// Sections of the patch assembly.
const (
	SectionText   = ".kpatch.text"
	SectionROData = ".kpatch.rodata"
	SectionData   = ".kpatch.data"
	SectionBSS    = ".kpatch.bss"
)

// Input is one unit in both builds.
type Input struct {
	Unit string // name for messages
	Arch *arch.Arch
	// Original and Patched are GNU assembly. They are not copied: they must stay
	// as they are while the change set is in use, which keeps parts of them. One
	// is nil for a unit that only the other build has.
	Original, Patched []byte
	// Fix is used for reasons only; nil if nothing is known of it.
	Fix *Fix
	// Keeps reports whether a running program may keep the value that it has of a
	// variable of that name whose initial value differs. Nil stands for none.
	Keeps func(name string) bool
	// Leaves reports whether a function that is gone, or a constant that changed,
	// may stay in use where a running program keeps its address: "function NAME",
	// "constant NAME". Nil stands for none.
	Leaves func(change string) bool
	// Elsewhere reports whether an undefined symbol is data of another object that
	// the patched build has a copy of and the original has none. Plain loads of it
	// then go through the global offset table. Nil stands for none.
	Elsewhere func(name string) bool
}

// Verdict says what became of a function or object.
type Verdict uint8

// The verdicts.
const (
	Same Verdict = iota
	Changed
	New
	Removed
)

func (v Verdict) String() string { return [...]string{"same", "changed", "new", "removed"}[v] }

// MarshalText writes the verdict in lower case.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (v *Verdict) UnmarshalText(text []byte) error {
	for k := Same; k <= Removed; k++ {
		if k.String() == string(text) {
			*v = k
			return nil
		}
	}
	return fmt.Errorf("verdict %.40q is not known", text)
}

// Difference is the first pair of statements in which two items differ; of
// functions, the first that differ in more than where labels are, if there is
// one. A side that has ended is empty, with the line where the item begins.
type Difference struct {
	Original, Patched         string
	OriginalLine, PatchedLine int // in the assembly, from 1
	// What tells, where both texts are the same, which symbol in them stands for
	// what in the two builds.
	What string `json:",omitempty"`
}

func (d *Difference) String() string {
	text := func(s string) string {
		if s == "" {
			return "its end"
		}
		return strconv.Quote(s)
	}
	if d.What != "" {
		return text(d.Original) + ", in which " + d.What
	}
	return text(d.Original) + " became " + text(d.Patched)
}

// Function is the verdict on one function. Its .cold part is included.
type Function struct {
	Name     string // in the patched build, or in the original if Removed
	Original string // in the original build, or "" if New
	Verdict  Verdict
	Reason   Reasons     // none if Same
	First    *Difference // if Changed
}

// Datum is the verdict on one named object.
type Datum struct {
	Name, Original string
	Verdict        Verdict
	Reason         Reasons // none if Same
	First          *Difference
	Carried        bool // the patch has a copy of its own
	Kept           bool // the running program keeps its value, see Input.Keeps
	// Align is the boundary, in bytes, that a variable which is carried needs; 0
	// of all else.
	Align uint64
}

// Reference is a symbol that Assembly uses and does not define.
type Reference struct {
	Symbol   string // as in Assembly
	Original string // its name in the original unit, or the external name
	Local    bool   // defined as a local symbol of the original unit
}

// ChangeSet is the difference between the builds of one unit.
type ChangeSet struct {
	Unit       string
	Functions  []Function  // of the patched build in text order, then the removed ones
	Data       []Datum     // likewise
	Hooks      []Hook      // in text order
	References []Reference // sorted by symbol
	// Left is of what Leaves was asked, Warnings what else may stay in use.
	Left, Warnings []string
	Producer       string // compiler, from .ident
	Assembly       []byte // nil if nothing changed
}

// Refusal is one reason why a unit cannot be patched.
type Refusal struct {
	Unit   string
	Name   string // function, object or section
	Line   int    // in the assembly of the patched build, or with InOriginal of the original; 0 if unknown
	Reason string
	Hint   string // what the author can do, or ""
	// InOriginal is set if Line is in the assembly of the original build.
	InOriginal bool
	// Source is the place in the source, if debug data tells it: a file, in the
	// tree of the fix if it is there, and a line.
	Source     string
	SourceLine int
	// Text is the name of the file that Line is of. The differ does not know it:
	// the caller may set it.
	Text string
}

func (r Refusal) String() string {
	s := r.Unit
	switch {
	case r.Source == "":
	case r.Source == r.Unit:
		s += fmt.Sprintf(":%d", r.SourceLine)
	default:
		s += fmt.Sprintf(": %s:%d", r.Source, r.SourceLine)
	}
	if r.Name != "" {
		s += ": " + r.Name
	}
	s += ": " + r.Reason
	if r.Source == "" && r.Line > 0 {
		s += fmt.Sprintf(" (line %d of the assembly text", r.Line)
		if r.Text != "" {
			s += " " + r.Text
		}
		s += ")"
	}
	return s
}

// RefusalError says that the difference is not one that can be made into a
// patch, with every reason at once.
type RefusalError struct{ Refusals []Refusal }

func (e *RefusalError) Error() string {
	lines := make([]string, len(e.Refusals))
	for i, r := range e.Refusals {
		lines[i] = r.String()
	}
	return strings.Join(lines, "\n")
}

// Hints returns what the author can do, each hint once.
func (e *RefusalError) Hints() []string {
	var hints []string
	seen := make(map[string]bool)
	for _, r := range e.Refusals {
		if r.Hint != "" && !seen[r.Hint] {
			seen[r.Hint] = true
			hints = append(hints, r.Hint)
		}
	}
	return hints
}
