package asm

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

// Fold is the body of one function that both builds have alike, statement for
// statement, but for the symbols in Refs. A unit keeps it as one statement.
type Fold struct {
	// Lo and Hi are byte offsets into the unit's text: behind the function's
	// label, and before the .size directive that ends it.
	Lo, Hi uint32
	// Refs are the symbols outside the body that it mentions, in the order of
	// their first mention, for [Unit.Mentioned]. Refs[k] of one build stands
	// wherever Refs[k] of the other does.
	Refs []int32

	name  string
	body  int32 // by which places know it
	item  int32 // in the unit that was parsed with it
	lines int
	// visits are the stretches behind directives that change the section.
	visits []visit
	// shape has a byte for the section of each, in the unit that was parsed with
	// it: its kind, or own.
	shape []byte
}

// visit is a stretch of a body behind a directive that changes the section.
type visit struct {
	directive span
	first     span // named label
	last      span // likewise
}

// own stands for the section of the function itself.
const own = 0xff

// Name is the function's.
func (f *Fold) Name() string { return f.name }

// PairOf reports whether f and g are the same function's of the two builds.
func (f *Fold) PairOf(g *Fold) bool {
	return f.name == g.name && len(f.Refs) == len(g.Refs) && bytes.Equal(f.shape, g.shape)
}

// span is a range of bytes of a text.
type span struct{ lo, hi int }

// FoldOf returns the index of the fold that statement s stands for. It is
// quickest if these are asked for in order.
func (u *Unit) FoldOf(s Stmt) int {
	if u.asked++; u.asked < len(u.Folds) && u.Folds[u.asked].Lo == s.Lo {
		return u.asked
	}
	i, _ := slices.BinarySearchFunc(u.Folds, s.Lo, func(f Fold, lo uint32) int { return cmp.Compare(f.Lo, lo) })
	u.asked = i
	return i
}

// Mentions returns how many names the Refs of folds stand for.
func (u *Unit) Mentions() int { return u.mentions }

// Mentioned returns the name that stands in the Refs of folds as ref, and the
// index of its symbol, or -1.
func (u *Unit) Mentioned(ref int32) (name string, symbol int32) {
	return u.table.name(ref), u.Named(ref)
}

func newFolder(a, b string, d *Dialect) *folder {
	labels, class := newFamilies(len(a)+len(b)), classes(d)
	return &folder{
		a: newFoldSide(a, d, class, labels), b: newFoldSide(b, d, class, labels),
		points: points{table: newPointTable(d, class)}, names: foldNames{table: newNameTable(len(b) / bytesPerSymbol)},
	}
}

// foldedSymbols prepares what is asked about folded bodies.
func (p *parser) foldedSymbols() {
	if len(p.Folds) == 0 {
		return
	}
	for i := range p.Folds {
		body := int(p.Folds[i].body)
		if body >= len(p.foldOf) {
			p.foldOf = append(p.foldOf, make([]int32, body+1-len(p.foldOf))...)
		}
		p.foldOf[body] = int32(i) + 1
	}
	for i := range p.Symbols {
		if s := &p.Symbols[i]; s.Where != Undefined || s.Set != "" {
			f, _ := p.folded(s.Name)
			p.Clash = p.Clash || f != nil
		}
	}
}

// folded returns the fold whose body defines a name, or nil, and where in it.
func (u *Unit) folded(name string) (f *Fold, ord int32) {
	if len(u.Folds) == 0 {
		return nil, 0
	}
	at := u.labels.lookup(name)
	if int(at.body) >= len(u.foldOf) || u.foldOf[at.body] == 0 {
		return nil, 0
	}
	return &u.Folds[u.foldOf[at.body]-1], at.ord
}

// Resolve is [Unit.Lookup], but for local labels in folded bodies too: these
// become symbols when they are asked for first, with an Ord that only tells the
// places of one body apart, in both builds alike. lost is set for other names in
// them: what these stand for cannot be told.
func (u *Unit) Resolve(name string) (symbol int32, lost bool) {
	if symbol = u.Lookup(name); symbol >= 0 && (len(u.Folds) == 0 || u.Symbols[symbol].Where != Undefined || u.Symbols[symbol].Set != "") {
		return symbol, false
	}
	f, ord := u.folded(name)
	if f == nil {
		return symbol, false
	}
	if symbol >= 0 || len(f.visits) > 0 || !IsLocalLabel(name) {
		return symbol, true
	}
	symbol = int32(len(u.Symbols))
	number := u.Number(name)
	u.Symbols = append(u.Symbols, Symbol{Name: u.table.name(number), Number: number, Where: InItem, Item: f.item, Ord: ord})
	u.enter(number, symbol)
	return symbol, false
}

// Buried returns what a label stands for that is right before a part of a folded
// body, such as .LCOLDB7, from which the exception tables of cold parts count:
// the item of the function, and a negative number for the part, the same in both
// builds. Only the body itself may be told: see [Unit.Resolve].
func (u *Unit) Buried(name string) (item, ord int32, ok bool) {
	f, ord := u.folded(name)
	if f == nil || ord >= 0 {
		return 0, 0, false
	}
	return f.item, ord, true
}

// folder compares the bodies of functions of two texts.
type folder struct {
	a, b         *foldSide
	names        foldNames
	points       points // of a
	body, ord    int32  // of the bodies that are compared: their number, and where the last line so far ends that counts
	pairs        []pair
	refsA, refsB []mention
	outside      [][2]int32
	seen         []seenName // by name in a
	refs         []int32    // of all folds
}

// pair is two symbols that stand for each other.
type pair struct{ a, b mention }

// seenName is the name of b that stood for one of a in the given body.
type seenName struct{ body, name int32 }

// bytesPerFunction is about how much text comes with each function.
const bytesPerFunction = 1 << 12

// fold finds the folds of two texts, those of one function at the same index,
// in the order of b.
func (f *folder) fold() (fa, fb []Fold) {
	if !strings.HasSuffix(f.a.text, "\n") || !strings.HasSuffix(f.b.text, "\n") {
		return nil, nil
	}
	n := len(f.b.text)/bytesPerFunction + 16
	fa, fb = make([]Fold, 0, n), make([]Fold, 0, n)
	for {
		name, ok := f.b.function()
		if !ok {
			return fa, fb
		}
		f.b.lo = f.b.i
		found := f.a.seek(name)
		if !found || !f.alike(name) {
			if f.a.labels.twice || f.b.labels.twice {
				return nil, nil // the parser refuses it
			}
			if !f.b.leave(name) || found && !f.a.leave(name) {
				return fa, fb
			}
			continue
		}
		x, y := f.a.fold(name, f.body), f.b.fold(name, f.body)
		x.Refs, y.Refs = f.references(0), f.references(1)
		fa, fb = append(fa, x), append(fb, y)
	}
}

// references returns one side of outside.
func (f *folder) references(side int) []int32 {
	from := len(f.refs)
	for _, o := range f.outside {
		f.refs = append(f.refs, o[side])
	}
	return f.refs[from:len(f.refs):len(f.refs)]
}
