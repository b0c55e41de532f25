package pipeline

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/differ/asm"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
)

// ReportVersion is the version of the form of [Report] as JSON. It is raised
// when a reader of the old form could misunderstand the new one; members may
// be added without that.
const ReportVersion = 1

// Report is what the comparison of two builds found: what patch:diff prints,
// and report.json in the work folder holds. It depends on the two builds
// alone: there is no time and no absolute path in it, and lists are never
// null.
type Report struct {
	Version int          `json:"version"` // ReportVersion
	Name    string       `json:"name"`    // of the spec
	Series  specs.Series `json:"series"`
	Level   specs.Level  `json:"level"`
	Result  Result       `json:"result"`
	// Targets are the programs and libraries with a unit that was compared,
	// sorted by name.
	Targets []ReportTarget `json:"targets"`
	// Units are those whose text differs, each once, in the order of their
	// targets and in them of the links.
	Units []ReportUnit `json:"units"`
	// EqualUnits are those whose text is equal in both builds, sorted. They
	// were not compared any further.
	EqualUnits []string `json:"equal_units"`
	// Refusals is why there can be no patch, empty if there can.
	Refusals []Refusal `json:"refusals"`
}

// Result is what came of a comparison.
type Result string

// The results.
const (
	Patchable Result = "patchable"
	Refused   Result = "refused"   // see Refusals
	Unchanged Result = "unchanged" // the fix changes no code
)

// ReportTarget is a program or library.
type ReportTarget struct {
	Name    string        `json:"name"` // path in the tree or below DESTDIR
	BuildID specs.BuildID `json:"build_id"`
	// Unchecked says what was not compared for lack of debug data.
	Unchecked []string `json:"unchecked,omitempty"`
	// Warnings are about a patch that can be made.
	Warnings []string `json:"warnings,omitempty"`
}

// ReportUnit is a unit whose text differs.
type ReportUnit struct {
	Name     string   `json:"name"`    // its source, in the tree
	Targets  []string `json:"targets"` // names
	Producer string   `json:"producer,omitempty"`
	// Assembly are the files of the patch in the work folder, one for each
	// target; none if all of the unit is the same to a running program, or
	// something was refused.
	Assembly []string `json:"assembly"`
	// Functions and Data are those that are not the same in both builds; Same
	// counts the others.
	Functions []ReportFunction `json:"functions"`
	Data      []ReportDatum    `json:"data"`
	Hooks     []ReportHook     `json:"hooks,omitempty"`
	Same      ReportSame       `json:"same"`

	changes *differ.ChangeSet
}

// ReportSame counts what is the same in both builds of a unit.
type ReportSame struct {
	Functions int `json:"functions"`
	Data      int `json:"data"`
}

// ReportFunction is a function that is not the same in both builds.
type ReportFunction struct {
	Name     string         `json:"name"`               // symbol in the patched build, or in the original if removed
	Original string         `json:"original,omitempty"` // symbol in the original build, if there is one
	Verdict  differ.Verdict `json:"verdict"`            // "changed", "new" or "removed"
	Reasons  differ.Reasons `json:"reasons"`            // see differ.Cause
	Text     string         `json:"text"`               // the reasons for people
	First    *ReportFirst   `json:"first,omitempty"`    // if changed
}

// ReportHook is a function of the fix that runs in the process around the
// switch.
type ReportHook struct {
	Point    string `json:"point"` // "pre_apply", "post_apply", "pre_revert" or "post_revert"
	Function string `json:"function"`
}

// ReportFirst is the first difference in the assembly.
type ReportFirst struct {
	Original     string `json:"original"`
	Patched      string `json:"patched"`
	OriginalLine int    `json:"original_line"` // in the assembly of the build, from 1
	PatchedLine  int    `json:"patched_line"`
	// What tells, where the texts are the same, which symbol in them stands for what.
	What string `json:"what,omitempty"`
}

// ReportDatum is an object that is not the same in both builds.
type ReportDatum struct {
	Name     string         `json:"name"`
	Original string         `json:"original,omitempty"`
	Verdict  differ.Verdict `json:"verdict"`
	Reasons  differ.Reasons `json:"reasons"`
	Text     string         `json:"text"`
	Carried  bool           `json:"carried"`        // the patch has a copy of its own
	Kept     bool           `json:"kept,omitempty"` // the spec allows that a running program keeps its value
	First    *ReportFirst   `json:"first,omitempty"`
}

// Refusal is one reason why there can be no patch.
type Refusal struct {
	Targets []string `json:"targets,omitempty"` // names
	Unit    string   `json:"unit,omitempty"`
	Name    string   `json:"name,omitempty"`   // of a function, object or section
	Source  string   `json:"source,omitempty"` // FILE:LINE, where it is in the source, if debug data tells it
	// Line is where it is in the assembly text, from 1, and Assembly the file with
	// that in the work folder.
	Line     int    `json:"line,omitempty"`
	Assembly string `json:"assembly,omitempty"`
	Reason   string `json:"reason"`
	Hint     string `json:"hint,omitempty"` // what the author can do
}

func (r Refusal) String() string {
	where, reason, source := r.Unit, r.Reason, r.Source
	if where == "" {
		where = strings.Join(r.Targets, ", ")
	}
	if strings.HasPrefix(source, where+":") {
		where, source = source, ""
	}
	if r.Source == "" && r.Line > 0 {
		reason += fmt.Sprintf(" (line %d of the assembly text %s)", r.Line, r.Assembly)
	}
	parts := slices.DeleteFunc([]string{where, source, r.Name, reason}, func(s string) bool { return s == "" })
	return strings.Join(parts, ": ")
}

// refuse adds what is in err, which stands for why a target cannot be patched.
// Target is "" if err says which.
func (r *Report) refuse(target string, err error) {
	for _, n := range refusalsOf(err) {
		i := slices.IndexFunc(r.Refusals, func(o Refusal) bool {
			return o.Unit == n.Unit && o.Name == n.Name && o.Line == n.Line && o.Reason == n.Reason
		})
		if i < 0 {
			i = len(r.Refusals)
			r.Refusals = append(r.Refusals, n)
		}
		if known := &r.Refusals[i]; target != "" && !slices.Contains(known.Targets, target) {
			known.Targets = append(known.Targets, target)
		}
	}
	r.Result = Refused
}

// refusalsOf takes an error apart.
func refusalsOf(err error) (all []Refusal) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			all = append(all, refusalsOf(e)...)
		}
		return all
	}
	if e, ok := errors.AsType[*kpack.RefusalError](err); ok {
		for _, r := range e.Refusals {
			all = append(all, refusalOf(r))
		}
		return all
	}
	if e, ok := errors.AsType[*differ.RefusalError](err); ok {
		for _, r := range e.Refusals {
			n := Refusal{Unit: r.Unit, Name: r.Name, Line: r.Line, Assembly: r.Text, Reason: r.Reason, Hint: r.Hint}
			if r.Source != "" {
				n.Source = fmt.Sprintf("%s:%d", r.Source, r.SourceLine)
			}
			all = append(all, n)
		}
		return all
	}
	return []Refusal{refusalOf(err)}
}

// refusalOf is the refusal of an error that cannot be taken apart.
func refusalOf(err error) Refusal {
	r := Refusal{Reason: err.Error(), Hint: strings.Join(Hints(err), "; ")}
	if e, ok := errors.AsType[*kpack.Refusal](err); ok {
		r.Unit, r.Name, r.Reason = e.Unit, e.Name, e.Reason()
	}
	if e, ok := errors.AsType[*LinkedError](err); ok {
		r.Name, r.Reason = e.Finding.Name, linkedDiffer+e.Finding.Reason
		if e.Finding.File != "" {
			r.Name += " (" + e.Finding.File + ")"
		}
	}
	if e, ok := errors.AsType[*asm.SyntaxError](err); ok {
		r.Unit, r.Line, r.Assembly, r.Reason = e.File, e.Line, e.Path, fmt.Sprintf("%s: %q", e.Reason, e.Text)
		r.Hint = cmp.Or(r.Hint, "the assembly of this file is not understood: compile it in another way, or leave it as it is")
	}
	return r
}

// newReport returns the report of a comparison that has found nothing yet.
func newReport(s specs.Spec) *Report {
	return &Report{Version: ReportVersion, Name: s.Name, Series: s.Series, Level: s.Level, Result: Patchable,
		Targets: []ReportTarget{}, Units: []ReportUnit{}, EqualUnits: []string{}, Refusals: []Refusal{}}
}

// add adds a unit of a target with what its comparison found. Assembly is the
// file of the patch, or "".
func (r *Report) add(target string, changes *differ.ChangeSet, assembly string) {
	i := slices.IndexFunc(r.Units, func(u ReportUnit) bool { return u.changes == changes })
	if i < 0 {
		i = len(r.Units)
		r.Units = append(r.Units, newReportUnit(changes))
	}
	u := &r.Units[i]
	if !slices.Contains(u.Targets, target) {
		u.Targets = append(u.Targets, target)
	}
	if assembly != "" {
		u.Assembly = append(u.Assembly, assembly)
	}
}

func newReportUnit(c *differ.ChangeSet) ReportUnit {
	u := ReportUnit{Name: c.Unit, Producer: c.Producer, Targets: []string{}, Assembly: []string{},
		Functions: []ReportFunction{}, Data: []ReportDatum{}, changes: c}
	for _, f := range c.Functions {
		if f.Verdict == differ.Same {
			u.Same.Functions++
			continue
		}
		u.Functions = append(u.Functions, ReportFunction{Name: f.Name, Original: f.Original, Verdict: f.Verdict, Reasons: f.Reason,
			Text: f.Reason.String(), First: first(f.First)})
	}
	for _, d := range c.Data {
		if d.Verdict == differ.Same && d.First == nil {
			u.Same.Data++
			continue
		}
		u.Data = append(u.Data, ReportDatum{Name: d.Name, Original: d.Original, Verdict: d.Verdict, Reasons: d.Reason,
			Text: d.Reason.String(), Carried: d.Carried, Kept: d.Kept, First: first(d.First)})
	}
	for _, h := range c.Hooks {
		u.Hooks = append(u.Hooks, ReportHook(h))
	}
	return u
}

func first(d *differ.Difference) *ReportFirst {
	if d == nil {
		return nil
	}
	return &ReportFirst{d.Original, d.Patched, d.OriginalLine, d.PatchedLine, d.What}
}

// finish puts the report into its final form. Paths in the folders of l are made
// relative to them, those in the capture to the work folder.
func (r *Report) finish(l Layout) {
	slices.SortStableFunc(r.Targets, func(a, b ReportTarget) int { return cmp.Compare(a.Name, b.Name) })
	for i := range r.Units {
		if len(r.Refusals) > 0 {
			r.Units[i].Assembly = []string{}
		}
	}
	slices.Sort(r.EqualUnits)
	r.EqualUnits = slices.Compact(r.EqualUnits)
	pairs := []string{l.Store + "/", filepath.Base(l.Store) + "/"}
	for _, f := range []string{l.Tree, l.Installed} {
		if f != "" {
			pairs = append(pairs, f+"/", "")
		}
	}
	short := strings.NewReplacer(pairs...)
	for i := range r.Refusals {
		n := &r.Refusals[i]
		for _, s := range []*string{&n.Unit, &n.Assembly, &n.Reason, &n.Hint} {
			*s = short.Replace(*s)
		}
	}
}

// JSON returns the report as it is in report.json.
func (r *Report) JSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "\t")
	e.SetEscapeHTML(false)
	err := e.Encode(r)
	return b.Bytes(), err
}

// ReadReport returns the report of the last comparison of a spec.
func ReadReport(s specs.Spec, o Options) (*Report, error) {
	path := FolderOf(s, o).Report()
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r Report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.Version != ReportVersion {
		return nil, fmt.Errorf("%s: version %d: this program reads %d", path, r.Version, ReportVersion)
	}
	return &r, nil
}

// Rel returns path as a person in the current folder would type it.
func Rel(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if registry.IsAddress(path) {
		return registry.Redacted(path)
	}
	short, err := filepath.Rel(wd, path)
	if err != nil || strings.HasPrefix(short, "..") {
		return path
	}
	return short
}

// plural says how many there are of something.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
