package main

import (
	"context"
	"errors"
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

func (t *tool) info(ctx context.Context) int {
	if len(t.args) > 0 {
		return t.fail(usageError{fmt.Errorf("info takes no argument %q", t.args[0])})
	}
	pids, all, err := t.pids()
	if err != nil {
		return t.fail(err)
	}
	infos, code := []processInfo{}, exitDone
	for _, pid := range pids {
		if ctx.Err() != nil {
			return t.fail(fmt.Errorf("interrupted: %w", ctx.Err()))
		}
		i, err := read(pid)
		if all && (errors.Is(err, apply.ErrGone) || errors.Is(err, apply.ErrPermission)) {
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
