package apply

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/kpack"
)

// TestToolIsKilled kills a tool that applies and reverts in a loop, at random
// moments. The target lives on, and the next run clears up.
func TestToolIsKilled(t *testing.T) {
	for _, kinds := range [][]string{nil, {"call", "sleep", "read", "futex", "call"}} {
		t.Run(strings.Join(kinds, "+"), func(t *testing.T) {
			r := start(t, pie(t), kinds...)
			before := r.snapshot()
			killAtRandom(t, r, 25, patchFor(t, pie(t), "default", 1, "answer", "other"))
			before.same(t, r.snapshot())
		})
	}
}

// TestToolIsKilledWithUnwinder does it to a process whose unwinder is told of
// the frames.
func TestToolIsKilledWithUnwinder(t *testing.T) {
	r := start(t, unwinding(t), "call", "sleep")
	before := r.snapshot()
	killAtRandom(t, r, 25, patchFor(t, unwinding(t), "default", 1, "answer", "other"))
	if c := chainOf(t, r.pid); len(c.order) != 0 {
		t.Errorf("%d finders are left", len(c.order))
	}
	before.same(t, r.snapshot())
}

// TestToolIsKilledBetweenLevels: a loop whose calls go on in what was replaced
// is among what changes.
func TestToolIsKilledBetweenLevels(t *testing.T) {
	r := start(t, pie(t), "serve", "call")
	before := r.snapshot()
	killAtRandom(t, r, 15, serveAs(t, 1, "serve", "answer"), serveAs(t, 2, "serve2", "other"), serveAs(t, 3, "serve"))
	if got := r.ask("end"); got != "2" && got != "43" && got != "44" {
		t.Errorf("the loop's answer is %s", got)
	}
	r.expect("end", "2")
	freeKept(t, r, "wipe", "end")
	before.same(t, r.snapshot())
}

func killAtRandom(t *testing.T, r *running, rounds int, patches ...*kpack.Patch) {
	t.Helper()
	var files []string
	for i, p := range patches {
		data, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(t.TempDir(), fmt.Sprint(i, ".kpatch")))
		if err := os.WriteFile(files[i], data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Log("seed", seed)
	cleared, removed := 0, 0
	for range rounds {
		cmd := child(t, "loop", r.pid, strings.Join(files, string(filepath.ListSeparator)), nil)
		var out strings.Builder
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30*time.Millisecond + time.Duration(random.Int64N(int64(30*time.Millisecond))))
		cmd.Process.Kill()
		cmd.Wait()
		if out.Len() > 0 {
			t.Fatal(out.String())
		}
		r.ask("ask") // it answers, whatever
		res, err := Revert(context.Background(), r.pid, nil, Options{Wait: 10 * time.Second})
		if err != nil && !errors.Is(err, ErrNotApplied) {
			t.Fatal(err)
		}
		if res != nil && len(res.Recovered) > 0 {
			cleared++
		}
		if res != nil && len(res.Removed) > 0 {
			removed++
		}
		r.expect("ask", oldAnswer)
	}
	t.Logf("of %d times a patch was there %d times, and half done %d times", rounds, removed, cleared)
}

// TestHalfDone makes by hand what a tool that is killed inside a commit leaves,
// which is too short to be hit at random.
func TestHalfDone(t *testing.T) {
	bin := pie(t)
	one := patchFor(t, bin, "default", 1, "answer", "other")
	two := patchFor(t, bin, "default", 2, "answer2")
	for _, c := range []struct {
		name string
		left func(p *Process) // of level 1 in p
	}{
		{"comes, nothing written", func(p *Process) { half(p, 0, committing, 0) }},
		{"comes, half written", func(p *Process) { half(p, 0, committing, 1) }},
		{"comes, all written", func(p *Process) { half(p, 0, committing, 2) }},
		{"goes, nothing written", func(p *Process) { half(p, 0, leaving, 2) }},
		{"goes, half written", func(p *Process) { half(p, 0, leaving, 1) }},
		{"goes, all written", func(p *Process) { half(p, 0, retired, 0) }},
		{"staged", func(p *Process) { half(p, 0, staged, 0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, bin, "sleep") // nobody runs what is written without a stop
			before := r.snapshot()
			applyTo(t, r.pid, one)
			p, err := open(r.pid, true)
			if err != nil {
				t.Fatal(err)
			}
			c.left(p)
			p.Close()
			if _, err := Revert(context.Background(), r.pid, nil, Options{}); err != nil && !errors.Is(err, ErrNotApplied) {
				t.Fatal(err)
			}
			r.expect("ask", oldAnswer)
			before.same(t, r.snapshot())
			applyTo(t, r.pid, one)
			r.expect("ask", newAnswer)
			p, err = open(r.pid, true)
			if err != nil {
				t.Fatal(err)
			}
			c.left(p)
			p.Close()
			applyTo(t, r.pid, two) // goes on from there
			r.expect("ask", oldAnswer)
			revertAll(t, r.pid)
			before.same(t, r.snapshot())
		})
	}
}

// half puts record i into state s, with its first n entries leading to it.
func half(p *Process, i int, s state, n int) {
	r := p.records[i]
	for j, f := range r.Functions {
		if j < n {
			p.mem.Write(f.Site, f.New)
		} else {
			p.mem.Write(f.Site, f.Old)
		}
	}
	if err := p.setState(r, s, r.Base); err != nil {
		panic(err)
	}
}

// TestHalfReplaced is the same for a newer level that replaces an older one.
func TestHalfReplaced(t *testing.T) {
	bin := pie(t)
	one := patchFor(t, bin, "default", 1, "answer", "other")
	two := patchFor(t, bin, "next", 2, "text") // to have a second record
	for _, decided := range []bool{false, true} {
		r := start(t, bin, "sleep")
		before := r.snapshot()
		applyTo(t, r.pid, one)
		applyTo(t, r.pid, two)
		p, err := open(r.pid, true)
		if err != nil {
			t.Fatal(err)
		}
		a, b := p.records[0], p.records[1]
		// b was to replace a, and a's first entry is away already.
		p.setState(b, committing, b.Base)
		if decided {
			p.setState(b, applied, b.Base)
		}
		p.setState(a, leaving, b.Base)
		p.mem.Write(a.Functions[0].Site, a.Functions[0].Old)
		p.Close()
		res, err := Revert(context.Background(), r.pid, []Selector{{Series: "none"}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Recovered) == 0 {
			t.Error("nothing was recovered")
		}
		if decided {
			r.expect("ask", "2 11 new")
		} else {
			r.expect("ask", newAnswer)
		}
		r.ask("wipe")
		revertAll(t, r.pid)
		for range 20 { // stale pointers to "new" go away in time
			r.expect("ask", oldAnswer)
			r.ask("wipe")
			Revert(context.Background(), r.pid, nil, Options{})
		}
		before.same(t, r.snapshot())
	}
}
