package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/fother/fother/apply"
)

var symbolsCommand = &command{
	name:  "symbols",
	args:  "-p PID [--elf FILE] [BUILDID[:SERIES]…]",
	brief: "names of new code, for perf and gdb",
	help: `
Prints where the new functions of a process are, in the form of perf's maps: the
address and size in hexadecimal, and the name, with ".kpatch" behind it. perf
reads it from the file /tmp/perf-PID.map, which belongs to the process's user:

  fother symbols -p PID > /tmp/perf-PID.map
  perf record -g -p PID …; perf report

With --elf it writes a file for gdb, which also tells it how to find the callers
of new functions. It is for one patch:

  fother symbols -p PID --elf FILE
  gdb -p PID -ex 'add-symbol-file FILE'

Nothing else leaves a file, and so the file is the user's to remove.

Options:
  -p PID          the process
  --elf FILE      write a new file for gdb
`,
	start: func(t *tool, fs *flag.FlagSet) action {
		c := &symbols{tool: t}
		c.procs.declare(fs)
		fs.StringVar(&c.elf, "elf", "", "")
		return c.run
	},
}

type symbols struct {
	*tool
	procs processes
	elf   string
}

func (c *symbols) run(ctx context.Context, args []string) int {
	if c.procs.pid == 0 {
		return c.fail(usageError{fmt.Errorf("-p PID is missing")})
	}
	which, err := selectors(args)
	if err != nil {
		return c.fail(usageError{err})
	}
	p, err := c.opener.Open(ctx, c.procs.pid)
	if err != nil {
		return c.fail(fmt.Errorf("process %d: %w", c.procs.pid, err))
	}
	defer p.Close()
	all := p.Symbols(which...)
	if len(all) == 0 {
		err = apply.ErrNotApplied
	} else if c.elf != "" {
		err = writeSymbols(c.elf, p, which)
	}
	switch {
	case err != nil:
		return c.fail(fmt.Errorf("process %d: %w", c.procs.pid, err))
	case c.elf != "":
	case c.json:
		c.encode(all)
	default:
		for _, s := range all {
			fmt.Fprintf(c.stdout, "%x %x %s\n", uint64(s.Range.Lo), s.Range.Size(), clean(s.Name))
		}
	}
	return exitDone
}

// writeSymbols writes a file that was not there before: nobody's file is
// overwritten by way of a link.
func writeSymbols(path string, p *apply.Process, which []apply.Selector) error {
	data, err := p.SymbolFile(which...)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err != nil {
		f.Close()
		os.Remove(path)
		return err
	}
	return f.Close()
}
