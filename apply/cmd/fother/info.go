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
}

func (t *tool) info(ctx context.Context) int {
	if len(t.args) > 0 {
		return t.fail(usageError{fmt.Errorf("info takes no argument %q", t.args[0])})
	}
	pids, all, err := t.pids()
	if err != nil {
		return t.fail(err)
	}
	infos := []processInfo{}
	for _, pid := range pids {
		if ctx.Err() != nil {
			return t.fail(ctx.Err())
		}
		p, err := apply.Open(pid)
		if all && (errors.Is(err, apply.ErrGone) || errors.Is(err, apply.ErrPermission)) {
			continue
		}
		if err != nil {
			return t.fail(fmt.Errorf("process %d: %w", pid, err))
		}
		i := processInfo{pid, p.Name, p.Objects(), p.Applied(), p.Damaged()}
		p.Close()
		infos = append(infos, i)
		if !t.json {
			t.printInfo(i)
		}
	}
	if t.json {
		t.encode(infos)
	}
	return exitDone
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
