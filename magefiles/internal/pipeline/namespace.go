package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// In the environment of a program that [InNamespace] started: FOLDER, in quotes
// since a published manifest names it, =BACKING before it has mounted the one on
// the other, and FOLDER alone after that.
const placeVariable = "FOTHER_REBUILD_AT"

// InNamespace runs this program once more, with the same arguments, where
// folder, whatever there is or is not, is one of its own: in a mount namespace,
// and for users other than root in a user namespace. [Rebuild] there uses it. What
// is in that folder lies in a temporary one below work until this returns.
//
// The error is an [*exec.ExitError] if the program ended with another exit
// status than 0.
func InNamespace(ctx context.Context, folder, work string) error {
	if os.Getenv(placeVariable) != "" {
		return errors.New("this is one already")
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	backing, err := os.MkdirTemp(work, ".place-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(backing)
	for _, name := range []string{"work", "root"} {
		if err := os.Mkdir(filepath.Join(backing, name), 0o755); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), placeVariable+"="+strconv.Quote(folder)+"="+backing)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		a := cmd.SysProcAttr
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT}
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd.Run()
}

// insideNamespace reports whether folder is one of our own. The first call in a
// program that [InNamespace] started makes it so, and begins the program anew,
// without the privileges that it took.
func insideNamespace(folder string) (bool, error) {
	at, mine := os.Getenv(placeVariable), strconv.Quote(folder)
	backing, first := strings.CutPrefix(at, mine+"=")
	if !first {
		return at == mine, nil
	}
	runtime.LockOSThread() // privileges are a thread's, and go with it
	wd, err := os.Getwd()
	if err == nil {
		err = mountAt(folder, backing)
	}
	if err == nil {
		err = os.Chdir(wd) // to what is there now
	}
	if err == nil {
		err = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	}
	if err != nil {
		return false, fmt.Errorf("mount namespace: %w", err)
	}
	if err := os.Setenv(placeVariable, mine); err != nil {
		return false, err
	}
	return false, syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

// mountAt makes folder the folder backing/work. What is missing of it is made in
// a copy of the deepest folder on the way that is there, in which everything
// else is what it was.
func mountAt(folder, backing string) error {
	work := filepath.Join(backing, "work")
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if info, err := os.Stat(folder); err == nil && info.IsDir() {
		return bind(work, folder)
	}
	there := filepath.Dir(missingAt(folder))
	root := filepath.Join(backing, "root")
	if err := unix.Mount("tmpfs", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", root, err)
	}
	rest, err := filepath.Rel(there, folder)
	if err != nil {
		return err
	}
	next, _, _ := strings.Cut(rest, "/")
	if err := mirror(there, root, next); err != nil {
		return err
	}
	to := filepath.Join(root, rest)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := bind(work, to); err != nil {
		return err
	}
	if there != "/" {
		return bind(root, there)
	}
	if err := unix.Chroot(root); err != nil {
		return fmt.Errorf("chroot %s: %w", root, err)
	}
	return nil
}

// missingAt returns the first name on the way to path that is no folder that
// can be looked into.
func missingAt(path string) string {
	at := "/"
	for _, name := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		at = filepath.Join(at, name)
		if info, err := os.Stat(at); err != nil || !info.IsDir() {
			break
		}
	}
	return at
}

// mirror makes in the folder to everything that there is in from, but for
// one name.
func mirror(from, to, but string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		was, is := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if e.Name() == but {
			continue
		}
		if err := mirrorOne(e, was, is); err != nil {
			return err
		}
	}
	return nil
}

func mirrorOne(e fs.DirEntry, was, is string) error {
	switch {
	case e.IsDir():
		if err := os.Mkdir(is, 0o755); err != nil {
			return err
		}
		return bind(was, is)
	case e.Type()&fs.ModeSymlink != 0:
		target, err := os.Readlink(was)
		if err != nil {
			return err
		}
		return os.Symlink(target, is)
	}
	if err := os.WriteFile(is, nil, 0o600); err != nil {
		return err
	}
	return bind(was, is)
}

// bind makes what is at from be at to as well, with what is mounted in it.
func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, to, err)
	}
	return nil
}
