package semantic

import (
	"debug/dwarf"
	"fmt"
	"strings"
	"sync"
)

// types is what a tree knows of its types.
type types struct {
	// key has the names by which types are found in the other build, of
	// aggregates and enumerations that have one, defined or declared.
	key    map[int32]string
	byKey  map[string]int32 // definitions
	order  []int32          // of byKey
	canons map[int32]string
	mu     sync.Mutex // of canons
}

func aggregate(tag dwarf.Tag) bool {
	return tag == dwarf.TagStructType || tag == dwarf.TagUnionType || tag == dwarf.TagClassType
}

func defines(tag dwarf.Tag) bool { return aggregate(tag) || tag == dwarf.TagEnumerationType }

// word is what a declaration of the kind begins with.
func word(tag dwarf.Tag) string {
	switch tag {
	case dwarf.TagUnionType:
		return "union "
	case dwarf.TagEnumerationType:
		return "enum "
	case dwarf.TagClassType:
		return "class "
	}
	return "struct "
}

// scope returns what stands before the name of entry i, and the function that
// it is in.
func (t *tree) scope(i int32) (prefix, function string) {
	if r := (ref{t, i}); r.node().name == "" && r.node().origin != 0 || r.node().origin != 0 && r.node().parent == 0 {
		if o := t.local(r.node().origin); o >= 0 {
			i = o
		}
	}
	for n := t.nodes[i].parent; n > 0; n = t.nodes[n].parent {
		e := &t.nodes[n]
		switch {
		case e.tag == dwarf.TagSubprogram || e.tag == dwarf.TagInlinedSubroutine:
			return prefix, t.localName(n)
		case e.tag == dwarf.TagNamespace && e.name == "":
			prefix = "(anonymous)::" + prefix
		case e.tag == dwarf.TagNamespace || defines(e.tag):
			if name := t.localName(n); name != "" {
				prefix = name + "::" + prefix
			}
		}
	}
	return prefix, ""
}

// local returns the index of an entry of this unit, or -1.
func (t *tree) local(off dwarf.Offset) int32 {
	if off < t.u.off || off >= t.u.end {
		return -1
	}
	if r := t.find(off); r.t == t {
		return r.i
	}
	return -1
}

// localName is the name of an entry, as far as this unit tells it.
func (t *tree) localName(i int32) string {
	for n := 0; i >= 0 && n < maxChain; n++ {
		if t.nodes[i].name != "" {
			return t.nodes[i].name
		}
		i = t.local(t.nodes[i].origin)
	}
	return ""
}

// qualified is the name of entry i with its scope.
func (t *tree) qualified(i int32, name string) string {
	prefix, function := t.scope(i)
	if function != "" {
		return prefix + name + " in " + function
	}
	return prefix + name
}

// index finds the types that have a name. It follows no reference to other
// units.
func (t *tree) index() {
	t.key, t.byKey, t.canons = map[int32]string{}, map[string]int32{}, map[int32]string{}
	for k := range t.nodes {
		i := int32(k)
		switch n := &t.nodes[i]; {
		case defines(n.tag):
			if name := t.localName(i); name != "" {
				t.setKey(i, strings.Replace(word(n.tag), "class ", "struct ", 1)+t.qualified(i, name))
			}
		case n.tag == dwarf.TagTypedef && n.name != "":
			if to := t.bare(i); to >= 0 && defines(t.nodes[to].tag) && t.localName(to) == "" && t.key[to] == "" {
				t.setKey(to, "typedef "+t.qualified(i, n.name))
			}
		}
	}
}

func (t *tree) setKey(i int32, key string) {
	if !t.nodes[i].decl {
		for n := 2; ; n++ { // blocks of one function may each have one
			if _, taken := t.byKey[key]; !taken {
				break
			}
			key = fmt.Sprintf("%s (%d)", strings.TrimSuffix(key, fmt.Sprintf(" (%d)", n-1)), n)
		}
		t.byKey[key] = i
		t.order = append(t.order, i)
	}
	t.key[i] = key
}

// bare returns what a typedef or a qualified type stands for in this unit, one
// typedef deep, or -1.
func (t *tree) bare(i int32) int32 {
	for n := 0; n < maxChain; n++ {
		i = t.local(t.nodes[i].typ)
		if i < 0 || !qualifier(t.nodes[i].tag) {
			return i
		}
	}
	return -1
}

func qualifier(tag dwarf.Tag) bool {
	switch tag {
	case dwarf.TagConstType, dwarf.TagVolatileType, dwarf.TagRestrictType, dwarf.TagPackedType, dwarf.TagSharedType:
		return true
	}
	return false
}

// plain removes typedefs and qualifiers.
func (r ref) plain() ref {
	for n := 0; r.t != nil && n < maxChain && (qualifier(r.node().tag) || r.node().tag == dwarf.TagTypedef); n++ {
		r = r.typ()
	}
	return r
}

// constant reports whether an object of the type cannot be written to.
func (r ref) constant() bool {
	for n := 0; r.t != nil && n < maxChain; n++ {
		switch tag := r.node().tag; {
		case tag == dwarf.TagConstType:
			return true
		case qualifier(tag), tag == dwarf.TagTypedef, tag == dwarf.TagArrayType:
			r = r.typ()
		default:
			return false
		}
	}
	return false
}

// maxDepth bounds how deep types without a name may be nested.
const maxDepth = 48

// canon writes a type so that types of two builds are the same if and only if
// the texts are.
func (r ref) canon(depth int) string {
	r = r.plain()
	if r.t == nil {
		return "void"
	}
	if key := r.t.key[r.i]; key != "" {
		return key
	}
	if depth > maxDepth {
		return "…"
	}
	return r.structure(depth + 1)
}

// canonOf is canon of the type of entry i of t, remembered.
func (t *tree) canonOf(i int32) string {
	off := t.local((ref{t, i}).node().typ)
	if off < 0 {
		return (ref{t, i}).typ().canon(0)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.canons[off]
	if !ok {
		c = (ref{t, off}).canon(0)
		t.canons[off] = c
	}
	return c
}

func (r ref) structure(depth int) string {
	n := r.node()
	switch n.tag {
	case dwarf.TagBaseType:
		return fmt.Sprintf("base %d:%d", n.value, n.size)
	case dwarf.TagPointerType:
		return "*" + r.typ().canon(depth)
	case dwarf.TagReferenceType:
		return "&" + r.typ().canon(depth)
	case dwarf.TagRvalueReferenceType:
		return "&&" + r.typ().canon(depth)
	case tagAtomic:
		return "atomic " + r.typ().canon(depth)
	case dwarf.TagArrayType:
		return r.bounds() + r.typ().canon(depth)
	case dwarf.TagSubroutineType, dwarf.TagSubprogram:
		return r.signature(depth)
	case dwarf.TagEnumerationType:
		return fmt.Sprintf("enum:%d", n.size)
	}
	if !aggregate(n.tag) {
		return fmt.Sprintf("%v %s:%d %s", n.tag, n.name, n.size, r.typ().canon(depth))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s%d{", word(n.tag), n.size)
	for _, m := range r.members() {
		fmt.Fprintf(&b, "%s:%s;", m.where(), m.r.typ().canon(depth))
	}
	return b.String() + "}"
}

// bounds writes the sizes of an array.
func (r ref) bounds() string {
	var b strings.Builder
	for k := range r.t.children(r.i) {
		if n := &r.t.nodes[k]; n.tag == dwarf.TagSubrangeType || n.tag == dwarf.TagEnumerationType {
			if n.count < 0 {
				b.WriteString("[]")
			} else {
				fmt.Fprintf(&b, "[%d]", n.count)
			}
		}
	}
	return b.String()
}

// signature writes what a call of a function has to know.
func (r ref) signature(depth int) string {
	parts := []string{}
	for _, p := range r.parameters() {
		if p.node().tag == dwarf.TagUnspecifiedParameters {
			parts = append(parts, "...")
		} else {
			parts = append(parts, p.typ().canon(depth))
		}
	}
	return r.typ().canon(depth) + "(" + strings.Join(parts, ", ") + ")"
}

// parameters are those of a function or function type, and for a function that
// completes a declaration, of what says them.
func (r ref) parameters() []ref {
	var list []ref
	for n := 0; r.t != nil && n < maxChain; n++ {
		for k := range r.t.children(r.i) {
			if tag := r.t.nodes[k].tag; tag == dwarf.TagFormalParameter || tag == dwarf.TagUnspecifiedParameters {
				list = append(list, ref{r.t, k})
			}
		}
		if len(list) > 0 && r.node().origin == 0 {
			return list
		}
		next := r.t.find(r.node().origin)
		if next.t == nil {
			return list
		}
		r, list = next, nil
	}
	return list
}

// show writes a type for a person, as C does.
func (r ref) show(depth int) string {
	if r.t == nil {
		return "void"
	}
	n := r.node()
	if depth > 8 {
		return "…"
	}
	switch n.tag {
	case dwarf.TagConstType:
		return "const " + r.typ().show(depth+1)
	case dwarf.TagVolatileType:
		return "volatile " + r.typ().show(depth+1)
	case dwarf.TagRestrictType:
		return r.typ().show(depth + 1)
	case tagAtomic:
		return "_Atomic " + r.typ().show(depth+1)
	case dwarf.TagPointerType:
		to := r.typ().show(depth + 1)
		return strings.TrimSuffix(to, " ") + space(to) + "*"
	case dwarf.TagReferenceType:
		return r.typ().show(depth+1) + " &"
	case dwarf.TagRvalueReferenceType:
		return r.typ().show(depth+1) + " &&"
	case dwarf.TagArrayType:
		return r.typ().show(depth+1) + r.bounds()
	case dwarf.TagSubroutineType, dwarf.TagSubprogram:
		return r.showCall(depth + 1)
	}
	name := r.name()
	switch {
	case defines(n.tag) && name == "":
		if key := r.t.key[r.i]; key != "" {
			return strings.TrimPrefix(key, "typedef ")
		}
		return word(n.tag) + "{…}"
	case defines(n.tag):
		return word(n.tag) + name
	case name == "":
		return n.tag.String()
	}
	return name
}

// space stands before a *, but for another.
func space(s string) string {
	if strings.HasSuffix(s, "*") {
		return ""
	}
	return " "
}

func (r ref) showCall(depth int) string {
	var parts []string
	for _, p := range r.parameters() {
		if p.node().tag == dwarf.TagUnspecifiedParameters {
			parts = append(parts, "...")
		} else {
			parts = append(parts, p.typ().show(depth))
		}
	}
	if len(parts) == 0 {
		parts = []string{"void"}
	}
	return r.typ().show(depth) + "(" + strings.Join(parts, ", ") + ")"
}
