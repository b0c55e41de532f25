package asm

import "strings"

// run goes over lines of both bodies that are as compilers write nearly all of
// them, and the same but for symbols: instructions, numbers that depend on
// labels, .L7 and its definition, and directives that count for nothing. It
// looks at the points of a only; between them the texts are compared.
type run struct {
	*folder
	ta, tb string
	same   int   // how far the text of a is known to be alike
	by     int   // from there on the text of b is at offsets that are greater by this
	quiet  int   // end of the last line that does not count; what is behind it counts
	from   int   // where it began in a
	before int32 // ord then
}

// run goes behind such lines. It stops, besides, at a label that is defined
// again.
func (f *folder) run() {
	p := &f.points
	if !p.seek(f.a.text, f.a.i) {
		return
	}
	r := run{folder: f, ta: f.a.text, tb: f.b.text, same: f.a.i, by: f.b.i - f.a.i, quiet: f.a.i, from: f.a.i, before: f.ord}
	for {
		k := int(p.list[p.next])
		if k == p.to {
			if !p.read(r.ta, k) {
				r.leave(k)
				return
			}
			continue
		}
		next := r.point(k)
		if next == 0 {
			r.leave(k)
			return
		}
		p.skip(next)
	}
}

// leave stops at the line of a that k is in or, if the texts differ before that,
// at the line in which they do.
func (r *run) leave(k int) {
	k = max(k, r.same)
	alike := r.alikeTo(k)
	if !alike {
		k = r.same + common(r.ta[r.same:k], r.tb[min(r.same+r.by, len(r.tb)):])
	}
	i := strings.LastIndexByte(r.ta[:k], '\n') + 1
	r.a.i, r.b.i = i, strings.LastIndexByte(r.tb[:k+r.by], '\n')+1
	if alike {
		r.counted(i)
	} else {
		r.recount(i)
	}
	n := len(r.pairs)
	for n > 0 && int(r.pairs[n-1].a.lo) >= i {
		n--
	}
	r.pairs = r.pairs[:n]
}

// passed notes that the line from lo to next does not count.
func (r *run) passed(lo, next int) {
	r.counted(lo)
	r.quiet = next
}

// recount is counted for a line that is before others that were gone over.
func (r *run) recount(i int) {
	for i > r.from {
		lo := strings.LastIndexByte(r.ta[:i-1], '\n') + 1
		var l scanned
		if l, r.refsA = r.a.scan(lo, "", r.refsA[:0]); l.kind != lineNoise && l.kind != lineLabel {
			r.ord = int32(i - r.a.lo)
			return
		}
		i = lo
	}
	r.ord = r.before
}

// alikeTo reports whether the texts are the same from where they were compared
// last to k of a.
func (r *run) alikeTo(k int) bool {
	return k+r.by <= len(r.tb) && common(r.ta[r.same:k], r.tb[r.same+r.by:]) == k-r.same
}

// counted notes the end of the last line that counts before i, where a line
// begins: that is i, unless the line before does not count.
func (r *run) counted(i int) {
	if r.quiet != i {
		r.ord = int32(i - r.a.lo)
	}
}

// point goes behind what is at point k of a, and returns where that ends, or 0
// if the line is none for run.
func (r *run) point(k int) int {
	a, c := r.ta, r.ta[k]
	switch {
	case a[k-1] == '\n':
		switch next, ok := 0, false; {
		case c == '.' && a[k+1] == 'L':
			return r.define(k)
		case c == '#' && a[k+1] == ' ':
			return r.noise(k, k)
		case c == ' ': // clang's comments about loops
			if next, ok = r.a.rest(k); ok {
				r.passed(k, next)
			}
			return next
		}
	case a[k-1] == '\t' && a[k-2] == '\n':
		if c == '.' {
			return r.directive(k)
		} else if r.a.d.mayName != nil && c >= 'a' && c <= 'z' {
			return r.jump(k)
		}
	case r.a.d.symbolMark != "" && strings.HasPrefix(a[k:], r.a.d.symbolMark):
		return r.symbol(k + len(r.a.d.symbolMark))
	case identStart[c] && a[k-1]-'0' <= 9:
		return r.numeric(k)
	case identStart[c]:
		if r.operand(k) {
			return r.symbol(k)
		}
	case c == r.a.d.Comment[0]:
		if next, ok := r.a.rest(k); ok {
			return next
		}
	}
	return 0
}

// operand reports whether k is in the operands of a statement whose first word
// is no prefix: behind one, not every word is a symbol.
func (r *run) operand(k int) bool {
	a, end := r.ta, k-1
	if a[end] == '\t' || a[end] == ' ' {
		lo := end
		for identPart[a[lo-1]] {
			lo--
		}
		if a[lo-1] == '\t' && a[lo-2] == '\n' {
			return !r.a.d.prefix(a[lo:end])
		}
	}
	lo := strings.LastIndexByte(a[:k], '\n') + 2
	end = identEnd(a, lo)
	return (a[end] == '\t' || a[end] == ' ') && !r.a.d.prefix(a[lo:end])
}

// symbol notes the symbol at k, and returns its end, or 0. A "." is none.
func (r *run) symbol(k int) int {
	a := r.ta
	if a[k] == '.' && a[k+1] == 'L' {
		return r.label(k)
	}
	if !identStart[a[k]] {
		return 0
	}
	end := identEnd(a, k)
	if end > k+1 || a[k] != '.' {
		m := mention{lo: int32(k), hi: int32(end)}
		r.pairs = append(r.pairs, pair{m, mention{lo: m.lo + int32(r.by), hi: m.hi + int32(r.by)}})
	}
	return end
}

// label notes a local label in a and one with another number in b, and returns
// the end of that of a, or 0.
func (r *run) label(k int) int {
	j := k + r.by
	if !r.alikeTo(k) || len(r.tb)-j < 3 || r.tb[j:j+2] != ".L" {
		return 0
	}
	la, endA := r.a.families.at(r.ta, k)
	lb, endB := r.a.families.at(r.tb, j)
	r.pairs = append(r.pairs, pair{mentionAt(la, k, endA), mentionAt(lb, j, endB)})
	r.same, r.by = endA, endB-endA
	return endA
}

// numeric tells digits in words and hexadecimal numbers from the numeric label
// that ends at k.
func (r *run) numeric(k int) int {
	a, lo := r.ta, k
	for identPart[a[lo-1]] {
		lo--
	}
	if identStart[a[lo]] || a[lo:lo+2] == "0x" {
		return k + 1
	}
	return 0
}

// directive goes over a directive: all of one that counts for nothing, or the
// name of one that makes bytes, if all words behind it are points.
func (r *run) directive(k int) int {
	if text := r.ta[k:]; strings.HasPrefix(text, ".cfi_") {
		if NamesSymbols(text) {
			return 0
		}
		return r.noise(k-1, k)
	}
	word := identEnd(r.ta, k)
	if c := r.ta[word]; c != '\t' && c != ' ' {
		return 0
	}
	switch actionOf(r.ta[k:word]) {
	case aNoise, aAlign:
		return r.noise(k-1, word)
	case aBytes:
		if r.a.d.bareWord == nil {
			return word
		}
	}
	return 0
}

// noise goes over the line from lo, which counts for nothing if there are only
// words and a comment behind k.
func (r *run) noise(lo, k int) int {
	a, p := r.ta, &r.points
	end := lineEnd(a, k)
	if a[lo] == '\t' {
		for i := p.next + 1; int(p.list[i]) < end; i++ {
			if c := a[p.list[i]]; c == r.a.d.Comment[0] && c == '#' {
				break
			} else if !identStart[c] {
				return 0
			}
		}
	}
	r.passed(lo, end+1)
	return end + 1
}

// jump reads an instruction of other dialects if it names no symbol, or if it is
// one whose last operand alone may be a symbol. It returns where it is to be
// read on, or 0.
func (r *run) jump(k int) int {
	a, d, p := r.ta, r.a.d, &r.points
	if !d.mayName(a[k:]) {
		return k + 1
	}
	word := identEnd(a, k)
	if !d.bareWord(a[k:word], a[word:]) {
		return word
	}
	end := lineEnd(a, word)
	if int(p.list[p.next+1]) < end || !d.bare(a[k:word], 0, true) {
		return 0
	}
	lo := end
	for a[lo-1] != '\t' && a[lo-1] != ' ' {
		lo--
	}
	if lo <= word || r.symbol(lo) != end {
		return 0
	}
	return end
}

// define reads a line that defines a local label with a number.
func (r *run) define(i int) int {
	j := i + r.by
	if !r.alikeTo(i) || len(r.tb)-j < 3 || r.tb[j:j+2] != ".L" {
		return 0
	}
	la, endA := r.a.families.at(r.ta, i)
	lb, endB := r.a.families.at(r.tb, j)
	if la.family == 0 || lb.family == 0 || r.ta[endA] != ':' || r.tb[endB] != ':' {
		return 0
	}
	nextA, okA := r.a.rest(endA + 1)
	nextB, okB := r.b.rest(endB + 1)
	if !okA || !okB {
		return 0
	}
	r.counted(i)
	at, x, y := place{r.body, r.ord}, r.a.labels.slot(la), r.b.labels.slot(lb)
	if x == nil || y == nil || !r.a.labels.put(x, at) || !r.b.labels.put(y, at) {
		return 0
	}
	r.passed(i, nextA)
	r.same, r.by = nextA, nextB-nextA
	return nextA
}
