package asm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxText bounds a unit's text, in bytes.
const maxText = 1 << 30

// limits bound the memory that a unit takes.
type limits struct{ symbols, items, statements int }

// most is more than compilers make of the largest sources.
var most = limits{symbols: 1 << 22, items: 1 << 22, statements: 1 << 26}

// exceed notes that the unit holds more than n of what there may be.
func (p *parser) exceed(n int, what string) {
	p.over = fmt.Sprintf("more than %d %s in one unit", n, what)
}

// bytesPerSymbol is about how much text comes with each symbol outside of folded
// bodies, at least.
const bytesPerSymbol = 1 << 10

// maxStack bounds nested .pushsection directives.
const maxStack = 64

type parser struct {
	*Unit
	line     int
	sec      int32 // current section
	previous int32
	stack    [][2]int32
	names    *nameTable // of sections, with their groups
	key      []byte     // of the last one
	inline   bool       // between #APP and #NO_APP
	// fileLevel is set in inline assembly outside of functions, around which clang
	// writes comments of its own.
	fileLevel bool
	mode      string
	bytes     int    // statements that make bytes
	count     int    // statements that were kept
	max       limits // of what the unit may hold
	over      string // which limit it is over
	taken     int    // of Folds
	recent    recent
	// conditions is how many .ifdef and .ifndef are open whose text is taken, and
	// skipped where the text goes on behind one that was not.
	conditions, skipped int
	numeric             map[string][]definition // numeric labels, by rising offset
	bits                *[256]lineBit
	said                [16]sectionLine
	// stmts and ids are room for the lists of items, most of which are short.
	stmts []Stmt
	ids   []int32
}

// Parse reads the assembly text of one unit. The text is kept. Errors are of
// type *SyntaxError.
func Parse(file, text string, d *Dialect) (*Unit, error) {
	text, err := prepare(file, text, d)
	if err != nil {
		return nil, err
	}
	return parseText(file, text, d, nil, nil, newNameTable(len(text)/bytesPerSymbol), newRoom(len(text)/bytesPerSymbol, len(text)/bytesPerSymbol))
}

// Pair is two builds of one unit.
type Pair struct {
	d              *Dialect
	fileA, fileB   string
	textA, textB   string
	foldsA, foldsB []Fold // of one function each, in the order of textB
	folder         *folder
	names          *nameTable
	mentions       int   // names that folds refer to, the first of names
	a, b           *Unit // that were parsed last
}

// NewPair takes the texts of two builds and finds the functions that both have
// alike. Errors are of type *SyntaxError.
func NewPair(fileA, a, fileB, b string, d *Dialect) (*Pair, error) {
	p := &Pair{d: d, fileA: fileA, fileB: fileB}
	var err error
	if p.textA, err = prepare(fileA, a, d); err != nil {
		return nil, err
	}
	if p.textB, err = prepare(fileB, b, d); err != nil {
		return nil, err
	}
	p.folder = newFolder(p.textA, p.textB, d)
	p.foldsA, p.foldsB = p.folder.fold()
	p.names = p.folder.names.table
	p.mentions = len(p.names.text)
	return p, nil
}

// Parse reads both builds. The bodies of functions that both have alike become
// one statement each, of kind [Folded], unless keep reports their names. There is
// no b if a has a Clash. The units of an earlier call are not to be used any more:
// their memory is. Errors are of type *SyntaxError.
func (p *Pair) Parse(keep func(function string) bool) (a, b *Unit, err error) {
	folds := func(some []Fold) []Fold {
		kept := func(f Fold) bool { return keep(f.name) }
		if slices.ContainsFunc(some, kept) {
			some = slices.DeleteFunc(slices.Clone(some), kept)
		}
		if order := func(x, y Fold) int { return cmp.Compare(x.Lo, y.Lo) }; !slices.IsSortedFunc(some, order) {
			some = slices.Clone(some)
			slices.SortFunc(some, order)
		}
		return some
	}
	fa, fb := folds(p.foldsA), folds(p.foldsB)
	in := func() room {
		whole := len(p.textA) - folded(fa)
		return newRoom(p.mentions+whole/bytesPerItem, p.mentions+whole/bytesPerLabel)
	}
	if p.a != nil {
		in = p.a.room
	}
	if a, err = parseText(p.fileA, p.textA, p.d, fa, &p.folder.a.labels, p.names, in()); err != nil {
		return nil, nil, err
	}
	p.a, a.mentions = a, p.mentions
	if a.Clash {
		return a, nil, nil
	}
	in = a.another
	if p.b != nil {
		in = p.b.room
	}
	if b, err = parseText(p.fileB, p.textB, p.d, fb, &p.folder.b.labels, p.names, in()); err != nil {
		return a, nil, err
	}
	p.b, b.mentions = b, p.mentions
	return a, b, nil
}

// About how much text outside of folded bodies comes with each label and item
// there.
const (
	bytesPerLabel = 192
	bytesPerItem  = 768
)

// folded returns how many bytes of text folds stand for.
func folded(folds []Fold) (n int) {
	for i := range folds {
		n += int(folds[i].Hi - folds[i].Lo)
	}
	return n
}

// room is memory for the lists of a unit.
type room struct {
	items    []Item
	symbols  []Symbol
	sections []Section
	index    []int32
}

// newRoom is room for about so many items and symbols.
func newRoom(items, symbols int) room {
	return room{make([]Item, 0, items+16), make([]Symbol, 0, symbols+16), nil, make([]int32, symbols+16)}
}

// another is room for a unit like u.
func (u *Unit) another() room {
	more := func(n int) int { return n + n/32 + 16 }
	return room{make([]Item, 0, more(len(u.Items))), make([]Symbol, 0, more(len(u.Symbols))),
		make([]Section, 0, more(len(u.Sections))), make([]int32, more(u.Numbers()))}
}

// room is the room that u has, which is not used any more.
func (u *Unit) room() room {
	clear(u.index)
	return room{u.Items[:0], u.Symbols[:0], u.Sections[:0], u.index}
}

// prepare checks the text's size and blanks its comments.
func prepare(file, text string, d *Dialect) (string, error) {
	if len(text) > maxText {
		return "", &SyntaxError{File: file, Line: 1, Reason: fmt.Sprintf("file of more than %d bytes", maxText)}
	}
	text, bad := blankComments(text, d)
	if bad != nil {
		bad.File = file
		return "", bad
	}
	return text, nil
}

func parseText(file, text string, d *Dialect, folds []Fold, labels *foldLabels, names *nameTable, in room) (*Unit, error) {
	p := newParser(file, text, d, names, in)
	p.Folds, p.labels = folds, labels
	if err := p.run(); err != nil {
		err.File = file
		return nil, err
	}
	return p.Unit, nil
}

func newParser(file, text string, d *Dialect, names *nameTable, in room) *parser {
	p := &parser{
		Unit: &Unit{File: file, Text: text, Dialect: d, table: names,
			Items: in.items, Symbols: in.symbols, Sections: in.sections, index: in.index},
		line: 1, names: newNameTable(16), max: most, bits: lineBits(d),
	}
	p.sec = p.section(".text", "ax", "")
	p.previous = p.sec
	return p
}

func (p *parser) run() *SyntaxError {
	text := p.Text
	if n := len(text); n > 0 && text[n-1] != '\n' {
		last := text[strings.LastIndexByte(text, '\n')+1:]
		return &SyntaxError{Line: strings.Count(text, "\n") + 1, Text: clip(last), Reason: "the file ends in the middle of a line"}
	}
	for i := 0; i < len(text); {
		if p.taken < len(p.Folds) && i == int(p.Folds[p.taken].Lo) {
			if err := p.fold(&p.Folds[p.taken]); err != nil {
				return err
			}
			i = int(p.Folds[p.taken].Hi)
			p.taken++
			continue
		}
		if p.Sections[p.sec].Kind == Ignored && !p.inline {
			if next, skipped := p.skipIgnored(i); skipped {
				i = next
				continue
			}
		}
		end, err := p.quick(i)
		if end == 0 && err == nil {
			end = lineEnd(text, i)
			if err = p.oneLine(i, end); p.skipped > end {
				p.line += strings.Count(text[i:p.skipped], "\n") - 1
				end = p.skipped - 1
			}
		}
		if p.over != "" {
			return p.fail(i, lineEnd(text, i), "%s", p.over)
		}
		if err != nil {
			return err
		}
		p.line++
		i = end + 1
	}
	if p.conditions > 0 {
		return &SyntaxError{Line: p.line - 1, Reason: "condition without .endif"}
	}
	if len(p.stack) > 0 {
		return &SyntaxError{Line: p.line - 1, Reason: ".pushsection without .popsection"}
	}
	return p.finish()
}

// oneLine takes the statements of text[i:end].
func (p *parser) oneLine(i, end int) *SyntaxError {
	text, d := p.Text[:end], p.Dialect
	for i < end && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	if i == end {
		return nil
	}
	if mark, ok := strings.CutPrefix(text[i:], "#"); ok {
		p.mark(mark)
		return nil
	}
	if mark, ok := strings.CutPrefix(text[i:], d.Comment); ok {
		p.mark(mark)
		return nil
	}
	if strings.HasPrefix(text[i:], d.LineComment) {
		return nil
	}
	return p.statements(i, end)
}

// mark takes a comment: compilers mark inline assembly by some.
func (p *parser) mark(comment string) {
	switch strings.TrimRight(comment, " \t\r") {
	case "APP":
		p.inline = true
	case "NO_APP":
		p.inline = false
	case " Start of file scope inline assembly":
		p.fileLevel = true
	case " End of file scope inline assembly":
		p.fileLevel = false
	}
}

// statements takes the statements of text[i:end], a line.
func (p *parser) statements(i, end int) *SyntaxError {
	text, d := p.Text[:end], p.Dialect
	for i < end {
		for i < end && (text[i] == ' ' || text[i] == '\t' || text[i] == ';' || text[i] == '\r') {
			i++
		}
		if i == end {
			break
		}
		stop, next, bad := statementEnd(text, i, d)
		if bad {
			return p.fail(i, end, "string without an end")
		}
		if stop > i {
			if err := p.statement(i, stop); err != nil {
				return err
			}
			if p.skipped > i {
				i = p.skipped // maybe behind the line
				continue
			}
		}
		i = next
	}
	return nil
}

func (p *parser) fail(lo, hi int, format string, args ...any) *SyntaxError {
	return &SyntaxError{Line: p.line, Text: clip(p.Text[lo:hi]), Reason: fmt.Sprintf(format, args...)}
}

// statement takes the labels and the instruction, directive or assignment of
// text[lo:hi].
func (p *parser) statement(lo, hi int) *SyntaxError {
	for {
		name, after, numeric, ok := labelAt(p.Text[:hi], lo)
		if !ok {
			break
		}
		if err := p.label(name, numeric, lo, after); err != nil {
			return err
		}
		for lo = after; lo < hi && (p.Text[lo] == ' ' || p.Text[lo] == '\t'); lo++ {
		}
		if lo == hi {
			return nil
		}
	}
	text := p.Text[lo:hi]
	end := identEnd(text, 0)
	if sym, expr, ok := assignment(text, end); ok {
		return p.set(sym, expr, lo, hi)
	}
	if text[0] == '.' && end > 1 {
		return p.directive(text[:end], lo, hi)
	}
	c := text[0]
	if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '{') {
		return p.fail(lo, hi, "neither a label, an instruction nor a directive")
	}
	if strings.IndexByte(text, p.Dialect.never) >= 0 {
		return p.fail(lo, hi, "no instruction of %s in the syntax that gcc and clang write by default", p.Dialect.Arch.Name)
	}
	return p.add(Stmt{uint32(lo), uint32(hi), uint32(p.line), Insn})
}

// labelAt reports the label at text[i:] and the offset after its colon.
func labelAt(text string, i int) (name string, after int, numeric, ok bool) {
	end := i
	switch c := text[i]; {
	case c == '"':
		end = stringEnd(text, i)
		if end-i < 3 {
			return "", 0, false, false
		}
		name = text[i+1 : end-1]
	case c >= '0' && c <= '9':
		for end < len(text) && text[end] >= '0' && text[end] <= '9' {
			end++
		}
		numeric = true
		name = text[i:end]
	case identStart[c]:
		end = identEnd(text, i)
		name = text[i:end]
	default:
		return "", 0, false, false
	}
	if end >= len(text) || text[end] != ':' {
		return "", 0, false, false
	}
	return name, end + 1, numeric, true
}

// assignment splits "symbol = expression".
func assignment(text string, end int) (sym, expr string, ok bool) {
	if end == 0 {
		return "", "", false
	}
	rest := strings.TrimLeft(text[end:], " \t")
	if len(rest) < 2 || rest[0] != '=' {
		return "", "", false
	}
	return text[:end], strings.TrimSpace(strings.TrimLeft(rest, "=")), true
}

// symbol returns the index of the symbol of that name, which it makes if need
// be.
func (p *parser) symbol(name string) int32 {
	if name == p.recent.name && name != "" {
		return p.recent.id
	}
	number := p.Number(name)
	if i := p.Named(number); i >= 0 {
		p.recent = recent{p.table.name(number), i}
		return i
	}
	i := int32(len(p.Symbols))
	if len(p.Symbols) == p.max.symbols {
		p.exceed(p.max.symbols, "symbols")
		return 0
	}
	p.Symbols = append(p.Symbols, Symbol{Name: p.table.name(number), Number: number, Item: -1, Line: uint32(p.line)})
	p.enter(number, i)
	p.recent = recent{p.Symbols[i].Name, i}
	return i
}

// recent is the symbol that was asked for last: the directives for one come
// together.
type recent struct {
	name string
	id   int32
}

// finish resolves and checks what can only be known at the end.
func (p *parser) finish() *SyntaxError {
	for i := range p.Items {
		if !p.Items[i].Common {
			p.bytes -= int(p.Items[i].Bytes)
		}
	}
	if p.bytes != 0 {
		return &SyntaxError{Line: p.line, Reason: "statements that belong to no item"}
	}
	for i := range p.Sections {
		s := &p.Sections[i]
		p.place(s.labels, Loose, -1, 0)
		s.labels = nil
	}
	p.foldedSymbols()
	for i := range p.Symbols {
		s := &p.Symbols[i]
		if s.Where == Undefined && s.Set != "" && !s.WeakRef {
			p.resolveSet(s)
		}
	}
	p.bind()
	return nil
}
