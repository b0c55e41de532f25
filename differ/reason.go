package differ

import (
	"slices"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// maxNamed bounds how many functions a reason names.
const maxNamed = 4

// calls says which functions the changed function y calls that x did not, and
// the other way round: what was inlined, specialised, added or left out.
func (p *plan) calls(x, y int32) string {
	before, after := p.a.callees(x), p.b.callees(y)
	return list("; no longer calls ", before, after) + list("; now calls ", after, before)
}

// list names what is in some and not in others, after the given words.
func list(words string, some, others []string) string {
	only := slices.DeleteFunc(slices.Clone(some), func(s string) bool { return slices.Contains(others, s) })
	switch {
	case len(only) == 0:
		return ""
	case len(only) > maxNamed:
		return words + strings.Join(only[:maxNamed], ", ") + ", …"
	}
	return words + strings.Join(only, ", ")
}

// callees returns what function i and its parts call or jump to, by stem,
// sorted.
func (s *side) callees(i int32) []string {
	var names []string
	var refs []asm.Ref
	for _, item := range append([]int32{i}, s.parts[i]...) {
		for _, st := range s.Items[item].Stmts {
			text := s.TextOf(st)
			refs = s.Dialect.Refs(refs[:0], st.Kind, text)
			for _, r := range refs {
				if name := r.Name(text); r.Branch && !asm.IsLocalLabel(name) {
					names = append(names, stem(name))
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
