package source

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

// Edit says what a fix does to a function of the source.
type Edit uint8

// The edits.
const (
	Unedited  Edit = iota // but for comments, blanks and the place in the file
	Body                  // between the braces
	Signature             // its result or parameters, and perhaps its body
	Added
	Removed
)

// Function is a function definition in a file that a fix touches.
type Function struct {
	Name string // as it is written: with Foo:: before it outside of the class
	Edit Edit
	// Lo and Hi are the first and the last line in the original file, from 1;
	// 0 if the fix adds the function.
	Lo, Hi int
	// Grown is by how many lines the fix makes it longer; negative if shorter.
	Grown int
}

// FileEdit is what a fix does to one file.
type FileEdit struct {
	Name string // relative to the tree
	// Outside is set if something changes outside of all functions: a
	// declaration, a macro, a variable.
	Outside bool
	// Functions are all of both versions, those that stay as they are too, in
	// the order of the original file; then those that are added.
	Functions []Function
}

// Edits returns what the patches do to the functions of the files that they
// touch, sorted by name. The tree in dir is as it was before them. Functions
// are found without preprocessing: what macros make of the text is not seen.
// Errors are those of [Check].
func Edits(dir string, patches []string) ([]FileEdit, error) {
	var edits []FileEdit
	_, err := run(dir, patches, func(t *tree) (*Result, error) {
		r := t.result()
		for _, name := range r.Files {
			before := &tree{root: t.root, files: map[string]*file{}}
			old, err := before.get(name)
			if err != nil {
				return nil, err
			}
			edits = append(edits, editOf(name, old.lines, t.files[name].lines))
		}
		return r, nil
	})
	return edits, err
}

// editOf compares the functions of a file before and after.
func editOf(name string, before, after []line) FileEdit {
	e := FileEdit{Name: name}
	old, new := join(before), join(after)
	if !isC(name) {
		e.Outside = !bytes.Equal(old, new)
		return e
	}
	as, bs := scan(old).defs(), scan(new).defs()
	later := map[defKey]def{}
	for _, b := range bs {
		later[b.key] = b
	}
	for _, a := range as {
		f := Function{Name: a.key.name, Lo: lineOf(old, a.lo), Hi: lineOf(old, a.hi)}
		b, ok := later[a.key]
		if delete(later, a.key); !ok {
			f.Edit = Removed
		} else {
			f.Edit = compareDefs(old, new, a, b)
			f.Grown = lineOf(new, b.hi) - lineOf(new, b.lo) - (f.Hi - f.Lo)
		}
		e.Functions = append(e.Functions, f)
	}
	for _, b := range bs {
		if _, ok := later[b.key]; ok {
			e.Functions = append(e.Functions, Function{Name: b.key.name, Edit: Added})
		}
	}
	e.Outside = plainText(outside(old, as)) != plainText(outside(new, bs))
	return e
}

func join(lines []line) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		b.WriteString(l.text)
	}
	return b.Bytes()
}

// lineOf returns the number of the line of text[at], from 1.
func lineOf(text []byte, at int) int { return bytes.Count(text[:at], []byte("\n")) + 1 }

func compareDefs(old, new []byte, a, b def) Edit {
	headA, headB := plainText(old[a.lo:a.brace]), plainText(new[b.lo:b.brace])
	switch {
	case headA != headB && signature(headA) != signature(headB):
		return Signature
	case headA != headB, plainText(old[a.brace:a.hi]) != plainText(new[b.brace:b.hi]):
		return Body
	}
	return Unedited
}

// outside returns the text that is in none of the functions.
func outside(text []byte, defs []def) []byte {
	var out []byte
	at := 0
	for _, d := range defs {
		if d.lo >= at {
			out = append(append(out, text[at:d.lo]...), '\n')
			at = d.hi
		}
	}
	return append(out, text[at:]...)
}

var (
	storage = regexp.MustCompile(`\b(static|extern|inline|__inline|__inline__|register)\b|__attribute__ ?\(\(.*?\)\)`)
	// A parameter's name: the last word before its end or the brackets of an
	// array, behind a type.
	parameter = regexp.MustCompile(`([\w*&>\]] ?)\b([A-Za-z_]\w*) ?((\[[^\]]*\] ?)*)([,)])`)
	// The name of a parameter that points to a function.
	callback = regexp.MustCompile(`\( ?\* ?(const )?[A-Za-z_]\w* ?\)`)
	typeWord = regexp.MustCompile(`^(void|char|short|int|long|float|double|signed|unsigned|_Bool|bool|const|volatile)$`)
)

// signature returns what of a function's head callers depend on: its type,
// without names of parameters.
func signature(head string) string {
	head = callback.ReplaceAllString(storage.ReplaceAllString(head, ""), "(*)")
	head = parameter.ReplaceAllStringFunc(head, func(m string) string {
		p := parameter.FindStringSubmatch(m)
		if typeWord.MatchString(p[2]) {
			return m
		}
		return p[1] + p[3] + p[5]
	})
	return strings.Join(strings.Fields(head), "")
}

// plainText returns text without comments and with one blank for each run of
// white space.
func plainText(text []byte) string {
	var b strings.Builder
	s := &scanner{text: text}
	blank := false
	for s.pos < len(text) {
		from := s.pos
		switch c := text[s.pos]; {
		case c == '/' && s.at(1) == '*':
			s.skipTo("*/")
			s.pos = min(s.pos, len(text))
			blank = true
			continue
		case c == '/' && s.at(1) == '/':
			s.lineComment()
			blank = true
			continue
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			s.pos++
			blank = true
			continue
		case c == '"' || c == '\'' && !(s.pos > 0 && isWord(text[s.pos-1]) && isWord(s.at(1)) && s.at(2) != '\''):
			s.quoted()
		default:
			s.pos++
		}
		if blank && b.Len() > 0 {
			b.WriteByte(' ')
		}
		blank = false
		b.Write(text[from:s.pos])
	}
	return b.String()
}

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
