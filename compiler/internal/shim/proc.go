package shim

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// tool is a program and the name by which it is started, which it shows in
// its messages.
type tool struct {
	Path  string
	Argv0 string
}

// run runs t with args and this process's streams, but those that cmd
// replaces, passes signals on to it and returns how it ended. The error is
// for a tool that cannot be started.
func (t tool) run(args, env []string, change func(*exec.Cmd)) (syscall.WaitStatus, error) {
	// The child is killed when the thread that started it ends.
	runtime.LockOSThread()
	cmd := exec.Command(t.Path)
	cmd.Args = append([]string{t.Argv0}, args...)
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if change != nil {
		change(cmd)
	}
	signals := make(chan os.Signal, 8)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		// One that is ignored, as under nohup, is the tool's to ignore.
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // it may have ended meanwhile
			case <-done:
				return
			}
		}
	}()
	err := cmd.Wait()
	close(done)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return cmd.ProcessState.Sys().(syscall.WaitStatus), nil
}

// exit ends this process as status says that the tool ended: by the same
// signal or with the exit code that it returns.
func exit(status syscall.WaitStatus) int {
	if !status.Signaled() {
		return status.ExitStatus()
	}
	// The core, if any, is the tool's.
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	// Go's own handlers stay where signal.Reset cannot take them away: that of
	// SIGSEGV would make a panic of it. The zero sigaction is SIG_DFL.
	var action [64]byte
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(status.Signal()), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	_ = syscall.Kill(os.Getpid(), status.Signal())
	return 128 + int(status.Signal())
}

// exec puts t in this process's place. It returns only an error.
func (t tool) exec(args, env []string) error {
	return &os.PathError{Op: "exec", Path: t.Path, Err: syscall.Exec(t.Path, append([]string{t.Argv0}, args...), env)}
}

// setenv returns env with key set to value, or without key if value is empty.
func setenv(env []string, key, value string) []string {
	out := make([]string, 0, len(env)+1)
	for _, kv := range env {
		if !strings.HasPrefix(kv, key+"=") {
			out = append(out, kv)
		}
	}
	if value != "" {
		out = append(out, key+"="+value)
	}
	return out
}
