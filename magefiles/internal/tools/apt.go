package tools

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Apt is apt with lists and archives of its own, so that it can fetch packages
// for another architecture, and source packages, where the system's apt is not
// set up for that. It uses the machine's own sources and keys and changes
// nothing on the system. Any user may run it.
type Apt struct {
	// Dir holds the state. It is made when it is not there.
	Dir string
	// Arch is a Debian architecture name such as "arm64"; empty means the
	// machine's own.
	Arch string
	// Sources reads the lists of source packages instead of binary ones.
	Sources bool
	// Backports reads, beside the distribution's own suite, that of packages of
	// the next release that were built for this one.
	Backports bool

	updated   bool
	updateErr error // a vendor's list may be missing: told when a fetch fails
}

// Download fetches the binary packages into the folder dir as .deb files.
func (a *Apt) Download(ctx context.Context, dir string, packages ...string) error {
	_, err := a.run(ctx, dir, append([]string{"apt-get", "download"}, packages...)...)
	return err
}

// Source fetches the parts of a source package, .dsc and archives, into the
// folder dir. Apt has checked them against its signed lists.
func (a *Apt) Source(ctx context.Context, dir, name, version string) error {
	_, err := a.run(ctx, dir, "apt-get", "source", "--download-only", "--only-source", name+"="+version)
	return err
}

// Depends returns the names that the newest version of a package depends on.
func (a *Apt) Depends(ctx context.Context, name string) ([]string, error) {
	out, err := a.run(ctx, a.Dir, "apt-cache", "depends", name)
	if err != nil {
		return nil, err
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		if dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok {
			all = append(all, dep)
		}
	}
	return all, nil
}

// run runs an apt command in dir, after the lists have been fetched.
func (a *Apt) run(ctx context.Context, dir string, command ...string) ([]byte, error) {
	if err := Check("apt-get"); err != nil {
		return nil, fmt.Errorf("this needs Debian or a relative of it: %w", err)
	}
	options, err := a.prepare()
	if err != nil {
		return nil, err
	}
	if !a.updated {
		_, a.updateErr = a.exec(ctx, a.Dir, options, "apt-get", "update")
		a.updated = true
	}
	out, err := a.exec(ctx, dir, options, command...)
	if err != nil && a.updateErr != nil {
		err = errors.Join(err, a.updateErr)
	}
	return out, err
}

func (a *Apt) exec(ctx context.Context, dir string, options []string, command ...string) ([]byte, error) {
	args := append(append([]string{"-q"}, options...), command[1:]...)
	cmd := exec.CommandContext(ctx, command[0], args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return run(cmd)
}

// prepare makes the folders and returns the options that lead apt to them
// (apt.conf(5)).
func (a *Apt) prepare() ([]string, error) {
	dir, err := filepath.Abs(a.Dir)
	if err != nil {
		return nil, err
	}
	a.Dir = dir
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	set := map[string]string{
		"Dir::State::Lists":    filepath.Join(dir, "lists"),
		"Dir::Cache::archives": filepath.Join(dir, "archives"),
		"Dir::Cache::pkgcache": "", "Dir::Cache::srcpkgcache": "",
		"Acquire::Languages": "none", "Acquire::Retries": "3",
	}
	if os.Geteuid() == 0 {
		set["APT::Sandbox::User"] = "root" // its own user may not enter dir
	}
	if a.Arch != "" {
		set["APT::Architecture"], set["APT::Architectures"] = a.Arch, a.Arch
	}
	if a.Sources || a.Backports {
		change := sourceEntries
		if a.Backports {
			change = func(text string) string { return backportEntries(text, codename("/")) }
		}
		if err := writeSourceLists("/etc/apt", dir, change); err != nil {
			return nil, err
		}
		set["Dir::Etc::sourcelist"] = filepath.Join(dir, "sources.list")
		set["Dir::Etc::sourceparts"] = filepath.Join(dir, "sources.list.d")
	}
	var options []string
	for key, value := range set {
		options = append(options, "-o", key+"="+value)
	}
	return options, nil
}

// writeSourceLists writes the lists of the apt configuration in etc to dir, as
// change makes them (sources.list(5)).
func writeSourceLists(etc, dir string, change func(text string) string) error {
	parts := filepath.Join(dir, "sources.list.d")
	if err := os.MkdirAll(parts, 0o755); err != nil {
		return err
	}
	files := []string{"sources.list"}
	for _, pattern := range []string{"*.list", "*.sources"} {
		found, err := filepath.Glob(filepath.Join(etc, "sources.list.d", pattern))
		if err != nil {
			return err
		}
		for _, f := range found {
			files = append(files, filepath.Join("sources.list.d", filepath.Base(f)))
		}
	}
	some := false
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(etc, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		changed := change(string(text))
		some = some || changed != string(text) || strings.Contains(changed, "deb-src")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(changed), 0o644); err != nil {
			return err
		}
	}
	if !some {
		return fmt.Errorf("%s: apt has no package sources", etc)
	}
	return nil
}

// sourceEntries changes "deb" to "deb-src" in the one-line and deb822 forms of
// package sources.
func sourceEntries(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		switch words := strings.Fields(line); {
		case len(words) > 0 && words[0] == "deb":
			b.WriteString(strings.Replace(line, "deb", "deb-src", 1))
		case len(words) > 1 && strings.EqualFold(words[0], "Types:"):
			b.WriteString("Types: deb-src\n")
		default:
			b.WriteString(line)
		}
	}
	return b.String()
}

// backportEntries adds to the suite of that name, in the one-line and deb822 forms of
// package sources, the suite of its backports.
func backportEntries(text, suite string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		at := slices.Index(words, suite)
		switch {
		case suite == "" || at < 0:
		case words[0] == "deb":
			words[at] += "-backports"
			line = strings.TrimSuffix(line, "\n") + "\n" + strings.Join(words, " ") + "\n"
		case strings.EqualFold(words[0], "Suites:"):
			line = strings.Join(append(words, suite+"-backports"), " ") + "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// codename returns that of the distribution's release, os-release(5), or "".
func codename(root string) string {
	text, err := os.ReadFile(filepath.Join(root, "etc/os-release"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"'`)
		}
	}
	return ""
}
