package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/specs/testenv"
)

// bin is a folder with the commands, under all their names.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "fother-make-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		for _, pkg := range []string{"apply/cmd/fother", "compiler/cmd/fother-cc", "magefiles/cmd/fother-make"} {
			if _, err := pipeline.Command(context.Background(), dir, pkg); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		bin = filepath.Join(dir, "bin")
		for link, to := range map[string]string{libcare: "fother-make", "libcare-cc": "fother-cc", "fother-c++": "fother-cc"} {
			if err := os.Symlink(to, filepath.Join(bin, link)); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		return m.Run()
	}())
}

// project is a source tree.
type project struct {
	t   *testing.T
	dir string
	env []string
}

// files are the names and contents of a tree.
type files map[string]string

// newProject writes a tree to a new folder called name.
func newProject(t *testing.T, name string, tree files) *project {
	t.Helper()
	testenv.Needs(t, "gcc", "make")
	p := &project{t: t, dir: filepath.Join(t.TempDir(), name)}
	p.write(tree)
	return p
}

func (p *project) path(name string) string { return filepath.Join(p.dir, name) }

func (p *project) write(tree files) {
	p.t.Helper()
	for name, text := range tree {
		path := p.path(name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			p.t.Fatal(err)
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *project) read(name string) string {
	p.t.Helper()
	data, err := os.ReadFile(p.path(name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(data)
}

// command is one command line in the tree, with the commands on PATH.
func (p *project) command(dir string, args ...string) *exec.Cmd {
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	path := args[0]
	if in := filepath.Join(bin, path); !strings.Contains(path, "/") && isProgram(in) {
		path = in
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Dir, cmd.Env = p.path(dir), append(env, p.env...)
	return cmd
}

// outcome is how a command ended.
type outcome struct {
	code           int
	stdout, stderr string
}

// in runs a command in a folder of the tree.
func (p *project) in(dir string, args ...string) outcome {
	p.t.Helper()
	cmd := p.command(dir, args...)
	var out, err strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &err
	if e := cmd.Run(); e != nil && !errors.As(e, new(*exec.ExitError)) {
		p.t.Fatal(e)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), err.String()}
}

// ok runs a command in a folder of the tree that has to succeed.
func (p *project) ok(dir string, args ...string) outcome {
	p.t.Helper()
	o := p.in(dir, args...)
	if o.code != 0 {
		p.t.Fatalf("%q exits with %d\n%s%s", args, o.code, o.stdout, o.stderr)
	}
	return o
}

// fails runs fother-make, or LibCare's name if that is the first argument, and
// checks its exit code and what it says.
func (p *project) fails(code int, says string, args ...string) {
	p.t.Helper()
	if len(args) == 0 || args[0] != libcare {
		args = append([]string{"fother-make"}, args...)
	}
	o := p.in(".", args...)
	if o.code != code || !strings.Contains(o.stderr, says) {
		p.t.Errorf("%q exits with %d and says %q, want %d and %q", args, o.code, o.stderr, code, says)
	}
}

// snapshot reads the source files of the tree, apart from what builds leave.
func (p *project) snapshot() map[string]string {
	p.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{"lpmake", ".lpmaketmp", "patchroot", ".fother", "autom4te.cache", "build"}, d.Name()) {
			return filepath.SkipDir
		}
		switch filepath.Ext(path) {
		case ".c", ".h", ".patch", ".ac", ".am":
			rel, _ := filepath.Rel(p.dir, path)
			out[rel] = p.read(rel)
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// unchanged fails if the sources are not those of the snapshot.
func (p *project) unchanged(before map[string]string) {
	p.t.Helper()
	after := p.snapshot()
	for name, text := range before {
		if after[name] != text {
			p.t.Errorf("%s is not what it was:\n%s", name, after[name])
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			p.t.Errorf("%s was not there", name)
		}
	}
}

// patches returns the names and contents of the patches in a folder.
func (p *project) patches(dir string) map[string]string {
	p.t.Helper()
	paths, err := filepath.Glob(p.path(dir + "/*.kpatch"))
	if err != nil {
		p.t.Fatal(err)
	}
	out := map[string]string{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			p.t.Fatal(err)
		}
		out[filepath.Base(path)] = string(data)
	}
	return out
}

// running is a program that answers each line of its input by a line.
type running struct {
	p   *project
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

// start starts the program at path with more environment.
func (p *project) start(path string, env ...string) *running {
	p.t.Helper()
	cmd := exec.Command(p.path(path))
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &running{p, cmd, in, bufio.NewReader(out)}
}

// expect asks the program and compares its answer.
func (r *running) expect(request, want string) {
	r.p.t.Helper()
	if _, err := fmt.Fprintln(r.in, request); err != nil {
		r.p.t.Fatalf("%q: the program is gone: %v", request, err)
	}
	got, err := r.out.ReadString('\n')
	if err != nil {
		r.p.t.Fatalf("%q: the program is gone: %v", request, err)
	}
	if got = strings.TrimSuffix(got, "\n"); got != want {
		r.p.t.Errorf("%q is answered by %q, want %q", request, got, want)
	}
}

// patch applies what is in a folder of the tree.
func (r *running) patch(dir string) {
	r.p.t.Helper()
	args := []string{"fother", "patch", "-p", strconv.Itoa(r.cmd.Process.Pid)}
	files, _ := filepath.Glob(r.p.path(dir + "/*.kpatch"))
	if len(files) == 0 {
		r.p.t.Fatalf("no patches in %s", dir)
	}
	r.p.ok(".", append(args, files...)...)
}

// waitFor waits until done.
func waitFor(t *testing.T, otherwise string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(otherwise)
		}
	}
}
