package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply"
)

var symbolsCommand = &command{
	name:  "symbols",
	args:  "-p PID [--map FILE | --elf FILE] [BUILDID[:SERIES]…]",
	brief: "names of new code, for perf and gdb",
	help: `
Prints where the new functions of a process are, in the form of perf's maps: the
address and size in hexadecimal, and the name, with ".kpatch" behind it. perf
reads them from /tmp/perf-PID.map, if that file is root's or that of the user who
runs perf report:

  perf record -g -p PID …
  fother symbols -p PID --map /tmp/perf-PID.map; perf report

With --elf it writes a file for gdb, which also tells it how to find the callers
of new functions. It is for one patch:

  fother symbols -p PID --elf FILE
  gdb -p PID -ex 'add-symbol-file FILE'

No file that is there is overwritten, and no link followed: in /tmp others can
guess the name. Nothing else leaves a file, and so it is the user's to remove.

Options:
  -p PID          the process
  --map FILE      write a new file for perf
  --elf FILE      write a new file for gdb
`,
	start: func(t *tool, fs *flag.FlagSet) action {
		c := &symbols{tool: t}
		c.procs.declare(fs)
		fs.StringVar(&c.maps, "map", "", "")
		fs.StringVar(&c.elf, "elf", "", "")
		return c.run
	},
}

type symbols struct {
	*tool
	procs processes
	maps  string
	elf   string
}

func (c *symbols) run(ctx context.Context, args []string) int {
	if c.procs.pid == 0 {
		return c.fail(usageError{fmt.Errorf("-p PID is missing")})
	}
	if c.maps != "" && c.elf != "" {
		return c.fail(usageError{errors.New("--map and --elf are not for one call: each is for another tool")})
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
		var data []byte
		if data, err = p.SymbolFile(which...); err == nil {
			err = writeNew(c.elf, data)
		}
	} else if c.maps != "" {
		err = writeNew(c.maps, perfMap(all))
	}
	switch {
	case err != nil:
		return c.fail(fmt.Errorf("process %d: %w", c.procs.pid, err))
	case c.elf != "", c.maps != "":
	case c.json:
		c.encode(all)
	default:
		_, _ = c.stdout.Write(perfMap(all))
	}
	return exitDone
}

// perfMap returns lines of perf's maps. Source: jit-interface.txt of perf.
func perfMap(all []apply.Symbol) []byte {
	var b []byte
	for _, s := range all {
		b = fmt.Appendf(b, "%x %x %s\n", uint64(s.Range.Lo), s.Range.Size(), clean(s.Name))
	}
	return b
}

// writeNew writes a file that was not there before: nobody's file is
// overwritten by way of a link.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
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
