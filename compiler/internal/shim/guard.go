package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// GuardName is the name under which this program guards a command of a build:
// argv[1:] is the command. Whoever starts it holds the write end of the pipe
// whose read end is file descriptor GuardPipe. When that is closed, which the
// kernel does for a process that is killed too, the command and all that it
// started are ended.
const GuardName = "fother-guard"

// GuardPipe is the file descriptor of the guard's pipe: the first of
// exec.Cmd.ExtraFiles.
const GuardPipe = 3

// guardGrace is how long processes have to end after SIGTERM: make removes the
// file that it was making, which the next run would take for whole.
const guardGrace = 5 * time.Second

// guard runs a command until it ends or nobody waits for it any more.
//
// Preconditions: this process leads a process group of its own.
func (inv *invocation) guard() int {
	if len(inv.args) == 0 {
		return inv.fail(exitUsage, errors.New("no command"))
	}
	// What leaves the process group and loses its parent comes to this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return inv.fail(exitError, fmt.Errorf("prctl: %w", err))
	}
	// The signals of the group are for the others. They are not ignored: that
	// would be inherited.
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	runtime.LockOSThread()
	pipe := os.NewFile(GuardPipe, "guard pipe")
	unix.CloseOnExec(GuardPipe)
	cmd := exec.Command(inv.args[0], inv.args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return inv.fail(exitError, err)
	}
	alone := make(chan struct{})
	go func() {
		var b [1]byte
		_, _ = pipe.Read(b[:]) // ends when the pipe is closed; nothing is ever written
		close(alone)
		endAll()
	}()
	err := cmd.Wait()
	select {
	case <-alone:
		select {} // endAll ends this process
	default:
	}
	if exitErr := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exitErr) {
		return inv.fail(exitError, err)
	}
	return exit(cmd.ProcessState.Sys().(syscall.WaitStatus))
}

// endAll ends all descendants of this process, and this process.
func endAll() {
	deadline := time.Now().Add(guardGrace)
	sent := map[int]bool{}
	for {
		left := descendants(os.Getpid())
		if len(left) == 0 {
			os.Exit(exitError)
		}
		for _, pid := range left {
			switch {
			case time.Now().After(deadline):
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
			case !sent[pid]:
				sent[pid] = true
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// descendants returns the processes below root that have not ended, from
// /proc/PID/stat (proc_pid_stat(5)).
func descendants(root int) []int {
	parents := map[int]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// The name, in parentheses, may hold any byte.
		end := strings.LastIndexByte(string(data), ')')
		fields := strings.Fields(string(data[end+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || len(fields) < 2 || fields[0] == "Z" || fields[0] == "X" {
			continue
		}
		if parents[pid], err = strconv.Atoi(fields[1]); err != nil {
			delete(parents, pid)
		}
	}
	var out []int
	for pid := range parents {
		for p, n := parents[pid], 0; p > 1 && n <= len(parents); p, n = parents[p], n+1 {
			if p == root {
				out = append(out, pid)
				break
			}
		}
	}
	return out
}
