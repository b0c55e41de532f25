package services

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fother/fother/magefiles/internal/corpus"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs"
)

// fixes are source patches as a maintainer would write them: a check more here
// and there, most of them in functions that every request goes through. Of the
// second level's functions some never leave the stack of a worker that waits.
//
//go:embed fixes
var fixes embed.FS

// Package is a Debian source package with a program or library that a service
// runs.
type Package struct {
	Name    string // of the source package
	Version string
	Binary  string // the package that File comes in
	File    string // that is patched, an absolute path
	// Output is what the build calls it, relative to the tree.
	Output string
	// Levels and More are fixes: those of the default series, and one of another
	// series. That of memcached changes one function more that is inlined into one
	// which the levels change too: who comes second is refused.
	Levels []Fix
	More   []Fix

	environ []string
	// once is what is done to the source tree, configure and build to a copy.
	once, configure, build []string
	// rewrite adapts the commands to the distribution's file.
	rewrite func(ctx context.Context, dir, file string) (before string, err error)
}

// Fix is one patch.
type Fix struct {
	Name   string // of its file in fixes, without ".patch"
	Series specs.Series
	Level  specs.Level
	// NextCall are functions that a waiting process is in.
	NextCall []string
}

const hardening = "DEB_BUILD_MAINT_OPTIONS=hardening=+all"

// What dh(1) does before and when it configures.
var (
	autoreconf    = []string{"dh_update_autotools_config", "dh_autoreconf"}
	autoconfigure = []string{"debian/rules override_dh_auto_configure"}
)

func levels(name string, nextCall ...string) []Fix {
	return []Fix{
		{Name: name + "-1", Series: specs.DefaultSeries, Level: 1},
		{Name: name + "-2", Series: specs.DefaultSeries, Level: 2, NextCall: nextCall},
	}
}

func more(name string) []Fix { return []Fix{{Name: name + "-more", Series: "more", Level: 1}} }

// Nginx, Memcached, Libevent and Lighttpd are Debian 12's.
var (
	Nginx = Package{
		Name: "nginx", Version: "1.22.1-9+deb12u9", Binary: "nginx", File: "/usr/sbin/nginx",
		Output: "debian/build-bin/objs/nginx", Levels: levels("nginx", "ngx_epoll_process_events"), More: more("nginx"),
		environ: []string{hardening},
		// The flags are in the environment when dh runs these, and then nginx adds
		// none of its own.
		configure: []string{`eval "$(dpkg-buildflags --export=sh)" && debian/rules override_dh_auto_configure` +
			// What "nginx -V" prints has the path that Debian built it at.
			` && sed -i "s|-ffile-prefix-map=[^ ]*=[.]|-ffile-prefix-map=/build/reproducible-path/nginx-1.22.1=.|" debian/build-bin/objs/ngx_auto_config.h`},
		build:   []string{"make -C debian/build-bin -f objs/Makefile -j$JOBS objs/nginx"},
		rewrite: sameOpenSSL,
	}
	Memcached = Package{
		Name: "memcached", Version: "1.6.18-1+deb12u1", Binary: "memcached", File: "/usr/bin/memcached",
		Output: "memcached", Levels: levels("memcached"), More: more("memcached"),
		environ: []string{hardening},
		once:    autoreconf, configure: autoconfigure,
		build: []string{"make -j$JOBS memcached"},
	}
	Libevent = Package{
		Name: "libevent", Version: "2.1.12-stable-8+deb12u1", Binary: "libevent-2.1-7",
		File:   "/usr/lib/x86_64-linux-gnu/libevent-2.1.so.7.0.1",
		Output: ".libs/libevent-2.1.so.7.0.1", Levels: levels("libevent"),
		environ: []string{hardening},
		once:    autoreconf, configure: autoconfigure,
		build: []string{"make -j$JOBS libevent.la"},
	}
	Lighttpd = Package{
		Name: "lighttpd", Version: "1.4.69-1", Binary: "lighttpd", File: "/usr/sbin/lighttpd",
		Output: "src/lighttpd", Levels: levels("lighttpd", "fdevent_linux_sysepoll_poll"), More: more("lighttpd"),
		environ: []string{hardening},
		once:    autoreconf, configure: autoconfigure,
		build: []string{"make -C src versionstamp parsers && make -C src -j$JOBS lighttpd"},
	}
)

// Packages are all of them.
var Packages = []Package{Nginx, Memcached, Libevent, Lighttpd}

// Specs unpacks the source into dir and returns the specs of its patches. Dist is
// the distribution's own file.
func (p Package) Specs(ctx context.Context, dir, dist string) ([]specs.Spec, error) {
	all, err := p.specs(ctx, dir, dist)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", p.Name, err)
	}
	return all, nil
}

func (p Package) specs(ctx context.Context, dir, dist string) ([]specs.Spec, error) {
	tree := filepath.Join(dir, "source")
	if _, err := os.Stat(tree); err != nil {
		if err := p.unpack(ctx, tree); err != nil {
			return nil, err
		}
	}
	before := ""
	if p.rewrite != nil {
		var err error
		if before, err = p.rewrite(ctx, dir, dist); err != nil {
			return nil, err
		}
	}
	var all []specs.Spec
	for _, f := range append(append([]Fix{}, p.Levels...), p.More...) {
		s := specs.Spec{
			Name: p.Name, Dir: tree, Series: f.Series, Level: f.Level, Description: "soak: " + f.Name,
			Patches:   []string{filepath.Join(dir, f.Name+".patch")},
			Configure: p.configure,
			Env:       append([]string{"LC_ALL=C.UTF-8", "JOBS=2"}, p.environ...),
		}
		for _, b := range p.build {
			s.Build = append(s.Build, before+b)
		}
		if len(f.NextCall) > 0 {
			s.Consistency = specs.Consistency{NextCall: f.NextCall, Reason: "it waits for what happens next, and only its next turn matters"}
		}
		text, err := fixes.ReadFile("fixes/" + f.Name + ".patch")
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(s.Patches[0], text, 0o644); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// unpack makes the source tree, all of the distribution's patches applied.
func (p Package) unpack(ctx context.Context, tree string) error {
	dsc, err := corpus.Source(ctx, p.Name, p.Version)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(tree), 0o755); err != nil {
		return err
	}
	fresh := tree + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if out, err := output(ctx, filepath.Dir(tree), "dpkg-source", "-x", dsc, fresh); err != nil {
		return fmt.Errorf("dpkg-source: %w\n%s", err, out)
	}
	if out, err := output(ctx, fresh, "dpkg-checkbuilddeps"); err != nil {
		return &buildDepends{p.Name, strings.TrimSpace(out)}
	}
	for _, command := range p.once {
		if out, err := output(ctx, fresh, "sh", "-ec", command); err != nil {
			return fmt.Errorf("%s: %w\n%s", command, err, last(out))
		}
	}
	return os.Rename(fresh, tree)
}

// sameOpenSSL returns the beginning of a command that sees the headers of the
// OpenSSL with which the distribution's nginx was built, since that has the
// version in it.
func sameOpenSSL(ctx context.Context, dir, file string) (string, error) {
	text, err := output(ctx, dir, file, "-V")
	_, after, found := strings.Cut(text, "built with OpenSSL ")
	if err != nil || !found {
		return "", fmt.Errorf("%s -V: %v\n%s", file, err, text)
	}
	version, _, _ := strings.Cut(after, " ")
	list, err := output(ctx, dir, "apt-cache", "madison", "libssl-dev")
	if err != nil {
		return "", fmt.Errorf("apt-cache: %w\n%s", err, list)
	}
	for line := range strings.Lines(list) {
		f := strings.Split(line, "|")
		if len(f) < 2 || !strings.HasPrefix(strings.TrimSpace(f[1]), version+"-") {
			continue
		}
		headers := filepath.Join(dir, "libssl-dev", "usr", "include", "openssl")
		if _, err := os.Stat(headers); err != nil {
			deb, err := Deb(ctx, "libssl-dev", strings.TrimSpace(f[1]))
			if err != nil {
				return "", err
			}
			if out, err := output(ctx, dir, "dpkg-deb", "-x", deb, filepath.Join(dir, "libssl-dev")); err != nil {
				return "", fmt.Errorf("dpkg-deb: %w\n%s", err, out)
			}
		}
		// In a mount namespace of its own: the paths get into debug data, and
		// with that into the build-id.
		return "exec unshare --mount sh -ec 'mount --bind " + headers + " /usr/include/openssl; exec \"$@\"' sh ", nil
	}
	return "", fmt.Errorf("the archive has no libssl-dev %s, with which %s was built", version, file)
}

// Deb fetches a binary package, once, and returns its path.
func Deb(ctx context.Context, name, version string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "fother", "packages", name+"_"+strings.ReplaceAll(version, ":", "%3a"))
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(found) == 1 {
		return strings.Join(found, ""), err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	apt := &tools.Apt{Dir: filepath.Join(cache, "fother", "packages", "apt")}
	if err := apt.Download(ctx, dir, name+"="+version); err != nil {
		return "", fmt.Errorf("fetch package %s %s: %w", name, version, err)
	}
	if found, err = filepath.Glob(filepath.Join(dir, "*.deb")); err == nil && len(found) != 1 {
		err = fmt.Errorf("fetch package %s %s: %d files came", name, version, len(found))
	}
	return strings.Join(found, ""), err
}

// output runs a command and returns all that it prints.
func output(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// buildDepends means that packages are missing that a source package needs.
type buildDepends struct{ name, said string }

func (e *buildDepends) Error() string { return e.said }

// Hint says what the user can do.
func (e *buildDepends) Hint() string {
	return "install with: apt-get build-dep -y --no-install-recommends " + e.name
}
