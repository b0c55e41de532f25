// Package demo is `go tool mage demo`: a running server is attacked, healed,
// attacked again and given its bug back, with the commands that a person would
// type.
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
	"time"

	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/specs/specfile"
)

const spec = "samples/server/spec.yaml"

// Demo holds what the steps share.
type demo struct {
	out    io.Writer
	fother string
	folder pipeline.Folder
	server *exec.Cmd
	port   string
}

// Run shows everything once, in the folder of the project. fother is the path
// of the tool. It fails if any step does not show what it should.
func Run(ctx context.Context, out io.Writer, fother string, o pipeline.Options) error {
	s, err := specfile.Read(spec)
	if err != nil {
		return err
	}
	d := &demo{out: out, fother: fother, folder: pipeline.FolderOf(s, o)}
	d.step("A patch is made: two builds, their assembly compared, what changed bound to the BuildID.", "go tool mage patch:all "+spec)
	if _, err := pipeline.Make(ctx, s, o); err != nil {
		return err
	}
	if err := d.start(ctx); err != nil {
		return err
	}
	defer d.stop()
	pid := strconv.Itoa(d.server.Process.Pid)
	patches := rel(d.folder.Patches())
	for _, step := range []struct {
		text string
		want string
		exit int
		args []string
	}{
		{"The vulnerable server is attacked, and falls for it.", "FALLEN", 0, []string{d.program("attack"), d.port}},
		{"It is patched while it runs.", "", 0, []string{d.fother, "patch", "-p", pid, patches}},
		{"The same attack again.", "HELD", 1, []string{d.program("attack"), d.port}},
		{"Honest requests are served as before.", "SERVED", 0, []string{d.program("attack"), "--legit", d.port}},
		{"What runs there now, read from the process itself.", "server", 0, []string{d.fother, "info", "-p", pid}},
		{"The patch is taken out, and its memory given back.", "", 0, []string{d.fother, "unpatch", "-p", pid}},
		{"The old behaviour is back.", "FALLEN", 0, []string{d.program("attack"), d.port}},
	} {
		if err := d.run(ctx, step.text, step.want, step.exit, step.args); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "\nThe server answered all the time, in one process:", pid)
	return nil
}

func (d *demo) program(name string) string { return rel(filepath.Join(d.folder.Original(), name)) }

// rel returns path as a person in this folder would type it.
func rel(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	short, err := filepath.Rel(wd, path)
	if err != nil || strings.HasPrefix(short, "..") {
		return path
	}
	return short
}

func (d *demo) step(text, command string) {
	fmt.Fprintf(d.out, "\n# %s\n$ %s\n", text, command)
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
func (d *demo) run(ctx context.Context, text, want string, exit int, args []string) error {
	d.step(text, strings.Join(args, " "))
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var shown bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout = io.MultiWriter(d.out, &shown)
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	if ended := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ended) {
		return err
	}
	if got := cmd.ProcessState.ExitCode(); got != exit {
		if args[0] == d.fother && os.Geteuid() != 0 {
			fmt.Fprintf(d.out, "\n# An ordinary user may not do this here. As root:\n$ sudo env PATH=\"$PATH\" go tool mage demo\n")
		}
		return fmt.Errorf("%s ended with exit status %d, not %d", args[0], got, exit)
	}
	if !strings.Contains(shown.String(), want) {
		return fmt.Errorf("%s did not print %q", args[0], want)
	}
	return nil
}
