package compiler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fother/fother/compiler/internal/shim"
	"github.com/fother/fother/compiler/internal/store"
	"github.com/fother/fother/specs"
)

// Options says what to build and where to keep what is captured.
type Options struct {
	Dir      string      // the source tree; commands run there
	Commands []string    // for sh -c, in order
	Env      []string    // KEY=VALUE, added to [Environ]
	Store    string      // folder of the capture store; made if missing
	Stage    specs.Stage // StageConfigure captures nothing
	Shim     string      // path of the program fother-cc
	Log      io.Writer   // what the commands print; nil for nowhere
	Logger   *slog.Logger

	// Base, if set, is the stage of the build that this one continues in the
	// same tree, where make runs only what is not up to date: what the store
	// holds of it is taken over, if anything. It may be Stage itself.
	Base specs.Stage
	// Folders are searched for linked files beside Dir, and Skip are not. All
	// are absolute.
	Folders, Skip []string
	// Append are arguments that the compilers that the build finds on PATH, by
	// the usual names, get after their own. They hold no semicolon.
	Append []string
	// Before, if set, is called before each command, and its error ends the
	// build.
	Before func(command string) error
}

// Run runs the commands. In the stages that capture, what the store held of
// this stage is forgotten first, and at the end the tree is searched for
// linked files, so that one that no shim saw is found.
//
// A command that fails gives a [*CommandError]; a build that was not captured
// [ErrNothingCaptured] or [ErrNoBuildID]. When ctx ends, the command's whole
// process group is killed.
func Run(ctx context.Context, o Options) error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	o.Dir = dir
	if o.Shim != "" {
		if o.Shim, err = filepath.Abs(o.Shim); err != nil {
			return err
		}
	}
	env := append(Environ(), o.Env...)
	if o.Stage == specs.StageConfigure {
		return o.configure(ctx, append(env, shim.EnvStage+"="+string(o.Stage)))
	}
	if o.Stage != specs.StageOriginal && o.Stage != specs.StagePatched {
		return fmt.Errorf("stage %q: want %s, %s or %s", o.Stage, specs.StageConfigure, specs.StageOriginal, specs.StagePatched)
	}
	if strings.Contains(o.Store, ":") {
		return hint("choose another folder", "store %s: a colon in its name separates folders in COMPILER_PATH", o.Store)
	}
	s, err := store.Open(o.Store)
	if err != nil {
		return storeHint(err)
	}
	if err := prepareShims(s, o.Shim, pathOf(env)); err != nil {
		return storeHint(err)
	}
	if err := o.begin(s); err != nil {
		return storeHint(err)
	}
	start := time.Now()
	earlier, err := o.linkedSince(s, start)
	if err != nil {
		return err
	}
	env = captureEnviron(env, s, o.Stage)
	if len(o.Append) > 0 {
		env = appendEnviron(env, s, o.Append)
	}
	if err := o.commands(ctx, env); err != nil {
		return err
	}
	o.Logger.Info("build captured", "stage", o.Stage, "wall", time.Since(start))
	if o.Base != "" {
		start, earlier = time.Time{}, nil
	}
	return finish(s, o, start, earlier)
}

// configure runs the commands with capture off. What finds a compiler now, such
// as cmake, may remember its path for the build.
func (o *Options) configure(ctx context.Context, env []string) error {
	if len(o.Append) == 0 {
		return o.commands(ctx, env)
	}
	s, err := store.Open(o.Store)
	if err == nil {
		err = prepareShims(s, o.Shim, pathOf(env))
	}
	if err != nil {
		return storeHint(err)
	}
	return o.commands(ctx, appendEnviron(env, s, o.Append))
}

// begin makes the records of the stage those that the build begins with.
func (o *Options) begin(s *store.Store) error {
	if o.Base != "" {
		return s.Continue(o.Stage, o.Base)
	}
	return s.Begin(o.Stage)
}

func storeHint(err error) error {
	if e := (*store.Error)(nil); errors.As(err, &e) {
		return hint("is the disk full, and may this user write there?", "%w", err)
	}
	return err
}

func pathOf(env []string) string {
	path := ""
	for _, kv := range env {
		if p, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = p
		}
	}
	return path
}

// captureEnviron puts the shims in the way of gcc, and of makefiles that call
// as or ld themselves.
func captureEnviron(env []string, s *store.Store, stage specs.Stage) []string {
	env = shim.Environ(env, s.Dir(), stage)
	path := s.PathShims()
	if p := pathOf(env); p != "" {
		path += ":" + p
	}
	return append(env, "PATH="+path)
}

// appendEnviron puts fother-cc in the way of the compilers on PATH, and has it
// append args.
func appendEnviron(env []string, s *store.Store, args []string) []string {
	all := strings.Join(args, ";")
	for _, kv := range env {
		if was, ok := strings.CutPrefix(kv, shim.EnvAppendArgs+"="); ok {
			all = was + ";" + strings.Join(args, ";")
		}
	}
	return append(env, shim.EnvAppendArgs+"="+all, shim.EnvCompilers+"="+s.Compilers(), "PATH="+s.Compilers()+":"+pathOf(env))
}

// prepareShims fills the store's folders of shims: one with the names that gcc
// looks for, one with the names on path that makefiles may call, and one with
// those of compilers, which is for appendEnviron.
func prepareShims(s *store.Store, program, path string) error {
	program, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	if info, err := os.Stat(program); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return hint("build it with: go build ./compiler/cmd/fother-cc", "%s is not the program fother-cc: %v", program, err)
	}
	links := []string{}
	for _, name := range []string{"as", "ld", "ld.bfd", "ld.gold", "ld.lld", "ld.mold"} {
		links = append(links, filepath.Join(s.Shims(), name))
	}
	tool := func(path string) bool { return shim.IsTool(filepath.Base(path)) || shim.IsClang(path) }
	for name := range namesOn(path, s, tool) {
		links = append(links, filepath.Join(s.PathShims(), name))
	}
	for name := range namesOn(path, s, func(path string) bool { return shim.IsCompiler(filepath.Base(path)) }) {
		links = append(links, filepath.Join(s.Compilers(), name))
	}
	for _, l := range links {
		if err := relink(program, l); err != nil {
			return &store.Error{Dir: s.Dir(), Err: err}
		}
	}
	return nil
}

// namesOn returns the names of the files in the folders of path, apart from those
// of s, that fit.
func namesOn(path string, s *store.Store, fits func(path string) bool) map[string]bool {
	names := map[string]bool{}
	for _, dir := range filepath.SplitList(path) {
		if clean := filepath.Clean(dir); clean == s.PathShims() || clean == s.Compilers() {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // PATH may name what is not there
		}
		for _, e := range entries {
			if fits(filepath.Join(dir, e.Name())) {
				names[e.Name()] = true
			}
		}
	}
	return names
}

// relink makes path a symbolic link to program, in one step.
func relink(program, path string) error {
	if have, err := os.Readlink(path); err == nil && have == program {
		return nil
	}
	temp := path + ".new"
	os.Remove(temp)
	if err := os.Symlink(program, temp); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func (o *Options) commands(ctx context.Context, env []string) error {
	for _, c := range o.Commands {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if o.Before != nil {
			if err := o.Before(c); err != nil {
				return err
			}
		}
		o.Logger.Info("run", "stage", o.Stage, "command", c)
		if err := o.command(ctx, c, env); err != nil {
			return err
		}
	}
	return nil
}

// outputDelay is how long a command's descendants may keep its output open
// after it ended.
const outputDelay = 5 * time.Second

// command runs a command in a process group of its own and under a guard, see
// shim.GuardName: when ctx or this process ends, it ends with all that it
// started.
func (o *Options) command(ctx context.Context, command string, env []string) error {
	tail := &tail{next: o.Log}
	args := []string{"sh", "-c", command}
	guard, hold, err := os.Pipe()
	if err != nil {
		return err
	}
	defer hold.Close()
	cmd := exec.Command(args[0], args[1:]...)
	if o.Shim != "" {
		cmd.Path, cmd.Err = o.Shim, nil
		cmd.Args = append([]string{shim.GuardName}, args...)
		cmd.ExtraFiles = []*os.File{guard}
	}
	cmd.Dir, cmd.Env = o.Dir, append(env, "PWD="+o.Dir)
	cmd.Stdout, cmd.Stderr = tail, tail
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = outputDelay
	err = cmd.Start()
	guard.Close()
	if err == nil {
		// Not exec.CommandContext, which kills a guard that needs longer than
		// WaitDelay, and what it guards is free.
		stop := context.AfterFunc(ctx, func() {
			if o.Shim == "" {
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			}
			_ = hold.Close()
		})
		err = cmd.Wait()
		stop()
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it left a daemon behind, and was itself successful
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return &CommandError{Command: command, Dir: o.Dir, Err: err, Tail: tail.String()}
	}
	return nil
}

// tail passes bytes on and remembers the last of them.
type tail struct {
	mu   sync.Mutex
	next io.Writer
	last []byte
}

const tailSize = 4 << 10 // bytes quoted in an error

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	if n := len(t.last); n > 2*tailSize {
		t.last = append(t.last[:0], t.last[n-tailSize:]...)
	}
	if t.next == nil {
		return len(p), nil
	}
	return t.next.Write(p)
}

// String returns the last lines, at most tailSize bytes of them.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.last
	if len(b) > tailSize {
		b = b[len(b)-tailSize:]
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	return string(b)
}
