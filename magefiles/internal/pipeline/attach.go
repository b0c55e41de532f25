package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/magefiles/internal/attest"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
)

// What lies beside a bundle in a registry.
const (
	provenanceName = "provenance.intoto.json"
	vexName        = "openvex.intoto.json"
)

// someBuilder stands for a builder that has no name.
const someBuilder = "https://github.com/fother/fother/builder/unnamed"

// attachments returns what lies beside the bundle of a release: provenance, an
// OpenVEX document if it names CVEs, and the report. They depend on the builds,
// the tools and o.Builder alone.
func (r *run) attachments(ctx context.Context, release registry.Release) ([]registry.Attachment, error) {
	builder := cmp.Or(r.o.Builder, someBuilder)
	if u, err := url.Parse(builder); err != nil || u.Scheme == "" {
		return nil, fmt.Errorf("builder %q: want a URI, such as that of the service that runs the builds", builder)
	}
	b, err := bundle.Decode(release.Bundle)
	if err != nil {
		return nil, err
	}
	report, err := os.ReadFile(r.folder.Report())
	if err != nil {
		return nil, err
	}
	made, err := r.made(ctx, release, b.Manifest)
	if err != nil {
		return nil, err
	}
	made.Builder, made.Byproducts = builder, []attest.Descriptor{attest.File(reportName, specs.DigestOf(report))}
	provenance, err := attest.Provenance(made)
	if err != nil {
		return nil, err
	}
	all := []registry.Attachment{{Name: provenanceName, Data: provenance, Statement: true}, {Name: reportName, Data: report}}
	vex, err := attest.VEX(made.Bundle, b.Manifest, builder)
	if vex != nil {
		all = append(all, registry.Attachment{Name: vexName, Data: vex, Statement: true})
	}
	return all, err
}

// made says how the bundle was made.
func (r *run) made(ctx context.Context, release registry.Release, m bundle.Manifest) (attest.Made, error) {
	made := attest.Made{
		Bundle: attest.File(release.File, specs.DigestOf(release.Bundle)), Manifest: m,
		Versions: map[string]string{"fother": cmp.Or(strings.TrimPrefix(fotherVersion(), "fother "), "(devel)"), "go": runtime.Version()},
	}
	if r.o.Spec != "" {
		made.SpecFile = filepath.Base(r.o.Spec)
	}
	s := r.spec
	switch {
	case s.Archive == "":
		made.SourceTree, made.Commit = true, cleanCommit(ctx, s.Dir)
	case !filepath.IsAbs(s.Archive):
		o, err := specs.ParseOrigin(s.Archive, s.Checksum)
		if err != nil {
			return made, err
		}
		commit, git := strings.CutPrefix(o.Checksum.String(), specs.ChecksumGit+":")
		if made.Address = o.String(); git {
			made.Commit = sha1(commit)
		}
		made.SourceTree = !strings.HasPrefix(s.Checksum, specs.ChecksumSHA256+":")
	}
	var err error
	made.Tools, err = r.toolDescriptors(ctx, m.Toolchain)
	return made, err
}

// cleanCommit returns the commit of a git checkout in which nothing below dir
// was changed, else "".
func cleanCommit(ctx context.Context, dir string) string {
	changed, err := exec.CommandContext(ctx, "git", "-C", dir, "status", "--porcelain", "--", ".").Output()
	if err != nil || len(changed) > 0 {
		return ""
	}
	out, err := exec.CommandContext(ctx, "git", "-C", dir, "rev-parse", "HEAD").Output()
	if err != nil {
		return ""
	}
	return sha1(strings.TrimSpace(string(out)))
}

// sha1 returns a commit id of the length that in-toto knows, else "".
func sha1(id string) string {
	if len(id) != 40 {
		return ""
	}
	return id
}

// toolDescriptors returns the programs here that say of themselves what is in
// toolchain.
func (r *run) toolDescriptors(ctx context.Context, toolchain []string) ([]attest.Descriptor, error) {
	targets, err := Targets(r.spec, r.o)
	if err != nil {
		return nil, err
	}
	all := localTools(ctx, r.env(), r.words())
	for _, t := range targets {
		for _, p := range t.Tools {
			all = append(all, tool{p, versionLine(ctx, p)})
		}
	}
	var found []attest.Descriptor
	for _, line := range toolchain {
		seen := map[string]bool{}
		for _, t := range all {
			path, err := filepath.EvalSymlinks(t.path)
			if t.line != line || err != nil || seen[path] {
				continue
			}
			seen[path] = true
			digest, err := digestProgram(path)
			if err != nil {
				return nil, err
			}
			d := attest.File(filepath.Base(path), digest)
			d.URI, d.Annotations = (&url.URL{Scheme: "file", Path: path}).String(), map[string]string{"version": line}
			found = append(found, d)
		}
	}
	return found, nil
}
