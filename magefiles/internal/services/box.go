package services

import (
	"bytes"
	"context"
	_ "embed"
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
)

//go:embed init.sh
var initScript []byte

// Box is a booted Debian.
type Box struct {
	dir, group string
	cmd        *exec.Cmd
	ended      chan struct{}
}

// BoxOptions say what is booted.
type BoxOptions struct {
	Dir  string // for the box's own files, an absolute path
	Base string // see [Base]
	// Replace are files that take the places of those of Base, by their paths
	// there.
	Replace map[string]string
	// Hardened adds to the units of nginx and lighttpd what systemd-analyze
	// security asks for. That of memcached has it already.
	Hardened bool
}

// Boot starts the box and waits until all services run. It lives until Stop, or
// until this process ends.
func Boot(ctx context.Context, o BoxOptions) (*Box, error) {
	b := &Box{dir: o.Dir, ended: make(chan struct{})}
	extra := filepath.Join(o.Dir, "extra")
	if err := os.RemoveAll(extra); err != nil {
		return nil, err
	}
	if err := configure(extra, o); err != nil {
		return nil, err
	}
	script := filepath.Join(o.Dir, "init.sh")
	if err := os.WriteFile(script, initScript, 0o755); err != nil {
		return nil, err
	}
	root, err := controlGroups()
	if err != nil {
		return nil, err
	}
	if err := sweepGroups(root); err != nil {
		return nil, err
	}
	if b.group, err = os.MkdirTemp(root, groupPrefix); err != nil {
		return nil, err
	}
	console, err := os.Create(b.console())
	if err != nil {
		return nil, err
	}
	defer console.Close()
	b.cmd = exec.Command("sh", "-e", script, b.group, o.Base, extra)
	b.cmd.Env = append(os.Environ(), "INIT="+script)
	b.cmd.Stdout, b.cmd.Stderr = console, console
	b.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL, Setsid: true,
	}
	if err := b.start(); err != nil {
		return nil, errors.Join(err, os.Remove(b.group))
	}
	if err := b.ready(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("boot: %w", err), b.Stop())
	}
	return b, nil
}

func (b *Box) console() string { return filepath.Join(b.dir, "console.log") }

// start starts the first process from a thread that stays as long as it does: the
// kernel kills the box when that thread ends.
func (b *Box) start() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := b.cmd.Start()
		started <- err
		if err == nil {
			_ = b.cmd.Wait() // it is killed
			close(b.ended)
		}
	}()
	return <-started
}

// controlGroups returns where control groups of version 2 are mounted
// (proc_pid_mountinfo(5)).
func controlGroups() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(f) > 4 {
			return f[4], nil
		}
	}
	return "", errors.New("no control groups of version 2 are mounted")
}

// groupPrefix begins the names of the control groups of boxes.
const groupPrefix = "fother-box-"

// sweepGroups removes the control groups of boxes whose makers were killed. They
// have no process, and not because they are just being made.
func sweepGroups(root string) error {
	old, err := filepath.Glob(filepath.Join(root, groupPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		info, statErr := os.Stat(dir)
		if err != nil || statErr != nil || time.Since(info.ModTime()) < time.Minute || !bytes.Contains(events, []byte("populated 0")) {
			continue
		}
		if err := removeGroups(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// PID is the process that is systemd in the box.
func (b *Box) PID() int { return b.cmd.Process.Pid }

// PIDs returns the processes of a unit as this process sees them.
func (b *Box) PIDs(unit string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(b.group, "system.slice", unit, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// ready waits until each service has all its processes and listens.
func (b *Box) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var why error
	for {
		if why = b.running(); why == nil {
			return nil
		}
		select {
		case <-b.ended:
			said, _ := os.ReadFile(b.console())
			return fmt.Errorf("it ended: %s", bytes.TrimSpace(said))
		case <-ctx.Done():
			said, _ := os.ReadFile(b.console())
			return fmt.Errorf("%w: %w\n%s", ctx.Err(), why, bytes.TrimSpace(said))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// running returns nil if all services are up.
func (b *Box) running() error {
	for _, s := range All {
		pids, err := b.PIDs(s.Unit)
		if err != nil {
			return err
		}
		if len(pids) != s.Processes {
			return fmt.Errorf("%s has the processes %v, want %d", s.Unit, pids, s.Processes)
		}
		if _, err := s.Ask(b); err != nil {
			return err
		}
	}
	return nil
}

// Stop kills all processes of the box and waits for them.
func (b *Box) Stop() error {
	if err := b.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-b.ended
	for range 50 { // the kernel may still be at it
		if err := removeGroups(b.group); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return removeGroups(b.group)
}

// removeGroups removes a control group and all below it.
func removeGroups(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroups(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return syscall.Rmdir(dir)
}
