package pipeline

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/differ"
	"github.com/fother/fother/differ/verify"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// What the comparison found, as it is kept in the work folder beside the patch
// assembly, so that packing does not compare again. Paths are relative to the
// work folder.
type (
	savedTarget struct {
		Name     string        `json:"name"`
		BuildID  specs.BuildID `json:"build_id"`
		Original savedLink     `json:"original"`
		Patched  savedLink     `json:"patched"`
		Units    []savedUnit   `json:"units"`
		// Unchecked is that of Target.
		Unchecked []string           `json:"unchecked,omitempty"`
		Kept      []verify.KeptDatum `json:"kept,omitempty"` // likewise
		Tools     []string           `json:"tools,omitempty"`
	}
	savedLink struct {
		File   string       `json:"file"`
		Digest specs.Digest `json:"digest"`
	}
	savedUnit struct {
		Name       string                `json:"name"`
		Object     string                `json:"object"` // of the original build
		Assembly   string                `json:"assembly"`
		Assembler  []string              `json:"assembler,omitempty"`
		Producer   string                `json:"producer,omitempty"`
		Functions  []savedFunction       `json:"functions"`
		References []differ.Reference    `json:"references,omitempty"`
		Variables  []kpack.BuildVariable `json:"variables,omitempty"`
	}
	savedFunction struct {
		Name     string             `json:"name"`
		Original string             `json:"original,omitempty"`
		Verdict  differ.Verdict     `json:"verdict"`
		Reason   differ.Reasons     `json:"reasons,omitempty"`
		First    *differ.Difference `json:"first,omitempty"`
	}
)

// savedName is the file in the folder of the comparison.
const savedName = "targets.json"

// diffDepends returns what the comparison depends on beside the build.
func (r *run) diffDepends() (depends, error) {
	d := depends{}
	if err := d.addJSON("the spec's list of targets", r.spec.Targets); err != nil {
		return nil, err
	}
	if err := d.addJSON("what the spec allows", struct{ Allow, NextCall any }{r.spec.Allow, r.spec.Consistency.NextCall}); err != nil {
		return nil, err
	}
	return d, d.addVersion()
}

// diff compares the builds, and keeps what it found.
func (r *run) diff(ctx context.Context) error {
	fresh, err := r.freshFolder()
	if err != nil {
		return err
	}
	defer os.RemoveAll(string(fresh))
	l := r.folder.Layout()
	l.Diff = fresh.diff()
	s := r.spec
	if s.Targets, err = r.targetOutputs(); err != nil {
		return err
	}
	end := r.o.begin(s.Name+": comparing the builds", nil)
	c, err := compareBuilds(ctx, s, l, r.o)
	end()
	if err != nil {
		return err
	}
	if err := r.keepReport(fresh, c.report); err != nil {
		return err
	}
	if err := c.err(); err != nil {
		// The report is about this fix, and an earlier one's patch assembly is not.
		return errors.Join(err, r.replace("diff", filepath.Base(l.Diff), reportName))
	}
	for i := range c.targets {
		c.targets[i].Tools = toolsOf(&c.targets[i])
	}
	r.found = c.targets
	data, err := saveTargets(r.folder, c.targets)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.Diff, savedName), data, 0o644); err != nil {
		return err
	}
	if err := r.replace("diff", filepath.Base(l.Diff), reportName); err != nil {
		return err
	}
	r.o.say("%s: diff: %s, in %s", s.Name, plural(countFunctions(c.targets), "function differs", "functions differ"), targetNames(c.targets))
	return nil
}

// keepReport writes the report into the fresh folder.
func (r *run) keepReport(fresh Folder, report *Report) error {
	data, err := report.JSON()
	if err != nil {
		return err
	}
	r.reported = true
	return os.WriteFile(fresh.Report(), data, 0o644)
}

// diffLeft identifies what the comparison left.
func (r *run) diffLeft() (specs.Digest, error) {
	folder, err := folderDigest(r.folder.diff())
	if err != nil {
		return folder, err
	}
	report, err := digestFile(r.folder.Report())
	return specs.DigestOf(fmt.Appendln(nil, folder, report)), err
}

// countFunctions returns how many functions are changed, new or removed, each
// once however many targets it is in.
func countFunctions(targets []Target) int {
	seen := map[[2]string]bool{}
	for _, t := range targets {
		for _, u := range t.Units {
			for _, f := range u.Changes.Functions {
				if f.Verdict != differ.Same {
					seen[[2]string{u.Changes.Unit, f.Name}] = true
				}
			}
		}
	}
	return len(seen)
}

// targetOutputs returns the paths at which the builds linked the spec's
// targets. A target may be named by the path of a file that was installed or
// copied, or of a symbolic link, as libx.so.1 is: its build-id tells which link
// made it.
func (r *run) targetOutputs() ([]string, error) {
	if len(r.spec.Targets) == 0 {
		return nil, nil
	}
	c, err := compiler.Load(r.folder.store(), specs.StageOriginal)
	if err != nil {
		return nil, err
	}
	l := r.folder.Layout()
	byID, byName := map[specs.BuildID]string{}, map[string]string{}
	for _, d := range c.Deliverables() {
		byName[l.name(d.Output)] = d.Output
		if d.BuildID != "" {
			byID[d.BuildID] = d.Output
		}
	}
	var outputs []string
	for _, t := range r.spec.Targets {
		output := byName[filepath.Clean(t)]
		for _, dir := range []string{r.folder.Original(), r.folder.Installed(specs.StageOriginal)} {
			if output == "" {
				output = byID[buildIDIn(dir, t)]
			}
		}
		outputs = append(outputs, cmp.Or(output, filepath.Join(l.Tree, t))) // at the latter there is none
	}
	return outputs, nil
}

// buildIDIn returns the build-id of a file in a folder that may not be left,
// or "".
func buildIDIn(dir, name string) specs.BuildID {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return ""
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	id, err := elfobj.ReadBuildID(f)
	if err != nil {
		return ""
	}
	return id
}

func saveTargets(f Folder, targets []Target) ([]byte, error) {
	var saved []savedTarget
	rel := func(path string) string { return strings.TrimPrefix(path, string(f)+"/") }
	for _, t := range targets {
		st := savedTarget{
			Name: t.Name, BuildID: t.BuildID,
			Original: savedLink{rel(t.Original.File), t.Original.Digest},
			Patched:  savedLink{rel(t.Patched.File), t.Patched.Digest}, Unchecked: t.Unchecked, Kept: t.Kept, Tools: t.Tools,
		}
		for i, u := range t.Units {
			su := savedUnit{
				Name: u.Changes.Unit, Producer: u.Changes.Producer, References: u.Changes.References,
				Assembly: filepath.Join(filepath.Base(f.diff()), string(t.BuildID), assemblyName(i, u)), Assembler: u.Assembler,
				Variables: u.Variables,
			}
			if u.Original != nil {
				su.Object = rel(u.Original.Object)
			}
			for _, fn := range u.Changes.Functions {
				if fn.Verdict != differ.Same {
					su.Functions = append(su.Functions, savedFunction{fn.Name, fn.Original, fn.Verdict, fn.Reason, fn.First})
				}
			}
			st.Units = append(st.Units, su)
		}
		saved = append(saved, st)
	}
	return json.MarshalIndent(saved, "", "\t")
}

// Targets returns what the last comparison found. Functions that are the same
// in both builds are left out.
func Targets(s specs.Spec, o Options) ([]Target, error) {
	f := FolderOf(s, o)
	path := filepath.Join(f.diff(), savedName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &StaleError{Name: s.Name, Step: "diff", noun: "the comparison", reason: missing, spec: o.Spec}
	}
	if err != nil {
		return nil, err
	}
	var saved []savedTarget
	if err := json.Unmarshal(data, &saved); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var targets []Target
	for _, st := range saved {
		t := Target{
			Name: st.Name, BuildID: st.BuildID, Unchecked: st.Unchecked, Kept: st.Kept, Tools: st.Tools,
			Original: &compiler.Link{BuildID: st.BuildID, File: f.path(st.Original.File), Digest: st.Original.Digest},
			Patched:  &compiler.Link{File: f.path(st.Patched.File), Digest: st.Patched.Digest},
		}
		for _, su := range st.Units {
			u, err := su.unit(f)
			if err != nil {
				return nil, err
			}
			t.Units = append(t.Units, u)
		}
		targets = append(targets, t)
	}
	return targets, nil
}

func (su savedUnit) unit(f Folder) (Unit, error) {
	text, err := os.ReadFile(f.path(su.Assembly))
	if err != nil {
		return Unit{}, err
	}
	u := Unit{
		Assembler: su.Assembler, Variables: su.Variables,
		Changes: &differ.ChangeSet{Unit: su.Name, Producer: su.Producer, References: su.References, Assembly: text},
	}
	if su.Object != "" { // else the fix adds the unit
		u.Original = &compiler.Unit{Object: f.path(su.Object)}
	}
	for _, fn := range su.Functions {
		u.Changes.Functions = append(u.Changes.Functions, differ.Function{
			Name: fn.Name, Original: fn.Original, Verdict: fn.Verdict, Reason: fn.Reason, First: fn.First,
		})
	}
	return u, nil
}
