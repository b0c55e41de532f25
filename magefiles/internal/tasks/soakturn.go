package tasks

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/magefiles/internal/services"
	"github.com/fother/fother/specs"
)

// processInfo is what fother info --json says of one process.
type processInfo struct {
	Applied []apply.Applied `json:"applied"`
	Damaged []string        `json:"damaged"`
	Error   string          `json:"error"`
}

// info reads what is applied.
func (s *soak) info(ctx context.Context, pid int) (processInfo, error) {
	r := s.run(ctx, pid, 0, "info")
	var all []processInfo
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil || len(all) != 1 || r.exit != 0 {
		return processInfo{}, fmt.Errorf("fother info of process %d: exit %d, %v: %s%s", pid, r.exit, err, r.stdout, r.stderr)
	}
	if len(all[0].Damaged) > 0 {
		s.fault("process %d: damaged: %v", pid, all[0].Damaged)
	}
	return all[0], nil
}

// turn does one thing to one service, and looks which code answers then.
func (s *soak) turn(ctx context.Context) {
	v := services.All[s.random.IntN(len(services.All))]
	pids, err := s.box.PIDs(v.Unit)
	if err != nil || len(pids) != v.Processes {
		s.fault("%s: processes %v, want %d: %v", v.Unit, pids, v.Processes, err)
		s.sleep(ctx, time.Second)
		return
	}
	slices.Sort(pids)
	some := pids
	if s.random.IntN(2) == 0 {
		i := s.random.IntN(len(pids))
		some = pids[i : i+1]
	}
	act := s.action(v)
	for _, pid := range some {
		act(ctx, pid)
	}
	if ctx.Err() == nil {
		s.check(ctx, v, pids)
	}
}

// action chooses what is done.
func (s *soak) action(v services.Service) func(context.Context, int) {
	verb, what, args := "unpatch", "revert", s.selectors(v)
	if s.random.IntN(8) < 5 {
		verb = "patch"
		what, args = s.patchSet(v)
	}
	args = append([]string{"--wait", "3s"}, args...)
	ways := []string{"", "", "", "", "killed", "killed", "two at once", "counting", "on trial", "accepted", "impatient"}
	way := ways[s.random.IntN(len(ways))]
	name := strings.TrimSpace(v.Package.Name + ": " + what + " " + way)
	if verb == "unpatch" && (way == "counting" || way == "on trial" || way == "accepted") {
		way, name = "", v.Package.Name+": "+what
	}
	switch way {
	case "killed":
		return func(ctx context.Context, pid int) {
			after := time.Duration(s.random.IntN(30000)) * time.Microsecond
			if r := s.run(ctx, pid, after+time.Microsecond, verb, args...); r.exit < 0 {
				s.counts[name]++
			} else {
				s.note(pid, name+", too late", r)
			}
		}
	case "two at once":
		return func(ctx context.Context, pid int) {
			other := make(chan toolRun, 1)
			go func() { other <- s.run(ctx, pid, 0, "unpatch", "--wait", "3s") }()
			s.note(pid, name, s.run(ctx, pid, 0, verb, args...))
			s.note(pid, v.Package.Name+": the other of two at once", <-other)
		}
	case "counting":
		args = append([]string{"--count"}, args...)
	case "impatient":
		args[1] = "1ms"
	case "on trial":
		args = append([]string{"--trial", "1s"}, args...)
	case "accepted":
		return func(ctx context.Context, pid int) {
			trial := make(chan toolRun, 1)
			go func() { trial <- s.run(ctx, pid, 0, verb, append([]string{"--trial", "3s"}, args...)...) }()
			s.sleep(ctx, time.Second)
			s.note(pid, v.Package.Name+": accept", s.run(ctx, pid, 0, "accept"))
			s.note(pid, name, <-trial)
		}
	}
	return func(ctx context.Context, pid int) { s.note(pid, name, s.run(ctx, pid, 0, verb, args...)) }
}

// patchSet chooses what is put in, and the folders that it is in.
func (s *soak) patchSet(v services.Service) (string, []string) {
	var own, libraries []string
	level := s.random.IntN(2)
	for _, p := range v.Libraries {
		libraries = append(libraries, s.patches[p.Levels[level].Name])
	}
	own = append(own, s.patches[v.Package.Levels[level].Name])
	var more []string
	for _, f := range v.Package.More {
		more = append(more, s.patches[f.Name])
	}
	switch n := s.random.IntN(4); {
	case n == 0 && len(more) > 0:
		return "another series", more
	case n == 1 && len(more) > 0:
		return fmt.Sprintf("level %d and another series", level+1), slices.Concat(own, libraries, more)
	case n == 2 && len(libraries) > 0:
		return fmt.Sprintf("level %d of libraries", level+1), libraries
	}
	return fmt.Sprintf("level %d", level+1), append(own, libraries...)
}

// selectors chooses what is taken out: all, or some.
func (s *soak) selectors(v services.Service) []string {
	id := string(s.ids[v.Package.Name])
	switch s.random.IntN(5) {
	case 0:
		return []string{id + ":more"}
	case 1:
		return []string{id + ":default"}
	case 2:
		return []string{id}
	}
	return nil
}

// outcomes are what may become of a run, by what it says. A refusal leaves all as
// it was.
var outcomes = []struct {
	exit          int
	says, outcome string
}{
	{0, "", "done"},
	{3, "", "nothing to do"},
	{1, "busy for", "busy"},
	{4, "busy for", "busy"},
	{1, "another fother", "locked"},
	{4, "nobody accepted", "reverted"},
	{4, "is patched already by series", "refused: another series has changed the function"},
	{4, "the end of a trial could not bring it back", "refused: on trial"},
}

// note counts an outcome. Others than those that are to be expected are faults.
func (s *soak) note(pid int, what string, r toolRun) {
	for _, o := range outcomes {
		if r.exit == o.exit && strings.Contains(r.stderr, o.says) {
			s.counts[what+": "+o.outcome]++
			return
		}
	}
	s.counts[what+": failed"]++
	s.fault("%s, process %d: exit %d: %s", what, pid, r.exit, strings.TrimSpace(r.stderr))
}

// check asks the service which code answers: that of the patches in one of its
// processes.
func (s *soak) check(ctx context.Context, v services.Service, pids []int) {
	var want []services.Answer
	half := false
	for _, pid := range pids {
		p, err := s.info(ctx, pid)
		if err != nil {
			s.fault("%v", err)
			return
		}
		if len(pids) > 1 && !worker(pid, pids) {
			continue // the master answers nobody
		}
		var a services.Answer
		for _, x := range p.Applied {
			half = half || x.State == "committing" || x.State == "leaving"
			switch {
			case x.State != "applied":
			case x.BuildID != s.ids[v.Package.Name]:
				a.Library = x.Level
			case x.Series == specs.DefaultSeries:
				a.Level = x.Level
			default:
				a.More = x.Level
			}
		}
		want = append(want, a)
	}
	got, err := v.Ask(s.box)
	if err != nil {
		s.fault("%v", err)
		return
	}
	s.counts[v.Package.Name+": asked which code answers"]++
	if half {
		s.counts[v.Package.Name+": found half done"]++
		return
	}
	fits := func(a services.Answer) bool {
		return (a.Level == got.Level || got.Level == services.Unknown) && (a.More == got.More || got.More == services.Unknown) && a.Library == got.Library
	}
	if !slices.ContainsFunc(want, fits) {
		s.fault("%s: %+v answers, the processes %v have %+v", v.Unit, got, pids, want)
	}
}

// worker reports whether the parent of pid is one of pids.
func worker(pid int, pids []int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(text), "\nPPid:")
	parent := 0
	fmt.Sscan(after, &parent)
	return slices.Contains(pids, parent)
}
