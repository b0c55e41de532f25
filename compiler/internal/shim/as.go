package shim

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fother/fother/compiler/internal/link"
	"github.com/fother/fother/compiler/internal/store"
	"github.com/fother/fother/specs"
)

// asArgs is what capture has to know of an assembler's command line (as(1)).
type asArgs struct {
	all    []string // response files expanded
	inputs []string // "-" or none: standard input
	output string
	dirs   []string // -I
	query  bool
}

func parseAsArgs(dir string, args []string) (*asArgs, error) {
	all, err := link.Expand(dir, args)
	if err != nil {
		return nil, err
	}
	a := &asArgs{all: all, output: "a.out"}
	for i := 0; i < len(all); i++ {
		arg := all[i]
		next := func() (v string) {
			if i++; i < len(all) {
				v = all[i]
			}
			return v
		}
		switch {
		case arg == "--version", arg == "-version", arg == "--help", arg == "--target-help":
			a.query = true
		case arg == "-o":
			a.output = next()
		case arg == "-I":
			a.dirs = append(a.dirs, next())
		case arg == "--defsym", arg == "--debug-prefix-map", arg == "--MD", arg == "-t", arg == "-Q", arg == "--hash-size":
			next()
		case arg == "--":
			a.inputs = append(a.inputs, all[i+1:]...)
			i = len(all)
		case strings.HasPrefix(arg, "-o"):
			a.output = arg[2:]
		case strings.HasPrefix(arg, "-I"):
			a.dirs = append(a.dirs, arg[2:])
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			a.inputs = append(a.inputs, arg)
		}
	}
	return a, nil
}

func (a *asArgs) stdin() bool {
	return len(a.inputs) == 0 || len(a.inputs) == 1 && a.inputs[0] == "-"
}

// assemble stands for the assembler.
func (inv *invocation) assemble() int {
	real, err := inv.real()
	if err != nil {
		return inv.fail(exitError, err)
	}
	a, err := parseAsArgs(inv.dir, inv.args)
	if err != nil {
		return inv.fail(exitError, err)
	}
	if inv.store == nil || a.query || os.Getenv(envLink) == noCapture {
		return inv.fail(exitError, real.exec(inv.args, os.Environ()))
	}
	unit, stored := inv.text(a)
	defer unit.close()
	if unit.stdin == nil && a.stdin() {
		return inv.failStore(inv.abs(a.output), unit.err)
	}
	status, err := real.run(inv.args, os.Environ(), func(cmd *exec.Cmd) {
		if unit.stdin != nil {
			cmd.Stdin = unit.stdin
		}
	})
	<-stored
	if err != nil {
		return inv.fail(exitError, err)
	}
	output := inv.abs(a.output)
	if status != 0 || !isRegular(output) {
		return exit(status)
	}
	if unit.err == nil {
		unit.err = inv.recordUnit(real, a, unit, output)
	}
	if unit.err != nil {
		return inv.failStore(output, unit.err)
	}
	return 0
}

// unit is a text on its way to the assembler.
type unit struct {
	stdin    *os.File // what the assembler reads in place of standard input
	digest   specs.Digest
	includes []store.File
	lto      bool
	file     string // of the first .file directive
	err      error
}

func (u *unit) close() {
	if u.stdin != nil {
		u.stdin.Close()
	}
}

// text stores the text of a. Standard input is read to its end before text
// returns, and the unit's stdin is nil if that failed; files are read while the
// assembler runs, and the channel is closed when the unit is complete.
func (inv *invocation) text(a *asArgs) (*unit, <-chan struct{}) {
	u, done := new(unit), make(chan struct{})
	if a.stdin() {
		u.digest, u.err = inv.store.Put(os.Stdin)
		if u.err == nil {
			u.stdin, u.err = os.Open(inv.store.Blob(u.digest))
		}
		if u.err == nil {
			u.err = inv.scan(u, a)
		}
		close(done)
		return u, done
	}
	go func() {
		defer close(done)
		if u.digest, u.err = inv.putText(a.inputs); u.err == nil {
			u.err = inv.scan(u, a)
		}
	}()
	return u, done
}

// putText stores the assembler's input files as one text: as reads them as if
// they were one.
func (inv *invocation) putText(files []string) (specs.Digest, error) {
	if len(files) == 1 {
		return inv.store.PutFile(files[0])
	}
	var readers []io.Reader
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return specs.Digest{}, err
		}
		defer f.Close()
		readers = append(readers, f)
	}
	return inv.store.Put(io.MultiReader(readers...))
}

// scan reads the stored text of u for what else has to be known of it.
func (inv *invocation) scan(u *unit, a *asArgs) error {
	f, err := os.Open(inv.store.Blob(u.digest))
	if err != nil {
		return err
	}
	defer f.Close()
	t := scanText(f)
	u.lto, u.file = t.lto, t.file
	for _, name := range t.includes {
		path, ok := findInclude(name, inv.dir, a.dirs)
		if !ok {
			continue // then the assembler fails
		}
		d, err := inv.store.PutFile(path)
		if err != nil {
			return err
		}
		u.includes = append(u.includes, store.File{Path: path, Digest: d})
	}
	return nil
}

func findInclude(name, dir string, dirs []string) (string, bool) {
	if filepath.IsAbs(name) {
		return name, isRegular(name)
	}
	for _, d := range append([]string{"."}, dirs...) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		if path := filepath.Join(d, name); isRegular(path) {
			return path, true
		}
	}
	return "", false
}

func (inv *invocation) recordUnit(real tool, a *asArgs, u *unit, output string) error {
	object, err := inv.store.PutFile(output)
	if err != nil {
		return err
	}
	return inv.store.PutRecord(inv.stage, &store.Record{
		Parent: os.Getenv(envLink), Dir: inv.dir, Program: real.Path, Args: a.all,
		Assembly: &store.Assembly{
			Source: inv.source(u.file, a), Text: u.digest, Includes: u.includes,
			Output: output, Object: object, LTO: u.lto,
		},
	})
}
