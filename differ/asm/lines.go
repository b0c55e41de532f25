package asm

import (
	"math/bits"
	"strings"
)

// lineBit says what a byte of a line may be.
type lineBit uint8

const (
	bitEnd   lineBit = 1 << iota // of the line, or left to [statementEnd]
	bitName                      // may begin a symbol or string
	bitNever                     // the dialect's never
)

// lineBits returns the bits of bytes in a dialect.
func lineBits(d *Dialect) *[256]lineBit {
	t := &[256]lineBit{'\n': bitEnd, ';': bitEnd, '"': bitEnd, '\'': bitEnd, '=': bitEnd, '\r': bitEnd}
	t[d.Comment[0]] |= bitEnd
	for c, is := range identStart {
		if is {
			t[c] |= bitName
		}
	}
	t[d.never] |= bitNever
	return t
}

// scanLine returns where the statement that goes on at i ends and where its line
// does, and the bits of its bytes. It reports false if something is not plain. The
// text ends with a line break.
func (p *parser) scanLine(i int) (stop, end int, bits lineBit, ok bool) {
	text, t := p.Text, p.bits
	for stop = i; stop < len(text); stop++ {
		b := t[text[stop]]
		if b&bitEnd != 0 {
			break
		}
		bits |= b
	}
	end = stop
	if text[stop] != '\n' {
		if !strings.HasPrefix(text[stop:], p.Dialect.Comment) {
			return 0, 0, 0, false
		}
		end = lineEnd(text, stop)
	}
	for stop > i && (text[stop-1] == ' ' || text[stop-1] == '\t') {
		stop--
	}
	return stop, end, bits, true
}

// quick takes the line at i if it is as compilers write nearly all: one label,
// or one tab and one instruction or directive. It returns the end of the line, or
// 0 if it left it to oneLine.
func (p *parser) quick(i int) (end int, err *SyntaxError) {
	text := p.Text
	if i+3 >= len(text) {
		return 0, nil
	}
	switch c := text[i]; {
	case c == '\n', c == '#' && text[i+1] == ' ':
		return lineEnd(text, i), nil
	case c != '\t':
		if end = identEnd(text, i); end > i+1 && identStart[text[i]] && text[end] == ':' && text[end+1] == '\n' {
			return end + 1, p.label(text[i:end], false, i, end+1)
		}
		return 0, nil
	}
	i++
	if word, a := shortAction(text, i); word > 0 {
		return p.quickDirective(a, i, word)
	}
	word := identEnd(text, i)
	if c := text[word]; word == i || c != '\t' && c != ' ' && c != '\n' {
		return 0, nil
	}
	switch c := text[i]; {
	case c >= 'a' && c <= 'z':
		stop, end, bits, ok := p.scanLine(word)
		if !ok || bits&bitNever != 0 {
			return 0, nil
		}
		return end, p.add(Stmt{uint32(i), uint32(stop), uint32(p.line), Insn})
	case c == '.' && text[i+1] != 'L':
		return p.quickDirective(actionOf(text[i:word]), i, word)
	}
	return 0, nil
}

// short are the directives whose names have no more than eight bytes, by
// shortHash. One of those with the same hash is left out.
var short = func() (t [512]struct {
	name   uint64 // the bytes before the tab, the first in the lowest byte
	action action
}) {
	for name, a := range directives {
		if len(name) <= 8 {
			x := word((name + "\x00\x00\x00\x00\x00\x00\x00")[:8])
			if e := &t[shortHash(x)]; e.name < x { // the same at each start
				e.name, e.action = x, a
			}
		}
	}
	return t
}()

func shortHash(name uint64) uint64 { return name * 0x9e3779b97f4a7c15 >> (64 - 9) }

// shortAction returns the end of the directive at i if it is one of short, with a
// tab behind it, and what to do with it.
func shortAction(text string, i int) (end int, a action) {
	if i+8 >= len(text) {
		return 0, aUnknown
	}
	x := word(text[i:])
	tabs := x ^ '\t'*each
	tabs = (tabs - each) &^ tabs & (0x80 * each) // the lowest bit set is exact
	if tabs == 0 && text[i+8] != '\t' {
		return 0, aUnknown
	}
	n := bits.TrailingZeros64(tabs) &^ 7 // 64 if there are none
	x &= 1<<n - 1
	if e := &short[shortHash(x)]; e.name == x && x != 0 {
		return i + n/8, e.action
	}
	return 0, aUnknown
}

// quickDirective is quick for the directive text[i:word].
func (p *parser) quickDirective(a action, i, word int) (end int, err *SyntaxError) {
	kind := Data
	switch a {
	case aBytes:
	case aCFI:
		kind = CFI
	case aAlign:
		kind = Align
	case aLiteral:
		return p.quickString(i, word)
	case aGlobal, aWeak, aType, aSize:
		return p.quickAttribute(a, word), nil
	case aSection:
		return p.quickSection(i)
	default:
		return 0, nil
	}
	stop, end, bits, ok := p.scanLine(word)
	if !ok {
		return 0, nil
	}
	if kind == Data && bits&bitName == 0 {
		kind = Literal
	}
	return end, p.add(Stmt{uint32(i), uint32(stop), uint32(p.line), kind})
}

// quickString is quick for a directive with one string, in which no quotes are
// escaped.
func (p *parser) quickString(i, word int) (end int, err *SyntaxError) {
	text := p.Text
	if text[word] != '\t' || text[word+1] != '"' {
		return 0, nil
	}
	n := strings.IndexByte(text[word+2:], '"')
	end = word + 3 + n // behind the quote
	if n < 0 || end >= len(text) || text[end] != '\n' || text[end-2] == '\\' || strings.IndexByte(text[word+2:end], '\n') >= 0 {
		return 0, nil
	}
	return end, p.add(Stmt{uint32(i), uint32(end), uint32(p.line), Literal})
}

// quickAttribute takes what compilers say of most symbols.
func (p *parser) quickAttribute(a action, word int) (end int) {
	text, lo := p.Text, word+1
	end = identEnd(text, lo)
	if end == lo || text[word] != '\t' || !identStart[text[lo]] || p.Sections[p.sec].Kind == Ignored {
		return 0
	}
	name, rest := text[lo:end], text[end:]
	switch a {
	case aGlobal:
		if rest[0] != '\n' {
			return 0
		}
		if s := &p.Symbols[p.symbol(name)]; s.Bind == Local {
			s.Bind = Global
		}
	case aWeak:
		if rest[0] != '\n' {
			return 0
		}
		p.Symbols[p.symbol(name)].Bind = Weak
	case aType:
		for _, t := range symbolTypes {
			if strings.HasPrefix(rest, t.args) {
				p.Symbols[p.symbol(name)].Type = t.name
				return end + len(t.args) - 1
			}
		}
		return 0
	case aSize:
		if len(rest) < 4 || rest[0] != ',' || rest[1] != ' ' || rest[2] == ' ' || rest[2] == '\t' {
			return 0
		}
		stop, to, _, ok := p.scanLine(end + 2)
		if !ok || stop == end+2 {
			return 0
		}
		p.size(p.symbol(name), text[end+2:stop])
		end = to
	}
	return end
}

// symbolTypes are the commonest types as .type directives give them.
var symbolTypes = []struct{ args, name string }{
	{", @function\n", "function"}, {", @object\n", "object"}, {",@function\n", "function"}, {",@object\n", "object"},
	{", %function\n", "function"}, {", %object\n", "object"}, {",%function\n", "function"}, {",%object\n", "object"},
}

// sectionLine is a line with a .section directive, or one that is short for it,
// and the section that it means.
type sectionLine struct {
	line string
	sec  int32
}

// lineHash tells the lines with section directives of one unit apart, mostly.
func lineHash(line string) (h uint64) {
	for ; len(line) >= 8; line = line[8:] {
		h = (h + word(line)) * 0x9e3779b97f4a7c15
	}
	return h>>32 + uint64(len(line))
}

// quickSection takes the directive at i if the same line came before.
func (p *parser) quickSection(i int) (end int, err *SyntaxError) {
	end = lineEnd(p.Text, i)
	line := p.Text[i:end]
	said := &p.said[lineHash(line)%uint64(len(p.said))]
	if said.line == line {
		p.change(said.sec)
		return end, nil
	}
	if strings.ContainsAny(line, ";#='/") {
		return 0, nil
	}
	if err = p.oneLine(i, end); err == nil {
		*said = sectionLine{line, p.sec}
	}
	return end, err
}

// dataKind returns the kind of a directive that makes bytes: most have numbers
// only, and need not be asked for symbols again.
func dataKind(operands string) Kind {
	for i := range len(operands) {
		if c := operands[i]; identStart[c] || c == '"' || c == '\'' {
			return Data
		}
	}
	return Literal
}

// skipIgnored passes over a line of a debug section that switches no section.
func (p *parser) skipIgnored(i int) (next int, skipped bool) {
	text := p.Text
	end := lineEnd(text, i)
	if strings.IndexByte(text[i:end], ';') >= 0 {
		return 0, false
	}
	if text[i] == '\t' {
		switch _, a := shortAction(text, i+1); a {
		case aBytes, aLiteral, aNoise, aAlign:
			p.line++
			return end + 1, true
		}
	}
	j := i
	for j < len(text) && (text[j] == '\t' || text[j] == ' ') {
		j++
	}
	if j+1 < len(text) && text[j] == '.' {
		switch text[j+1] {
		case 'L': // a label, if nothing follows it
			if strings.TrimSpace(text[identEnd(text, j):end]) != ":" {
				return 0, false
			}
		default:
			switch actionOf(text[j:identEnd(text, j)]) {
			case aBytes, aLiteral, aNoise, aAlign:
			default:
				return 0, false
			}
		}
	} else if j < end {
		return 0, false
	}
	p.line++
	return end + 1, true
}
