package pipeline

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fother/fother/differ"
)

// Text prints the report for a person. Verbose adds where in the assembly the
// differences are, the files, and the names of what does not differ.
func (r *Report) Text(w io.Writer, verbose bool) {
	p := &printer{w, verbose}
	p.line(0, "%s, level %d: %s", r.Name, r.Level, r.headline())
	for _, t := range r.Targets {
		p.line(0, "%s  build-id %s", t.Name, t.BuildID)
		for _, w := range slices.Concat(t.Unchecked, t.Warnings) {
			if r.Result != Refused { // else it is among the refusals
				p.line(1, "warning: %s", w)
			}
		}
	}
	for _, u := range r.Units {
		if verbose || len(u.Functions)+len(u.Data) > 0 {
			p.unit(u, len(r.Targets) > 1)
		}
	}
	if n := r.textOnly(); n > 0 && !verbose {
		p.line(0, "%s only in labels, line numbers or debug data", plural(n, "unit differs", "units differ"))
	}
	if n := len(r.EqualUnits); n > 0 {
		p.line(0, "%s in both builds", plural(n, "unit has the same text", "units have the same text"))
		for _, name := range r.EqualUnits {
			p.more(1, "%s", name)
		}
	}
	if len(r.Refusals) > 0 {
		p.line(0, "refused:")
	}
	for _, n := range r.Refusals {
		p.line(1, "%v", n)
		if n.Unit != "" && len(r.Targets) > 1 {
			p.more(2, "in %s", strings.Join(n.Targets, ", "))
		}
		if n.Hint != "" {
			p.line(2, "hint: %s", n.Hint)
		}
	}
}

// headline says what came of the comparison.
func (r *Report) headline() string {
	switch r.Result {
	case Refused:
		return "no patch can be made, for " + plural(len(r.Refusals), "reason", "reasons")
	case Unchanged:
		return "the fix changes no code"
	}
	count := map[differ.Verdict]int{}
	for _, u := range r.Units {
		for _, f := range u.Functions {
			count[f.Verdict]++
		}
	}
	var parts []string
	for _, v := range []differ.Verdict{differ.Changed, differ.New, differ.Removed} {
		if count[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %v", count[v], v))
		}
	}
	return "functions: " + strings.Join(parts, ", ")
}

// textOnly counts the units in which nothing differs to a running program.
func (r *Report) textOnly() int {
	n := 0
	for _, u := range r.Units {
		if len(u.Functions)+len(u.Data) == 0 {
			n++
		}
	}
	return n
}

// printer prints lines of a report.
type printer struct {
	w       io.Writer
	verbose bool
}

func (p *printer) line(indent int, format string, args ...any) {
	fmt.Fprintf(p.w, strings.Repeat("  ", indent)+format+"\n", args...)
}

// more prints a line if the report is verbose.
func (p *printer) more(indent int, format string, args ...any) {
	if p.verbose {
		p.line(indent, format, args...)
	}
}

func (p *printer) unit(u ReportUnit, several bool) {
	in := ""
	if several {
		in = ", in " + strings.Join(u.Targets, ", ")
	}
	p.line(1, "%s%s; same: %s, %s", u.Name, in, plural(u.Same.Functions, "function", "functions"), plural(u.Same.Data, "object", "objects"))
	if u.Producer != "" {
		p.more(2, "compiled by %s", u.Producer)
	}
	for _, path := range u.Assembly {
		p.more(2, "patch assembly: %s", path)
	}
	for _, f := range u.Functions {
		p.line(2, "%-7v  %s: %s", f.Verdict, name(f.Name, f.Original), f.Text)
		p.first(f.First)
	}
	for _, d := range u.Data {
		what := "data"
		if d.Carried {
			what = "data, carried"
		}
		if d.Kept {
			what = "data, a running program keeps its value"
		}
		p.line(2, "%-7v  %s (%s): %s", d.Verdict, name(d.Name, d.Original), what, d.Text)
		p.first(d.First)
	}
	for _, h := range u.Hooks {
		p.line(2, "hook     %s: %s", h.Point, h.Function)
	}
}

// name names a symbol in the patched build and, if it is another, in the
// original.
func name(patched, original string) string {
	if original == "" || original == patched {
		return patched
	}
	return patched + ", was " + original
}

func (p *printer) first(d *ReportFirst) {
	if d == nil {
		return
	}
	where := func(line int) string {
		if !p.verbose {
			return ""
		}
		return fmt.Sprintf("%d: ", line)
	}
	was, is := plainLine(d.Original), plainLine(d.Patched)
	if was == is {
		if p.verbose {
			is = fmt.Sprintf("%d, %d: %s", d.OriginalLine, d.PatchedLine, is)
		}
		p.line(4, "= %s (%s)", is, cmp.Or(plainLine(d.What), "what it refers to is not the same"))
		return
	}
	p.line(4, "- %s%s", where(d.OriginalLine), was)
	p.line(4, "+ %s%s", where(d.PatchedLine), is)
}

// maxLine bounds a line of assembly in a report for people, in bytes.
const maxLine = 160

// plainLine puts a line of assembly on one line of a terminal.
func plainLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
	switch {
	case text == "":
		return "(ends)"
	case len(text) > maxLine:
		return strings.ToValidUTF8(text[:maxLine], "") + "…"
	}
	return text
}
