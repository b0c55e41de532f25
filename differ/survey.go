package differ

import (
	"iter"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// role says what an item is to a running program.
type role uint8

const (
	function  role = iota
	part           // of a function: its .cold half
	object         // a named variable or constant that keeps its identity
	content        // a string, constant or table that only its content tells
	ordered        // what has neither a name nor a user: compared in order
	exception      // an exception table
)

// none stands for an item that there is not.
const none = -1

// side is one build of the unit.
type side struct {
	*asm.Unit
	roles  []role
	names  []string // of each item: the first that the object file keeps, or ""
	symbol []int32  // of names
	parent []int32  // of parts; of others the item itself
	parts  [][]int32
	pair   []int32 // correlated item of the other side, or none
	// users are the functions and objects that refer to objects whose names
	// are unstable, in order of the first reference.
	users map[int32][]use
	// mentions are what the symbols that folded bodies mention stand for, as far
	// as they were asked for, by reference; known tells.
	mentions []target
	known    []bool
	// lost is set when something refers to a label inside a folded body.
	lost bool
}

// folded reports whether item i is a function whose body was folded.
func (s *side) folded(i int32) bool {
	for _, st := range s.Items[i].Stmts {
		if st.Kind == asm.Folded {
			return true
		}
	}
	return false
}

// survey finds out what each item is.
func survey(u *asm.Unit) (*side, []Refusal) {
	n := len(u.Items)
	s := &side{Unit: u, roles: make([]role, n), names: make([]string, n), symbol: make([]int32, n),
		parent: make([]int32, n), parts: make([][]int32, n), pair: make([]int32, n)}
	for i := range u.Items {
		s.pair[i], s.parent[i] = none, int32(i)
		s.name(int32(i))
		s.roles[i] = s.role(int32(i))
	}
	var bad []Refusal
	for i := range u.Items {
		if s.roles[i] != function {
			continue
		}
		parent, ok := coldParent(s.names[i])
		if !ok {
			continue
		}
		p, found := s.code(parent)
		if !found {
			bad = append(bad, Refusal{Name: s.names[i], Line: int(u.Items[i].Line), Reason: "cold part of a function that is not in the unit"})
			continue
		}
		s.roles[i], s.parent[i] = part, p
		s.parts[p] = append(s.parts[p], int32(i))
	}
	return s, bad
}

// code returns the function, or part of one, whose first name that is.
func (s *side) code(name string) (item int32, ok bool) {
	id := s.Lookup(name)
	if id < 0 || s.Symbols[id].Where != asm.InItem {
		return none, false
	}
	item = s.Symbols[id].Item
	return item, s.symbol[item] == id && (s.roles[item] == function || s.roles[item] == part)
}

// name chooses the name of item i.
func (s *side) name(i int32) {
	s.symbol[i] = none
	for _, id := range s.Items[i].Symbols {
		if sym := &s.Symbols[id]; !sym.LocalLabel() && sym.Add == 0 {
			s.names[i], s.symbol[i] = sym.Name, id
			return
		}
	}
}

func (s *side) role(i int32) role {
	sec := s.SectionOf(i)
	name := s.names[i]
	switch sec.Kind {
	case asm.Text:
		if name == "" && s.Pool(i) && !s.handwritten() {
			return content
		}
		if name == "" {
			return ordered
		}
		if s.Symbols[s.symbol[i]].Type == "object" {
			return object
		}
		return function
	case asm.Init:
		return ordered
	case asm.Metadata:
		return exception
	case asm.Custom:
		if name == "" {
			return ordered
		}
		return object
	}
	if len(s.Items[i].Symbols) == 0 {
		return ordered
	}
	if name == "" || s.indirection(i) || s.constant(i) && s.allLocal(i) && (sec.Mergeable() || anonymousName(name)) {
		return content
	}
	return object
}

// constant reports whether the running program never writes item i.
func (s *side) constant(i int32) bool {
	sec := s.SectionOf(i)
	switch sec.Kind {
	case asm.ROData, asm.RelRO, asm.Metadata:
		return true
	case asm.Text:
		return !strings.Contains(sec.Flags, "w")
	}
	return s.indirection(i)
}

// indirection reports whether item i is one that the compiler made up to hold
// the address of something that exception tables refer to.
func (s *side) indirection(i int32) bool {
	for _, id := range s.Items[i].Symbols {
		if indirection(s.Symbols[id].Name) {
			return true
		}
	}
	return false
}

// allLocal reports whether no other unit can name item i.
func (s *side) allLocal(i int32) bool {
	for _, id := range s.Items[i].Symbols {
		if s.Symbols[id].Bind != asm.Local {
			return false
		}
	}
	return true
}

// boundary returns the alignment that directives give item i, in bytes.
func (s *side) boundary(i int32) uint64 {
	most := uint64(1)
	for _, st := range s.Items[i].Stmts {
		text := s.TextOf(st)
		switch {
		case s.Items[i].Common:
			if args := strings.Split(text, ","); len(args) > 2 {
				most = max(most, s.Dialect.Bytes(".balign", args[2]))
			}
		case st.Kind == asm.Align:
			name, args := s.Dialect.Mnemonic(text)
			n, _, _ := strings.Cut(text[args:], ",")
			most = max(most, s.Dialect.Bytes(name, n))
		}
	}
	return most
}

// target is what a reference stands for.
type target struct {
	where asm.Where
	item  int32 // if InItem
	ord   int32
	add   int64
	sym   int32 // in Symbols, or none
	name  string
}

// resolve returns what name stands for in s.
func (s *side) resolve(name string) target {
	id, lost := s.Resolve(name)
	s.lost = s.lost || lost
	return s.target(name, id)
}

// namesake is resolve for the name of a symbol of the other build.
func (s *side) namesake(sym *asm.Symbol) target {
	if id := s.Named(sym.Number); id >= 0 && s.Symbols[id].Where != asm.Undefined {
		return s.target(sym.Name, id)
	}
	return s.resolve(sym.Name)
}

// target returns what the symbol of that name and index stands for.
func (s *side) target(name string, id int32) target {
	if id < 0 {
		return target{item: none, sym: none, name: name}
	}
	y := &s.Symbols[id]
	t := target{where: y.Where, item: y.Item, ord: y.Ord, add: y.Add, sym: id, name: name}
	if y.LocalLabel() && y.Set != "" && t.where == asm.InItem && t.entry() && s.names[t.item] != "" {
		t.name, t.sym = s.names[t.item], s.symbol[t.item] // .LTHUNK0, which stands for a function
	}
	return t
}

// mentioned returns what a symbol that the folded body of item i mentions stands
// for. The target is not to be changed. That of a label before a part of the body
// has a negative ord.
func (s *side) mentioned(i, ref int32) *target {
	if s.mentions == nil {
		s.known, s.mentions = make([]bool, s.Mentions()), make([]target, s.Mentions())
	}
	t := &s.mentions[ref]
	if !s.known[ref] {
		name, id := s.Mentioned(ref)
		if id < 0 || s.Symbols[id].Where == asm.Undefined {
			*t = s.hidden(name, id)
		} else {
			*t = s.target(name, id)
		}
		s.known[ref] = true
	}
	s.lost = s.lost || t.ord < 0 && t.item != i
	return t
}

// hidden is resolve for a symbol of that index that is not defined outside of
// folded bodies.
func (s *side) hidden(name string, id int32) target {
	if item, ord, ok := s.Buried(name); ok {
		return target{where: asm.InItem, item: item, ord: ord, sym: id, name: name}
	}
	return s.resolve(name)
}

// reference is a place in an item that names a symbol.
type reference struct {
	asm.Stmt
	asm.Ref
	at   int // in the item's statements
	text string
}

// references yields what item i refers to, but for folded bodies.
func (s *side) references(i int32) iter.Seq2[reference, target] {
	return func(yield func(reference, target) bool) {
		var refs []asm.Ref
		for at, st := range s.Items[i].Stmts {
			text := s.TextOf(st)
			refs = s.Dialect.Refs(refs[:0], st.Kind, text)
			for _, r := range refs {
				if !yield(reference{st, r, at, text}, s.resolve(r.Name(text))) {
					return
				}
			}
		}
	}
}

// entry reports whether t is the begin of its item.
func (t target) entry() bool { return t.ord == 0 && t.add == 0 }

// anchor reports whether the reference goes through a section anchor: a label
// from which gcc reaches all objects of a block by their distance.
func (t target) anchor() bool { return strings.HasPrefix(t.name, anchorPrefix) }

// anchorPrefix is what the names of section anchors begin with.
const anchorPrefix = ".LANCHOR"

// use is one item that refers to another.
type use struct {
	item  int32 // the referring function or object
	order int32 // place among all references of the unit
}

// eachRef calls f with every reference from an item i to an item of the unit;
// branch says whether it is the target of a call or jump. Folded bodies
// mention each symbol once, and never as a branch.
func (s *side) eachRef(f func(i int32, branch bool, t *target)) { s.eachRefTo(nil, f) }

// eachRefTo is eachRef for references to items that are wanted, if that is not
// nil. Some others may be among them.
func (s *side) eachRefTo(wanted []bool, f func(i int32, branch bool, t *target)) {
	skip := make([]bool, s.Mentions())
	var refs []asm.Ref
	for i := range s.Items {
		for _, st := range s.Items[i].Stmts {
			if st.Kind == asm.Folded {
				body := &s.Folds[s.FoldOf(st)]
				for _, ref := range body.Refs {
					if skip[ref] {
						continue
					}
					t := s.mentioned(int32(i), ref)
					if skip[ref] = t.where != asm.InItem || wanted != nil && t.ord >= 0 && !wanted[t.item]; !skip[ref] {
						f(int32(i), false, t)
					}
				}
				continue
			}
			if st.Kind >= asm.Literal && st.Kind != asm.CFI && st.Kind != asm.Mark {
				continue // it names no symbol
			}
			text := s.TextOf(st)
			refs = s.Dialect.Refs(refs[:0], st.Kind, text)
			for _, r := range refs {
				if t := s.resolve(r.Name(text)); t.where == asm.InItem {
					f(int32(i), r.Branch, &t)
				}
			}
		}
	}
}
