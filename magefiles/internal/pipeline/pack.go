package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// PackAt writes the .kpatch files of what [DiffAt] returned for the same
// layout to l.Patches and returns their paths. All or none are written; the
// error has every reason.
func PackAt(ctx context.Context, s specs.Spec, l Layout, o Options, targets []Target) ([]string, error) {
	p := &packing{spec: s, made: map[specs.BuildID]*Target{}}
	for i := range targets {
		if err := p.add(ctx, &targets[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", targets[i].Name, err)
		}
	}
	if err := refusedError(append(p.reasons, checkNextCall(s, targets)...)); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(l.Patches); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(l.Patches, 0o755); err != nil {
		return nil, err
	}
	var paths []string
	for _, t := range p.order {
		path := filepath.Join(l.Patches, string(t.BuildID)+".kpatch")
		if err := os.WriteFile(path, t.file, 0o644); err != nil {
			return nil, err
		}
		o.say("%s: %s: %d bytes for %s", s.Name, filepath.Base(path), len(t.file), t.Name)
		paths = append(paths, path)
	}
	return paths, nil
}

// packing makes the .kpatch files of a release in memory.
type packing struct {
	spec    specs.Spec
	made    map[specs.BuildID]*Target
	order   []*Target // that have a file
	reasons []error   // why others have none, as for comparison.refuse
}

// add makes the file of a target, unless it has one. What is refused is in
// p.reasons afterwards; other errors are returned.
func (p *packing) add(ctx context.Context, t *Target) error {
	if other, ok := p.made[t.BuildID]; ok && other.Original.Digest == t.Original.Digest && other.Patched.Digest == t.Patched.Digest {
		return nil // the same file, linked twice
	} else if ok {
		p.reasons = append(p.reasons, &sameIDError{t.Name, other.Name, t.BuildID})
		return nil
	}
	p.made[t.BuildID] = t
	if t.file == nil {
		var err error
		t.file, err = packTarget(ctx, p.spec, *t)
		if _, refused := errors.AsType[*kpack.RefusalError](err); refused {
			p.reasons = append(p.reasons, &targetError{t.Name, err})
			return nil
		} else if err != nil {
			return err
		}
	}
	p.order = append(p.order, t)
	return nil
}

// sameIDError means that two different targets cannot be told apart where they
// run.
type sameIDError struct {
	name, other string
	id          specs.BuildID
}

func (e *sameIDError) Error() string {
	return fmt.Sprintf("%s: %s has the same build-id %s, though it is another file", e.name, e.other, e.id)
}

// Hint says what the user can do.
func (e *sameIDError) Hint() string {
	return "does the build give a build-id by hand, with --build-id=0x…? Then give one to each file; else name one of them under targets"
}

// pack makes the .kpatch files of the targets that can have one so far, so that
// what packing refuses is told with all else, and holds them against the linked
// builds. Store is the capture.
func (c *comparison) pack(ctx context.Context, s specs.Spec, store string) error {
	p := &packing{spec: s, made: map[specs.BuildID]*Target{}}
	whole := true
	for i := range c.targets {
		t := &c.targets[i]
		if t.partial {
			whole = false
			continue
		}
		if err := p.add(ctx, t); err != nil {
			return fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	if whole {
		p.reasons = append(p.reasons, checkNextCall(s, c.targets)...)
	}
	if err := p.verify(ctx, store, c.idle); err != nil {
		return err
	}
	for _, err := range p.reasons {
		if of, ok := err.(*targetError); ok {
			c.refuse(of.target, of.err)
			continue
		}
		c.refuse("", err)
	}
	return nil
}

// verify holds the files that were made against the linked builds, as a host
// would read them, and idle targets, which have none, too. What it finds is in
// p.reasons afterwards.
func (p *packing) verify(ctx context.Context, store string, idle []Target) error {
	if len(p.order)+len(idle) == 0 {
		return nil
	}
	own, err := definitions(store)
	if err != nil {
		return err
	}
	found := func(t *Target, err error) {
		if err != nil {
			p.reasons = append(p.reasons, &targetError{t.Name, unexpected(err)})
		}
	}
	for _, t := range p.order {
		patch, err := kpack.Decode(t.file)
		if err == nil {
			err = verifyPatch(patch, *t, own)
		}
		if found(t, err); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	for i := range idle {
		if found(&idle[i], oracleIdle(idle[i], own)); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// unexpected marks those of the errors that errors.Join made one of err of which
// the fix's author can do nothing about.
func unexpected(err error) error {
	all := slices.Clone(joined(err))
	for i, e := range all {
		if len(Hints(e)) == 0 {
			all[i] = &unexpectedError{e}
		}
	}
	return errors.Join(all...)
}

// unexpectedError means that fother does not understand what it made itself.
type unexpectedError struct{ error }

func (e *unexpectedError) Unwrap() error { return e.error }

// Hint says what the user can do.
func (e *unexpectedError) Hint() string {
	return "this should not be: please report it, with report.json and both linked builds"
}

// targetError is why a target cannot be patched.
type targetError struct {
	target string
	err    error
}

func (e *targetError) Error() string { return e.target + ": " + e.err.Error() }
func (e *targetError) Unwrap() error { return e.err }

// checkNextCall refuses functions of the spec's consistency that the fix
// changes in no target: a misspelt name would be an error in silence.
func checkNextCall(s specs.Spec, targets []Target) (reasons []error) {
	changed := map[string]bool{}
	for _, t := range targets {
		for _, u := range t.Units {
			for _, f := range u.Changes.Functions {
				if f.Verdict == differ.Changed {
					changed[f.Name], changed[f.Original] = true, true
				}
			}
		}
	}
	for _, name := range s.Consistency.NextCall {
		if !changed[name] {
			reasons = append(reasons, &nextCallError{name, slices.Sorted(maps.Keys(changed))})
		}
	}
	return reasons
}

// nextCallError means that a spec makes an exception for a function that needs
// none.
type nextCallError struct {
	name    string
	changed []string
}

func (e *nextCallError) Error() string {
	return fmt.Sprintf("consistency: next-call: the fix changes no function %s in any target", e.name)
}

func (e *nextCallError) ofSpec() {}

// Hint says what the user can do.
func (e *nextCallError) Hint() string { return "the fix changes " + strings.Join(e.changed, ", ") }

// open opens the two linked builds of a target.
func (t Target) open() (original, patched *elfobj.File, err error) {
	if original, err = elfobj.Open(t.Original.File); err != nil {
		return nil, nil, err
	}
	patched, err = elfobj.Open(t.Patched.File)
	return original, patched, err
}

// packTarget makes the .kpatch file of a target.
func packTarget(ctx context.Context, s specs.Spec, t Target) ([]byte, error) {
	original, patched, err := t.open()
	if err != nil {
		return nil, err
	}
	in := kpack.BuildInput{
		Arch: original.Arch, Name: filepath.Base(t.Name), Original: original, Patched: patched,
		Meta: kpack.Meta{
			Name: s.Name, Series: s.Series, Level: s.Level, Description: s.Description, CVEs: s.CVEs, Consistency: s.Consistency,
			Unchecked: t.Unchecked,
		},
		Fresh: fresh(s),
	}
	for i, u := range t.Units {
		in.Meta.Producer = u.Changes.Producer
		bu, err := packUnit(ctx, in.Arch, assemblyName(i, u), u)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", u.Changes.Unit, err)
		}
		in.Units = append(in.Units, bu)
	}
	p, err := kpack.Build(in)
	if err != nil {
		return nil, err
	}
	return p.Encode()
}

// packUnit assembles the patch assembly of one unit, which has the given file
// name in messages.
func packUnit(ctx context.Context, a *arch.Arch, name string, u Unit) (kpack.BuildUnit, error) {
	object, err := assemble(ctx, a, name, u.Changes.Assembly, u.Assembler)
	if err != nil {
		return kpack.BuildUnit{}, err
	}
	bu := kpack.BuildUnit{Name: u.Changes.Unit, Object: object, Local: map[string]bool{}, Variables: u.Variables}
	if u.Original != nil {
		if bu.OriginalObject, err = elfobj.Open(u.Original.Object); err != nil {
			return kpack.BuildUnit{}, err
		}
	}
	for _, r := range u.Changes.References {
		if r.Local {
			bu.Local[r.Symbol] = true
		}
	}
	for _, fn := range u.Changes.Functions {
		if fn.Verdict == differ.Changed {
			bu.Functions = append(bu.Functions, kpack.BuildFunction{
				Original: fn.Original, Label: fn.Name + differ.Suffix, Reason: fn.Reason.String(),
			})
		}
	}
	return bu, nil
}

// assemble runs the given assembler or, if there is none, binutils' for an
// architecture, on a text that has a file name in messages. clang's text is for clang's own assembler: it has directives
// that binutils' lacks, and chooses other encodings.
func assemble(ctx context.Context, a *arch.Arch, name string, text []byte, command []string) (*elfobj.File, error) {
	if len(command) == 0 {
		command = []string{a.Tuple + "-as"}
		if _, err := exec.LookPath(command[0]); err != nil {
			command[0] = "as" // the host's own; kpack.Build refuses an object for another machine
		}
	}
	dir, err := os.MkdirTemp("", "fother-pack-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path, out := filepath.Join(dir, name), filepath.Join(dir, "patch.o")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, command[0], append(slices.Clone(command[1:]), "-o", out, path)...)
	msg, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", command[0], err, bytes.TrimSpace(bytes.ReplaceAll(msg, []byte(dir+"/"), nil)))
	}
	return elfobj.Open(out)
}
