package differ

import (
	"fmt"

	"github.com/fother/fother/differ/asm"
)

const hintSymbols = "leave symbols that other units were linked with as they are"

// symbols refuses changes of what global symbols stand for that are not the name
// of a function or object ([judgement.names]): other units were linked with their
// values. Folded bodies define no global symbols.
func (j *judgement) symbols() {
	for id := range j.b.Symbols {
		y := &j.b.Symbols[id]
		if y.Bind == asm.Local || y.Where == asm.Undefined || y.Where == asm.InItem && y.Ord == 0 && y.Add == 0 {
			continue
		}
		t := j.a.namesake(y)
		reason := ""
		switch {
		case y.Where == asm.InItem:
			reason = j.place(t, y)
		case t.where != y.Where || t.add != y.Add || !j.value(t, j.b.target(y.Name, int32(id))):
			reason = "its value " + y.Set + " is new or changed"
		}
		if reason != "" {
			j.refusals = append(j.refusals, Refusal{Unit: j.unit, Name: y.Name, Line: int(y.Line), Reason: reason, Hint: hintSymbols})
		}
	}
}

// place says how a global symbol y, which stands for a place in an item, was
// another place in the original, or "".
func (j *judgement) place(t target, y *asm.Symbol) string {
	in := j.b.names[y.Item]
	if in == "" {
		in = j.b.SectionOf(y.Item).Name
	}
	switch {
	case t.where != asm.InItem:
		return "it is a new name for a place in " + in
	case t.ord != y.Ord || t.add != y.Add || j.a.pair[t.item] != y.Item && (j.a.names[t.item] != "" || j.b.names[y.Item] != ""):
		return fmt.Sprintf("it stands for another place in %s than in the original build", in)
	case j.changed[j.b.parent[y.Item]] && j.b.Items[y.Item].Inner < 0:
		return "it is a place inside " + in + ", which changed"
	}
	return ""
}

// value reports whether symbols of the same kind that stand for no place in an
// item have the same value. Where that cannot be told, the text tells.
func (j *judgement) value(x, y target) bool {
	sx, sy := &j.a.Symbols[x.sym], &j.b.Symbols[y.sym]
	if x.where == asm.Expression {
		if same, known := j.expressions(none, none, x, y); known {
			return same
		}
	}
	return sx.Set == sy.Set
}

// expressions reports whether two symbols that are set to expressions in which
// there is more than one symbol have the same value in what items i and j refer
// to, and whether that can be told.
func (c *comparer) expressions(i, j int32, x, y target) (same, known bool) {
	sx, sy := &c.a.Symbols[x.sym], &c.b.Symbols[y.sym]
	if x.add != y.add || c.depth == maxDepth {
		return false, true
	}
	if asm.HasDot(sx.Set) && (sx.Item < 0 || sy.Item < 0) {
		return false, false
	}
	c.depth++
	defer func() { c.depth-- }()
	if asm.HasDot(sx.Set) && !c.refer(i, j, inside(sx.Item, sx.Ord), inside(sy.Item, sy.Ord)) {
		return false, true
	}
	const set = ".set " // before the operands
	return c.statements(i, j, asm.Data, set+sx.Set, set+sy.Set), true
}

// inside is a place in an item that has no name of its own.
func inside(item, ord int32) target {
	return target{where: asm.InItem, item: item, ord: ord, sym: none, name: ".L"}
}

// numeric reports whether the numeric labels that two statements of items i and j
// mention are the same, where they are in other items: see [asm.Unit.Bound].
func (c *comparer) numeric(i, j int32, sa, sb asm.Stmt) bool {
	if c.a.Bound == nil && c.b.Bound == nil {
		return true
	}
	pa, pb := c.a.Bound[sa.Lo], c.b.Bound[sb.Lo]
	if len(pa) != len(pb) {
		return false
	}
	for k, x := range pa {
		y := pb[k]
		if x.Item < 0 || y.Item < 0 {
			if x.Item != y.Item {
				return false
			}
			continue
		}
		if main := c.b.parent[y.Item]; c.moved[main] && c.b.Items[y.Item].Foreign > 0 && c.b.pair[y.Item] == x.Item {
			continue // it is refused for that: see [plan.take]
		}
		if !c.refer(i, j, inside(x.Item, x.Ord), inside(y.Item, y.Ord)) {
			return false
		}
	}
	return true
}
