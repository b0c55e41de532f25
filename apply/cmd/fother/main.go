// Command fother patches running processes, takes patches out again and tells
// what is applied. It runs on the host of the processes, and reads nothing but
// them, the files that it is given and, in pull, the registry.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"syscall"
)

func main() {
	// A tracer's SIGCHLD for each thread that stops doubles the time of a stop.
	// SIGPIPE must not end the tool in the middle of its work.
	signal.Ignore(syscall.SIGCHLD, syscall.SIGPIPE)
	// No collection during a stop: a run allocates little and ends soon. Where
	// it holds more it calls makeRoom.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	do := run
	if filepath.Base(os.Args[0]) == libcareName {
		do = runLibcare
	}
	os.Exit(do(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// memoryLimit is the memory in bytes that may be used before a collection.
const memoryLimit = 64 << 20

// makeRoom collects what is not used, and raises the limit by what is: large
// patches that are held are no reason to collect during a stop. It does nothing
// if little is held.
func makeRoom() {
	debug.SetMemoryLimit(memoryLimit)
	if inUse() < memoryLimit/2 {
		return
	}
	debug.FreeOSMemory()
	debug.SetMemoryLimit(memoryLimit + inUse())
}

// tidy collects what is left of processes that were looked at, when it has become
// more than what was kept the last time. It is called between two processes.
func (t *tool) tidy() {
	const some = 4 << 20
	if objects() < max(t.kept, some)+some {
		return
	}
	runtime.GC()
	t.kept = objects()
}

// objects is the size of the heap's objects in bytes, dead ones too.
func objects() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// inUse is the memory in bytes that the limit is held against.
func inUse() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased)
}

// Exit codes.
const (
	exitDone    = 0
	exitError   = 1
	exitUsage   = 2
	exitNothing = 3
	exitRefused = 4
)

// tool is one run of the command.
type tool struct {
	name           string // that messages begin with
	stdout, stderr io.Writer
	opener         *opener
	kept           uint64 // see tidy

	// Options of all commands.
	verbose bool
	json    bool

	// tail is the command behind "--", where a command takes one.
	tail []string
}

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	return runAs("fother", stdout, stderr, func(t *tool) int { return t.run(ctx, args) })
}

// runAs runs do with a tool of the given name.
func runAs(name string, stdout, stderr io.Writer, do func(*tool) int) int {
	out := &output{Writer: stdout}
	t := &tool{name: name, stdout: out, stderr: &output{Writer: stderr}, opener: newOpener()}
	code := do(t)
	// Who closes a pipe has read enough.
	if out.err != nil && !errors.Is(out.err, syscall.EPIPE) && code != exitUsage {
		return t.fail(fmt.Errorf("the results could not be written: %w", out.err))
	}
	return code
}

// logger tells each step on standard error if -v is given, else nothing.
func (t *tool) logger() *slog.Logger {
	if !t.verbose {
		return nil
	}
	return slog.New(slog.NewTextHandler(t.stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// fail tells an error and what can be done about it, and returns its exit
// code.
func (t *tool) fail(err error) int {
	// Nothing within a message can look like a message of its own.
	fmt.Fprintf(t.stderr, "%s: error: %s\n", t.name, strings.ReplaceAll(err.Error(), "\n", "\n  "))
	if h := hint(err); h != "" {
		fmt.Fprintf(t.stderr, "%s: hint: %s\n", t.name, strings.Replace(h, "fother -h ", t.name+" -h ", 1))
	}
	return exitCode(err)
}

// note tells what is no error and yet worth knowing, on standard error.
func (t *tool) note(format string, args ...any) {
	fmt.Fprintf(t.stderr, "%s: note: %s\n", t.name, fmt.Sprintf(format, args...))
}
