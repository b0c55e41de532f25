package differ

import (
	"strings"

	"github.com/fother/fother/differ/asm"
	"github.com/fother/fother/specs/arch"
)

// Use is a place of a unit that names a function.
type Use struct {
	By       string // the function or object that names it, or its section
	Function bool   // By is a function
	// Call is set for a call or a jump, not for the address.
	Call bool
}

// Uses returns who names one of the given symbols in a unit, or what compilers
// make of them, such as parse.isra.0. Debug data names nothing. Errors are those
// of [asm.Parse].
func Uses(unit string, a *arch.Arch, text []byte, symbols []string) ([]Use, error) {
	if !mentions(string(text), symbols) {
		return nil, nil
	}
	d, err := asm.DialectOf(a)
	if err != nil {
		return nil, err
	}
	u, err := asm.Parse(unit, string(text), d)
	if err != nil {
		return nil, err
	}
	s, _ := survey(u)
	var uses []Use
	for k := range s.Items {
		i := int32(k)
		by := Use{By: s.names[s.parent[i]], Function: s.roles[i] == function || s.roles[i] == part}
		if by.By == "" {
			by.By = s.SectionOf(i).Name
		}
		for r := range s.references(i) {
			if isNamed(r.Name(r.text), symbols) && !(r.Kind == asm.Mark || r.Kind == asm.CFI) {
				by.Call = r.Branch
				uses = append(uses, by)
			}
		}
	}
	return uses, nil
}

// mentions reports whether a text may name one of the symbols.
func mentions(text string, symbols []string) bool {
	for _, s := range symbols {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// isNamed reports whether a name is one of the symbols or was made of it.
func isNamed(name string, symbols []string) bool {
	for _, s := range symbols {
		if rest, ok := strings.CutPrefix(name, s); ok && (rest == "" || rest[0] == '.') {
			return true
		}
	}
	return false
}
