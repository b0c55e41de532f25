package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fother/fother/specs"
)

// run is one run of the steps on one spec.
type run struct {
	spec   specs.Spec
	o      Options
	folder Folder
	stamps map[string]*stamp // of the steps that are known to be up to date
	// reported is set when this run has written the report.
	reported bool
	// found is what the comparison of this run found, if there was one.
	found []Target
}

func newRun(s specs.Spec, o Options) *run {
	return &run{spec: s, o: o, folder: FolderOf(s, o), stamps: map[string]*stamp{}}
}

// step is a part of the way from spec to bundle. Each reads what those before
// left in the work folder.
type step struct {
	name string
	// noun is what its result is called.
	noun string
	// depends returns what the step depends on beside the results of the steps
	// before it.
	depends func(*run) (depends, error)
	// do makes the result and puts it in its place.
	do func(context.Context, *run) (*built, error)
	// left returns the digest of the result.
	left func(*run, *built) (specs.Digest, error)
}

// steps are all steps but the publishing, in order.
var steps = []step{
	{
		"build", "the build", (*run).buildDepends,
		func(ctx context.Context, r *run) (*built, error) { return r.build(ctx) },
		func(r *run, b *built) (specs.Digest, error) { return r.buildLeft(b) },
	}, {
		"diff", "the comparison", (*run).diffDepends,
		func(ctx context.Context, r *run) (*built, error) { return nil, r.diff(ctx) },
		func(r *run, _ *built) (specs.Digest, error) { return r.diffLeft() },
	}, {
		"pack", "the bundle", (*run).packDepends,
		func(ctx context.Context, r *run) (*built, error) { return nil, r.pack(ctx) },
		func(r *run, _ *built) (specs.Digest, error) { return r.packLeft() },
	}, {
		"verify", "the verification", (*run).verifyDepends,
		func(ctx context.Context, r *run) (*built, error) { return nil, r.verify(ctx) },
		func(*run, *built) (specs.Digest, error) { return specs.Digest{}, nil },
	},
}

func indexOf(name string) int {
	for i, s := range steps {
		if s.name == name {
			return i
		}
	}
	panic("pipeline: no step " + name)
}

// all returns everything that step i depends on. The steps before it are up to
// date.
func (r *run) all(i int) (depends, error) {
	d, err := steps[i].depends(r)
	if err != nil {
		return nil, err
	}
	for _, s := range steps[:i] {
		if st := r.stamps[s.name]; st != nil {
			d[s.noun] = st.Left
		}
	}
	return d, nil
}

// check returns "" if what step i left is up to date, else what it is that
// says it is not. The steps before it are up to date.
func (r *run) check(i int) (stale string, err error) {
	s := steps[i]
	st, err := readStamp(r.folder, s.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missing, nil
	case errors.Is(err, errDamaged):
		return errDamaged.Error(), nil
	case err != nil:
		return "", err
	}
	d, err := r.all(i)
	if err != nil {
		return "", err
	}
	if name := d.changed(st.Depends); name != "" {
		return name + " has changed", nil
	}
	if st.Built == nil && s.name == "build" {
		return errDamaged.Error(), nil
	}
	if left, err := s.left(r, st.Built); err != nil || left != st.Left {
		return "what it left is gone or has changed", nil
	}
	r.stamps[s.name] = st
	return "", nil
}

// missing is what check says of a step that has never succeeded.
const missing = "there is none"

// do takes step i, up to date or not. Whatever becomes of it, nobody is to take
// the patches of a run before for its result.
func (r *run) do(ctx context.Context, i int) error {
	s := steps[i]
	if err := os.MkdirAll(string(r.folder), 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(string(r.folder.withdrawn()))
	if i <= indexOf("pack") {
		if err := r.withdraw(); err != nil {
			return err
		}
	}
	err := r.make(ctx, i)
	switch {
	case err == nil && i < indexOf("pack"):
		return r.giveBack(s.noun, r.stamps[s.name].Left)
	case err != nil && s.name == "verify" && ctx.Err() == nil:
		return errors.Join(err, r.withdraw())
	}
	return err
}

// make makes the result of step i, and its stamp.
func (r *run) make(ctx context.Context, i int) error {
	s := steps[i]
	d, err := r.all(i)
	if err != nil {
		return err
	}
	b, err := s.do(ctx, r)
	if err != nil {
		return err
	}
	st := &stamp{Step: s.name, Depends: d, Built: b}
	if st.Left, err = s.left(r, b); err != nil {
		return err
	}
	// What changed meanwhile is in one of the two builds only, or in none.
	again, err := r.all(i)
	if err != nil {
		return err
	}
	if name := again.changed(d); name != "" {
		return &movingError{step: s.noun, name: name}
	}
	r.stamps[s.name] = st
	return writeStamp(r.folder, st)
}

// replace puts what a step made in the fresh folder in the place of what was
// there. From now on until the new stamp is written, the step is not up to
// date.
func (r *run) replace(step string, names ...string) error {
	if err := removeStamp(r.folder, step); err != nil {
		return err
	}
	return swap(r.folder, r.folder.fresh(), names...)
}

// freshFolder returns an empty folder for what a step makes.
func (r *run) freshFolder() (Folder, error) {
	fresh := r.folder.fresh()
	if err := os.RemoveAll(string(fresh)); err != nil {
		return "", err
	}
	return fresh, os.MkdirAll(string(fresh), 0o755)
}

// folderDigest returns the digest of all that a folder of results holds.
func folderDigest(dir string) (specs.Digest, error) {
	t, err := digestTree(dir)
	return t.digest, err
}

// Make takes all steps that are not up to date, from the build to the
// verification, and returns the paths of the .kpatch files.
func Make(ctx context.Context, s specs.Spec, o Options) ([]string, error) {
	r := newRun(s, o)
	for i, st := range steps {
		stale, err := r.check(i)
		if err != nil {
			return nil, err
		}
		if stale == "" {
			o.say("%s: %s: up to date", s.Name, st.name)
			continue
		}
		if err := r.do(ctx, i); err != nil {
			return nil, err
		}
	}
	return r.patches()
}

// Step takes one step, if it is not up to date. It fails with a [*StaleError]
// if a step before it has to be taken first.
func Step(ctx context.Context, s specs.Spec, o Options, name string) error {
	return newRun(s, o).step(ctx, name)
}

// Compare takes the step "diff", if it is not up to date, and returns its
// report, also with an error: that of a fix which is refused or changes no
// code. Without a report it is nil.
func Compare(ctx context.Context, s specs.Spec, o Options) (*Report, error) {
	r := newRun(s, o)
	err := r.step(ctx, "diff")
	if err != nil && !r.reported {
		return nil, err
	}
	report, readErr := ReadReport(s, o)
	return report, errors.Join(err, readErr)
}

// step is [Step].
func (r *run) step(ctx context.Context, name string) error {
	i := indexOf(name)
	if err := r.before(i); err != nil {
		return err
	}
	stale, err := r.check(i)
	if err != nil {
		return err
	}
	if stale == "" {
		r.o.say("%s: %s: up to date", r.spec.Name, name)
		return nil
	}
	return r.do(ctx, i)
}

// before fails unless all steps before i are up to date.
func (r *run) before(i int) error {
	for n, s := range steps[:i] {
		stale, err := r.check(n)
		if err != nil {
			return err
		}
		if stale != "" {
			refused := false
			if s.name == "diff" && stale == missing {
				report, err := ReadReport(r.spec, r.o)
				refused = err == nil && report.Result == Refused
			}
			return &StaleError{Name: r.spec.Name, Step: s.name, Refused: refused, noun: s.noun, reason: stale, spec: r.o.Spec}
		}
	}
	return nil
}

// patches returns the paths of the .kpatch files, sorted.
func (r *run) patches() ([]string, error) {
	entries, err := os.ReadDir(r.folder.Patches())
	var paths []string
	for _, e := range entries {
		paths = append(paths, filepath.Join(r.folder.Patches(), e.Name()))
	}
	return paths, err
}

// load reads the stamps of the steps before i without a look at what they
// depend on.
func (r *run) load(i int) error {
	for _, s := range steps[:i] {
		st, err := readStamp(r.folder, s.name)
		if err != nil {
			return &StaleError{Name: r.spec.Name, Step: s.name, noun: s.noun, reason: missing, spec: r.o.Spec}
		}
		r.stamps[s.name] = st
	}
	return nil
}

// Build builds the tree of s as it is and with the fix, both at the same path
// and under capture, whether that is needed or not. Afterwards the two trees
// are in Folder.Original and Folder.Patched. A patch that does not apply, or a
// command that fails, ends it with an error that says where; the builds and the
// comparison of an earlier run stay, its patches do not.
func Build(ctx context.Context, s specs.Spec, o Options) error {
	return newRun(s, o).do(ctx, indexOf("build"))
}

// Diff compares the two builds that [Build] left. Everything that cannot be
// patched is in the error, all at once. It fails with ErrNoChange if there is
// nothing to patch.
func Diff(ctx context.Context, s specs.Spec, o Options) ([]Target, error) {
	return newRun(s, o).now(ctx, "diff")
}

// Pack writes a .kpatch file for each target that [Diff] found, and the bundle
// of all, and returns the paths of the .kpatch files. All or none are written;
// the error has every reason.
func Pack(ctx context.Context, s specs.Spec, o Options) ([]string, error) {
	r := newRun(s, o)
	if _, err := r.now(ctx, "pack"); err != nil {
		return nil, err
	}
	return r.patches()
}

// now takes a step on what the step before it left, and returns what the
// comparison found.
func (r *run) now(ctx context.Context, name string) ([]Target, error) {
	i := indexOf(name)
	if err := r.load(i); err != nil {
		return nil, err
	}
	if err := r.do(ctx, i); err != nil {
		return nil, err
	}
	return Targets(r.spec, r.o)
}
