package differ

import (
	"strconv"
	"strings"
)

// spot is a place in the source.
type spot struct {
	file string // relative to the tree
	line int
}

// locations are the source lines of the code of one build, as its .loc
// directives give them. Without debug data there are none.
type locations struct {
	s     *side
	fix   *Fix
	files map[int]string
	memo  map[int32][]spot
}

func newLocations(s *side, fix *Fix) *locations {
	return &locations{s: s, fix: fix, memo: make(map[int32][]spot)}
}

// of returns the places of function i with its parts, in the order of the
// code: the first is where the function is defined.
func (l *locations) of(i int32) []spot {
	if spots, ok := l.memo[i]; ok {
		return spots
	}
	l.table()
	var spots []spot
	for _, item := range append([]int32{i}, l.s.parts[i]...) {
		stmts := l.s.Items[item].Stmts
		if len(stmts) == 0 {
			continue
		}
		for line := range strings.Lines(l.s.Text[stmts[0].Lo:stmts[len(stmts)-1].Hi]) {
			if at, ok := l.location(line); ok {
				spots = append(spots, at)
			}
		}
	}
	l.memo[i] = spots
	return spots
}

// location reads ".loc FILE LINE …".
func (l *locations) location(line string) (spot, bool) {
	rest, ok := directive(line, ".loc")
	if !ok {
		return spot{}, false
	}
	words := strings.Fields(rest)
	if len(words) < 2 {
		return spot{}, false
	}
	file, err := strconv.Atoi(words[0])
	n, bad := strconv.Atoi(words[1])
	if name := l.files[file]; err == nil && bad == nil && n > 0 && name != "" {
		return spot{name, n}, true
	}
	return spot{}, false
}

// directive returns what follows a directive that is alone on its line.
func directive(line, name string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(strings.TrimLeft(line, " \t"), name)
	return rest, ok && rest != "" && (rest[0] == ' ' || rest[0] == '\t')
}

// table reads the directives .file NUMBER "FOLDER" "NAME", of which the folder
// may be left out.
func (l *locations) table() {
	if l.files != nil {
		return
	}
	l.files = make(map[int]string)
	text := l.s.Text
	for {
		i := strings.Index(text, ".file")
		if i < 0 {
			return
		}
		end := len(text)
		if n := strings.IndexByte(text[i:], '\n'); n >= 0 {
			end = i + n
		}
		line := text[strings.LastIndexByte(text[:i], '\n')+1 : end]
		text = text[end:]
		rest, ok := directive(line, ".file")
		if !ok {
			continue
		}
		number, rest, _ := strings.Cut(strings.TrimSpace(rest), " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		if dir, rest, ok := quoted(rest); ok {
			if name, _, two := quoted(rest); two {
				l.files[n] = l.fix.relative(dir, name)
			} else {
				l.files[n] = l.fix.relative("", dir)
			}
		}
	}
}

// quoted splits the string off that text begins with.
func quoted(text string) (s, rest string, ok bool) {
	prefix, err := strconv.QuotedPrefix(strings.TrimLeft(text, " \t"))
	if err != nil {
		return "", text, false
	}
	s, err = strconv.Unquote(prefix)
	return s, strings.TrimLeft(text, " \t")[len(prefix):], err == nil
}

// definition returns where function i is defined, if that is known.
func (l *locations) definition(i int32) (spot, bool) {
	if spots := l.of(i); len(spots) > 0 {
		return spots[0], true
	}
	return spot{}, false
}

// has reports whether code of function i comes from lines lo to hi of a file.
func (l *locations) has(i int32, file string, lo, hi int) bool {
	for _, at := range l.of(i) {
		if at.file == file && at.line >= lo && at.line <= hi {
			return true
		}
	}
	return false
}
