package source

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

// def is a function definition in a text: its head is [lo, brace), its body,
// with the braces, [brace, hi). Byte offsets.
type def struct {
	key           defKey
	lo, brace, hi int
	depth         int // of brackets around it
}

// defKey tells the functions of one file apart. n counts those of one name:
// overloads, and those in other branches of a condition.
type defKey struct {
	name string
	n    int
}

// bodies is what a scanner notes of functions.
type bodies struct {
	found  []def
	open   int // index in found of the function that is being read, or -1
	closed int // of that which ended just now, or -1
	// old is the head of a function whose parameters are declared behind it.
	old struct {
		begin int
		words []byte
	}
}

// defs returns the functions that were found, those without an end left out.
func (s *scanner) defs() []def {
	count := map[string]int{}
	all := slices.DeleteFunc(s.found, func(d def) bool { return d.hi == 0 })
	for i := range all {
		name := all[i].key.name
		all[i].key.n = count[name]
		count[name]++
	}
	return all
}

// access matches the words before the colon behind which a class's members are
// public, or not.
var access = regexp.MustCompile(`^\s*(public|private|protected)\s*$`)

var class = regexp.MustCompile(`\b(class|struct|union)\b`)

// body looks at an opening brace outside of all functions, and returns what it
// is in level.
func (s *scanner) body() byte {
	words, begin := string(s.words), s.begin
	behind := strings.TrimLeft(words, " ")
	if s.closed >= 0 && (behind == "" || behind[0] == ',') {
		s.open, s.closed = s.closed, -1 // that was a brace in a list of initialisers
		return '{'
	}
	if behind == "" && s.old.words != nil {
		words, begin = string(s.old.words), s.old.begin
	}
	s.old.words = nil
	name := functionName(words)
	switch {
	case name != "":
		s.found = append(s.found, def{key: defKey{name: name}, lo: begin, brace: s.pos, depth: len(s.level)})
		s.open, s.closed = len(s.found)-1, -1
	case class.MatchString(words) && !strings.Contains(words, "="):
		return 'c'
	}
	return '{'
}

// leave looks at a closing brace.
func (s *scanner) leave() {
	s.closed = -1
	if s.open >= 0 && len(s.level) <= s.found[s.open].depth {
		s.found[s.open].hi = s.pos + 1
		s.open, s.closed = -1, s.open
	}
}

// declared looks at the end of a declaration. It may be one of the parameters
// of a function, behind their list: int f(a, b) int a; char *b; {
func (s *scanner) declared() {
	s.closed = -1
	if bytes.ContainsAny(s.level, "([{") {
		return
	}
	words := bytes.TrimRight(s.words, " ")
	if !bytes.ContainsRune(words, '(') {
		return
	}
	s.old.words = nil
	if !bytes.HasSuffix(words, []byte(")")) && functionName(string(words)) != "" {
		s.old.words, s.old.begin = slices.Clone(words), s.begin
	}
}

var (
	// before is what stands before a bracket that may be a parameter list.
	before   = regexp.MustCompile(`((?:[A-Za-z_]\w*(?:<[^<>()]*>)?\s*::\s*)*(?:~?[A-Za-z_]\w*|operator\s*(?:\(\s*\)|\[\s*\]|[^\w\s(]+|[A-Za-z_][\w ]*)))\s*$`)
	returned = regexp.MustCompile(`\(\s*\*\s*([A-Za-z_]\w*)\s*\(`)
	noName   = regexp.MustCompile(`^(__attribute__|__attribute|__declspec|__asm__|asm|__asm|alignas|_Alignas|noexcept|throw|decltype|__typeof__|typeof|requires|if|for|while|switch|return|void|char|short|int|long|float|double|signed|unsigned|const)$`)
	lower    = regexp.MustCompile(`[a-z]`)
)

// functionName returns the name of the function whose head the words are, or
// "" if they are none.
func functionName(words string) string {
	if m := returned.FindStringSubmatch(words); m != nil {
		return m[1]
	}
	name, depth := "", 0
	for i := 0; i < len(words); i++ {
		switch c := words[i]; {
		case c == '(':
			if m := before.FindStringSubmatch(words[:i]); depth == 0 && m != nil && !noName.MatchString(m[1]) {
				if n := strings.Join(strings.Fields(m[1]), ""); name == "" || lower.MatchString(n) || !lower.MatchString(name) {
					name = n
				}
			}
			depth++
		case c == ')':
			depth--
		case depth > 0:
		case c == '=' && !strings.Contains(words[:i], "operator"):
			return ""
		case c == ':' && name != "" && (i+1 == len(words) || words[i+1] != ':') && words[i-1] != ':':
			return name // initialisers follow
		}
	}
	return name
}
