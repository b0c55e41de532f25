package verify

import (
	"fmt"

	"github.com/fother/fother/specs"
)

// Verdict says what became of a function or an object.
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

// Difference is the first difference between two functions or objects.
type Difference struct {
	// Function is the symbol that the offsets count from: the function, its
	// cold part, or the object.
	Function string `json:"function"`
	// OriginalOffset and PatchedOffset are in bytes.
	OriginalOffset uint64 `json:"original_offset"`
	PatchedOffset  uint64 `json:"patched_offset"`
	// Original and Patched say what is there, for a person.
	Original string `json:"original"`
	Patched  string `json:"patched"`
}

func (d *Difference) String() string {
	return fmt.Sprintf("%s: %s (+%#x) became %s (+%#x)", d.Function, d.Original, d.OriginalOffset, d.Patched, d.PatchedOffset)
}

// Function is the verdict on one function, with its cold parts.
type Function struct {
	// Name is its name in the patched build, in the original if Removed.
	Name string `json:"name"`
	// Original is its name in the original build, "" if New.
	Original string `json:"original,omitempty"`
	// File is the source file of a local function, "" if not known.
	File    string      `json:"file,omitempty"`
	Verdict Verdict     `json:"verdict"`
	First   *Difference `json:"first,omitempty"` // if Changed
	// OriginalRange and PatchedRange are the link-time addresses of its main
	// part in the two builds, empty on the side that does not have it.
	OriginalRange specs.Range[specs.VAddr] `json:"-"`
	PatchedRange  specs.Range[specs.VAddr] `json:"-"`
	// Reached is set for a new function that the program can come to: the
	// address is used by other code or by data.
	Reached bool `json:"reached,omitempty"`

	// doubt says why a changed function may be another one than its pair.
	doubt string

	left, right *entity
}

// Datum is the verdict on one named object, or on a section that is a table of
// functions that the dynamic linker calls.
type Datum struct {
	Name     string      `json:"name"`
	Original string      `json:"original,omitempty"`
	File     string      `json:"file,omitempty"`
	Verdict  Verdict     `json:"verdict"`
	First    *Difference `json:"first,omitempty"`
	// ReadOnly is set for constants.
	ReadOnly bool `json:"read_only,omitempty"`
	// Users are the functions of the patched build that refer to it, of the
	// original if Removed, sorted.
	Users []string `json:"users,omitempty"`

	left, right *entity
}

// Report is what [Compare] found.
type Report struct {
	// Functions and Data are those of the patched build by address, then the
	// removed ones of the original.
	Functions []Function `json:"functions"`
	Data      []Datum    `json:"data"`

	c *comparison
}

// Changes calls yield for each function that is not the same.
func (r *Report) Changes() func(yield func(*Function) bool) {
	return func(yield func(*Function) bool) {
		for i := range r.Functions {
			if r.Functions[i].Verdict != Same && !yield(&r.Functions[i]) {
				return
			}
		}
	}
}
