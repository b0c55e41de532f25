package semantic

import (
	"debug/dwarf"
	"slices"
	"strings"
)

// reach is how an entry's type leads to another type.
type reach uint8

const (
	not     reach = iota
	pointed       // through a pointer or a reference
	inside        // an object of the one holds one of the other
)

// within returns the types of t that hold an object of type x, and x.
func (t *tree) within(x int32) map[int32]bool {
	set := map[int32]bool{x: true}
	for grown := true; grown; {
		grown = false
		for k := range t.nodes {
			n := &t.nodes[k]
			if n.tag != dwarf.TagMember && n.tag != dwarf.TagInheritance || n.external || n.decl || n.parent < 0 || set[n.parent] {
				continue
			}
			if t.reaches(n.typ, set, 0) == inside {
				set[n.parent], grown = true, true
			}
		}
	}
	return set
}

// reaches says how the type at off leads to one of set, without going into
// types that have a name.
func (t *tree) reaches(off dwarf.Offset, set map[int32]bool, depth int) reach {
	i := t.local(off)
	if i < 0 || depth > maxChain {
		return not
	}
	if set[i] {
		return inside
	}
	n := &t.nodes[i]
	switch tag := n.tag; {
	case tag == dwarf.TagTypedef, qualifier(tag), tag == tagAtomic, tag == dwarf.TagArrayType:
		return t.reaches(n.typ, set, depth+1)
	case tag == dwarf.TagPointerType, tag == dwarf.TagReferenceType, tag == dwarf.TagRvalueReferenceType, tag == dwarf.TagPtrToMemberType:
		if t.reaches(n.typ, set, depth+1) != not {
			return pointed
		}
	case tag == dwarf.TagSubroutineType:
		best := t.reaches(n.typ, set, depth+1)
		for k := range t.children(i) {
			best = max(best, t.reaches(t.nodes[k].typ, set, depth+1))
		}
		return min(best, pointed)
	}
	return not
}

// holder is the function with code that entry i is in, or -1.
func (t *tree) holder(i int32) int32 {
	for i = t.nodes[i].parent; i >= 0; i = t.nodes[i].parent {
		if t.nodes[i].tag == dwarf.TagSubprogram {
			return i
		}
	}
	return -1
}

// users fills in who uses type x of the original build, which is within set.
func (c *comparison) users(x int32, set map[int32]bool, ch *Change) {
	t := c.a
	functions, variables, types := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for k := range t.nodes {
		i := int32(k)
		n := &t.nodes[i]
		if n.typ == 0 || t.reaches(n.typ, set, 0) == not {
			continue
		}
		switch n.tag {
		case dwarf.TagMember, dwarf.TagInheritance:
			if title := t.title(n.parent); title != "" && n.parent != x {
				types[title] = true
			}
		case dwarf.TagVariable:
			if t.isStatic(i) || t.holder(i) < 0 {
				variables[t.qualified(i, (ref{t, i}).name())] = true
				continue
			}
			t.addFunction(functions, t.holder(i))
		case dwarf.TagFormalParameter, dwarf.TagSubprogram:
			at := i
			if n.tag == dwarf.TagFormalParameter {
				at = t.holder(i)
			}
			t.addFunction(functions, at)
		}
	}
	ch.Functions, ch.Variables, ch.Types = sorted(functions), sorted(variables), sorted(types)
}

// addFunction notes a function that is not only declared.
func (t *tree) addFunction(set map[string]bool, i int32) {
	if i >= 0 && !t.nodes[i].decl {
		if name := (ref{t, i}).name(); name != "" {
			set[name] = true
		}
	}
}

func sorted(set map[string]bool) []string {
	var list []string
	for s := range set {
		list = append(list, s)
	}
	slices.Sort(list)
	return list
}

// languages of C: DW_LANG_C89, C, C99, C11.
var languageC = []int64{0x01, 0x02, 0x0c, 0x1d}

// harmless reports whether the debug data proves that no object of type x is
// there when the patch goes in or out: see the package's documentation.
func (c *comparison) harmless(t *tree, x int32, set map[int32]bool) bool {
	if t.nodes[x].tag == dwarf.TagEnumerationType || !slices.Contains(languageC, t.u.lang) || !strings.Contains(t.u.producer, "clang") {
		return false
	}
	return c.local(t, set)
}

// local reports whether the types of set are only those of variables that end
// with calls that the patch replaces.
func (c *comparison) local(t *tree, set map[int32]bool) bool {
	holders := map[int32]bool{}
	for k := range t.nodes {
		i := int32(k)
		n := &t.nodes[i]
		if n.typ == 0 {
			continue
		}
		how := t.reaches(n.typ, set, 0)
		switch {
		case how == not || how == inside && (n.tag == dwarf.TagTypedef || qualifier(n.tag) || n.tag == dwarf.TagArrayType || set[n.parent]):
			continue
		case how == pointed || n.tag != dwarf.TagVariable || t.isStatic(i) || t.holder(i) < 0:
			return false
		}
		holders[t.holder(i)] = true
	}
	return len(holders) > 0 && c.replaced(t, holders)
}

// replaced reports whether all code of the given functions is replaced, that
// which was inlined elsewhere too.
func (c *comparison) replaced(t *tree, holders map[int32]bool) bool {
	for k := range t.nodes {
		i := int32(k)
		n := &t.nodes[i]
		holds := holders[i] || n.origin != 0 && t.local(n.origin) >= 0 && holders[t.local(n.origin)]
		at := i
		switch {
		case !holds || n.tag != dwarf.TagSubprogram && n.tag != dwarf.TagInlinedSubroutine:
			continue
		case n.tag == dwarf.TagInlinedSubroutine:
			at = t.holder(i)
		case n.abstract && !n.hasCode:
			continue // its copies count
		}
		if at < 0 || !c.Replaced((ref{t, at}).symbol()) {
			return false
		}
	}
	return true
}
