package asm

import "strings"

// foldSide goes over one body of a text at a time.
type foldSide struct {
	scanner
	labels foldLabels
	i      int            // offset of the next line
	lo     int            // where the body begins
	ahead  int            // where no body was looked for yet
	passed map[string]int // bodies before it that were passed over
	visits []visit        // of all folds
	from   int            // the first of this body
	typed  span           // the name that the body gave a type last
}

func newFoldSide(text string, d *Dialect, class *[256]class, f *families) *foldSide {
	return &foldSide{scanner: scanner{d: d, class: class, text: text, families: f},
		labels: foldLabels{families: f, named: make(map[string]place)}, passed: make(map[string]int)}
}

// begin begins a body at the next line.
func (s *foldSide) begin() {
	s.lo, s.from, s.typed = s.i, len(s.visits), span{}
}

// fold is the body that ends here.
func (s *foldSide) fold(name string, body int32) Fold {
	return Fold{Lo: uint32(s.lo), Hi: uint32(s.i), name: name, body: body, lines: strings.Count(s.text[s.lo:s.i], "\n"), visits: s.visits[s.from:len(s.visits):len(s.visits)]}
}

// function goes to the body of the next function that is written as compilers
// do: .type NAME, @function, and then its label.
func (s *foldSide) function() (name string, ok bool) {
	const before = "\n\t.type\t"
	for s.i < len(s.text) {
		n := strings.Index(s.text[max(s.i-1, 0):], before)
		if n < 0 {
			break
		}
		s.i = max(s.i-1, 0) + n + len(before)
		end := lineEnd(s.text, s.i)
		name, kind, _ := strings.Cut(s.text[s.i:end], ",")
		s.i = min(end+1, len(s.text))
		if kind = strings.TrimSpace(kind); kind != "@function" && kind != "%function" {
			continue
		}
		if at, ok := s.body(name); ok {
			s.i = at
			return name, true
		}
	}
	s.i = len(s.text)
	return "", false
}

// body finds the body of a function whose label is near. Its visibility may be
// in between.
func (s *foldSide) body(name string) (at int, ok bool) {
	for at, far := s.i, s.i+len(name)+256; at < min(far, len(s.text)); at = lineEnd(s.text, at) + 1 {
		if l := s.text[at:]; len(l) > len(name)+1 && l[len(name)] == ':' && l[:len(name)] == name {
			next, ok := s.rest(at + len(name) + 1)
			return next, ok && next < len(s.text)
		}
	}
	return 0, false
}

// leave goes behind the body that began last. It reports false if that has no
// end.
func (s *foldSide) leave(name string) bool {
	n := strings.Index(s.text[s.lo:], "\n\t.size\t"+name+",")
	s.i = s.lo + max(n, 0)
	return n >= 0
}

// seek goes to the body of the function of that name. Functions are mostly in
// the same order in both builds; those that are passed over are remembered.
func (s *foldSide) seek(name string) bool {
	s.ahead = max(s.ahead, s.i)
	if lo, ok := s.passed[name]; ok {
		s.i = lo
		return true
	}
	for s.i = s.ahead; ; {
		next, ok := s.function()
		if !ok || next == name {
			return ok
		}
		s.passed[next] = s.i
	}
}

// typedHere reports whether the body defines what it gave a type.
func (s *foldSide) typedHere(body int32) bool {
	name, _, _ := strings.Cut(strings.TrimPrefix(s.text[s.typed.lo:s.typed.hi], ".type\t"), ",")
	return s.typed.hi == 0 || s.labels.named[name].body == body
}

// inside returns where the body that is compared defines a symbol. Of others it
// may say that they are not defined.
func (s *foldSide) inside(body int32, m *mention) place {
	if m.family == 0 && s.labels.naming != body {
		return place{}
	}
	return s.labels.find(m.label, s.text[m.lo:m.hi])
}
