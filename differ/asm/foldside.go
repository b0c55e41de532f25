package asm

import "strings"

// foldSide goes over one body at a time.
type foldSide struct {
	text string
	// comment begins what counts for nothing to the end of a line.
	comment string
	i       int            // offset of the next line
	lo      int            // where the body begins
	index   map[string]int // of the bodies of all functions, if it is needed
	// ord counts the lines that count; lines all.
	ord, lines int
	exits      [2]span
	labels     map[string]int // ord of other labels
	inner      []string
	// numbered has the ord of each label .LN, by N, if its body is the one that
	// is looked at.
	numbered []numberedLabel
	body     int
}

type numberedLabel struct{ body, ord int }

func newFoldSide(text string, d *Dialect) *foldSide {
	return &foldSide{text: text, comment: d.Comment, labels: make(map[string]int)}
}

// begin begins a body at the next line.
func (s *foldSide) begin() {
	s.lo, s.ord, s.lines, s.exits, s.inner = s.i, 0, 0, [2]span{}, nil
	s.body++
	clear(s.labels)
}

// line is what a line is to a fold.
type line uint8

const (
	lineEnded line = iota // the .size of the function, which ends it
	lineOther             // something that is not folded
	lineNoise             // counts for nothing
	lineLabel             // .L…:
	lineName              // another label, which counts as it is written
	lineExact             // counts as it is written
	lineSection
	lineInsn
	lineData
	lineCFI
)

// next returns the next line that counts, with its tab. What counts for nothing
// is passed over, labels are noted.
func (s *foldSide) next(function string) (text string, kind line) {
	for s.i < len(s.text) {
		text = s.text[s.i:lineEnd(s.text, s.i)]
		size := len(text)
		text = s.trim(text)
		if kind = s.kind(text, function); kind == lineEnded {
			return "", lineEnded
		}
		s.take(text, size, kind)
		if kind != lineNoise && kind != lineLabel {
			return text, kind
		}
	}
	return "", lineOther
}

// trim cuts off the comment that ends a line, as clang and gcc -fverbose-asm
// write them, if it is plain where it begins. The marks around inline assembly
// stay.
func (s *foldSide) trim(l string) string {
	at := strings.IndexByte(l, s.comment[0])
	if at < 0 || !strings.HasPrefix(l[at:], s.comment) || strings.ContainsAny(l[:at], "\"'") {
		return l
	}
	if rest := l[at+len(s.comment):]; strings.HasPrefix(rest, "APP") || strings.HasPrefix(rest, "NO_APP") {
		return l
	}
	return strings.TrimRight(l[:at], " \t")
}

// take goes behind a line of that kind and size.
func (s *foldSide) take(text string, size int, kind line) {
	lo := s.i
	s.i += size + 1
	s.lines++
	switch kind {
	case lineLabel, lineName:
		s.define(text[:len(text)-1])
	case lineSection:
		s.exits = [2]span{s.exits[1], {lo + 1, lo + len(text)}}
	}
}

// kind says what a line of the body of a function is.
func (s *foldSide) kind(l, function string) line {
	switch {
	case len(l) == 0:
		return lineNoise
	case len(l) == 1:
		return lineOther
	case l[0] == '\t' && l[1] >= 'a' && l[1] <= 'z':
		return lineInsn
	case l[0] == '\t' && l[1] == '.':
		return directiveLine(l[1:], function)
	case l[0] == '#':
		if strings.HasPrefix(l, "#APP") {
			return lineOther // inline assembly may do anything
		}
		return lineNoise
	}
	end := len(l) - 1
	if l[end] != ':' || !identStart[l[0]] || identEnd(l, 0) != end || strings.HasSuffix(l[:end], ".kpatch") {
		return lineOther
	}
	if IsLocalLabel(l) {
		return lineLabel
	}
	return lineName
}

// define notes a label.
func (s *foldSide) define(name string) {
	if n, ok := labelNumber(name); ok {
		for n >= len(s.numbered) {
			s.numbered = append(s.numbered, make([]numberedLabel, n+1024)...)
		}
		s.numbered[n] = numberedLabel{s.body, s.ord}
		return
	}
	s.labels[name] = s.ord
	if !IsLocalLabel(name) {
		s.inner = append(s.inner, name)
	}
}

// maxLabel bounds the numbers of labels that are kept by number.
const maxLabel = 1 << 22

// labelNumber returns N of .LN.
func labelNumber(name string) (n int, ok bool) {
	if len(name) < 3 || !IsLocalLabel(name) || name[2] == '0' && len(name) > 3 {
		return 0, false
	}
	for i := 2; i < len(name); i++ {
		c := name[i] - '0'
		if n = 10*n + int(c); c > 9 || n > maxLabel {
			return 0, false
		}
	}
	return n, true
}

// find returns the ord of a label of the body.
func (s *foldSide) find(name string) (ord int, ok bool) {
	if n, numbered := labelNumber(name); numbered {
		if n < len(s.numbered) && s.numbered[n].body == s.body {
			return s.numbered[n].ord, true
		}
		return 0, false
	}
	if len(s.labels) > 0 {
		ord, ok = s.labels[name]
	}
	return ord, ok
}

func directiveLine(l, function string) line {
	if strings.HasPrefix(l, ".cfi_") {
		if NamesSymbols(l) {
			return lineCFI
		}
		return lineNoise
	}
	switch actionOf(l[:identEnd(l, 0)]) {
	case aNoise, aAlign, aMark, aCFI:
		return lineNoise
	case aBytes:
		return lineData
	case aSize:
		if rest, ok := strings.CutPrefix(l, ".size\t"+function); ok && rest != "" && rest[0] == ',' {
			return lineEnded
		}
		return lineExact
	case aLiteral:
		return lineExact
	case aType:
		if strings.HasSuffix(l, "function") {
			return lineExact // a cold part
		}
	case aSection:
		return lineSection
	}
	return lineOther
}

// function goes to the body of the next function that is written as compilers
// do: .type NAME, @function, and then its label.
func (s *foldSide) function() (name string, ok bool) {
	for s.i < len(s.text) {
		line := s.text[s.i:lineEnd(s.text, s.i)]
		s.i += len(line) + 1
		rest, ok := strings.CutPrefix(line, "\t.type\t")
		if !ok {
			continue
		}
		name, kind, _ := strings.Cut(rest, ",")
		if kind = strings.TrimSpace(kind); kind != "@function" && kind != "%function" {
			continue
		}
		// Its visibility may be in between.
		near := s.text[s.i-1 : min(s.i+len(name)+256, len(s.text))]
		lo := strings.Index(near, "\n"+name+":")
		if lo < 0 {
			continue
		}
		at := s.i - 1 + lo + 1
		end := lineEnd(s.text, at)
		if label := s.trim(s.text[at:end]); len(label) == len(name)+1 && end < len(s.text) {
			s.i = end + 1
			return name, true
		}
	}
	return "", false
}

// leave goes behind the body that began last.
func (s *foldSide) leave(name string) {
	s.i = s.lo
	if n := strings.Index(s.text[s.lo:], "\t.size\t"+name+","); n >= 0 {
		s.i += n
	}
}

// seek goes to the body of the function of that name. Functions are mostly in
// the same order in both builds; the first one that is not makes an index.
func (s *foldSide) seek(name string) bool {
	if s.index == nil {
		if next, ok := s.function(); ok && next == name {
			return true
		}
		s.index = make(map[string]int)
		for s.i = 0; ; {
			n, ok := s.function()
			if !ok {
				break
			}
			s.index[n] = s.i
		}
	}
	lo, ok := s.index[name]
	s.i = lo
	return ok
}
