package corpus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs"
)

// Needs are the programs and headers that the case needs, for package tools.
func (c Case) Needs() []string {
	return append(append([]string{}, commonNeeds...), c.recipe().needs...)
}

// Outputs are the files that the build links, relative to the tree.
func (c Case) Outputs() []string { return c.recipe().outputs }

// Prepare makes dir/source, the tree before the fix, and dir/fix.patch, and
// returns the spec of the case. What an earlier call for the same case has made
// in dir is kept. Source packages are kept in the user's cache folder.
func (c Case) Prepare(ctx context.Context, dir string) (specs.Spec, error) {
	s, err := c.prepare(ctx, dir)
	if err != nil {
		return specs.Spec{}, fmt.Errorf("prepare %s: %w", c.ID, err)
	}
	return s, nil
}

func (c Case) prepare(ctx context.Context, dir string) (specs.Spec, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return specs.Spec{}, err
	}
	s := c.spec(dir)
	// The mark comes last, so that only a whole tree has one.
	mark := filepath.Join(dir, "prepared")
	if was, err := os.ReadFile(mark); err == nil && string(was) == c.mark() {
		return s, nil
	}
	if err := tools.Check(c.Needs()...); err != nil {
		return specs.Spec{}, err
	}
	dsc, err := c.fetch(ctx)
	if err != nil {
		return specs.Spec{}, err
	}
	for _, old := range []string{mark, s.Dir} {
		if err := os.RemoveAll(old); err != nil {
			return specs.Spec{}, err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return specs.Spec{}, err
	}
	// Apt has checked signatures; the digests of the parts are in the .dsc file.
	if err := run(ctx, dir, "dpkg-source", "--skip-patches", "-x", dsc, s.Dir); err != nil {
		return specs.Spec{}, err
	}
	if err := c.applyEarlier(ctx, s); err != nil {
		return specs.Spec{}, err
	}
	return s, os.WriteFile(mark, []byte(c.mark()), 0o644)
}

func (c Case) mark() string { return fmt.Sprintf("%s %s\n", c.ID, c.Version) }

func (c Case) spec(dir string) specs.Spec {
	r := c.recipe()
	s := specs.Spec{
		Name:      c.ID,
		Dir:       filepath.Join(dir, "source"),
		Patches:   []string{filepath.Join(dir, "fix.patch")},
		Configure: r.configure,
		Build:     r.build,
		Env:       append(commonEnv(), r.env...),
		Series:    specs.DefaultSeries,
		Level:     1,
		CVEs:      c.CVEs,
	}
	s.Description = fmt.Sprintf("%s of Debian's %s %s", c.Patch, c.Package, c.Version)
	return s
}

// fetch returns the path of the .dsc file of the source package.
func (c Case) fetch(ctx context.Context) (string, error) {
	dsc, err := Source(ctx, c.Package, c.Version)
	if err != nil {
		return "", err
	}
	return dsc, c.checkDigest(dsc)
}

// Source fetches a source package, which is kept in the user's cache folder, and
// returns the path of its .dsc file. Apt has checked it.
func Source(ctx context.Context, name, version string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "fother", "sources")
	_, short, epoch := strings.Cut(version, ":")
	if !epoch {
		short = version
	}
	final := filepath.Join(dir, name+"_"+short)
	dsc := filepath.Join(final, name+"_"+short+".dsc")
	if _, err := os.Stat(dsc); err == nil {
		return dsc, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// Fetched to one side, so that a folder with the right name is whole.
	tmp, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	parts := filepath.Join(tmp, "parts")
	if err := os.Mkdir(parts, 0o755); err != nil {
		return "", err
	}
	apt := &tools.Apt{Dir: filepath.Join(tmp, "apt"), Sources: true}
	if err := apt.Source(ctx, parts, name, version); err != nil {
		return "", fmt.Errorf("fetch source package %s %s: %w", name, version, err)
	}
	if err := os.Rename(parts, final); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dsc, nil
}

// checkDigest fails if the .dsc file is not the one that the recipe names.
func (c Case) checkDigest(dsc string) error {
	want := c.recipe().dsc
	if want == "" {
		return nil
	}
	text, err := os.ReadFile(dsc)
	if err != nil {
		return err
	}
	if got := specs.DigestOf(text).String(); got != want {
		return fmt.Errorf("%s: its digest is %s, want %s", dsc, got, want)
	}
	return nil
}

// applyEarlier applies the patches before the fix to the tree, and puts the fix
// beside it.
func (c Case) applyEarlier(ctx context.Context, s specs.Spec) error {
	patches := filepath.Join(s.Dir, "debian", "patches")
	text, err := os.ReadFile(filepath.Join(patches, "series"))
	if err != nil {
		return err
	}
	names := series(string(text))
	if len(names) < c.K || names[c.K-1] != c.Patch {
		return fmt.Errorf("patch %d of the series is not %s", c.K, c.Patch)
	}
	for _, name := range names[:c.K-1] {
		err := run(ctx, s.Dir, "patch", "-p1", "-s", "-f", "--no-backup-if-mismatch", "-i", filepath.Join(patches, name))
		if err != nil {
			return err
		}
	}
	fix, err := os.ReadFile(filepath.Join(patches, c.Patch))
	if err != nil {
		return err
	}
	return os.WriteFile(s.Patches[0], fix, 0o644)
}

// series returns the names of the patches in a series file (quilt(1)).
func series(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 0 {
			names = append(names, f[0])
		}
	}
	return names
}

func run(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
