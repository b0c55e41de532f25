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
	reasons := checkNextCall(s, targets)
	made := map[specs.BuildID]Target{}
	var paths []string
	var files [][]byte
	for _, t := range targets {
		if other, ok := made[t.BuildID]; ok && other.Original.Digest == t.Original.Digest && other.Patched.Digest == t.Patched.Digest {
			continue // the same file, linked twice
		} else if ok {
			reasons = append(reasons, &sameIDError{t.Name, other.Name, t.BuildID})
			continue
		}
		made[t.BuildID] = t
		b, err := packTarget(ctx, s, l, t)
		if err != nil {
			reasons = append(reasons, fmt.Errorf("%s: %w", t.Name, err))
			continue
		}
		paths = append(paths, filepath.Join(l.Patches, string(t.BuildID)+".kpatch"))
		files = append(files, b)
	}
	if len(reasons) > 0 {
		return nil, errors.Join(reasons...)
	}
	if err := os.RemoveAll(l.Patches); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(l.Patches, 0o755); err != nil {
		return nil, err
	}
	for i, path := range paths {
		if err := os.WriteFile(path, files[i], 0o644); err != nil {
			return nil, err
		}
		o.say("%s: %s: %d bytes for %s", s.Name, filepath.Base(path), len(files[i]), made[specs.BuildID(strings.TrimSuffix(filepath.Base(path), ".kpatch"))].Name)
	}
	return paths, nil
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

// Hint says what the user can do.
func (e *nextCallError) Hint() string { return "the fix changes " + strings.Join(e.changed, ", ") }

func packTarget(ctx context.Context, s specs.Spec, l Layout, t Target) ([]byte, error) {
	original, err := elfobj.Open(t.Original.File)
	if err != nil {
		return nil, err
	}
	patched, err := elfobj.Open(t.Patched.File)
	if err != nil {
		return nil, err
	}
	in := kpack.BuildInput{
		Arch: original.Arch, Name: filepath.Base(t.Name), Original: original, Patched: patched,
		Meta: kpack.Meta{
			Name: s.Name, Series: s.Series, Level: s.Level, Description: s.Description, CVEs: s.CVEs, Consistency: s.Consistency,
		},
	}
	dir := filepath.Join(l.Diff, string(t.BuildID))
	for i, u := range t.Units {
		in.Meta.Producer = u.Changes.Producer
		bu, err := packUnit(ctx, in.Arch, filepath.Join(dir, assemblyName(i, u)), u)
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

// packUnit assembles the patch assembly of one unit.
func packUnit(ctx context.Context, a *arch.Arch, path string, u Unit) (kpack.BuildUnit, error) {
	object, err := assemble(ctx, a, path, u.Assembler)
	if err != nil {
		return kpack.BuildUnit{}, err
	}
	bu := kpack.BuildUnit{Name: u.Changes.Unit, Object: object, Local: map[string]bool{}}
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
// architecture. clang's text is for clang's own assembler: it has directives
// that binutils' lacks, and chooses other encodings.
func assemble(ctx context.Context, a *arch.Arch, path string, command []string) (*elfobj.File, error) {
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
	out := filepath.Join(dir, "patch.o")
	cmd := exec.CommandContext(ctx, command[0], append(slices.Clone(command[1:]), "-o", out, path)...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", command[0], err, bytes.TrimSpace(msg))
	}
	return elfobj.Open(out)
}
