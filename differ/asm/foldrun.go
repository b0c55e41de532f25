package asm

// run goes over lines of both bodies that are as compilers write nearly all of
// them, and the same but for symbols: instructions, .L7 and its definition,
// and directives that count for nothing. The last line is the one at i of a, and
// at i+by of b. The texts are known to be the same up to end.
type run struct {
	*folder
	ta, tb     string
	i, by, end int
	lines      int
}

// run goes behind such lines, of which the first same bytes are known to be the
// same, and returns how many bytes behind them are. It stops, besides, at a
// label that is defined again.
func (f *folder) run(same int) int {
	r := run{folder: f, ta: f.a.text, tb: f.b.text, i: f.a.i, by: f.b.i - f.a.i, end: f.a.i + same}
	if same == 0 {
		r.compare(r.i, r.i+r.by)
	}
	for r.i+2 < len(r.ta) && r.line() {
		r.lines++
	}
	f.a.i, f.b.i = r.i, r.i+r.by
	f.a.lines += r.lines
	f.b.lines += r.lines
	return max(r.end-r.i, 0)
}

// compare finds out how far the texts are the same from i of a and j of b on.
func (r *run) compare(i, j int) {
	r.by = j - i
	r.end = i + common(r.ta[i:min(i+window, len(r.ta))], r.tb[j:])
}

// line goes behind one line, if it is such a one. The text has three bytes more.
func (r *run) line() bool {
	switch c := r.ta[r.i+1]; {
	case r.ta[r.i] == '\t' && c >= 'a' && c <= 'z':
		first := len(r.pairs)
		by, end := r.by, r.end
		var next int
		if r.a.d.bareWord == nil {
			next = r.words(first)
		} else {
			next = r.jump()
		}
		if next == 0 {
			r.pairs, r.by, r.end = r.pairs[:first], by, end
			return false
		}
		r.i = next
		r.ord++
		return true
	case r.ta[r.i] == '\t' && c == '.':
		if end := noise(r.ta, r.i+1); end > 0 && end < r.end {
			r.i = end + 1
			return true
		}
	case r.ta[r.i] == '.' && c == 'L':
		return r.define()
	case r.ta[r.i] == '#' && c == ' ':
		if end := lineEnd(r.ta, r.i); end < r.end {
			r.i = end + 1
			return true
		}
	}
	return false
}

// words reads an instruction of a dialect in which every word is a symbol that
// is not marked as something else. It returns where the next line is, or 0.
func (r *run) words(first int) int {
	a := r.ta
	for k := r.i + 2; ; {
		if k = r.a.plain.skip(a, k); k >= len(a) || k > r.end {
			return 0
		}
		switch c := a[k]; {
		case c == '\n' && k < r.end:
			return r.behind(k+1, first)
		case a[k-1]-'0' <= 9:
			return 0 // a numeric label
		case c == '.' && a[k+1] == 'L':
			if k = r.label(k); k == 0 {
				return 0
			}
		case identStart[c]:
			end := identEnd(a, k)
			if end >= r.end {
				return 0
			}
			if c != '.' || end > k+1 {
				r.pair(label{}, k, end)
			}
			k = end
		case c == r.a.d.Comment[0]:
			if next, ok := r.a.rest(k); ok && next <= r.end {
				return r.behind(next, first)
			}
			return 0
		default:
			return 0
		}
	}
}

// behind returns next, but 0 for a prefix with symbols behind it: not every word
// there is one.
func (r *run) behind(next, first int) int {
	if len(r.pairs) > first && r.a.d.prefix(r.ta[r.i+1:identEnd(r.ta, r.i+1)]) {
		return 0
	}
	return next
}

// pair notes a symbol that is written the same in both texts.
func (r *run) pair(l label, lo, hi int) {
	m := mentionAt(l, lo, hi)
	r.pairs = append(r.pairs, pair{m, mention{l, m.lo + int32(r.by), m.hi + int32(r.by)}})
}

// label notes a local label in a and one with another number in b, and returns
// the end of that of a, or 0.
func (r *run) label(k int) int {
	if b := r.tb[k+r.by:]; len(b) < 3 || b[:2] != ".L" {
		return 0
	}
	ma, endA := r.a.symbol(k)
	mb, endB := r.b.symbol(k + r.by)
	r.pairs = append(r.pairs, pair{ma, mb})
	if endA >= r.end {
		r.compare(endA, endB)
	}
	return endA
}

// jump reads an instruction of other dialects if it names no symbol, or if it is
// a jump whose last operand is one. It returns where the next line is, or 0.
func (r *run) jump() int {
	a, d := r.ta, r.a.d
	k := r.a.plain.skip(a, r.i+2)
	if k < r.end && a[k] == '\n' && !d.mayName(a[r.i+1:k]) {
		return k + 1
	}
	word := identEnd(a, r.i+1)
	if k >= len(a) || a[k] != '\n' || !d.branch(a[r.i+1:word], "") {
		return 0
	}
	lo := k
	for a[lo-1] != '\t' && a[lo-1] != ' ' {
		lo--
	}
	switch {
	case lo <= word || lo > r.end || lo+1 >= k:
		return 0
	case a[lo] == '.' && a[lo+1] == 'L':
		if r.label(lo) != k {
			return 0
		}
	case k < r.end && identStart[a[lo]] && identEnd(a, lo) == k:
		r.pair(label{}, lo, k)
	default:
		return 0
	}
	if k >= r.end {
		return 0
	}
	return k + 1
}

// define reads a line that defines a local label with a number.
func (r *run) define() bool {
	i, j := r.i, r.i+r.by
	if len(r.tb)-j < 3 || r.tb[j:j+2] != ".L" {
		return false
	}
	ma, endA := r.a.symbol(i)
	mb, endB := r.b.symbol(j)
	if ma.family == 0 || mb.family == 0 || r.ta[endA] != ':' || r.tb[endB] != ':' {
		return false
	}
	nextA, okA := r.a.rest(endA + 1)
	nextB, okB := r.b.rest(endB + 1)
	if !okA || !okB {
		return false
	}
	at, x, y := place{r.body, r.ord}, r.a.labels.slot(ma.label), r.b.labels.slot(mb.label)
	if x == nil || y == nil || !r.a.labels.put(x, at) || !r.b.labels.put(y, at) {
		return false
	}
	r.i = nextA
	if nextA >= r.end {
		r.compare(nextA, nextB)
	}
	return true
}
