package source

import (
	"bytes"
	"regexp"
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
