// Package demo is `go tool mage demo`: a patch is made and published, a running
// server is attacked, healed with what the registry has for it, attacked again
// and given its bug back, with the commands that a person would type.
package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/specfile"
)

const spec = "samples/server/spec.yaml"

// between steps the honest client has this time to notice what changed.
const between = 200 * time.Millisecond

// Demo holds what the steps share.
type demo struct {
	out    io.Writer
	fother string
	folder pipeline.Folder
	o      pipeline.Options
	server *exec.Cmd
	port   string
}

// lockedWriter is a writer for more than one goroutine: the server's own
// messages come when they come.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// step is one command of a person, and what proves that it did its work.
type step struct {
	text string // what it is for
	want string // part of what it prints
	exit int    // its exit status
	args []string
}

// Run shows everything once, in the folder of the project. fother is the path
// of the tool. It fails if any step does not show what it should, or if an
// honest client had to do without an answer meanwhile.
func Run(ctx context.Context, out io.Writer, fother string, o pipeline.Options) error {
	err := show(ctx, out, fother, o)
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted") // what was stopped in the middle has misleading errors
	}
	return err
}

func show(ctx context.Context, out io.Writer, fother string, o pipeline.Options) error {
	s, err := specfile.Read(spec)
	if err != nil {
		return err
	}
	o.Progress, o.Spec = out, spec
	home := filepath.Join(o.Work, "demo")
	// A registry never replaces what it has, and another version of Fother may
	// make the same patch otherwise.
	if err := os.RemoveAll(home); err != nil {
		return err
	}
	o.Registry, o.Keys = filepath.Join(home, "registry"), filepath.Join(home, "keys")
	d := &demo{out: &lockedWriter{w: out}, fother: pipeline.Rel(fother), folder: pipeline.FolderOf(s, o), o: o}
	if err := d.publish(ctx, s); err != nil {
		return err
	}
	if err := d.start(ctx); err != nil {
		return err
	}
	defer d.stop()
	d.step("An honest client connects, and asks again and again until the end. The demo does what this would:",
		"while sleep 0.001; do echo LOGIN alice wonderland; done | nc 127.0.0.1 "+d.port+" &")
	c, err := connect(d.port)
	if err != nil {
		return err
	}
	defer c.stop()
	for _, s := range d.steps() {
		c.disturbed.Store(s.args[0] == d.fother)
		if err := d.run(ctx, s); err != nil {
			return err
		}
		c.disturbed.Store(false)
		time.Sleep(between)
	}
	saw, err := c.stop()
	if err != nil {
		return fmt.Errorf("the honest client: %w", err)
	}
	fmt.Fprintf(out, "\nAll this happened to one process, %d. The honest client asked %d times on one connection and was\n"+
		"answered each time. Its longest wait was %s while fother worked on the server, else %s.\n",
		d.server.Process.Pid, saw.asked, milli(saw.patching), milli(saw.otherwise))
	return nil
}

// publish makes the patch and a registry, and puts the one into the other.
func (d *demo) publish(ctx context.Context, s specs.Spec) error {
	d.step("A patch is made: the server is built with and without the fix, and the assembly compared.", "go tool mage patch:all "+spec)
	if _, err := pipeline.Make(ctx, s, d.o); err != nil {
		return err
	}
	d.step("A registry is made, which is a folder, and the keys that sign what is in it.",
		fmt.Sprintf("export FOTHER_REGISTRY=%s FOTHER_KEYS=%s; go tool mage registry:init", pipeline.Rel(d.o.Registry), pipeline.Rel(d.o.Keys)))
	if err := pipeline.InitRegistry(ctx, d.o, pipeline.InitOptions{}); err != nil {
		return err
	}
	d.step("The patch is signed and published.", "go tool mage patch:publish "+spec)
	return pipeline.Publish(ctx, s, d.o)
}

// milli prints a time in milliseconds.
func milli(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }

// steps are what happens to the running server.
func (d *demo) steps() []step {
	pid := strconv.Itoa(d.server.Process.Pid)
	attack := []string{d.program("attack"), d.port}
	return []step{
		{"The server is attacked, and gives its secret to a stranger.", "FALLEN", 0, attack},
		{"The host asks the registry what there is for the programs that run on it. The server is patched while it runs.", "applied server", 0, []string{
			d.fother, "pull", "--registry", pipeline.Rel(d.o.Registry), "--root", pipeline.Rel(pipeline.Root(d.o)), "--state", pipeline.Rel(filepath.Join(d.o.Work, "demo", "state")),
		}},
		{"The same attack again (exit status 1: it failed).", "HELD", 1, attack},
		{"A right password still opens the door.", "SERVED", 0, []string{d.program("attack"), "--legit", d.port}},
		{"What runs there now, read from the process itself.", "applied: server", 0, []string{d.fother, "info", "-p", pid}},
		{"The patch is taken out.", "reverted", 0, []string{d.fother, "unpatch", "-p", pid}},
		{"The old behaviour is back.", "FALLEN", 0, attack},
	}
}

func (d *demo) program(name string) string {
	return pipeline.Rel(filepath.Join(d.folder.Original(), name))
}

func (d *demo) step(text, command string) {
	fmt.Fprintf(d.out, "\n# %s\n$ %s\n", text, command)
}

// denied reports whether an ordinary user was told that it may not trace a
// process.
func denied(text string) bool {
	return os.Geteuid() != 0 && (strings.Contains(text, "not permitted") || strings.Contains(text, "may not be traced"))
}

// start runs the vulnerable server and reads its port.
func (d *demo) start(ctx context.Context) error {
	d.step("The vulnerable server is started.", d.program("server")+" &")
	d.server = exec.CommandContext(ctx, d.program("server"))
	d.server.Stderr = d.out
	out, err := d.server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := d.server.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		d.stop()
		return fmt.Errorf("the server does not start: %w", err)
	}
	fmt.Fprint(d.out, line)
	_, port, ok := strings.Cut(strings.TrimSpace(line), "127.0.0.1:")
	if !ok {
		d.stop()
		return fmt.Errorf("the server says %q instead of its port", line)
	}
	d.port = port
	return nil
}

func (d *demo) stop() {
	_ = d.server.Process.Kill()
	_ = d.server.Wait()
}

// run shows and runs one command, and fails unless it ends with the exit
// status and prints the word that prove the step.
func (d *demo) run(ctx context.Context, s step) error {
	d.step(s.text, strings.Join(s.args, " "))
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var shown bytes.Buffer
	cmd := exec.CommandContext(ctx, s.args[0], s.args[1:]...)
	cmd.Stdout = io.MultiWriter(d.out, &shown)
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	if ended := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ended) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", s.args[0], ctx.Err())
	}
	got := cmd.ProcessState.ExitCode()
	if proven := strings.Contains(shown.String(), s.want); (got != s.exit || !proven) && denied(shown.String()) {
		fmt.Fprintf(d.out, "\n# An ordinary user may not do this here. As root:\n$ sudo env PATH=\"$PATH\" go tool mage demo\n")
	}
	if got != s.exit {
		return fmt.Errorf("%s ended with exit status %d, not %d", s.args[0], got, s.exit)
	}
	if !strings.Contains(shown.String(), s.want) {
		return fmt.Errorf("%s did not print %q", s.args[0], s.want)
	}
	return nil
}
