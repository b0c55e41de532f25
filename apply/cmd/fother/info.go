package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/fother/fother/apply"
)

// processInfo is what info --json prints for each process.
type processInfo struct {
	PID     int                `json:"pid"`
	Name    string             `json:"name"`
	Objects []apply.ObjectInfo `json:"objects"`
	Applied []apply.Applied    `json:"applied"`
	Damaged []string           `json:"damaged,omitempty"`
	Error   string             `json:"error,omitempty"`
	Exit    int                `json:"exit"`
}

var infoCommand = &command{
	name:  "info",
	args:  "[-p PID|all]",
	brief: "what is loaded, and the patches in it",
	help: `
Lists the objects of running processes with their build-ids, and the patches in
them.

Options:
  -p PID|all      the process, or all that the caller may trace (all)
`,
	start: func(t *tool, fs *flag.FlagSet) action {
		c := &info{tool: t}
		c.procs.declare(fs)
		return c.run
	},
}

type info struct {
	*tool
	procs processes
}

func (t *info) run(ctx context.Context, args []string) int {
	if len(args) > 0 {
		return t.fail(usageError{fmt.Errorf("info takes no argument %q", args[0])})
	}
	if t.procs.text == "" {
		t.procs.all = true
	}
	pids, err := t.procs.list()
	if err != nil {
		return t.fail(err)
	}
	infos, code := []processInfo{}, exitDone
	for _, pid := range pids {
		if ctx.Err() != nil {
			return t.fail(fmt.Errorf("interrupted: %w", ctx.Err()))
		}
		i, err := read(pid)
		if t.procs.all && (errors.Is(err, apply.ErrGone) || errors.Is(err, apply.ErrPermission)) {
			continue
		}
		if err != nil {
			i.Error, i.Exit = err.Error(), exitCode(err)
			code = t.fail(fmt.Errorf("process %d: %w", pid, err))
		} else if !t.json {
			t.printInfo(i)
		}
		infos = append(infos, i)
	}
	if t.json {
		t.encode(infos)
	}
	return code
}

// read returns what there is to say of a process.
func read(pid int) (processInfo, error) {
	p, err := apply.Open(pid)
	if err != nil {
		return processInfo{PID: pid, Objects: []apply.ObjectInfo{}, Applied: []apply.Applied{}}, err
	}
	defer p.Close()
	return processInfo{PID: pid, Name: p.Name, Objects: p.Objects(), Applied: p.Applied(), Damaged: p.Damaged()}, nil
}

func (t *tool) printInfo(i processInfo) {
	fmt.Fprintf(t.stdout, "%d (%s)\n", i.PID, i.Name)
	for _, o := range i.Objects {
		id := string(o.BuildID)
		if id == "" {
			id = "no build-id"
		}
		fmt.Fprintf(t.stdout, "  %-40s  %s\n", id, o.Path)
		for _, a := range i.Applied {
			if a.BuildID == o.BuildID {
				fmt.Fprintf(t.stdout, "    %s: %s\n", a.State, title(a))
			}
		}
	}
	for _, d := range i.Damaged {
		fmt.Fprintf(t.stdout, "  damaged: %s\n", d)
	}
}
