package apply

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs/testenv"
)

// TestElsewhere: a program is patched by what is in its memory, wherever its file
// is, and whatever has become of that.
func TestElsewhere(t *testing.T) {
	static := []string{"-fPIE", "-static-pie"}
	for _, c := range []struct {
		name  string
		flags []string
		// place changes the program's file before it is started, gone afterwards.
		place func(file string) error
		gone  func(file string) error
		how   *syscall.SysProcAttr
	}{
		{name: "static", flags: []string{"-static", "-no-pie", "-fno-pie"}},
		{name: "static-pie", flags: static},
		{name: "stripped", flags: []string{"-fPIE", "-pie"}, place: func(f string) error { return exec.Command("strip", "-s", f).Run() }},
		{name: "stripped and static", flags: static, place: func(f string) error { return exec.Command("strip", "-s", f).Run() }},
		{name: "deleted", flags: []string{"-fPIE", "-pie"}, gone: os.Remove},
		{name: "replaced", flags: []string{"-fPIE", "-pie"}, gone: func(f string) error {
			return errors.Join(os.Remove(f), os.WriteFile(f, []byte("#!/bin/sh\n"), 0o755))
		}},
		{name: "a FIFO in its place", flags: []string{"-fPIE", "-pie"}, gone: func(f string) error {
			return errors.Join(os.Remove(f), unix.Mkfifo(f, 0o644))
		}},
		{name: "chroot", flags: static, how: &syscall.SysProcAttr{Chroot: "."}},
		{name: "namespaces", flags: static, how: &syscall.SysProcAttr{
			Chroot: ".", Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET,
		}},
		{name: "a user namespace", flags: static, how: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.how != nil && os.Getuid() != 0 {
				testenv.Skip(t, "only root can change root and namespaces")
			}
			testenv.Needs(t, "strip")
			built := compile(t, "elsewhere"+strings.Join(c.flags, ""), c.flags...)
			patch := patchFor(t, built, "default", 1, "answer", "text")
			dir := t.TempDir()
			file := filepath.Join(dir, "program")
			data, err := os.ReadFile(built)
			if err == nil {
				err = os.WriteFile(file, data, 0o755)
			}
			if err == nil && c.place != nil {
				err = c.place(file)
			}
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(file, "call", "sleep")
			if c.how != nil && c.how.Chroot != "" {
				how := *c.how
				how.Chroot = dir
				cmd = &exec.Cmd{Path: "/program", Args: []string{"/program", "call", "sleep"}, SysProcAttr: &how, Dir: "/"}
			} else {
				cmd.SysProcAttr = c.how
			}
			r := startCommand(t, cmd)
			if c.gone != nil {
				if err := c.gone(file); err != nil {
					t.Fatal(err)
				}
			}
			before := r.snapshot()
			for range 2 {
				applyTo(t, r.pid, patch)
				r.expect("ask", "43 11 new")
				revertAll(t, r.pid)
				r.expect("ask", oldAnswer)
			}
			freeKept(t, r, "wipe")
			before.same(t, r.snapshot())
		})
	}
}
