package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
)

// Publish signs the bundle of s and puts it into the registry. Everything that
// the bundle was made from must be up to date, and the bundle verified; else
// it fails with a [*StaleError]. Publishing the same bundle again changes
// nothing.
func Publish(ctx context.Context, s specs.Spec, o Options) error {
	r := newRun(s, o)
	if err := r.before(len(steps)); err != nil {
		return err
	}
	p, err := openRegistry(o)
	if err != nil {
		return err
	}
	release, err := r.release()
	if err != nil {
		return err
	}
	if release.Attachments, err = r.attachments(ctx, release); err != nil {
		return err
	}
	switch err := p.Publish(ctx, release); {
	case errors.Is(err, registry.ErrPublished):
		return r.inChannel(ctx, p, release)
	case err != nil:
		return err
	default:
		o.say("%s: publish: %s is in %s, channel %s", s.Name, release.File, Rel(o.Registry), release.Channel)
	}
	return nil
}

// inChannel says of a release that was published before where it is. Publishing
// it again does not move it.
func (r *run) inChannel(ctx context.Context, p *registry.Publisher, release registry.Release) error {
	found, err := p.Find(ctx, release.Package, release.Series, release.Level)
	if err != nil {
		return err
	}
	if found.Channel == release.Channel {
		r.o.say("%s: publish: up to date", release.Package)
		return nil
	}
	r.o.say("%s: publish: %s is there already, in channel %s; patch:promote moves it up", release.Package, release.File, found.Channel)
	return nil
}

func (r *run) release() (registry.Release, error) {
	path := r.folder.Bundle(r.spec)
	data, err := os.ReadFile(path)
	if err != nil {
		return registry.Release{}, err
	}
	b, err := bundle.Decode(data)
	if err != nil {
		return registry.Release{}, fmt.Errorf("%s: %w", path, err)
	}
	channel, err := registry.ParseChannel(r.o.Channel)
	release := releaseOf(data, b.Manifest)
	release.Channel = channel
	return release, err
}

// releaseOf returns the release that a bundle is.
func releaseOf(data []byte, m bundle.Manifest) registry.Release {
	release := registry.Release{
		Package: m.Name, Series: m.Series, Level: m.Level, CVEs: m.CVEs, File: bundle.Name(m.Name, m.Level), Bundle: data,
	}
	for _, t := range m.Targets {
		release.BuildIDs = append(release.BuildIDs, t.BuildID)
	}
	return release
}

// Root is the file by which hosts trust the registry. It is no secret, though
// it lies with the keys.
func Root(o Options) string { return filepath.Join(o.Keys, "root.json") }

// openRegistry opens the registry to publish in it.
func openRegistry(o Options) (*registry.Publisher, error) {
	p, err := registry.Open(o.Registry, o.Keys, keyOptions()...)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, &noRegistryError{err}
	}
	return p, err
}

// noRegistryError means that no registry was made yet.
type noRegistryError struct{ error }

func (e *noRegistryError) Unwrap() error { return e.error }
func (e *noRegistryError) Hint() string {
	return "make one with: go tool mage registry:init, or set FOTHER_REGISTRY and FOTHER_KEYS"
}

// RefreshRegistry signs the registry anew.
func RefreshRegistry(ctx context.Context, o Options) error {
	p, err := openRegistry(o)
	if err != nil {
		return err
	}
	if err := p.Refresh(ctx); err != nil {
		return err
	}
	o.say("%s is signed anew", Rel(o.Registry))
	return nil
}

// ListRegistry prints what the registry holds, a line for each build-id of
// each release.
func ListRegistry(ctx context.Context, w io.Writer, o Options) error {
	entries, err := listed(ctx, o)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "PACKAGE\tSERIES\tLEVEL\tBUILD-ID\tBYTES\tSIGNED\tCVES")
	for _, e := range entries {
		signed := "-" // one signature is enough
		if e.Need > 1 {
			signed = fmt.Sprintf("%d of %d", e.Signed, e.Need)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%d\t%s\t%s\n", e.Package, e.Series, e.Level, e.BuildID, e.Length, signed, strings.Join(e.CVEs, " "))
	}
	return t.Flush()
}
