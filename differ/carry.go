package differ

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// plan is what the patch assembly holds.
type plan struct {
	*judgement
	carried []bool         // items of b
	labels  map[int32]bool // symbols of b that carried statements mention
	queue   []int32
	refs    map[string]Reference
	weak    map[string]string // undefined weak symbols: the directive they need
	from    map[int32]string  // who refers to a carried item first
	// anchored has, for items behind section anchors, the changed function
	// that reaches them.
	anchored map[int32]int32
}

// carry decides what is carried.
func carry(j *judgement) *plan {
	p := &plan{judgement: j, carried: make([]bool, len(j.b.Items)), labels: make(map[int32]bool),
		refs: make(map[string]Reference), weak: make(map[string]string), from: make(map[int32]string), anchored: make(map[int32]int32)}
	for k := range j.b.Items {
		y := int32(k)
		switch {
		case j.b.roles[y] == function && (j.b.pair[y] == none || j.changed[y]), j.b.hook(y),
			j.b.roles[y] == object && j.b.pair[y] == none && !j.b.allLocal(y) && j.b.SectionOf(y).Kind != asm.Custom:
			p.take(y, "")
		}
	}
	for len(p.queue) > 0 {
		i := p.queue[0]
		p.queue = p.queue[1:]
		p.follow(i)
	}
	p.instrumented()
	p.refusals = once(p.refusals)
	return p
}

// once sorts refusals by line and leaves out what was said before.
func once(all []Refusal) []Refusal {
	slices.SortStableFunc(all, func(x, y Refusal) int { return cmp.Compare(x.Line, y.Line) })
	seen := make(map[[2]string]bool)
	return slices.DeleteFunc(all, func(r Refusal) bool {
		key := [2]string{r.Name, r.Reason}
		said := seen[key]
		seen[key] = true
		return said
	})
}

// take carries an item of b.
func (p *plan) take(y int32, from string) {
	if p.carried[y] {
		return
	}
	p.carried[y] = true
	p.from[y] = from
	p.queue = append(p.queue, y)
	for _, part := range p.b.parts[y] {
		p.take(part, from)
	}
	it, sec := &p.b.Items[y], p.b.SectionOf(y)
	switch code := p.b.roles[y] == function || p.b.roles[y] == part; {
	case code && !p.typed(y):
		p.refuse(p.b, y, "hand-written code without .type and .size", "declare it with .type NAME, @function and .size NAME, .-NAME")
	case code && !p.balanced(y):
		p.refuse(p.b, y, "its call frame information does not begin and end with it", hintAsm)
	case it.Foreign > 0 && p.b.Sections[it.Into].Name == ".note.stapsdt":
		p.refuse(p.b, y, "it has a SystemTap probe, and those who trace it know the original's only", "do the work in a function without a probe that this one calls")
	case it.Foreign > 0:
		p.refuse(p.b, y, "its inline assembly switches to a section of its own", hintAsm)
	case it.Inner >= 0:
		p.refuse(p.b, y, "it has a second entry, "+p.b.Symbols[it.Inner].Name, hintAsm)
	case it.Split:
		p.refuse(p.b, y, "bytes without a label follow it", hintAsm)
	case p.b.merged(y) != nil:
		p.refuse(p.b, y, "clang put it and other new static variables into one piece of memory, which cannot be carried yet", hintMerged)
	case sec.Kind == asm.TLS:
		p.refuse(p.b, y, "a new thread-local variable: threads that already run have no room for it", "use a variable that all threads share, or keep the value elsewhere")
	case sec.Kind == asm.Custom && !p.b.hook(y):
		p.refuse(p.b, y, "it is new in section "+sec.Name, hintState)
	case p.b.roles[y] == content && !p.b.constant(y):
		p.refuse(p.b, y, "writable data without a name, used by "+from, "give the object a name")
	case p.b.roles[y] == ordered:
		p.refuse(p.b, y, sec.Kind.String()+" used by "+from+" cannot be carried yet", hintAsm)
	case p.across(y):
		p.refuse(p.b, y, "a numeric label that it mentions is in another section", hintAsm)
	case p.cor.unclear[y] != "" && !p.b.constant(y):
		p.refuse(p.b, y, "it is not clear which variable of the original build this is: "+p.cor.unclear[y],
			"rename static variables that have the same name, or keep them in order")
	}
}

// across reports whether item y mentions a numeric label of another item: in the
// patch, where items stand in another order, it would be another one.
func (p *plan) across(y int32) bool {
	if p.b.Bound == nil {
		return false
	}
	return slices.ContainsFunc(p.b.Items[y].Stmts, func(st asm.Stmt) bool { return p.b.Bound[st.Lo] != nil })
}

// typed reports whether item y says where a function begins and ends.
func (p *plan) typed(y int32) bool {
	s := &p.b.Symbols[p.b.symbol[y]]
	return (s.Type == "function" || s.Type == "gnu_indirect_function") && s.Size != ""
}

// balanced reports whether item y opens and closes its CFI once, or has none.
func (p *plan) balanced(y int32) bool {
	begins, ends := 0, 0
	for _, st := range p.b.Items[y].Stmts {
		if st.Kind != asm.CFI {
			continue
		}
		switch text := p.b.TextOf(st); {
		case strings.HasPrefix(text, ".cfi_startproc"):
			begins++
		case strings.HasPrefix(text, ".cfi_endproc"):
			ends++
		}
	}
	return begins == ends && begins <= 1
}

// follow looks at everything that a carried item refers to.
func (p *plan) follow(y int32) {
	for r, t := range p.b.references(y) {
		p.reference(y, r.Stmt, r.Ref, t)
	}
}

// reference takes or binds what one reference in item y means.
func (p *plan) reference(y int32, st asm.Stmt, r asm.Ref, t target) {
	bad := func(reason, hint string) {
		p.refusals = append(p.refusals, Refusal{Unit: p.unit, Name: p.b.names[p.b.parent[y]], Line: int(st.Line), Reason: reason, Hint: hint})
	}
	switch t.where {
	case asm.Undefined:
		p.external(t, r, bad)
		return
	case asm.Loose, asm.Expression, asm.Absolute:
		bad("it refers to "+t.name+", which is no function, object or label", hintAsm)
		return
	}
	p.label(t, bad)
	p.slot(st, t, bad)
	switch p.b.roles[t.item] {
	case function, part:
		p.toFunction(y, r, t, bad)
	case object:
		p.toObject(y, r, t, bad)
	default:
		if t.anchor() {
			p.block(y, t, bad)
		}
		p.table(t.item, p.b.names[p.b.parent[y]])
	}
}

// block carries all data that item y may reach from a section anchor.
func (p *plan) block(y int32, t target, bad func(reason, hint string)) {
	if t.add != 0 {
		bad("section anchor "+t.name+" is not at the begin of its data", hintAnchors)
	}
	for _, i := range p.b.block(t.item) {
		p.take(i, p.b.names[p.b.parent[y]])
	}
}

// fresh reports whether all data that are reached from an anchor at item y are new.
func (p *plan) fresh(y int32) bool {
	return !slices.ContainsFunc(p.b.block(y), func(i int32) bool { return p.b.pair[i] != none })
}

// table carries content that item from refers to. Hand-written code may reach
// all of its section by the distance from it.
func (p *plan) table(y int32, from string) {
	p.take(y, from)
	if sec := p.b.SectionOf(y); fixed(sec) && p.b.constant(y) && p.b.handwritten() {
		for _, i := range sec.Items {
			p.take(i, from)
		}
	}
}

// slot refuses to rewrite half of a pair of instructions that read the address
// of something carried from the global offset table.
func (p *plan) slot(st asm.Stmt, t target, bad func(reason, hint string)) {
	d, text := p.b.Dialect, p.b.TextOf(st)
	if x := p.b.pair[p.b.parent[t.item]]; !d.SlotPair || !strings.Contains(text, ":got") || x != none && !p.stale[t.item] {
		return
	}
	if _, ok := d.SlotToAddress(text, t.name, t.name); !ok {
		bad("it reads the address of "+t.name+", which is new, in a way that is not understood", hintAsm)
	}
}

// label remembers that a label is mentioned, with the labels that its .set
// goes through.
func (p *plan) label(t target, bad func(reason, hint string)) {
	for id := t.sym; !p.labels[id]; {
		p.labels[id] = true
		s := &p.b.Symbols[id]
		if s.Set == "" || !s.LocalLabel() {
			return
		}
		name, _, _ := asm.SplitSum(s.Set)
		if id = p.b.Lookup(name); id < 0 || !p.b.Symbols[id].LocalLabel() {
			bad("label "+s.Name+" is set to "+s.Set, hintAsm)
			return
		}
	}
}

// external binds a reference to a symbol that the patched unit does not define.
func (p *plan) external(t target, r asm.Ref, bad func(reason, hint string)) {
	if asm.IsLocalLabel(t.name) {
		bad("label "+t.name+" is nowhere defined", "")
		return
	}
	name := t.name
	if name == "_GLOBAL_OFFSET_TABLE_" {
		bad("it computes addresses from the global offset table", "compile with -fPIC, not -fpic, and without -mcmodel")
		return
	}
	if t.sym != none {
		if y := &p.b.Symbols[t.sym]; y.WeakRef {
			p.weak[name] = "\t.weakref\t" + name + ", " + y.Set
			name = y.Set
		} else if y.Bind == asm.Weak {
			p.weak[name] = "\t.weak\t" + quote(name)
		}
	}
	if o := p.a.resolve(name); o.where == asm.InItem {
		bad(name+" was defined in this unit and is not any more", "leave it in this file")
		return
	}
	p.bind(name, name, false, r, bad)
}

func (p *plan) bind(symbol, original string, local bool, r asm.Ref, bad func(reason, hint string)) {
	if r.Minus {
		bad("the distance to "+symbol+", which is not carried, is not known yet", hintAsm)
		return
	}
	p.refs[symbol] = Reference{symbol, original, local}
}

// toFunction binds a reference from item y into a function.
func (p *plan) toFunction(y int32, r asm.Ref, t target, bad func(reason, hint string)) {
	main := p.b.parent[t.item]
	inner := !t.entry() || t.item != main || asm.IsLocalLabel(t.name)
	switch {
	case inner && !p.carried[main]:
		bad("it refers to a place inside "+p.b.names[main]+", which did not change", hintAsm)
	case inner, p.carried[main] && (r.Branch || p.b.pair[main] == none):
	default:
		p.original(main, r, t, bad)
	}
}

// toObject binds a reference from item y to a named object.
func (p *plan) toObject(y int32, r asm.Ref, t target, bad func(reason, hint string)) {
	x := p.b.pair[t.item]
	if t.anchor() && p.fresh(t.item) {
		p.block(y, t, bad)
		return
	}
	if t.anchor() && (x == none || !p.blocks(x, t.item)) {
		bad("it reaches data by its distance from "+p.b.names[t.item]+", and data there were added, removed or moved",
			hintMoved)
		return
	}
	if t.anchor() && p.interchangeable(y, t.item) {
		bad("several changed functions reach static variables that have the same name, "+p.b.names[t.item]+" or others, by their distance from one place",
			hintAnchors)
		return
	}
	if x == none || p.stale[t.item] {
		p.table(t.item, p.b.names[p.b.parent[y]])
		return
	}
	if t.ord != 0 || t.add != 0 && r.Minus {
		bad("it refers to a place inside "+p.b.names[t.item], hintAsm)
		return
	}
	if was, is := p.a.boundary(x), p.b.boundary(t.item); is > was {
		bad(fmt.Sprintf("%s is aligned to %d bytes in the original build and the new code may need %d", p.b.names[t.item], was, is),
			hintAligned)
		return
	}
	p.original(t.item, r, t, bad)
}

// interchangeable reports whether another changed function than that of item y
// reaches, from the same anchor, variables that only their order tells apart:
// which of them is whose may have changed.
func (p *plan) interchangeable(y, anchor int32) bool {
	main := p.b.parent[y]
	for _, i := range p.b.block(anchor) {
		if !p.cor.byOrder[i] {
			continue
		}
		if other, ok := p.anchored[i]; ok && other != main {
			return true
		}
		p.anchored[i] = main
	}
	return false
}

// original binds a reference to the original's function or object.
func (p *plan) original(item int32, r asm.Ref, t target, bad func(reason, hint string)) {
	name := p.originalName(item, t.name)
	o := p.a.resolve(name)
	p.bind(name, name, p.a.Symbols[o.sym].Bind == asm.Local, r, bad)
}

// originalName returns the original's name of an item of b that is known as
// name in b.
func (p *plan) originalName(item int32, name string) string {
	x := p.b.pair[item]
	if asm.IsLocalLabel(name) {
		return p.a.names[x]
	}
	if t := p.a.resolve(name); t.where == asm.InItem && t.item == x && t.entry() {
		return name
	}
	return p.a.names[x]
}
