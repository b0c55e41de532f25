package differ

import (
	"maps"
	"slices"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// maxDepth bounds how far tables of tables of … are followed by content.
const maxDepth = 32

// comparer walks items of the two builds side by side.
type comparer struct {
	a, b  *side
	memo  map[[2]int32]bool // anonymous items
	block map[[2]int32]bool // what follows section anchors, by their items
	// agreed has, for what folded bodies of a refer to, what of b means the same
	// in all of them, plus one, as far as that was found.
	agreed   []int32
	agreeing bool   // agreed has something
	stale    []bool // constants of b that differ from their pair
	// moved has the functions of b whose inner labels do not stand for what
	// they did in the original.
	moved []bool
	// inner has the functions of b to which others than themselves refer by
	// inner labels; root is the item whose references are being followed.
	inner        []bool
	root         int32
	depth        int
	refsA, refsB []asm.Ref
}

func newComparer(a, b *side) *comparer {
	n := len(b.Items)
	return &comparer{a: a, b: b, memo: make(map[[2]int32]bool), block: make(map[[2]int32]bool), agreed: make([]int32, a.Mentions()),
		stale: make([]bool, n), moved: make([]bool, n), inner: make([]bool, n)}
}

// cursor goes over the statements of an item that count.
type cursor struct {
	s     *side
	stmts []asm.Stmt
}

func (c *cursor) next() (asm.Stmt, string, bool) {
	for len(c.stmts) > 0 {
		st := c.stmts[0]
		c.stmts = c.stmts[1:]
		switch st.Kind {
		case asm.Label, asm.Align, asm.Mark:
			continue
		case asm.CFI:
			if text := c.s.TextOf(st); asm.NamesSymbols(text) {
				return st, text, true
			}
			continue
		}
		return st, c.s.TextOf(st), true
	}
	return asm.Stmt{}, "", false
}

// literal returns the text of the item if it holds nothing but numbers, strings
// and what does not count, each on a line of its own, one behind the other. Two
// with one text are the same.
func (c *cursor) literal() string {
	n := len(c.stmts)
	if n == 0 {
		return ""
	}
	at := c.stmts[0].Lo
	for i := range c.stmts {
		st := &c.stmts[i]
		switch st.Kind {
		case asm.Literal, asm.Label, asm.Align:
		default:
			return ""
		}
		if st.Lo > at+uint32(len(":\n\t")) {
			return ""
		}
		at = st.Hi
	}
	return c.s.Text[c.stmts[0].Lo:at]
}

// items returns the first difference of item i of a and item j of b, or nil.
func (c *comparer) items(i, j int32) *Difference {
	if c.depth == 0 {
		c.root = j
	}
	if c.a.Items[i].Common != c.b.Items[j].Common {
		if za, zb := c.a.zeros(i), c.b.zeros(j); za != "" && za == zb {
			return nil
		}
	}
	ca, cb := cursor{c.a, c.a.Items[i].Stmts}, cursor{c.b, c.b.Items[j].Stmts}
	if ta := ca.literal(); ta != "" && ta == cb.literal() {
		return nil
	}
	for {
		sa, ta, okA := ca.next()
		sb, tb, okB := cb.next()
		if !okA && !okB {
			return nil
		}
		if okA && okB && sa.Kind == asm.Folded && sb.Kind == asm.Folded && c.folds(i, j, sa, sb) {
			continue
		}
		if okA && okB && sa.Kind == sb.Kind && sa.Kind != asm.Folded && c.statements(i, j, sa.Kind, ta, tb) && c.numeric(i, j, sa, sb) {
			continue
		}
		d := &Difference{Original: ta, Patched: tb, OriginalLine: int(sa.Line), PatchedLine: int(sb.Line)}
		if okA && okB && ta == tb && sa.Kind != asm.Folded {
			d.What = c.meaning(i, j, sa, sb)
		}
		if !okA {
			d.OriginalLine = int(c.a.Items[i].Line)
		}
		if !okB {
			d.PatchedLine = int(c.b.Items[j].Line)
		}
		return d
	}
}

// folds reports whether two folded bodies refer to the same.
func (c *comparer) folds(i, j int32, sa, sb asm.Stmt) bool {
	fa, fb := &c.a.Folds[c.a.FoldOf(sa)], &c.b.Folds[c.b.FoldOf(sb)]
	if !fa.PairOf(fb) {
		return false
	}
	for k, ra := range fa.Refs {
		rb := fb.Refs[k]
		if c.agreed[ra] == rb+1 {
			continue
		}
		x, y := c.a.mentioned(i, ra), c.b.mentioned(j, rb)
		if !c.refer(i, j, *x, *y) {
			return false
		}
		if c.everywhere(i, x) {
			c.agreed[ra], c.agreeing = rb+1, true
		}
	}
	return true
}

// everywhere reports whether what was said of a reference to x in item i is true
// of others too: it is not to the item itself, to a place in a function, or by
// the distance from a section anchor.
func (c *comparer) everywhere(i int32, x *target) bool {
	if x.where != asm.InItem {
		return true
	}
	code := c.a.roles[x.item] == function || c.a.roles[x.item] == part
	return !x.anchor() && c.a.parent[x.item] != c.a.parent[i] && !(code && (x.ord != 0 || asm.IsLocalLabel(x.name)))
}

// statements reports whether two statements of items i and j say the same.
func (c *comparer) statements(i, j int32, kind asm.Kind, ta, tb string) bool {
	if kind == asm.Literal || kind == asm.Number {
		if c.a.Items[i].Common && c.b.Items[j].Common {
			return c.a.zeros(i) == c.b.zeros(j)
		}
		return ta == tb
	}
	// The buffers are given away while nested items are compared.
	refsA, refsB := c.refsA, c.refsB
	c.refsA, c.refsB = nil, nil
	refsA = c.a.Dialect.Refs(refsA[:0], kind, ta)
	refsB = c.b.Dialect.Refs(refsB[:0], kind, tb)
	same := c.operands(i, j, ta, tb, refsA, refsB)
	c.refsA, c.refsB = refsA, refsB
	return same
}

func (c *comparer) operands(i, j int32, ta, tb string, refsA, refsB []asm.Ref) bool {
	if len(refsA) != len(refsB) {
		return false
	}
	atA, atB := 0, 0
	for k := range refsA {
		ra, rb := refsA[k], refsB[k]
		if ta[atA:ra.Lo] != tb[atB:rb.Lo] {
			return false
		}
		atA, atB = ra.Hi, rb.Hi
		if !c.refer(i, j, c.a.resolve(ra.Name(ta)), c.b.resolve(rb.Name(tb))) {
			return false
		}
	}
	return ta[atA:] == tb[atB:]
}

// zeros returns the size of an item that is nothing but zeros, as written, or
// "".
func (s *side) zeros(i int32) string {
	size := ""
	for _, st := range s.Items[i].Stmts {
		if !st.Kind.Bytes() {
			continue
		}
		text := s.TextOf(st)
		switch args := strings.Split(text, ","); {
		case size != "":
			return ""
		case s.Items[i].Common:
			size = strings.TrimSpace(args[1])
		case strings.HasPrefix(text, ".zero") && len(args) == 1:
			size = strings.TrimSpace(text[len(".zero"):])
		default:
			return ""
		}
	}
	return size
}

// refer reports whether a reference in item i to x and one in item j to y mean
// the same. Without items it is a reference from outside the unit.
func (c *comparer) refer(i, j int32, x, y target) bool {
	if x.where != y.where {
		return false
	}
	switch x.where {
	case asm.Undefined:
		return c.undefined(x, y)
	case asm.Absolute:
		return x.add == y.add
	case asm.Expression:
		same, known := c.expressions(i, j, x, y)
		return same && known
	case asm.Loose:
		return false
	}
	if x.ord != y.ord || x.add != y.add || x.anchor() != y.anchor() {
		return false
	}
	if x.anchor() && !c.blocks(x.item, y.item) {
		return false
	}
	a, b := c.a.parent[x.item], c.b.parent[y.item]
	if i != none && a == c.a.parent[i] && b == c.b.parent[j] {
		// One part for the other, and not for the main part or another part.
		return slices.Index(c.a.parts[a], x.item) == slices.Index(c.b.parts[b], y.item)
	}
	if c.a.roles[x.item] != c.b.roles[y.item] || !c.alike(x, y) {
		return false
	}
	switch c.b.roles[y.item] {
	case function, part:
		if y.ord == 0 && !asm.IsLocalLabel(y.name) {
			return c.b.pair[y.item] == x.item
		}
		if c.b.parent[c.root] != b {
			c.inner[b] = true
		}
		return c.b.pair[y.item] == x.item && !c.moved[b]
	case object:
		return c.b.pair[y.item] == x.item && !c.stale[y.item]
	}
	return c.equal(x.item, y.item)
}

// alike reports whether two symbols of paired items name them in the same way:
// one entry may have several names, and an indirect function shares its entry
// with its resolver.
func (c *comparer) alike(x, y target) bool {
	if r := c.b.roles[y.item]; r == content || r == exception {
		return true
	}
	if asm.IsLocalLabel(x.name) || asm.IsLocalLabel(y.name) {
		return asm.IsLocalLabel(x.name) == asm.IsLocalLabel(y.name)
	}
	return x.name == y.name || stem(x.name) == stem(y.name)
}

// undefined compares names that the unit does not define.
func (c *comparer) undefined(x, y target) bool {
	if x.name != y.name {
		return false
	}
	var sx, sy asm.Symbol
	if x.sym != none {
		sx = c.a.Symbols[x.sym]
	}
	if y.sym != none {
		sy = c.b.Symbols[y.sym]
	}
	return sx.WeakRef == sy.WeakRef && sx.Set == sy.Set && (sx.Bind == asm.Weak) == (sy.Bind == asm.Weak)
}

// equal compares items that only their content tells.
func (c *comparer) equal(i, j int32) bool {
	key := [2]int32{i, j}
	if same, ok := c.memo[key]; ok {
		return same
	}
	if c.depth == maxDepth || c.class(i, j) {
		return false
	}
	c.memo[key] = false // what refers to itself is not followed
	c.depth++
	same := c.items(i, j) == nil
	c.depth--
	c.memo[key] = same
	return same
}

// class reports whether one of the two is writable and the other is not.
func (c *comparer) class(i, j int32) bool {
	ka, kb := c.a.SectionOf(i).Kind, c.b.SectionOf(j).Kind
	if c.a.constant(i) && c.b.constant(j) {
		return false
	}
	return ka != kb
}

// forget drops what is remembered about items.
func (c *comparer) forget() {
	// New ones: to clear a map takes as long as what it had once.
	c.memo, c.block = make(map[[2]int32]bool), make(map[[2]int32]bool)
	if c.agreeing {
		clear(c.agreed)
		c.agreeing = false
	}
}

// blocks reports whether what follows a section anchor is the same in both
// builds: functions reach all of it by distance.
func (c *comparer) blocks(i, j int32) bool {
	key := [2]int32{i, j}
	same, known := c.block[key]
	if known {
		return same
	}
	// What refers back to the block is the same if the rest of it is. If not,
	// what was found meanwhile may rest on that.
	c.block[key] = true
	if same = c.compareBlocks(i, j); !same {
		clear(c.memo)
		maps.DeleteFunc(c.block, func(_ [2]int32, same bool) bool { return same })
		c.block[key] = false
	}
	return same
}

func (c *comparer) compareBlocks(i, j int32) bool {
	ba, bb := c.a.block(i), c.b.block(j)
	if len(ba) != len(bb) {
		return false
	}
	for k := range ba {
		x, y := ba[k], bb[k]
		if c.a.roles[x] != c.b.roles[y] || c.a.alignment(x) != c.b.alignment(y) {
			return false
		}
		if c.b.roles[y] == object {
			if c.b.pair[y] != x || c.stale[y] || c.a.roles[x] == object && c.items(x, y) != nil {
				return false
			}
		} else if !c.equal(x, y) {
			return false
		}
	}
	return true
}

// block returns the items of one section from i on.
func (s *side) block(i int32) []int32 {
	all := s.SectionOf(i).Items
	for k, item := range all {
		if item == i {
			return all[k:]
		}
	}
	return nil
}

// alignment returns the text of the directives that align item i.
func (s *side) alignment(i int32) string {
	var b strings.Builder
	for _, st := range s.Items[i].Stmts {
		if st.Kind == asm.Align {
			b.WriteString(s.TextOf(st))
		}
	}
	return b.String()
}
