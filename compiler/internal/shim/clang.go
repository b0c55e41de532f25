package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/fother/fother/compiler/internal/link"
	"github.com/fother/fother/compiler/internal/store"
)

// clang assembles by itself, so no shim sees its texts. They come from a second
// run of its compilations, by the commands that "clang -###" says it runs, with
// -S in the place of -emit-obj. What the build makes comes from the first run,
// which is left alone. That the text is the object's is not taken for granted:
// it is assembled, and must give the same allocated sections.

var (
	clangName    = regexp.MustCompile(`^([A-Za-z0-9_.-]+-)?clang(\+\+)?(-[0-9.]+)?$`)
	compilerLink = regexp.MustCompile(`^([A-Za-z0-9_.-]+-)?(cc|c\+\+|gcc|g\+\+)$`)
)

// IsClang reports whether the program at path is clang, by its name or that of
// the file that it is a link to: Debian's cc may be one to clang.
func IsClang(path string) bool {
	name := filepath.Base(path)
	if clangName.MatchString(name) {
		return true
	}
	if !compilerLink.MatchString(name) {
		return false
	}
	real, err := filepath.EvalSymlinks(path)
	return err == nil && clangName.MatchString(filepath.Base(real))
}

// clang runs the compiler and then captures what it compiled.
func (inv *invocation) clang(real tool, args, env []string) int {
	// It looks for itself on PATH, and must not find the shim.
	env = setenv(env, "PATH", without(os.Getenv("PATH"), inv.store.PathShims()))
	expanded, err := link.Expand("", args)
	if err != nil {
		return inv.fail(exitError, err)
	}
	options, err := json.Marshal(searchOptions(expanded))
	if err != nil {
		return inv.fail(exitError, err)
	}
	env = setenv(setenv(env, envClang, real.Path), envClangOptions, string(options))
	if os.Getenv(envLink) == noCapture || isProbe(args) || !makesSomething(args) || strings.HasPrefix(args[0], "-cc1") {
		return inv.fail(exitError, real.exec(args, env))
	}
	c := &clang{inv: inv, real: real, args: args, env: silent(env)}
	defer c.close()
	if err := c.begin(); err != nil {
		return inv.fail(exitError, fmt.Errorf("cannot be captured: %w", err))
	}
	status, err := real.run(args, env, c.input)
	if err != nil {
		return inv.fail(exitError, err)
	}
	if status != 0 {
		return exit(status)
	}
	if output, err := c.capture(); err != nil {
		return inv.failStore(output, err)
	}
	return 0
}

// silent is env without what makes a compiler write more files than the command
// line says.
func silent(env []string) []string {
	for _, key := range []string{"DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES", "CC_PRINT_OPTIONS", "CC_PRINT_HEADERS",
		"CC_LOG_DIAGNOSTICS", "CC_PRINT_PROC_STAT", "CC_PRINT_INTERNAL_STAT"} {
		env = setenv(env, key, "")
	}
	return env
}

// clang is one run of clang's driver.
type clang struct {
	inv   *invocation
	real  tool
	args  []string
	env   []string // of the second run
	dir   string   // temporary, in the store
	stdin string   // a copy of standard input, if it is compiled
	jobs  []clangJob
	n     int // of temporary files
}

func (c *clang) close() {
	if c.dir != "" {
		os.RemoveAll(c.dir)
	}
}

// begin makes the temporary folder and, if standard input is compiled, keeps it.
func (c *clang) begin() error {
	f, err := c.inv.store.Temp("clang-*")
	if err != nil {
		return err
	}
	f.Close()
	c.dir = f.Name() + ".d"
	if err := errors.Join(os.Remove(f.Name()), os.Mkdir(c.dir, 0o700)); err != nil {
		return err
	}
	if !slices.Contains(c.args, "-") {
		return nil
	}
	c.stdin = c.temp(".in")
	in, err := os.Create(c.stdin)
	if err != nil {
		return err
	}
	_, err = io.Copy(in, os.Stdin)
	return errors.Join(err, in.Close())
}

// temp returns a new name in the temporary folder.
func (c *clang) temp(suffix string) string {
	c.n++
	return filepath.Join(c.dir, fmt.Sprint(c.n)+suffix)
}

// input gives a command the standard input that was kept, if any.
func (c *clang) input(cmd *exec.Cmd) {
	if c.stdin == "" {
		return
	}
	if f, err := os.Open(c.stdin); err == nil {
		cmd.Stdin = f
	}
}

// capture records a unit for each object that the driver's commands make. The
// path is that of the object that could not be recorded.
func (c *clang) capture() (output string, err error) {
	if c.jobs, err = c.ask(); err != nil {
		return c.inv.dir, err
	}
	for _, j := range c.jobs {
		if !j.makesObject() {
			continue
		}
		output := c.inv.abs(j.output)
		kept := isRegular(output)
		object := output
		switch {
		case kept:
		case j.bitcode():
			continue // linked at once: the link's input is found to be unseen
		default:
			// The driver removed it. Its name is not repeated, its content is.
			object = c.temp(".o")
			if err := c.remake(j, object); err != nil {
				continue
			}
		}
		if err := c.record(j, object, kept); err != nil {
			return output, err
		}
	}
	return "", nil
}

// remake runs job j again. The text that it assembles may be gone too: that of a
// .S file, which another job makes.
func (c *clang) remake(j clangJob, object string) error {
	if from := c.maker(j.input); from != nil && !isRegular(c.inv.abs(j.input)) {
		text := c.temp(".s")
		if err := c.run(from.with(text), nil); err != nil {
			return err
		}
		j = j.from(text)
	}
	return c.run(j.with(object), nil)
}

// ask returns the commands that the driver runs for its arguments. The driver
// removes the file of diagnostics of an earlier run even if it runs nothing; so
// it is told of another file.
func (c *clang) ask() ([]clangJob, error) {
	var out bytes.Buffer
	args := append([]string{"-###"}, c.args...)
	end := slices.Index(args, "--")
	if end < 0 {
		end = len(args)
	}
	args = slices.Insert(args, end, "--serialize-diagnostics", c.temp(".dia"))
	status, err := c.real.run(args, c.env, func(cmd *exec.Cmd) {
		c.input(cmd)
		cmd.Stdout, cmd.Stderr = nil, &out
	})
	if err == nil && status != 0 {
		err = fmt.Errorf("%s -###: exit status %d", c.real.Path, status.ExitStatus())
	}
	return parseJobs(out.String()), err
}

// run runs one of the driver's commands again.
func (c *clang) run(j clangJob, said *bytes.Buffer) error {
	t := tool{Path: j.program, Argv0: j.program}
	status, err := t.run(j.args, c.env, func(cmd *exec.Cmd) {
		c.input(cmd)
		cmd.Stdout, cmd.Stderr = nil, nil
		if said != nil {
			cmd.Stderr = said
		}
	})
	if err == nil && status != 0 {
		err = fmt.Errorf("%s ends with status %#x", filepath.Base(j.program), int(status))
	}
	return err
}

// record stores the unit of the object at path, made by job j. Where the text
// cannot be had, the reason is recorded.
func (c *clang) record(j clangJob, path string, kept bool) error {
	s := c.inv.store
	object, err := s.PutFile(path)
	if err != nil {
		return err
	}
	as := j.assembler()
	a := &store.Assembly{Source: c.source(j), Object: object}
	if kept {
		a.Output = c.inv.abs(j.output)
	}
	text, why := c.text(j)
	if why == nil {
		why = c.prove(as, text, path)
	}
	if why != nil {
		a.NoText = why.Error()
	} else if err := c.put(a, j, text); err != nil {
		return err
	}
	return s.PutRecord(c.inv.stage, &store.Record{
		Parent: os.Getenv(envLink), Dir: c.inv.dir, Program: as.program, Args: as.args, Assembly: a,
	})
}

// put stores the text of a.
func (c *clang) put(a *store.Assembly, j clangJob, text string) (err error) {
	u := new(unit)
	if u.digest, err = c.inv.store.PutFile(text); err != nil {
		return err
	}
	if err = c.inv.scan(u, &asArgs{dirs: j.values("-I")}); err != nil {
		return err
	}
	a.Text, a.Includes = u.digest, u.includes
	return nil
}

// source returns the absolute path of what job j compiles, or of what that was
// made from.
func (c *clang) source(j clangJob) string {
	for range c.jobs {
		from := c.maker(j.input)
		if from == nil {
			break
		}
		j = *from
	}
	return c.inv.abs(j.input)
}

// maker returns the job that makes path, or nil.
func (c *clang) maker(path string) *clangJob {
	for i := range c.jobs {
		if c.jobs[i].output == path && c.jobs[i].input != path {
			return &c.jobs[i]
		}
	}
	return nil
}

var (
	errBitcode = errors.New("it holds clang's intermediate code, which only a link with -flto makes machine code of")
	errText    = errors.New("no command of clang's makes its assembly text")
)

// text returns the path of job j's assembly text.
func (c *clang) text(j clangJob) (string, error) {
	if j.bitcode() {
		return "", errBitcode
	}
	if j.compiles() {
		text := c.temp(".s")
		return text, c.run(j.toText(text), nil)
	}
	if isRegular(c.inv.abs(j.input)) {
		return c.inv.abs(j.input), nil
	}
	from := c.maker(j.input)
	if from == nil {
		return "", errText
	}
	text := c.temp(".s")
	return text, c.run(from.with(text), nil)
}
