package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fother/fother/apply"
)

// encode prints v as JSON. What a terminal would obey is escaped, as JSON
// does it.
func (t *tool) encode(v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		t.fail(fmt.Errorf("the results could not be written: %w", err))
		return
	}
	text := b.Bytes()
	if !printable(text) {
		var safe bytes.Buffer
		for len(text) > 0 {
			r, n := utf8.DecodeRune(text)
			if r != '\n' && hostile(r, n) {
				fmt.Fprintf(&safe, `\u%04x`, r)
			} else {
				safe.Write(text[:n])
			}
			text = text[n:]
		}
		text = safe.Bytes()
	}
	_, _ = t.stdout.Write(text)
}

// print tells a person what was done to a process.
func (t *tool) print(o *outcome) {
	if t.json {
		return
	}
	if o.Plan != nil {
		t.printPlan(o)
		return
	}
	for _, a := range o.Accepted {
		fmt.Fprintf(t.stdout, "%d: accepted %s\n", o.PID, title(a))
	}
	if o.Result != nil {
		t.printResult(o.Result)
	}
}

// printPlan tells what would be done.
func (t *tool) printPlan(o *outcome) {
	for _, a := range o.Plan.Apply {
		fmt.Fprintf(t.stdout, "%d: would apply %s\n", o.PID, title(a))
		for _, h := range a.Hooks {
			fmt.Fprintf(t.stdout, "%d: it has hook %s (%v)\n", o.PID, clean(h.Function), h.Point)
		}
	}
	for _, a := range o.Plan.Replace {
		fmt.Fprintf(t.stdout, "%d: would replace %s\n", o.PID, title(a))
	}
}

func (t *tool) printResult(r *apply.Result) {
	who := fmt.Sprintf("%d (%s)", r.PID, clean(r.Name))
	for _, a := range r.Recovered {
		fmt.Fprintf(t.stdout, "%s: an earlier run was interrupted; cleared up %s\n", who, title(a))
	}
	for _, a := range r.Applied {
		fmt.Fprintf(t.stdout, "%s: applied %s\n", who, title(a))
		if len(a.Carried) > 0 {
			fmt.Fprintf(t.stdout, "%s: it goes on with the values of %s\n", who, clean(functions(a.Carried)))
		}
	}
	for _, a := range r.Replaced {
		fmt.Fprintf(t.stdout, "%s: replaced level %d\n", who, a.Level)
	}
	for _, a := range r.Removed {
		fmt.Fprintf(t.stdout, "%s: reverted %s\n", who, title(a))
	}
	for _, a := range r.Freed {
		fmt.Fprintf(t.stdout, "%s: freed %d KiB that %s had left\n", who, a.Size>>10, title(a))
	}
	for _, a := range r.Kept {
		if a.Stays != "" {
			fmt.Fprintf(t.stdout, "%s: %d KiB of %s stay for good: %s\n", who, a.Size>>10, title(a), clean(a.Stays))
			continue
		}
		fmt.Fprintf(t.stdout, "%s: %d KiB of %s stay, since something may still refer to them; a later run frees them\n", who, a.Size>>10, title(a))
	}
	for _, h := range r.Hooks {
		if h.Why != "" {
			fmt.Fprintf(t.stdout, "%s: hook %s (%v) %s\n", who, clean(h.Failed), h.Point, clean(h.Why))
		} else {
			fmt.Fprintf(t.stdout, "%s: ran %s (%v) in %s\n", who, clean(functions(h.Functions)), h.Point, micro(h.Took))
		}
	}
	t.printTimes(who, r)
}

// printTimes tells how long the process stood still.
func (t *tool) printTimes(who string, r *apply.Result) {
	s := r.Stop
	if s.Tries > 0 {
		fmt.Fprintf(t.stdout, "%s: stopped for %s (%s)", who, micro(s.Total), count(s.Threads, "thread"))
		if s.Tries > 1 {
			fmt.Fprintf(t.stdout, ", %d stops, the longest %s, together %s", s.Tries, micro(s.Longest), micro(s.Sum))
		}
		fmt.Fprintf(t.stdout, "; took %s\n", micro(r.Wall))
	}
	if t.verbose {
		fmt.Fprintf(t.stdout, "%s: interrupt %s, inspect %s, write %s, resume %s; seized ahead in %s, one thread held for %s\n",
			who, micro(s.Interrupt), micro(s.Inspect), micro(s.Write), micro(s.Resume), micro(s.Seize), micro(r.Held))
	}
}

func title(a apply.Applied) string {
	name := a.Name
	if name == "" {
		name = a.BuildID.Short()
	}
	return clean(fmt.Sprintf("%s (series %s, level %d) to %s: %s", name, a.Series, a.Level, filepath.Base(a.Object), functions(a.Functions)))
}

func functions(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "s") {
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// micro prints a time in microseconds, or milliseconds where that is shorter.
func micro(d time.Duration) string {
	if d >= 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%d µs", d.Microseconds())
}
