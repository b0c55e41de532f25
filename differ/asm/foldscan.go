package asm

import "strings"

// line is what a line is to a fold.
type line uint8

const (
	lineEnded   line = iota // the .size of the function, which ends it
	lineOther               // something that is not folded
	lineNoise               // counts for nothing
	lineLabel               // .L…:
	lineName                // another label, which counts as it is written
	lineExact               // counts as it is written
	lineType                // likewise; gives a cold part its type
	lineSection             // likewise; changes the section
	lineInsn
	lineData
	lineCFI
)

// scanned is one line: its statement or label is text[lo:hi], without the tab
// before it, and the next line begins at next.
type scanned struct {
	kind         line
	lo, hi, next int32
	label        label // if it is one
}

// mention is one symbol in a statement, text[lo:hi].
type mention struct {
	label
	lo, hi int32
}

func lineAt(kind line, lo, hi, next int) scanned {
	return scanned{kind: kind, lo: int32(lo), hi: int32(hi), next: int32(next)}
}

// other is a line that is not folded.
var other = scanned{kind: lineOther}

func mentionAt(l label, lo, hi int) mention { return mention{l, int32(lo), int32(hi)} }

// class is what a byte in operands is.
type class uint8

const (
	classPlain class = iota
	classRegister
	classIdent
	classDigit
	classSuffix // of a symbol: @PLT
	classExact  // only the dialect can tell what is a symbol
	classOdd    // left to the parser, if it does not begin a comment
	classEnd    // of the line
)

// classes returns the classes of bytes in a dialect.
func classes(d *Dialect) *[256]class {
	t := &[256]class{'@': classSuffix, ';': classOdd, '"': classOdd, '\'': classOdd, '/': classOdd, '#': classOdd,
		'{': classOdd, '\\': classOdd, '!': classOdd, '\n': classEnd, '\r': classOdd}
	if d.Registers == 0 { // A64: #immediates, writeback, register lists, :lo12:x, =x
		t['#'], t['!'], t['{'], t[':'], t['='] = classPlain, classPlain, classExact, classExact, classExact
	}
	for c := range t {
		switch {
		case c >= '0' && c <= '9':
			t[c] = classDigit
		case identStart[c]:
			t[c] = classIdent
		}
	}
	if d.Registers != 0 {
		t[d.Registers] = classRegister
	}
	t[d.never] = classOdd
	return t
}

// scanner reads lines of one text. The text ends with a line break.
type scanner struct {
	d        *Dialect
	class    *[256]class
	text     string
	families *families
	refs     []Ref
}

// scan reads the line at i in the body of a function. It appends the symbols
// that its statement mentions to dst.
func (s *scanner) scan(i int, function string, dst []mention) (scanned, []mention) {
	text := s.text
	if i+1 >= len(text) {
		return other, dst
	}
	if text[i] == '\t' {
		switch c := text[i+1]; {
		case c >= 'a' && c <= 'z':
			return s.statement(lineInsn, i+1, dst)
		case c == '.':
			return s.directive(i+1, function, dst)
		}
	}
	switch c := text[i]; {
	case c == '\n':
		return lineAt(lineNoise, i, i, i+1), dst
	case c == '#' && strings.HasPrefix(text[i:], "#APP"):
		return other, dst // inline assembly may do anything
	case c == '#':
		return lineAt(lineNoise, i, i, lineEnd(text, i)+1), dst
	case identStart[c]:
		return s.label(i, function), dst
	}
	for i < len(text) && text[i] == '\t' {
		i++
	}
	if next, ok := s.rest(i); ok {
		return lineAt(lineNoise, i, i, next), dst
	}
	return other, dst
}

// rest reports whether nothing but spaces and a comment is at text[i:] before
// the end of the line. The marks around inline assembly are no comments.
func (s *scanner) rest(i int) (next int, ok bool) {
	text := s.text
	for text[i] == ' ' || text[i] == '\t' {
		i++
	}
	if text[i] == '\n' {
		return i + 1, true
	}
	comment, ok := strings.CutPrefix(text[i:], s.d.Comment)
	if !ok || strings.HasPrefix(comment, "APP") || strings.HasPrefix(comment, "NO_APP") {
		return 0, false
	}
	return lineEnd(text, i) + 1, true
}

// label reads a line with a label and nothing else: a local one, or that of the
// function's cold part.
func (s *scanner) label(i int, function string) scanned {
	text := s.text
	hi := identEnd(text, i)
	if text[hi] != ':' {
		return other
	}
	next := hi + 2
	if text[hi+1] != '\n' {
		var ok bool
		if next, ok = s.rest(hi + 1); !ok {
			return other
		}
	}
	l := lineAt(lineName, i, hi, next)
	switch name := text[i:hi]; {
	case strings.HasSuffix(name, ".kpatch"):
		return other
	case !IsLocalLabel(name):
		if parent, _ := strings.CutPrefix(name, function); !strings.HasPrefix(parent, ".cold") {
			return other // a function of its own
		}
	default:
		l.kind = lineLabel
		if m, _ := s.symbol(i); m.hi > 0 {
			l.label = m.label
		}
	}
	return l
}

// directive reads a line with a directive.
func (s *scanner) directive(i int, function string, dst []mention) (scanned, []mention) {
	text := s.text
	end := lineEnd(text, i)
	l := text[i:end]
	kind := directiveLine(l, function)
	switch kind {
	case lineData, lineCFI:
		return s.statement(kind, i, dst)
	case lineOther:
		return other, dst
	}
	stop, next, bad := end, end+1, false
	for k := range len(l) {
		if stops[l[k]] {
			stop, next, bad = statementEnd(text, i, s.d)
			break
		}
	}
	if bad || next != end+1 || kind == lineNoise && !single(text[i:stop]) {
		return other, dst
	}
	return lineAt(kind, i, stop, next), dst
}

// directiveLine says what a line with a directive is.
func directiveLine(l, function string) line {
	if strings.HasPrefix(l, ".cfi_") {
		if NamesSymbols(l) {
			return lineCFI
		}
		return lineNoise
	}
	word := identEnd(l, 0)
	a := actionOf(l[:word])
	if word < len(l) && l[word] != '\t' && l[word] != ' ' {
		return lineOther
	}
	switch a {
	case aNoise, aAlign, aMark, aCFI:
		return lineNoise
	case aBytes:
		return lineData
	case aSize:
		if rest, ok := strings.CutPrefix(l, ".size\t"+function); ok && rest != "" && rest[0] == ',' {
			return lineEnded
		}
	case aLiteral:
		return lineExact
	case aType:
		if strings.HasPrefix(l, ".type\t"+function+".cold") && strings.HasSuffix(l, "function") {
			return lineType
		}
	case aSection:
		return lineSection
	}
	return lineOther
}

// statement reads the instruction or directive at i, which begins with a word.
// What only the parser can take is lineOther: more than one statement, strings,
// numeric labels.
func (s *scanner) statement(kind line, i int, dst []mention) (scanned, []mention) {
	text, class := s.text, s.class
	lo, word, first := i, identEnd(text, i), len(dst)
	if c := text[word]; c != '\t' && c != ' ' && c != '\n' || follows(text, word, '=') {
		return other, dst
	}
	marked := kind == lineInsn && s.d.bareWord != nil
	exact := marked && s.d.bareWord(text[lo:word], text[word:])
	for i = word; ; {
		for class[text[i]] == classPlain {
			i++
		}
		switch class[text[i]] {
		case classRegister, classSuffix:
			i = identEnd(text, i+1)
		case classIdent:
			if marked {
				i = identEnd(text, i)
				continue
			}
			var m mention
			if m, i = s.symbol(i); m.hi > 0 {
				dst = append(dst, m)
			}
		case classDigit:
			end := number(text, i)
			if last := text[end-1]; (last == 'b' || last == 'f') && !strings.HasPrefix(text[i:end], "0x") {
				return other, dst
			}
			i = end
		case classExact:
			exact = true
			i++
		case classEnd:
			return s.mentions(lineAt(kind, lo, i, i+1), word, exact, first, dst)
		default:
			if text[i] == '/' && text[i+1] != '/' {
				i++ // a division, as in jump tables of A64
				continue
			}
			next, ok := s.rest(i)
			if !ok {
				return other, dst
			}
			return s.mentions(lineAt(kind, lo, i, next), word, exact, first, dst)
		}
	}
}

// single reports whether a line with a directive holds nothing else: no second
// statement, label or assignment.
func single(l string) bool {
	return !strings.ContainsAny(l, ";=:\"'")
}

// follows reports whether c comes next in text[i:], behind spaces.
func follows(text string, i int, c byte) bool {
	for text[i] == ' ' || text[i] == '\t' {
		i++
	}
	return text[i] == c
}

// symbol returns the symbol at i and its end. A "." is none.
func (s *scanner) symbol(i int) (mention, int) {
	text := s.text
	if text[i] == '.' && text[i+1] == 'L' {
		l, end := s.families.at(text, i)
		return mentionAt(l, i, end), end
	}
	end := identEnd(text, i)
	if end == i+1 && text[i] == '.' {
		return mention{}, end
	}
	return mentionAt(label{}, i, end), end
}

// mentions corrects the symbols of a statement, dst[first:], where not every
// word is one. Its operands begin at word.
func (s *scanner) mentions(l scanned, word int, exact bool, first int, dst []mention) (scanned, []mention) {
	text := s.text
	for int(l.hi) > word && (text[l.hi-1] == ' ' || text[l.hi-1] == '\t') {
		l.hi--
	}
	if !exact {
		if len(dst) == first || l.kind != lineCFI && (l.kind != lineInsn || !s.d.prefix(text[l.lo:word])) {
			return l, dst
		}
	}
	dst = dst[:first]
	s.refs = s.d.Refs(s.refs[:0], [...]Kind{lineInsn: Insn, lineData: Data, lineCFI: CFI}[l.kind], text[l.lo:l.hi])
	for _, r := range s.refs {
		m := mentionAt(label{}, int(l.lo)+r.Lo, int(l.lo)+r.Hi)
		if name := text[m.lo:m.hi]; IsLocalLabel(name) {
			m.label = s.families.of(name)
		}
		dst = append(dst, m)
	}
	return l, dst
}
