package differ

import (
	"path"
	"strings"
)

// places says of each refusal where in the source it is, as far as .loc
// directives tell. They are in code alone.
func (p *plan) places(fix *Fix) {
	known := fix != nil
	if !known {
		fix = &Fix{Tree: "."}
	}
	in := map[bool]*locations{false: newLocations(p.b, fix), true: newLocations(p.a, fix)}
	for i := range p.refusals {
		r := &p.refusals[i]
		at, ok := in[r.InOriginal].at(r.Line)
		if !ok {
			continue
		}
		if !known {
			at.file = path.Base(at.file)
		}
		r.Source, r.SourceLine = at.file, at.line
	}
}

// at returns the place in the source of a line of the assembly: that of the
// last .loc directive of the function up to there or, before the first, of the
// function.
func (l *locations) at(line int) (found spot, ok bool) {
	for k := range l.s.Items {
		i := int32(k)
		stmts := l.s.Items[i].Stmts
		if l.s.roles[i] != function && l.s.roles[i] != part || len(stmts) == 0 {
			continue
		}
		first, last := int(stmts[0].Line), int(stmts[len(stmts)-1].Line)
		if line < min(first, int(l.s.Items[i].Line)) || line > last {
			continue
		}
		l.table()
		n := first
		for text := range strings.Lines(l.s.Text[stmts[0].Lo:stmts[len(stmts)-1].Hi]) {
			if at, is := l.location(text); is && (!ok || n <= line) {
				found, ok = at, true
			}
			n++
		}
		return found, ok
	}
	return found, false
}
