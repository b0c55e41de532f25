package asm

import (
	"strings"
	"unsafe"
)

// section returns the index of the named section, which it makes if need be.
// Flags count where a section is named first; later directives may leave them
// out.
func (p *parser) section(name, flags, args string) int32 {
	key := name
	if strings.IndexByte(flags, 'G') >= 0 {
		p.key = append(append(append(p.key[:0], name...), 0), args...)
		key = unsafe.String(&p.key[0], len(p.key)) // the table does not keep it
	}
	i := p.names.number(key)
	if int(i) == len(p.Sections) {
		p.Sections = append(p.Sections, Section{Name: name, Flags: flags, Args: args, Kind: kindOfSection(name, flags, args),
			open: -1, last: -1, sized: -1})
	}
	return i
}

// change makes sec the current section.
func (p *parser) change(sec int32) {
	p.Clash = p.Clash || p.inline && p.Sections[p.sec].buried != ""
	if cur := &p.Sections[p.sec]; p.inline && cur.Kind == Text && cur.open >= 0 && sec != p.sec {
		if it := &p.Items[cur.open]; it.Foreign == 0 {
			it.Foreign, it.Into = uint32(p.line), sec
		}
	}
	p.previous, p.sec = p.sec, sec
}

// place gives the labels a position.
func (p *parser) place(labels []int32, where Where, item, ord int32) {
	for _, l := range labels {
		s := &p.Symbols[l]
		s.Where, s.Item, s.Ord = where, item, ord
	}
}

// label takes one label, whose text is Text[lo:after].
func (p *parser) label(name string, numeric bool, lo, after int) *SyntaxError {
	sec := &p.Sections[p.sec]
	if numeric {
		err := p.add(Stmt{uint32(lo), uint32(after - 1), uint32(p.line), Number})
		p.numbered(name, lo)
		return err
	}
	if sec.Kind == Ignored {
		return p.misplaced(sec, name, lo, after)
	}
	if strings.HasSuffix(name, ".kpatch") {
		return p.fail(lo, after, "the name ends in .kpatch, which patches use")
	}
	id := p.symbol(name)
	if s := &p.Symbols[id]; s.Where != Undefined || s.Set != "" {
		return p.fail(lo, after, "symbol is defined twice")
	}
	p.Symbols[id].Line = uint32(p.line)
	p.put(id, lo, after)
	return nil
}

// misplaced refuses a name in a section that the running program has and that
// compilers and linkers fill: what somebody else puts there is not compared.
func (p *parser) misplaced(sec *Section, name string, lo, after int) *SyntaxError {
	if IsLocalLabel(name) || !strings.ContainsRune(sec.Flags, 'a') {
		return nil
	}
	return p.fail(lo, after, "the section is kept for what compilers and linkers put there")
}

// put puts symbol id at the current position and begins a new item where one
// begins. Its name and one byte more is Text[lo:after].
func (p *parser) put(id int32, lo, after int) {
	sec := &p.Sections[p.sec]
	if sec.buried != "" {
		p.buriedLabel(sec, p.Symbols[id].Name)
	}
	begins := p.begins(sec, id)
	if !begins {
		if open := sec.open; open >= 0 {
			p.inside(id, open, lo, after)
			return
		}
		if p.Symbols[id].LocalLabel() && sec.Kind == Text {
			p.drop(sec)
			sec.labels = append(sec.labels, id)
			p.Symbols[id].Where = Loose
			return
		}
	}
	sec.open = -1
	p.open()
	sec = &p.Sections[p.sec]
	p.inside(id, sec.open, lo, after)
}

// drop forgets labels that no bytes followed: .Ltext0, .LHOTE1.
func (p *parser) drop(sec *Section) {
	if len(sec.labels) > 8 {
		p.place(sec.labels, Loose, -1, 0)
		sec.labels = sec.labels[:0]
	}
}

// inside puts symbol id at the end of what item has.
func (p *parser) inside(id, item int32, lo, after int) {
	it, s := &p.Items[item], &p.Symbols[id]
	s.Where, s.Item, s.Ord = InItem, item, it.Bytes
	if it.Bytes == 0 {
		it.Symbols = append(it.Symbols, id)
	} else if !s.LocalLabel() {
		it.Inner = id
	}
	it.Stmts = append(it.Stmts, Stmt{uint32(lo), uint32(after - 1), uint32(p.line), Label})
}

// begins reports whether symbol id begins a new item at the current position.
func (p *parser) begins(sec *Section, id int32) bool {
	s := &p.Symbols[id]
	open := sec.open
	if open < 0 {
		return !(s.LocalLabel() && sec.Kind == Text)
	}
	it := &p.Items[open]
	if sec.Kind == Text {
		if s.LocalLabel() {
			return p.Pool(open)
		}
		if it.Bytes == 0 {
			return false
		}
		return s.Type == "function" || !p.typed(it)
	}
	return it.Bytes > 0 && (sec.Kind != Metadata || exceptionTable(s.Name))
}

// Pool reports whether item i, of code, is nothing but data that only labels name:
// constants and addresses that a compiler put behind a function. What somebody
// wrote there is none.
func (u *Unit) Pool(i int32) bool {
	it := &u.Items[i]
	if it.Bytes == 0 || it.Written {
		return false
	}
	for _, id := range it.Symbols {
		if !u.Symbols[id].LocalLabel() {
			return false
		}
	}
	for _, st := range it.Stmts {
		if st.Kind == Insn || st.Kind == Folded || st.Kind == Number {
			return false
		}
	}
	return true
}

// exceptionTable reports whether a label begins the exception table of a
// function (.LLSDA7, clang's GCC_except_table7) or of its cold part (.LLSDAC7).
func exceptionTable(name string) bool {
	if strings.HasPrefix(name, "GCC_except_table") {
		return true
	}
	n, ok := strings.CutPrefix(name, ".LLSDA")
	n = strings.TrimPrefix(n, "C")
	return ok && n != "" && n[0] >= '0' && n[0] <= '9'
}

// typed reports whether the item is a function whose end .size will tell.
func (p *parser) typed(it *Item) bool {
	for _, id := range it.Symbols {
		if p.Symbols[id].Type == "function" {
			return true
		}
	}
	return false
}

// open begins a new item in the current section.
func (p *parser) open() {
	sec := &p.Sections[p.sec]
	id := int32(len(p.Items))
	if len(p.Items) == p.max.items {
		p.exceed(p.max.items, "functions and objects")
	}
	it := Item{Section: p.sec, Line: uint32(p.line), Inner: -1, Mode: p.mode, Written: p.inline || p.fileLevel}
	it.Symbols, it.Stmts = p.room()
	it.Stmts = append(it.Stmts, sec.pending...)
	p.place(sec.labels, InItem, id, 0)
	sec.pending, sec.labels = sec.pending[:0], sec.labels[:0]
	sec.open, sec.last, sec.sized = id, id, -1
	sec.Items = append(sec.Items, id)
	p.Items = append(p.Items, it)
}

// room returns empty lists for an item, with room for what a string has: its
// alignment, its label and two directives.
func (p *parser) room() (symbols []int32, stmts []Stmt) {
	const few = 4
	if len(p.ids) == 0 {
		p.ids, p.stmts = make([]int32, 256), make([]Stmt, 256*few)
	}
	symbols, stmts = p.ids[:0:1], p.stmts[:0:few]
	p.ids, p.stmts = p.ids[1:], p.stmts[few:]
	return symbols, stmts
}

// add hands a statement to the item it belongs to.
func (p *parser) add(st Stmt) *SyntaxError {
	sec := &p.Sections[p.sec]
	if sec.Kind == Ignored {
		return nil
	}
	if sec.buried != "" && p.buriedStatement(sec, st) {
		return nil
	}
	if p.count++; p.count == p.max.statements {
		p.exceed(p.count, "statements")
	}
	if st.Kind == Align && sec.Kind != Metadata && sec.open >= 0 {
		if sec.Kind == Text && p.Pool(sec.open) || sec.Kind != Text && p.Items[sec.open].Bytes > 0 {
			sec.open = -1
		}
	}
	if sec.open < 0 {
		if st.Kind == CFI && sec.sized >= 0 && p.TextOf(st) == ".cfi_endproc" {
			// clang writes it after .size.
			it := &p.Items[sec.sized]
			it.Stmts = append(it.Stmts, st)
			sec.sized = -1
			return nil
		}
		if !st.Kind.Bytes() && st.Kind != Number {
			p.Clash = p.Clash || sec.sized == hidden && p.TextOf(st) == ".cfi_endproc"
			sec.pending = append(sec.pending, st)
			return nil
		}
		if last := sec.last; last >= 0 && len(sec.labels) == 0 {
			p.Items[last].Split = true
		}
		p.open()
		sec = &p.Sections[p.sec]
	}
	it := &p.Items[sec.open]
	it.Stmts = append(it.Stmts, st)
	if st.Kind.Bytes() {
		it.Bytes++
		p.bytes++
	}
	return nil
}

// set takes an assignment: .set sym, expr or sym = expr.
func (p *parser) set(name, expr string, lo, hi int) *SyntaxError {
	name = Unquote(name)
	if p.Sections[p.sec].Kind == Ignored && strings.HasPrefix(expr, ".-") {
		return nil
	}
	id := p.symbol(name)
	s := &p.Symbols[id]
	if s.Where != Undefined || s.Set != "" && s.Set != expr {
		return p.fail(lo, hi, "symbol is defined twice")
	}
	dot := strings.ReplaceAll(expr, " ", "")
	if dot == "." || strings.HasPrefix(dot, ".+") {
		if p.Sections[p.sec].Kind == Ignored {
			s.Where = Loose
			return nil
		}
		_, n, ok := SplitSum("0" + strings.TrimPrefix(dot, "."))
		if !ok && dot != "." {
			_, n, ok = SplitSum(strings.TrimPrefix(dot, ".+"))
			if !ok {
				return p.fail(lo, hi, "expression is not understood")
			}
		}
		at := lo + strings.Index(p.Text[lo:hi], name)
		p.put(id, at, at+len(name)+1)
		p.Symbols[id].Add = n
		return nil
	}
	s.Set = expr
	if sec := &p.Sections[p.sec]; HasDot(expr) && sec.open >= 0 && sec.Kind != Ignored {
		s.Item, s.Ord = sec.open, p.Items[sec.open].Bytes
	}
	return nil
}
