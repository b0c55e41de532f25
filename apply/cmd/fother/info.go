package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/apply/fleet"
	"github.com/fother/fother/specs"
)

var infoCommand = &command{
	name:  "info",
	args:  "[-p PID|all] [-s DIR] [-r REGEXP] [-b BUILDID]",
	brief: "what is loaded, and the patches in it",
	help: `
Lists the objects of running processes with their build-ids, and the patches in
them. Of all processes those are left out that the caller may not read, and with
-b, -r or -s those with none of the objects.

Options:
  -p PID|all      the process, or all that the caller may trace, but init
                  (all)
  --state DIR     the folder in which fother pull keeps what it was told: of
                  revoked patches for these objects, too (/var/lib/fother; else
                  $XDG_STATE_HOME/fother)
  -b BUILDID      only objects of this build-id; its first digits are enough
  -r REGEXP       only objects whose base name matches, or whose path does, if
                  the expression holds a slash
  -s DIR          only objects that DIR has patches for, a folder as for
                  fother patch, and which these are

-b cannot stand with -r or -s.
`,
	start: func(t *tool, fs *flag.FlagSet) action {
		c := &info{tool: t}
		c.procs.declare(fs)
		fs.StringVar(&c.buildID, "b", "", "")
		fs.StringVar(&c.regexp, "r", "", "")
		fs.StringVar(&c.dir, "s", "", "")
		fs.StringVar(&c.state, "state", "", "")
		return c.run
	},
}

type info struct {
	*tool
	procs                processes
	buildID, regexp, dir string
	state                string
	revoked              []fleet.RevokedPatch
	filter               filter
}

// filter says which objects are told.
type filter struct {
	id    string // first digits of the build-id
	name  *regexp.Regexp
	path  bool // name is matched to the whole path
	store *store
}

func (f *filter) off() bool { return f.id == "" && f.name == nil && f.store == nil }

// accepts reports whether the filter takes object o, apart from the store.
func (f *filter) accepts(o apply.ObjectInfo) bool {
	name := o.Path
	if !f.path {
		name = filepath.Base(name)
	}
	return strings.HasPrefix(string(o.BuildID), f.id) && (f.name == nil || f.name.MatchString(name))
}

// processInfo is what info --json prints for each process.
type processInfo struct {
	PID     int             `json:"pid"`
	Name    string          `json:"name"`
	Objects []objectInfo    `json:"objects"`
	Applied []apply.Applied `json:"applied"`
	Damaged []string        `json:"damaged,omitempty"`
	// Headless is set if the first thread has ended: then nothing can be changed.
	Headless bool   `json:"headless,omitempty"`
	Error    string `json:"error,omitempty"`
	Exit     int    `json:"exit"`
}

// objectInfo is an object, and with -s the patches for it.
type objectInfo struct {
	apply.ObjectInfo
	Available []availableInfo `json:"available,omitempty"`
	// Revoked are patches for it that were revoked, as the last pull was told.
	Revoked []fleet.RevokedPatch `json:"revoked,omitempty"`
}

// availableInfo is a patch that the folder of -s has. Level 0 is LibCare's note
// that a build is vulnerable, without a patch.
type availableInfo struct {
	Name        string       `json:"name,omitempty"`
	Series      specs.Series `json:"series"`
	Level       specs.Level  `json:"level"`
	Description string       `json:"description,omitempty"`
	Path        string       `json:"path"`
	// Applied is set if this level of the series, or a higher one, is in force
	// in the process.
	Applied bool `json:"applied"`
}

func (t *info) run(ctx context.Context, args []string) int {
	if len(args) > 0 {
		return t.fail(usageError{fmt.Errorf("info takes no argument %q", args[0])})
	}
	if t.procs.text == "" {
		t.procs.all = true
	}
	if err := t.prepare(); err != nil {
		return t.fail(err)
	}
	pids, err := t.procs.list()
	if err != nil {
		return t.fail(err)
	}
	infos, code := []processInfo{}, exitDone
	defer t.gather()()
	for i := range t.survey(ctx, pids) {
		t.tidy()
		if t.procs.all && passOver(i.err) || ctx.Err() != nil || i.err == nil && !t.filter.apply(&i) {
			continue
		}
		t.note(&i)
		if i.err != nil {
			i.Error, i.Exit = i.err.Error(), exitCode(i.err)
			code = t.fail(fmt.Errorf("process %d: %w", i.PID, i.err))
		}
		if !t.json && len(i.Objects)+len(i.Damaged) > 0 {
			t.printInfo(i.processInfo)
		}
		if t.json {
			infos = append(infos, i.processInfo)
		}
	}
	t.noteLeftOut()
	if t.json {
		t.encode(infos)
	}
	if ctx.Err() != nil {
		return t.fail(fmt.Errorf("interrupted: %w", ctx.Err()))
	}
	return code
}

// prepare makes the filter from the options.
func (t *info) prepare() error {
	if err := t.readRevoked(); err != nil {
		return err
	}
	f := &t.filter
	if t.buildID != "" {
		if t.regexp != "" || t.dir != "" {
			return usageError{errors.New("-b cannot stand with -r or -s")}
		}
		id, err := parsePrefix(t.buildID)
		if err != nil {
			return usageError{fmt.Errorf("-b: %w", err)}
		}
		f.id = string(id)
	}
	if t.regexp != "" {
		re, err := regexp.Compile(t.regexp)
		if err != nil {
			return usageError{fmt.Errorf("-r: %w", err)}
		}
		f.name, f.path = re, strings.Contains(t.regexp, "/")
	}
	if t.dir != "" {
		s, err := openStore([]string{t.dir})
		if err == nil {
			err = s.empty()
		}
		if err != nil {
			return err
		}
		f.store = s
	}
	return nil
}

// readRevoked reads what a pull has left. Without --state there need not be
// anything that the caller may read.
func (t *info) readRevoked() error {
	dir, err := stateFolder(t.state)
	if err == nil {
		t.revoked, err = fleet.ReadRevoked(dir)
	}
	if t.state == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// note adds what is known of the objects of i to be revoked.
func (t *info) note(i *surveyed) {
	for n := range i.Objects {
		o := &i.Objects[n]
		for _, r := range t.revoked {
			if r.Patch.BuildID == o.BuildID {
				o.Revoked = append(o.Revoked, r)
			}
		}
	}
}

// apply takes out of i the objects that the filter does not take, and adds what
// the store has for the others. It reports whether anything is left to tell.
// What is wrong with files of the store is in i.err.
func (f *filter) apply(i *surveyed) bool {
	if f.off() {
		return true
	}
	var objects []objectInfo
	ids := make(map[specs.BuildID]bool)
	var errs []error
	for _, o := range i.Objects {
		if !f.accepts(o.ObjectInfo) {
			continue
		}
		if f.store != nil {
			offers, err := f.store.lookup(o.BuildID)
			if errs = append(errs, err); len(offers) == 0 {
				continue
			}
			o.Available, err = f.available(offers, i.Applied)
			errs = append(errs, err)
		}
		objects, ids[o.BuildID] = append(objects, o), true
	}
	i.err = errors.Join(errs...)
	applied := []apply.Applied{}
	for _, a := range i.Applied {
		if ids[a.BuildID] {
			applied = append(applied, a)
		}
	}
	i.Objects, i.Applied = objects, applied
	return len(objects) > 0 || i.err != nil
}

// available describes the newest offer of each series.
func (f *filter) available(offers []*offer, there []apply.Applied) ([]availableInfo, error) {
	var all []availableInfo
	var errs []error
	for _, o := range newestOffers(offers) {
		text, err := f.store.describe(o)
		errs = append(errs, err)
		a := availableInfo{Name: o.name, Series: o.series, Level: o.level, Description: text, Path: o.path}
		for _, p := range there {
			a.Applied = a.Applied || inForce(p) && p.BuildID == o.id && p.Series == o.series && p.Level >= o.level
		}
		all = append(all, a)
	}
	return all, errors.Join(errs...)
}

// inForce tells a patch that is applied from what is left of one.
func inForce(a apply.Applied) bool { return a.State == "applied" }

// newestOffers keeps the highest level of each series, in the given order.
func newestOffers(offers []*offer) []*offer {
	var all []*offer
next:
	for _, o := range offers {
		for i, have := range all {
			if have.series == o.series {
				if o.level > have.level {
					all[i] = o
				}
				continue next
			}
		}
		all = append(all, o)
	}
	return all
}

// printInfo prints with one write.
func (t *tool) printInfo(i processInfo) {
	var out bytes.Buffer
	defer func() { t.stdout.Write(out.Bytes()) }()
	fmt.Fprintf(&out, "%d (%s)\n", i.PID, clean(i.Name))
	for _, o := range i.Objects {
		printObject(&out, o.ObjectInfo)
		for _, a := range i.Applied {
			if a.BuildID == o.BuildID {
				fmt.Fprintf(&out, "    %s: %s\n", a.State, title(a))
				if !a.TrialEnds.IsZero() {
					fmt.Fprintf(&out, "      on trial until %s\n", a.TrialEnds.Local().Format(time.DateTime))
				}
				printHits(&out, a)
				for _, h := range a.Hooks {
					fmt.Fprintf(&out, "      hook %s (%v, at most %v)\n", clean(h.Function), h.Point, h.Limit)
				}
			}
		}
		for _, a := range o.Available {
			printAvailable(&out, a)
		}
		for _, r := range o.Revoked {
			fmt.Fprintf(&out, "    revoked: %s (series %s, level %d): %s\n", clean(r.Package), r.Patch.Series, r.Patch.Level, clean(r.Reason))
		}
	}
	if i.Headless {
		fmt.Fprintf(&out, "  note: %v\n", apply.ErrHeadless)
	}
	for _, d := range i.Damaged {
		fmt.Fprintf(&out, "  damaged: %s\n", clean(d))
	}
}

// printObject prints an object's line. Of all processes these are nearly all that
// is printed, so it is put together without a format.
func printObject(out *bytes.Buffer, o apply.ObjectInfo) {
	id, path := string(o.BuildID), clean(o.Path)
	if id == "" {
		id = "no build-id"
	}
	const width = 40 // of SHA-1, the usual build-id
	out.Grow(width + len(path) + 8)
	out.WriteString("  ")
	out.WriteString(id)
	for range max(width-len(id), 0) + 2 {
		out.WriteByte(' ')
	}
	out.WriteString(path)
	out.WriteByte('\n')
}

// printHits tells how often the functions of a patch were called.
func printHits(out io.Writer, a apply.Applied) {
	for i, n := range a.Hits {
		fmt.Fprintf(out, "      %s: called %s\n", clean(a.Functions[i]), count(int(min(n, math.MaxInt)), "time"))
	}
}

func printAvailable(out io.Writer, a availableInfo) {
	what := "not applied"
	switch {
	case a.Level == 0:
		what = "vulnerable, and no patch for it"
	case a.Applied:
		what = "applied"
	}
	fmt.Fprintf(out, "    available, %s: %s (series %s, level %d) in %s\n", what, clean(a.Name), a.Series, a.Level, clean(a.Path))
	for line := range strings.Lines(a.Description) {
		fmt.Fprintf(out, "      %s\n", strings.TrimRight(line, "\r\n"))
	}
}
