package semantic

import (
	"fmt"
	"slices"
	"strings"
)

// Kind says what changed.
type Kind uint8

// The kinds of changes.
const (
	Type       Kind = iota // a struct, union, class or enumeration
	Enumerator             // of an enumeration that has no name
	Variable
	Function
)

// Change is a change that matters to what runs outside a patch, or that was
// there before it.
type Change struct {
	Kind Kind
	// Name is what a person calls it: "struct conn", "variable limit",
	// "function parse".
	Name string
	// Where is FILE:LINE of the patched declaration, or "".
	Where string
	// Details say what changed, each with the old and the new.
	Details []string
	// Functions, Variables and Types use a type that changed, sorted: as
	// parameters, results and variables have it, also inside other types; Types
	// have a field of it, or one that points to it.
	Functions, Variables, Types []string
	// Harmless is set for a type of which no object outlives the functions
	// that the patch replaces.
	Harmless bool
	// Symbols are the names that the linker knows a function by, and Exported
	// is set if other files can call it.
	Symbols  []string
	Exported bool
}

// Report is what [Compare] found.
type Report struct {
	// Changes are sorted by kind and name. One name stands there twice if two
	// units mean two things by it.
	Changes []Change
	// Lines are the source files of units whose debug data has line numbers
	// only.
	Lines []string
	// Units is how many were compared, and Same of how many the text is equal.
	Units, Same int
}

// Bounds on what a message lists.
const (
	maxDetails = 6
	maxUsers   = 8
)

// String says what changed, and who uses it.
func (c *Change) String() string {
	var b strings.Builder
	b.WriteString(c.Name)
	if c.Where != "" {
		fmt.Fprintf(&b, " (%s)", c.Where)
	}
	b.WriteString(": " + Some(c.Details, maxDetails))
	for _, u := range []struct {
		what string
		list []string
	}{{"functions", c.Functions}, {"variables", c.Variables}, {"types", c.Types}} {
		if len(u.list) > 0 {
			fmt.Fprintf(&b, "; used by %s %s", u.what, Some(u.list, maxUsers))
		}
	}
	return b.String()
}

// Some lists at most n of names, and says how many more there are.
func Some(names []string, n int) string {
	if len(names) <= n {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:n], ", "), len(names)-n)
}

// add takes in what one unit says. A change that another unit has too becomes
// one with the users of both.
func (r *Report) add(c Change) {
	for i := range r.Changes {
		o := &r.Changes[i]
		if o.Kind != c.Kind || o.Name != c.Name || !slices.Equal(o.Details, c.Details) {
			continue
		}
		o.Harmless = o.Harmless && c.Harmless
		o.Exported = o.Exported || c.Exported
		o.Functions, o.Variables = union(o.Functions, c.Functions), union(o.Variables, c.Variables)
		o.Types, o.Symbols = union(o.Types, c.Types), union(o.Symbols, c.Symbols)
		return
	}
	r.Changes = append(r.Changes, c)
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
