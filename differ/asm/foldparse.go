package asm

import "strings"

// hidden stands for a function in a folded body.
const hidden = -2

// fold takes the body of a function as one statement. Sections that the body
// visits are left as all its statements would leave them, or as a Clash if that
// cannot be told.
func (p *parser) fold(f *Fold) *SyntaxError {
	home := p.sec
	if open := p.Sections[home].open; open < 0 || p.Items[open].Bytes > 0 || p.inline || p.Sections[home].Kind != Text {
		p.Clash = true
	}
	if err := p.add(Stmt{f.Lo, f.Hi, uint32(p.line), Folded}); err != nil {
		return err
	}
	f.item = p.Sections[home].open
	p.line += f.lines
	f.shape = make([]byte, len(f.visits))
	for i, v := range f.visits {
		if err := p.statement(v.directive.lo, v.directive.hi); err != nil {
			return err
		}
		f.shape[i] = byte(p.Sections[p.sec].Kind)
		if p.sec == home {
			f.shape[i] = own
			p.Clash = p.Clash || v.first.hi > 0 // an item of its own
			continue
		}
		end := int(f.Hi)
		if i+1 < len(f.visits) {
			end = f.visits[i+1].directive.lo
		}
		p.Clash = !p.bury(f, i, end) || p.Clash
	}
	return nil
}

// bury notes that visit i of a folded body, which ends at end, puts something
// into the current section. It reports false if what that is depends on what is
// before it in the section, or if it does not end in an item.
func (p *parser) bury(f *Fold, i, end int) bool {
	sec, v := &p.Sections[p.sec], f.visits[i]
	if sec.Kind == Ignored || strings.TrimSpace(p.Text[v.directive.hi:end]) == "" {
		return true
	}
	label, last, split := ends(p.Text[v.directive.hi:end])
	ok := label != "" && (sec.open < 0 || p.Items[sec.open].Bytes > 0)
	switch sec.Kind {
	case Text:
		ok = ok && sec.open < 0 && sec.buried == "" && v.first.hi > 0 && p.Text[v.first.lo:v.first.hi] == label
		label = p.Text[v.last.lo:v.last.hi]
	case Metadata:
		ok = ok && exceptionTable(label)
	default:
		ok = ok && last == aBytes && !split
	}
	for _, id := range sec.labels {
		s := &p.Symbols[id]
		s.Where, s.Item = Undefined, -1
		ok = ok && p.labels.bury(s.Name, f.body, i)
	}
	sec.pending, sec.labels, sec.buried = sec.pending[:0], sec.labels[:0], label
	sec.open, sec.last, sec.sized = -1, -1, -1
	return ok
}

// ends returns the label that is before the first bytes of a part of a folded
// body, and what is last in it that is a label (aSet), bytes (aBytes) or an
// alignment. There is no label if there are no bytes behind one. split is set for
// bytes right behind an alignment, which begin an item of data.
func ends(text string) (label string, last action, split bool) {
	bytes := false
	for line := range strings.Lines(text) {
		is := aUnknown
		switch {
		case identStart[line[0]]:
			if is = aSet; label == "" {
				label = line[:identEnd(line, 0)]
			}
		case line[0] != '\t' || len(line) < 3:
		case line[1] == '.':
			is = actionOf(line[1:identEnd(line, 1)])
		case identStart[line[1]]:
			is = aBytes
		}
		switch is {
		case aBytes, aLiteral:
			if label == "" {
				return "", last, false
			}
			bytes, last, split = true, aBytes, split || last == aAlign
		case aSet, aAlign:
			last = is
		}
	}
	if !bytes {
		label = ""
	}
	return label, last, split
}

// buriedStatement notes a Clash if what a statement of a section belongs to is
// in a folded body. It reports true for alignment behind an exception table,
// which says nothing else.
func (p *parser) buriedStatement(sec *Section, st Stmt) (gone bool) {
	if st.Kind == Align && sec.Kind == Metadata {
		return true
	}
	p.Clash = p.Clash || st.Kind != Align || sec.Kind == Text
	return false
}

// buriedLabel is buriedStatement for a label.
func (p *parser) buriedLabel(sec *Section, name string) {
	if sec.Kind == Text || sec.Kind == Metadata && !exceptionTable(name) {
		p.Clash = true
	}
	sec.buried = ""
}

// buriedSize takes the .size of a symbol that is not defined: a cold part in a
// folded body ends with it.
func (p *parser) buriedSize(name string) {
	if len(p.Folds) == 0 || !strings.Contains(name, ".cold") {
		return
	}
	for i := range p.Sections {
		if sec := &p.Sections[i]; sec.Kind == Text && sec.buried == name {
			sec.buried, sec.sized = "", hidden
		}
	}
}
