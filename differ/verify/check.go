package verify

import (
	"fmt"
	"slices"

	"github.com/fother/fother/specs"
)

// Covered is what a patch says that it changes, and what was refused or
// allowed by name.
type Covered struct {
	// Functions are those that the patch redirects.
	Functions []CoveredFunction
	// Carried are the names, as in the patched build, of functions and objects
	// that the patch brings along.
	Carried []string
	// Refused are the names of functions and objects, and sections such as
	// .init_array, that change without the patch changing them, and of which
	// the author knows.
	Refused []string
	// Kept are the variables whose initial value changed and that keep what they
	// have in a running program.
	Kept []KeptDatum
}

// KeptDatum is a variable of which only the initial value changed.
type KeptDatum struct {
	Name     string `json:"name"`     // in the patched build
	Original string `json:"original"` // in the original build
	// File is the unit's symbol of type STT_FILE in the original build, "" if it has none.
	File string `json:"file"`
}

// CoveredFunction is a function that the patch redirects.
type CoveredFunction struct {
	Name     string // in the original build
	Original specs.Range[specs.VAddr]
}

// Finding is one thing in which patch and report disagree.
type Finding struct {
	Name   string `json:"name"`
	File   string `json:"file,omitempty"`
	Reason string `json:"reason"`
}

func (f Finding) String() string {
	if f.File != "" {
		return fmt.Sprintf("%s (%s): %s", f.Name, f.File, f.Reason)
	}
	return f.Name + ": " + f.Reason
}

// Findings is what [Check] found, sorted by name.
type Findings struct {
	// Missing is what changed and is neither covered nor refused.
	Missing []Finding `json:"missing,omitempty"`
	// Needless is what the patch redirects though it is the same.
	Needless []Finding `json:"needless,omitempty"`
}

// Check holds a report against what a patch covers.
func Check(r *Report, c Covered) Findings {
	k := &checker{c: c, at: map[specs.VAddr]CoveredFunction{}, taken: map[*entity]bool{}}
	for _, f := range c.Functions {
		k.at[f.Original.Lo] = f
	}
	for i := range r.Data {
		k.datum(&r.Data[i])
	}
	for i := range r.Functions {
		k.function(&r.Functions[i])
	}
	known := map[specs.VAddr]bool{}
	for i := range r.Functions {
		if f := &r.Functions[i]; f.left != nil {
			known[f.OriginalRange.Lo] = true
		}
	}
	for _, f := range c.Functions {
		if !known[f.Original.Lo] {
			k.miss(f.Name, "", fmt.Sprintf("the patch redirects %v, where the original has no function", f.Original))
		}
	}
	sortFindings(k.out.Missing)
	sortFindings(k.out.Needless)
	return k.out
}

type checker struct {
	c  Covered
	at map[specs.VAddr]CoveredFunction
	// taken are functions that have to be in the patch because of a constant.
	taken map[*entity]bool
	out   Findings
}

func (k *checker) miss(name, file, reason string) {
	k.out.Missing = append(k.out.Missing, Finding{name, file, reason})
}

func (k *checker) refused(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(k.c.Refused, n) })
}

// kept reports whether d is a variable that keeps its value: of a static one
// the file has to be the same, if the linked build tells it.
func (k *checker) kept(d *Datum) bool {
	if d.Verdict != Changed || d.ReadOnly || d.left == nil || d.right == nil { // lists and thread-local storage have no entity
		return false
	}
	return d.left.size == d.right.size && slices.ContainsFunc(k.c.Kept, func(v KeptDatum) bool {
		return d.right.called(v.Name) && d.left.called(v.Original) && (d.File == "" || v.File == "" || d.File == v.File)
	})
}

func (k *checker) function(f *Function) {
	covered, ok := k.at[f.OriginalRange.Lo]
	ok = ok && f.left != nil
	switch f.Verdict {
	case Same:
		if ok && !k.taken[f.right] {
			k.out.Needless = append(k.out.Needless, Finding{f.Name, f.File, "is the same in both builds"})
		}
	case Changed:
		switch {
		case ok && f.doubt != "" && !k.refused(f.Name, f.Original):
			k.miss(f.Name, f.File, "the patch redirects it, but "+f.doubt)
		case ok && covered.Original != f.OriginalRange:
			k.miss(f.Name, f.File, fmt.Sprintf("the patch has it at %v, the original build at %v", covered.Original, f.OriginalRange))
		case ok && !f.left.called(covered.Name):
			k.miss(f.Name, f.File, fmt.Sprintf("the patch calls what is at %v %s", covered.Original, covered.Name))
		case !ok && !k.refused(f.Name, f.Original):
			k.miss(f.Name, f.File, "changed, but not in the patch: "+f.First.String())
		}
	case New:
		if f.Reached && !k.carries(f.right) && !k.refused(f.Name) {
			k.miss(f.Name, f.File, "is new and used, but not in the patch")
		}
	}
}

// called reports whether name is one of the entity's.
func (e *entity) called(name string) bool {
	return slices.ContainsFunc(e.names, func(n symName) bool { return n.name == name })
}

func (k *checker) carries(e *entity) bool {
	return slices.ContainsFunc(e.names, func(n symName) bool { return slices.Contains(k.c.Carried, n.name) })
}

// datum checks one object. Changed constants are good if the patch carries
// them, and all functions that refer to them.
func (k *checker) datum(d *Datum) {
	if d.Verdict == Same || d.Verdict == Removed || k.refused(d.Name, d.Original) || k.kept(d) {
		return
	}
	switch {
	case d.Verdict == New && (len(d.Users) == 0 || k.carries(d.right)):
	case d.Verdict == New:
		k.miss(d.Name, d.File, "is new and used, but not in the patch")
	case !d.ReadOnly:
		k.miss(d.Name, d.File, "writable data or a table of functions changed: "+d.First.String())
	case !k.carries(d.right):
		k.miss(d.Name, d.File, "a constant changed, but it is not in the patch: "+d.First.String())
	default:
		for _, u := range d.right.usersOf() {
			k.taken[u] = true
			if !k.brings(u) {
				k.miss(u.name(), u.file(), fmt.Sprintf("refers to the constant %s, which changed, but is not in the patch", d.Name))
			}
		}
	}
}

// brings reports whether the patch brings a function of the patched build.
func (k *checker) brings(e *entity) bool {
	if len(e.pairs) == 0 {
		return k.carries(e)
	}
	for _, o := range e.pairs {
		if _, ok := k.at[specs.VAddr(o.addr)]; !ok {
			return false
		}
	}
	return true
}
