package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fother/fother/specs"
)

// boxNeeds are the programs that make and boot a box, for package tools.
var boxNeeds = []string{"debootstrap", "unshare", "nsenter", "pivot_root", "mount", "ip", "apt-get", "dpkg-deb", "dpkg-source", "dpkg-buildflags", "dh_autoreconf"}

// Needs are the programs that the package uses, for package tools.
func Needs() []string { return slices.Clone(boxNeeds) }

// Base makes the root of a Debian with the services, once, and returns its
// folder. It takes a minute and 400 MB in the user's cache folder.
func Base(ctx context.Context) (string, error) {
	if os.Geteuid() != 0 {
		return "", errors.New("a Debian of its own can only be made and booted by root")
	}
	var debs []string
	for _, p := range []Package{Nginx, Memcached, Libevent, Lighttpd} {
		deb, err := Deb(ctx, p.Binary, p.Version)
		if err != nil {
			return "", err
		}
		debs = append(debs, deb)
	}
	common, err := Deb(ctx, "nginx-common", Nginx.Version)
	if err != nil {
		return "", err
	}
	debs = append(debs, common)
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	var names []string
	for _, d := range debs {
		names = append(names, filepath.Base(d))
	}
	digest := specs.DigestOf([]byte(strings.Join(names, "\n"))).String()
	dir := filepath.Join(cache, "fother", "services-"+digest[:8])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	// Made to one side, so that a folder with the right name is whole.
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return "", err
	}
	if err := errors.Join(furnish(ctx, fresh, debs), ctx.Err()); err != nil {
		return "", errors.Join(err, os.RemoveAll(fresh))
	}
	return dir, os.Rename(fresh, dir)
}

// furnish installs Debian and the packages into dir.
func furnish(ctx context.Context, dir string, debs []string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if out, err := output(ctx, dir, "debootstrap", "--variant=minbase", "--include=systemd,dbus", "bookworm", dir); err != nil {
		return fmt.Errorf("debootstrap: %w\n%s", err, last(out))
	}
	inside := filepath.Join(dir, "root", "packages")
	if err := os.MkdirAll(inside, 0o755); err != nil {
		return err
	}
	for _, deb := range debs {
		data, err := os.ReadFile(deb)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(inside, filepath.Base(deb)), data, 0o644); err != nil {
			return err
		}
	}
	// In a mount namespace of its own, so that nothing stays mounted there.
	out, err := output(ctx, dir, "unshare", "--mount", "sh", "-ec", `mount -t proc proc proc
export DEBIAN_FRONTEND=noninteractive
exec chroot . sh -c 'apt-get install -y -qq --no-install-recommends /root/packages/*.deb'`)
	if err != nil {
		return fmt.Errorf("apt-get install: %w\n%s", err, last(out))
	}
	return nil
}

// last returns the end of a long text.
func last(text string) string { return strings.TrimSpace(text[max(0, len(text)-2000):]) }
