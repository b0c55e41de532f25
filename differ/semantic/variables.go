package semantic

import (
	"crypto/sha256"
	"debug/dwarf"
	"encoding/binary"
	"fmt"
	"strings"
)

// Storage is what debug data tells of a variable with storage of its own.
type Storage struct {
	// Scope is the function that it is static in, or empty.
	Scope string
	// Type is its type as C writes it, Layout identifies it: the same if and only
	// if it and all types that it leads to have the same members at the same places.
	Type   string
	Layout [sha256.Size]byte
}

// Variables returns what is told of the variables of a unit, which has the given
// source, an absolute path, by their symbols. What is not told, or of several
// things that have one name, is left out.
func (p *Program) Variables(source string, symbols []string) (map[string]Storage, error) {
	at := map[uint64]string{}
	for _, s := range symbols {
		for _, a := range p.places[s] {
			at[a] = s
		}
	}
	found := map[string]Storage{}
	twice := map[string]bool{}
	for _, u := range p.units {
		if u.source != source || len(at) == 0 {
			continue
		}
		t, err := p.load(u)
		if err != nil {
			return nil, err
		}
		t.statics(func(_ string, i int32) {
			a, ok := t.address(i)
			symbol := at[a]
			if !ok || symbol == "" {
				return
			}
			_, function := t.scope(i)
			typ := (ref{t, i}).typ()
			_, have := found[symbol]
			twice[symbol] = twice[symbol] || have
			found[symbol] = Storage{Scope: function, Type: typ.show(0), Layout: sha256.Sum256([]byte(typ.closure()))}
		})
		u.drop()
	}
	for s := range twice {
		if twice[s] {
			delete(found, s)
		}
	}
	return found, nil
}

// address returns the link-time address of a variable with storage.
func (t *tree) address(i int32) (uint64, bool) {
	r := t.p.data.Reader()
	r.Seek(t.nodes[i].off)
	e, err := r.Next()
	if err != nil || e == nil {
		return 0, false
	}
	expr, _ := e.Val(dwarf.AttrLocation).([]byte)
	switch {
	case len(expr) == 9 && expr[0] == opAddr:
		return le.Uint64(expr[1:]), true
	case len(expr) > 1 && (expr[0] == opAddrx || expr[0] == opGNUAddrIndex):
		n, size := binary.Uvarint(expr[1:])
		base, _ := t.u.entry.Val(dwarf.AttrAddrBase).(int64)
		if size != len(expr)-1 || base < 0 || base > int64(len(t.p.addresses)) || n >= uint64(len(t.p.addresses)-int(base))/8 {
			return 0, false
		}
		return le.Uint64(t.p.addresses[uint64(base)+8*n:]), true
	}
	return 0, false
}

// maxClosure bounds the types that one leads to.
const maxClosure = 1 << 14

// closure writes a type with all that it leads to, so that those of two builds are
// the same if and only if the texts are, as far as they go.
func (r ref) closure() string {
	var b strings.Builder
	b.WriteString(r.canon(0))
	seen := map[ref]bool{}
	queue := []ref{r}
	for len(queue) > 0 && len(seen) < maxClosure {
		at := queue[0].defined()
		queue = queue[1:]
		if at.t == nil || seen[at] {
			continue
		}
		seen[at] = true
		n := at.node()
		if defines(n.tag) {
			fmt.Fprintf(&b, "\n%s = %s", at.canon(0), at.contents())
		}
		for _, m := range at.members() {
			queue = append(queue, m.r.typ())
		}
		if !defines(n.tag) {
			queue = append(queue, at.typ())
			for _, p := range at.parameters() {
				queue = append(queue, p.typ())
			}
		}
	}
	return b.String()
}

// defined removes typedefs and qualifiers, and leads from a declaration to the
// definition, if the unit has it.
func (r ref) defined() ref {
	r = r.plain()
	if r.t == nil || !r.node().decl {
		return r
	}
	if i, ok := r.t.byKey[r.t.key[r.i]]; ok {
		return ref{r.t, i}
	}
	return r
}

// contents writes what an aggregate or an enumeration consists of, with names.
func (r ref) contents() string {
	n := r.node()
	parts := []string{fmt.Sprintf("%s%d", strings.Replace(word(n.tag), "class ", "struct ", 1), n.size)}
	for _, m := range r.members() {
		parts = append(parts, fmt.Sprintf("%s %s %s", m.name, m.where(), m.r.typ().canon(0)))
	}
	for k := range r.t.children(r.i) {
		if e := &r.t.nodes[k]; e.tag == dwarf.TagEnumerator {
			parts = append(parts, fmt.Sprintf("%s %d", e.name, e.value))
		}
	}
	return strings.Join(parts, "; ")
}
