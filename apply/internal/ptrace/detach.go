package ptrace

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Detach lets all threads go. Job control's stops stay.
func (g *Group) Detach() {
	for _, t := range g.threads {
		if t.Stopped() {
			g.detachStopped(t)
		}
	}
	// What runs has to be stopped first. New threads may turn up meanwhile.
	for {
		if g.due() {
			g.releaseWoken()
		}
		var batch []*Thread
		for i := 0; i < len(g.threads) && len(batch) < parkTogether; i++ {
			if t := g.threads[i]; !t.gone && !t.stuck {
				batch = append(batch, t)
			}
		}
		if len(batch) == 0 {
			return
		}
		for _, t := range batch {
			g.interrupt(t)
		}
		g.detachBatch(batch)
	}
}

// detachBatch lets threads go that were interrupted, each as soon as it stops.
func (g *Group) detachBatch(batch []*Thread) {
	var p pause
	for {
		told := false
		for _, t := range batch {
			got, _ := g.serve(t) // whatever it is, the others are to be let go
			told = told || got
			if t.Stopped() {
				g.detachStopped(t)
			}
		}
		batch = slices.DeleteFunc(batch, func(t *Thread) bool {
			t.gone = t.gone || p.sleeping() && g.zombieLeader(t)
			return t.gone
		})
		if len(batch) == 0 {
			return
		}
		if told {
			continue
		}
		if p.nap >= shortNap && g.due() {
			g.releaseWoken()
		}
		if !g.worthWaiting(&p, batch) {
			for _, t := range batch {
				t.stuck = true
			}
			return
		}
	}
}

// worthWaiting waits a little, and reports false when none of a batch is likely to
// stop any more.
func (g *Group) worthWaiting(p *pause, batch []*Thread) bool {
	if !p.once(g.limit) {
		able := slices.IndexFunc(batch, func(t *Thread) bool { return strings.Contains("Rt", State(g.pid, t.TID)) })
		return able >= 0 && p.starved(g.pid, batch[able].TID, g.limit, patience)
	}
	return slices.ContainsFunc(batch, func(t *Thread) bool { return !p.deep(g.pid, t.TID) })
}

func (g *Group) detachStopped(t *Thread) {
	g.mend(t)
	if request(unix.PTRACE_DETACH, t.TID, 0, 0) == nil {
		t.gone = true
	}
	t.stopped = false
}

// Release lets all go that a stop has held, for good: those that were stopped, and
// parked ones that would have gone on meanwhile. The others are still to be detached.
func (g *Group) Release() {
	for _, t := range g.threads {
		if t.Stopped() {
			g.detachStopped(t)
		}
	}
	g.releaseWoken()
}

// releaseWoken lets parked threads go that are held at the exit of their call.
func (g *Group) releaseWoken() {
	defer g.looked(time.Now())
	for _, t := range g.threads {
		if !t.Parked() || t.asked {
			continue
		}
		ws, got, err := poll(t.TID)
		if err == nil && got && ws.Stopped() && ws>>16 == 0 && ws.StopSignal() == unix.SIGTRAP|0x80 {
			g.mendCall(t, 0)
			t.gone = request(unix.PTRACE_DETACH, t.TID, 0, 0) == nil
		} else {
			_, _ = g.report(t, ws, got, err) // Detach finds out
		}
	}
}
