package source

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// isC reports whether name is a C or C++ file, in which #line has its
// meaning.
func isC(name string) bool {
	switch filepath.Ext(name) {
	case ".c", ".h", ".cc", ".cp", ".cxx", ".cpp", ".c++", ".C", ".hh", ".hp", ".hxx", ".hpp", ".h++", ".H", ".tcc", ".ipp", ".inl":
		return true
	}
	return false
}

// ownLines matches a file that numbers its lines itself, as generated parsers
// do.
var ownLines = regexp.MustCompile(`(?m)^[ \t]*#[ \t]*(line\b|[0-9])`)

// keepLines inserts #line directives, so that lines that were there before
// keep the number they had: before the next top-level declaration after each
// change, and, since a directive in a group that the preprocessor skips does
// nothing, in each group after that until one is in none.
func keepLines(lines []line) []line {
	var text []byte
	for _, l := range lines {
		text = append(text, l.text...)
	}
	if ownLines.Match(text) {
		return lines
	}
	insert := map[int]int{} // by index: the number
	moved, group, open := 0, -1, false
	for _, p := range places(text) {
		orig := lines[p.line].orig
		if orig == 0 {
			continue
		}
		if d := p.line + 1 - orig; d != moved {
			moved, group, open = d, -1, true
		}
		if !open || p.group == group {
			continue
		}
		insert[p.line] = orig
		group = p.group
		open = p.depth > 0
	}
	if len(insert) == 0 {
		return lines
	}
	out := make([]line, 0, len(lines)+len(insert))
	for i, l := range lines {
		if n, ok := insert[i]; ok {
			out = append(out, line{text: fmt.Sprintf("#line %d\n", n)})
		}
		out = append(out, l)
	}
	return out
}

// place is a line before which a directive can stand.
type place struct {
	line  int // index
	group int // changes with each conditional directive
	depth int // of conditional groups
}

// scanner walks over C or C++ text as far as needed to know where top-level
// declarations begin.
type scanner struct {
	text []byte
	pos  int
	line int

	level  []byte   // open brackets; 'n' for those of namespaces and extern "C", 'c' for those of classes
	conds  [][]byte // level at each #if that is open
	ends   [][]byte // level at the end of its first group, nil while in that
	group  int
	ended  bool   // a declaration may begin here
	words  []byte // of the declaration so far, without what is in braces
	begin  int    // where the declaration begins
	places []place
	bodies // see defs.go
}

// places returns the places of text in order. Where brackets do not pair, as
// in files that only the preprocessor makes whole, there may be none.
func places(text []byte) []place {
	return scan(text).places
}

// scan walks over all of text.
func scan(text []byte) *scanner {
	s := &scanner{text: text, ended: true, bodies: bodies{open: -1, closed: -1}}
	for s.pos < len(s.text) {
		s.startLine()
		s.restOfLine()
	}
	return s
}

func (s *scanner) startLine() {
	i := s.pos
	for i < len(s.text) && (s.text[i] == ' ' || s.text[i] == '\t') {
		i++
	}
	if i == len(s.text) || s.text[i] == '\n' || s.text[i] == '\r' {
		return
	}
	if s.text[i] == '#' {
		s.pos = i
		s.directive()
		return
	}
	if s.ended && !bytes.ContainsAny(s.level, "([{c") {
		s.places = append(s.places, place{line: s.line, group: s.group, depth: len(s.conds)})
	}
}

// restOfLine reads to the end of the line, or of what continues it.
func (s *scanner) restOfLine() {
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		switch {
		case c == '\n':
			s.token(' ')
			s.pos++
			s.line++
			return
		case c == '\\' && s.at(1) == '\n':
			s.pos += 2
			s.line++
		case c == '\\' && s.at(1) == '\r' && s.at(2) == '\n':
			s.pos += 3
			s.line++
		case c == '/' && s.at(1) == '*':
			s.skipTo("*/")
		case c == '/' && s.at(1) == '/':
			s.lineComment()
		case c == '"':
			s.quoted()
		case c == '\'' && !(s.pos > 0 && isWord(s.text[s.pos-1]) && isWord(s.at(1)) && s.at(2) != '\''):
			s.quoted() // and not a digit separator, 1'000
		default:
			s.token(c)
			s.pos++
		}
	}
}

func (s *scanner) at(n int) byte {
	if s.pos+n < len(s.text) {
		return s.text[s.pos+n]
	}
	return 0
}

// skipTo skips to the end of the next end, which is not at s.pos.
func (s *scanner) skipTo(end string) {
	rest := s.text[s.pos+1:]
	n := bytes.Index(rest, []byte(end))
	if n < 0 {
		n = len(rest)
	} else {
		n += len(end)
	}
	s.line += bytes.Count(rest[:n], []byte("\n"))
	s.pos += 1 + n
}

// lineComment skips to the newline that ends a // comment.
func (s *scanner) lineComment() {
	for s.pos < len(s.text) && s.text[s.pos] != '\n' {
		if s.text[s.pos] == '\\' && s.at(1) == '\n' {
			s.line++
			s.pos++
		}
		s.pos++
	}
}

// quoted skips a string or character, raw strings included.
func (s *scanner) quoted() {
	quote := s.text[s.pos]
	if quote == '"' && s.pos > 0 && s.text[s.pos-1] == 'R' {
		// [lex.string]: a delimiter has at most 16 characters.
		if n := bytes.IndexByte(s.text[s.pos:min(s.pos+18, len(s.text))], '('); n > 0 {
			s.skipTo(")" + string(s.text[s.pos+1:s.pos+n]) + `"`)
			s.word('"')
			return
		}
	}
	s.pos++
	for s.pos < len(s.text) && s.text[s.pos] != quote && s.text[s.pos] != '\n' {
		if s.text[s.pos] == '\\' {
			s.pos++
			if s.pos < len(s.text) && s.text[s.pos] == '\n' {
				s.line++
			}
		}
		s.pos++
	}
	if s.pos < len(s.text) && s.text[s.pos] == quote {
		s.pos++
	}
	s.pos = min(s.pos, len(s.text))
	s.word('"')
}

// word notes a byte of the declaration's first words.
func (s *scanner) word(c byte) {
	s.ended = false
	if len(s.words) == 0 {
		s.begin = s.pos
	}
	if len(s.words) < 256 {
		s.words = append(s.words, c)
	}
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

var transparent = regexp.MustCompile(`^\s*((inline\s+)?namespace\b[^=]*|extern\s*")\s*$`)

func (s *scanner) token(c byte) {
	switch c {
	case ' ', '\t', '\r', '\f', '\v':
		if len(s.words) > 0 {
			s.words = append(s.words[:min(len(s.words), 255)], ' ')
		}
	case '(', '[':
		s.word(c)
		s.level = append(s.level, c)
	case '{':
		if transparent.Match(s.words) {
			c = 'n'
		} else if !bytes.ContainsAny(s.level, "([{") {
			c = s.body()
		}
		s.level = append(s.level, c)
		s.end()
	case ')', ']':
		s.close()
		s.word(c)
	case '}':
		s.close()
		s.leave()
		s.end()
	case ';':
		s.declared()
		s.end()
	case ':':
		if access.Match(s.words) {
			s.words = s.words[:0]
			return
		}
		s.word(c)
	default:
		s.word(c)
	}
}

func (s *scanner) end() {
	s.ended = true
	s.words = s.words[:0]
}

func (s *scanner) close() {
	if n := len(s.level); n > 0 {
		s.level = s.level[:n-1]
	}
}

// directive skips a preprocessor directive, up to but without its newline. Of
// the groups of a conditional, brackets count in the first only.
func (s *scanner) directive() {
	start := s.pos
	s.pos++
	for s.pos < len(s.text) && s.text[s.pos] != '\n' {
		switch {
		case s.text[s.pos] == '\\' && s.at(1) == '\n':
			s.line++
			s.pos += 2
		case s.text[s.pos] == '\\' && s.at(1) == '\r' && s.at(2) == '\n':
			s.line++
			s.pos += 3
		case s.text[s.pos] == '/' && s.at(1) == '*':
			s.skipTo("*/")
		case s.text[s.pos] == '"' || s.text[s.pos] == '\'':
			s.directiveQuote()
		default:
			s.pos++
		}
	}
	name := strings.TrimLeft(string(s.text[start+1:min(s.pos, start+64)]), " \t")
	switch {
	case strings.HasPrefix(name, "if"):
		s.group++
		s.conds = append(s.conds, slices.Clone(s.level))
		s.ends = append(s.ends, nil)
	case strings.HasPrefix(name, "el"):
		s.group++
		if n := len(s.conds); n > 0 {
			if s.ends[n-1] == nil {
				s.ends[n-1] = append([]byte{}, s.level...)
			}
			s.level = slices.Clone(s.conds[n-1])
		}
	case strings.HasPrefix(name, "endif"):
		s.group++
		if n := len(s.conds); n > 0 {
			if s.ends[n-1] != nil {
				s.level = s.ends[n-1]
			}
			s.conds, s.ends = s.conds[:n-1], s.ends[:n-1]
		}
	}
}

// directiveQuote skips a string in a directive; an apostrophe in #error text
// may stand alone.
func (s *scanner) directiveQuote() {
	end := s.pos + 1
	for end < len(s.text) && s.text[end] != s.text[s.pos] && s.text[end] != '\n' {
		if s.text[end] == '\\' {
			if end+1 < len(s.text) && s.text[end+1] == '\n' {
				s.pos++
				return
			}
			end++
		}
		end++
	}
	if end < len(s.text) && s.text[end] == s.text[s.pos] {
		end++
		s.pos = end
		return
	}
	s.pos++
}
