package kpack

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/fother/fother/specs"
)

// Variable is a writable object that a patch brings. A newer level of the patch
// goes on with the one that the older level put into the process, if the two
// agree in all that is told here.
type Variable struct {
	// Name is that of its symbol without numbers that the compiler added.
	Name string `json:"name"`
	// Unit is the unit that defines it. Only the unit's own code can name it
	// unless it is Global.
	Unit   string `json:"unit"`
	Global bool   `json:"global,omitempty"`
	// Numbered is set if the compiler added a number: it is static in a block, and
	// there may be others of the name. Scope is then the function around it, if
	// debug data tells, and Users are the functions and objects of the patch that refer to it.
	Numbered bool     `json:"numbered,omitempty"`
	Scope    string   `json:"scope,omitempty"`
	Users    []string `json:"users,omitempty"`
	Size     uint64   `json:"size"`  // bytes
	Align    uint64   `json:"align"` // bytes, what its address is a multiple of
	// Type is what debug data calls its type, for people, and Layout identifies it
	// with all types that it leads to. Both are zero if there is no debug data.
	Type   string        `json:"type,omitempty"`
	Layout *specs.Digest `json:"layout,omitempty"`
	// Initial identifies the value that it begins with.
	Initial specs.Digest `json:"initial"`
	// Fresh is set if the level begins with a copy of its own, whatever an older
	// one has.
	Fresh bool `json:"fresh,omitempty"`
	// Joined is set if code reaches it by the distance from another object, so
	// that it can be elsewhere only with all such variables of its unit and section, and
	// as far from each (section anchors).
	Joined bool `json:"joined,omitempty"`
	// Symbol is the index in Patch.Symbols.
	Symbol int `json:"symbol"`
}

// BuildVariable is what is known of a variable that a unit brings, beside its
// object.
type BuildVariable struct {
	Symbol string // in the unit's object
	Align  uint64 // bytes, 0 if not known
	// Scope, Type and Layout are those of Variable.
	Scope, Type string
	Layout      *specs.Digest
}

// Bounds of what a patch tells of its variables.
const (
	maxVariables = 4096
	maxUsers     = 16
)

var errManyVariables = fmt.Errorf("it brings more than %d variables", maxVariables)

// origin is where a symbol of the patch comes from.
type origin struct {
	unit   int // from 1 on
	symbol string
	global bool
}

// variables lists the writable objects of the patch.
func (b *builder) variables() error {
	p := b.patch
	told := map[origin]BuildVariable{}
	for i, u := range b.in.Units {
		for _, v := range u.Variables {
			told[origin{unit: i + 1, symbol: v.Symbol}] = v
		}
	}
	joined, used := b.joined(), p.used()
	taken := map[place]bool{}
	for i, s := range p.Symbols {
		at, from := place{s.Section, s.Value}, b.origins[i]
		if !p.variable(s) || b.idle(s) && !used[i] || taken[at] {
			continue
		}
		taken[at] = true
		known := told[origin{unit: from.unit, symbol: s.Name}]
		v := Variable{
			Unit: unitName(b.in.Units[from.unit-1].Name), Global: from.global, Size: s.Size, Align: known.Align,
			Type: known.Type, Layout: known.Layout, Initial: p.initial(s), Symbol: i, Joined: joined[joint{from.unit, s.Section}],
		}
		if v.Name, v.Numbered = plainName(strings.TrimSuffix(s.Name, carriedSuffix)); v.Numbered {
			v.Scope, v.Users = known.Scope, p.users(s)
		}
		if v.Align == 0 {
			v.Align = p.usualAlign(s)
		}
		p.Variables = append(p.Variables, v)
	}
	if len(p.Variables) > maxVariables {
		return &RefusalError{[]error{&Refusal{Err: hint("make patches of several series of the fix", errManyVariables)}}}
	}
	b.fresh()
	return nil
}

// variable reports whether s is a writable object of the patch. The compiler's
// own words for exception tables, which hold the address of a function, are none.
func (p *Patch) variable(s Symbol) bool {
	return s.Binding == Carried && !s.Func && s.Thread == nil && s.Size > 0 && s.Name != "" &&
		p.Sections[s.Section].Kind >= Data && !strings.HasPrefix(s.Name, "DW.ref.") && !strings.HasPrefix(s.Name, ".LDFCM")
}

// usualAlign is what the address of s is a multiple of, as far as an object may
// need it of which nothing is told.
func (p *Patch) usualAlign(s Symbol) uint64 {
	const most = 16
	n := s.Value | most
	return min(n&-n, max(1, p.Sections[s.Section].Align))
}

// used reports of each symbol whether something refers to it.
func (p *Patch) used() []bool {
	used := make([]bool, len(p.Symbols))
	for _, s := range p.Sections {
		for _, r := range s.Relocs {
			used[r.Symbol] = true
		}
	}
	return used
}

// joint is a unit's share of a section.
type joint struct{ unit, section int }

// joined are those whose variables are referred to by the place of the section.
func (b *builder) joined() map[joint]bool {
	all := map[joint]bool{}
	for i, used := range b.patch.used() {
		s := b.patch.Symbols[i]
		if used && s.Binding == Carried && s.Name == "" && b.patch.Sections[s.Section].Kind >= Data {
			all[joint{b.origins[i].unit, s.Section}] = true
		}
	}
	return all
}

// fresh marks the variables that are to begin anew, with their guards.
func (b *builder) fresh() {
	for i := range b.patch.Variables {
		v := &b.patch.Variables[i]
		v.Fresh = slices.Contains(b.in.Fresh, v.Name) || slices.Contains(b.in.Fresh, guarded(v.Name))
	}
}

// guarded returns the variable that a guard is for, or "": a variable of its own
// that says whether it was initialised (Itanium C++ ABI, 5.1.5.2, "Guard Variables").
func guarded(name string) string {
	if rest, ok := strings.CutPrefix(name, "_ZGV"); ok {
		return "_Z" + rest
	}
	return ""
}

// VariableName is Variable.Name for a symbol of the patched build.
func VariableName(symbol string) string {
	name, _ := plainName(symbol)
	return name
}

// plainName removes from a symbol's name what compilers add to tell it from
// others: a number, or a mark of link-time optimization with one.
func plainName(symbol string) (name string, numbered bool) {
	parts := strings.Split(symbol, ".")
	kept := parts[:1]
	for i := 1; i < len(parts); i++ {
		switch part := parts[i]; {
		case isNumber(part):
			numbered = true
		case (part == "lto_priv" || part == "llvm") && i+1 < len(parts) && isNumber(parts[i+1]):
			numbered = true
			i++
		default:
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "."), numbered
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// partition matches the names of what link-time optimization compiles at once:
// what is in which may differ from level to level.
var partition = regexp.MustCompile(`\.ltrans[0-9]+`)

func unitName(name string) string {
	if partition.MatchString(name) {
		return "link-time optimization"
	}
	return name
}

// users are the functions and variables that refer to a variable, without what
// compilers append to the names of parts and clones.
func (p *Patch) users(of Symbol) (names []string) {
	for i, s := range p.Sections {
		for _, r := range s.Relocs {
			if to := p.Symbols[r.Symbol]; to.Binding != Carried || to.Section != of.Section || to.Value != of.Value {
				continue
			}
			name, _, _ := strings.Cut(p.symbolAt(place{i, r.Offset}), ".")
			if name != "" && !slices.Contains(names, name) && len(names) < maxUsers {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// symbolAt returns the name of the function or object that has a place, or "".
func (p *Patch) symbolAt(at place) string {
	for _, s := range p.Symbols {
		if s.Binding == Carried && s.Name != "" && s.Section == at.section && at.offset >= s.Value && at.offset-s.Value < s.Size {
			return s.Name
		}
	}
	return ""
}
