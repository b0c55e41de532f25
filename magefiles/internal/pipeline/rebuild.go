package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
)

// Rebuild makes the bundle of s once more and holds it, bit for bit, against
// the one that is published in the registry, or against the file at path if that
// is not "". If they are the same, the one in the registry gets the signature of
// the package's key in o.Keys too.
//
// The spec, the sources and the toolchain have to be those of the manifest: that
// is checked before anything is built, and the error names all that is not. If
// the bundles differ, the error, a [*DifferentError], names what does.
//
// Where the manifest has a path, the builds run there. If that cannot be, the
// error is a [*PlaceError].
func Rebuild(ctx context.Context, s specs.Spec, o Options, path string) error {
	var p *registry.Publisher
	if path == "" {
		var err error
		if p, err = openRegistry(o); err != nil {
			return err
		}
	}
	data, err := published(ctx, p, s, path)
	if err != nil {
		return err
	}
	b, err := bundle.Decode(data)
	if err != nil {
		return fmt.Errorf("%s: %w", cmp.Or(path, "the published bundle"), err)
	}
	mine, err := again(ctx, s, o, b.Manifest)
	if err != nil {
		return err
	}
	if err := compareBundles(data, mine); err != nil {
		return err
	}
	o.say("%s: rebuild: the same %d bytes, SHA-256 %s", s.Name, len(data), specs.DigestOf(data))
	if p == nil {
		return nil
	}
	return countersign(ctx, p, o, releaseOf(mine, b.Manifest))
}

// published returns the bundle that is to be made once more.
func published(ctx context.Context, p *registry.Publisher, s specs.Spec, path string) ([]byte, error) {
	if path != "" {
		return os.ReadFile(path)
	}
	found, err := p.Find(ctx, s.Name, s.Series, s.Level)
	if err != nil {
		return nil, err
	}
	data, _, err := p.Download(ctx, found)
	return data, err
}

// countersign adds a signature to a release that was made once more.
func countersign(ctx context.Context, p *registry.Publisher, o Options, r registry.Release) error {
	signed, need, err := p.Countersign(ctx, r)
	known := errors.Is(err, registry.ErrPublished)
	if err != nil && !known {
		return err
	}
	word := "signed"
	if known {
		word = "signed before"
	}
	enough := "hosts take it"
	if signed < need {
		enough = "hosts do not take it yet"
	}
	o.say("%s: rebuild: %s; %s has %d of %d signatures: %s", r.Package, word, r.File, signed, need, enough)
	return nil
}

// again makes the bundle of s as the manifest says that it was made, and returns
// it. What is made on the way is removed.
func again(ctx context.Context, s specs.Spec, o Options, m bundle.Manifest) ([]byte, error) {
	o.repeats, o.home = &m, o.Work
	if err := sameRelease(s, m); err != nil {
		return nil, err
	}
	work, err := o.place(s, m)
	if err != nil {
		return nil, err
	}
	defer work.leave()
	o.Work = work.folder
	r := newRun(s, o)
	lock, err := Lock(string(r.folder))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := os.MkdirAll(string(r.folder), 0o755); err != nil {
		return nil, err
	}
	if err := r.sameInputs(ctx, m); err != nil {
		return nil, err
	}
	if _, err := Make(ctx, s, o); err != nil {
		return nil, err
	}
	return os.ReadFile(r.folder.Bundle(s))
}

// sameRelease fails if the spec is of another release than the manifest.
func sameRelease(s specs.Spec, m bundle.Manifest) error {
	if m.Name != s.Name || m.Series != s.Series || m.Level != s.Level {
		return fmt.Errorf("the bundle is %s, series %s, level %d; the spec is %s, series %s, level %d",
			m.Name, m.Series, m.Level, s.Name, s.Series, s.Level)
	}
	return nil
}

// OtherInputsError means that a bundle cannot be made once more here, since
// something that it was made from is not the same.
type OtherInputsError struct{ Differences []string }

func (e *OtherInputsError) Error() string {
	return "the bundle was made from something else:\n  " + strings.Join(e.Differences, "\n  ")
}

// Hint says what the user can do.
func (e *OtherInputsError) Hint() string {
	return "use the spec and sources of the commit that it was made from, in a clean checkout, and the same versions of the tools, as in a container of that distribution"
}

// sameInputs compares what a release was made from with what is here.
func (r *run) sameInputs(ctx context.Context, m bundle.Manifest) error {
	digest, err := r.specDigest()
	if err != nil {
		return err
	}
	var all []string
	differ := func(what string, is, was any) {
		all = append(all, fmt.Sprintf("%s: %v here, the bundle was made with %v", what, is, was))
	}
	if digest != m.Spec {
		differ("the spec, "+filepath.Base(r.o.Spec), digest, m.Spec)
	}
	b, _, err := r.source(ctx)
	if err != nil {
		return err
	}
	for i := range max(len(b.Sources), len(m.Sources)) {
		switch {
		case i >= len(b.Sources):
			differ("sources", "nothing", m.Sources[i].Name)
		case i >= len(m.Sources):
			differ("sources", b.Sources[i].Name, "nothing")
		case b.Sources[i].Name != m.Sources[i].Name:
			differ(fmt.Sprintf("source %d", i+1), b.Sources[i].Name, m.Sources[i].Name)
		case b.Sources[i].Digest != m.Sources[i].Digest:
			differ(b.Sources[i].Name, b.Sources[i].Digest, m.Sources[i].Digest)
		}
	}
	all = append(all, r.otherTools(ctx, m.Toolchain)...)
	all = append(all, otherEnvironment(tellingEnvironment(), m.Build.Environment)...)
	if len(all) > 0 {
		return &OtherInputsError{all}
	}
	return nil
}

// otherTools says which tools of a toolchain are not here.
func (r *run) otherTools(ctx context.Context, toolchain []string) (all []string) {
	here := []string{fotherVersion()}
	var missing []string
	look := func(words []string) {
		for _, t := range localTools(ctx, r.env(), words) {
			here = append(here, t.line)
		}
		missing = slices.DeleteFunc(slices.Clone(toolchain), func(line string) bool { return slices.Contains(here, line) })
	}
	if look(r.words()); len(missing) > 0 {
		look(toolsOn(r.env())) // a build may name others than we see
	}
	if v := fotherVersion(); v != "" && !slices.Contains(toolchain, v) && len(missing) == 0 {
		missing = append(missing, "fother of no released version")
	}
	slices.Sort(here)
	here = slices.DeleteFunc(slices.Compact(here), func(line string) bool { return line == "" || slices.Contains(toolchain, line) })
	for _, line := range missing {
		all = append(all, fmt.Sprintf("toolchain: the bundle was made with %s; here is %s", line, cmp.Or(strings.Join(here, ", "), "nothing like it")))
	}
	return all
}

// otherEnvironment says which variables have other values.
func otherEnvironment(here, was map[string]string) (all []string) {
	names := map[string]bool{}
	for _, env := range []map[string]string{here, was} {
		for name := range env {
			names[name] = true
		}
	}
	for name := range names {
		if here[name] != was[name] {
			all = append(all, fmt.Sprintf("environment: %s=%q here, the bundle was made with %s=%q", name, here[name], name, was[name]))
		}
	}
	slices.Sort(all)
	return all
}

// DifferentError means that a release that was made once more came out in
// another way.
type DifferentError struct{ Differences []string }

func (e *DifferentError) Error() string {
	return "the rebuild differs from the bundle:\n  " + strings.Join(e.Differences, "\n  ")
}

// Hint says what the user can do.
func (e *DifferentError) Hint() string {
	return "do not sign it. Either the build depends on something else, such as its path, the time or the network, or the bundle was not made from this source"
}

// compareBundles names what differs between a published bundle and the same
// release that was made once more.
func compareBundles(published, mine []byte) error {
	if bytes.Equal(published, mine) {
		return nil
	}
	was, err := bundle.Decode(published)
	if err != nil {
		return err
	}
	is, err := bundle.Decode(mine)
	if err != nil {
		return err
	}
	return &DifferentError{bundleDifferences(was, is)}
}
