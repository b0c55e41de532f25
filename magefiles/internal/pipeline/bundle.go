package pipeline

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/specs"
)

// Bundle is the path of the bundle of s in f.
func (f Folder) Bundle(s specs.Spec) string { return f.path(bundle.Name(s.Name, s.Level)) }

// packDepends returns what the bundle depends on beside the comparison.
func (r *run) packDepends() (depends, error) {
	d, s := depends{}, r.spec
	if err := d.addJSON("what the spec says of the release", struct {
		Name, Series, Level, CVEs, Description, Consistency, Allow any
	}{s.Name, s.Series, s.Level, s.CVEs, s.Description, s.Consistency, s.Allow}); err != nil {
		return nil, err
	}
	if err := d.addJSON("the source", r.stamps["build"].Built); err != nil {
		return nil, err
	}
	digest, err := r.specDigest()
	if err != nil {
		return nil, err
	}
	d["the spec"] = digest
	if err := d.addJSON("what the environment tells compilers", tellingEnvironment()); err != nil {
		return nil, err
	}
	if err := assemblerDepends(d); err != nil {
		return nil, err
	}
	return d, d.addVersion()
}

// specDigest is the digest of the spec's file, zero if there is none.
func (r *run) specDigest() (specs.Digest, error) {
	if r.o.Spec == "" {
		return specs.Digest{}, nil
	}
	return digestFile(r.o.Spec)
}

// pack writes the .kpatch files and the bundle.
func (r *run) pack(ctx context.Context) error {
	fresh, err := r.freshFolder()
	if err != nil {
		return err
	}
	defer os.RemoveAll(string(fresh))
	targets := r.found
	if targets == nil {
		if targets, err = Targets(r.spec, r.o); err != nil {
			return err
		}
	}
	l := r.folder.Layout()
	l.Patches = fresh.Patches()
	end := r.o.begin(r.spec.Name+": packing", nil)
	paths, err := PackAt(ctx, r.spec, l, Options{}, targets)
	end()
	if err != nil {
		return err
	}
	var files [][]byte
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		files = append(files, data)
	}
	m, err := r.manifest(ctx, targets)
	if err != nil {
		return err
	}
	data, err := bundle.Encode(m, files)
	if err != nil {
		return err
	}
	if err := os.WriteFile(fresh.Bundle(r.spec), data, 0o644); err != nil {
		return err
	}
	name := filepath.Base(fresh.Bundle(r.spec))
	if err := r.replace("pack", filepath.Base(l.Patches), name); err != nil {
		return err
	}
	r.o.say("%s: pack: %s has %d bytes for %s", r.spec.Name, name, len(data), targetNames(targets))
	return nil
}

// manifest says what the bundle was made from. Encode adds what is in it.
func (r *run) manifest(ctx context.Context, targets []Target) (bundle.Manifest, error) {
	s, b := r.spec, r.stamps["build"].Built
	m := bundle.Manifest{
		Name: s.Name, Series: s.Series, Level: s.Level, Description: s.Description, CVEs: s.CVEs, Consistency: s.Consistency, Allowed: s.Allow,
		Created: time.Unix(b.Epoch, 0).UTC(), Toolchain: toolchain(ctx, targets), Build: bundle.Build{Environment: tellingEnvironment()},
	}
	for _, src := range b.Sources {
		m.Sources = append(m.Sources, bundle.Source{Name: src.Name, Digest: src.Digest})
	}
	inside, err := holdPath(targets, r.folder.site()+"/")
	if err != nil {
		return m, err
	}
	if inside {
		m.Build.Path = r.folder.Tree()
	}
	m.Spec, err = r.specDigest()
	return m, err
}

// withdraw takes the .kpatch files and the bundle of an earlier run away, to a
// folder of their own.
func (r *run) withdraw() error {
	w := r.folder.withdrawn()
	if err := os.RemoveAll(string(w)); err != nil {
		return err
	}
	if err := os.MkdirAll(string(w), 0o755); err != nil {
		return err
	}
	return swap(w, r.folder, r.results()...)
}

// giveBack puts what withdraw took away in its place again, if it was made from
// what a step left now.
func (r *run) giveBack(noun string, left specs.Digest) error {
	st, err := readStamp(r.folder, "pack")
	if err != nil || st.Depends[noun] != left {
		return nil // there is none, or it is of no use
	}
	return swap(r.folder, r.folder.withdrawn(), r.results()...)
}

// results are the names of what the step "pack" leaves.
func (r *run) results() []string {
	return []string{filepath.Base(r.folder.Patches()), filepath.Base(r.folder.Bundle(r.spec))}
}

func targetNames(targets []Target) string {
	names := ""
	for i, t := range targets {
		if i > 0 {
			names += ", "
		}
		names += t.Name
	}
	return names
}

// packLeft identifies the .kpatch files and the bundle.
func (r *run) packLeft() (specs.Digest, error) {
	patches, err := folderDigest(r.folder.Patches())
	if err != nil {
		return specs.Digest{}, err
	}
	file, err := digestFile(r.folder.Bundle(r.spec))
	return specs.DigestOf([]byte(patches.String() + file.String())), err
}
