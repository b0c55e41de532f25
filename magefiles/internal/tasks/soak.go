package tasks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fother/fother/magefiles/internal/load"
	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/magefiles/internal/services"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs"
)

// soakVariable has the time that a soak takes, a duration.
const soakVariable = "FOTHER_TORTURE"

// Soak applies and reverts patches at random on Debian's nginx, memcached and
// lighttpd under load, in the sandbox of their own units and then in a narrower
// one. Every answer is checked, of the load and of the question which code
// answers. Afterwards nothing is lost and nothing has grown. It takes twice
// FOTHER_TORTURE, or twice two minutes, and the builds.
func Soak(ctx context.Context, out io.Writer, fother string, o pipeline.Options) error {
	long := 2 * time.Minute
	if s := os.Getenv(soakVariable); s != "" {
		var err error
		if long, err = time.ParseDuration(s); err != nil {
			return fmt.Errorf("%s: %w", soakVariable, err)
		}
	}
	if err := tools.Check(services.Needs()...); err != nil {
		return err
	}
	o.Work = filepath.Join(o.Work, "soak")
	m, err := makeServices(ctx, out, o)
	if err != nil {
		return err
	}
	for _, hardened := range []bool{false, true} {
		if err := soakBox(ctx, out, fother, m, o.Work, hardened, long); err != nil {
			return err
		}
	}
	return nil
}

// soak is one box under load.
type soak struct {
	*madeServices
	out    io.Writer
	fother string
	box    *services.Box
	random *rand.Rand
	counts map[string]int
	faults []string
}

// soakBox boots a box and soaks it.
func soakBox(ctx context.Context, out io.Writer, fother string, m *madeServices, work string, hardened bool, long time.Duration) (err error) {
	dir := filepath.Join(work, "box")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	box, err := services.Boot(ctx, services.BoxOptions{Dir: dir, Base: m.base, Replace: m.replace, Hardened: hardened})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Stop()) }()
	seed := uint64(time.Now().UnixNano())
	fmt.Fprintf(out, "soak: hardened units %v, %v, seed %d\n", hardened, long, seed)
	s := &soak{madeServices: m, out: out, fother: fother, box: box, random: rand.New(rand.NewPCG(seed, 0)), counts: map[string]int{}}
	if err := s.underLoad(ctx, func() { s.sleep(ctx, 3*time.Second) }); err != nil {
		return err
	}
	before, err := s.rest(ctx)
	if err != nil {
		return err
	}
	err = s.underLoad(ctx, func() {
		for end := time.Now().Add(long); ctx.Err() == nil && time.Now().Before(end); {
			s.turn(ctx)
		}
		s.clearAll(ctx)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "soak: operations:\n%s\n", s)
	s.enough()
	after, err := s.rest(ctx)
	if err != nil {
		return err
	}
	s.compare(before, after)
	if len(s.faults) > 0 {
		return fmt.Errorf("soak: %d faults:\n%s", len(s.faults), strings.Join(s.faults, "\n"))
	}
	return nil
}

func (s *soak) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// fault notes what must not be.
func (s *soak) fault(format string, args ...any) {
	text := time.Now().Format(time.TimeOnly) + " " + fmt.Sprintf(format, args...)
	fmt.Fprintln(s.out, "soak: FAULT:", text)
	s.faults = append(s.faults, text)
}

// String lists how often what was done with which outcome.
func (s *soak) String() string {
	var all []string
	for what, n := range s.counts {
		all = append(all, fmt.Sprintf("%7d %s", n, what))
	}
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(a[8:], b[8:]) })
	return strings.Join(all, "\n")
}

// enough notes if it was too short to have shown anything.
func (s *soak) enough() {
	for _, v := range services.All {
		for _, what := range []string{": level", ": revert"} {
			done := 0
			for key, n := range s.counts {
				if strings.HasPrefix(key, v.Package.Name+what) && strings.HasSuffix(key, ": done") {
					done += n
				}
			}
			if done == 0 {
				s.fault("%s%s: none was done", v.Package.Name, what)
			}
		}
	}
}

// underLoad does something while all services are busy. No request may fail.
func (s *soak) underLoad(ctx context.Context, do func()) error {
	loads := map[string]*load.Load{}
	for _, v := range services.All {
		l, err := s.box.Load(v, 12)
		if err != nil {
			return err
		}
		loads[v.Unit] = l
	}
	do()
	for _, v := range services.All {
		st, err := loads[v.Unit].Stop()
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "soak: %s: %d requests in %v, %d failed, the longest took %v\n",
			v.Unit, st.Requests, st.Elapsed.Round(time.Millisecond), st.Failed, st.Longest.Round(time.Microsecond))
		if st.Failed > 0 || st.Requests == 0 {
			s.fault("%s: %d of %d requests failed, the first: %s", v.Unit, st.Failed, st.Requests, st.First)
		}
	}
	return ctx.Err()
}

// quiet is how long a server may keep a connection that the other side has
// closed.
const quiet = 6 * time.Second

// rest returns what must not have grown, when no one asks anything.
func (s *soak) rest(ctx context.Context) (map[int]*processRest, error) {
	s.sleep(ctx, quiet)
	all := map[int]*processRest{}
	for _, v := range services.All {
		pids, err := s.box.PIDs(v.Unit)
		if err != nil {
			return nil, err
		}
		for _, pid := range pids {
			if all[pid], err = restOf(pid); err != nil {
				return nil, err
			}
			all[pid].unit = v.Unit
		}
	}
	return all, ctx.Err()
}

// clearAll takes all patches out of all processes, and their memory. It does so
// under load: a process that waits for its next request may do that in new code,
// and then has to keep it.
func (s *soak) clearAll(ctx context.Context) {
	for _, v := range services.All {
		pids, err := s.box.PIDs(v.Unit)
		if err != nil {
			s.fault("%s: %v", v.Unit, err)
		}
		for _, pid := range pids {
			if err := s.clear(ctx, v, pid); err != nil {
				s.fault("%s: %v", v.Unit, err)
			}
		}
	}
}

// clear takes all patches out of one process, and their memory. The record of one
// that was reverted at the end of its trial stays, to tell that it was rejected,
// until the patch is applied again.
func (s *soak) clear(ctx context.Context, v services.Service, pid int) error {
	var left string
	for range 20 {
		r := s.run(ctx, pid, 0, "unpatch", "--wait", "10s")
		p, err := s.info(ctx, pid)
		if err != nil {
			return err
		}
		left = fmt.Sprintf("%s; %s %+v", strings.TrimSpace(r.stderr), r.stdout, p.Applied)
		if len(p.Applied) == 0 {
			return nil
		}
		for _, a := range p.Applied {
			if a.State == "retired" && a.Stays != "" {
				s.note(pid, v.Package.Name+": rejected, applied again", s.run(ctx, pid, 0, "patch", "--wait", "10s", s.folderOf(v, a.PatchID)))
			}
		}
		s.sleep(ctx, 100*time.Millisecond)
	}
	s.fault("process %d: patches are left: %s", pid, left)
	return nil
}

// folderOf returns the folder of a patch.
func (s *soak) folderOf(v services.Service, id specs.PatchID) string {
	for _, p := range append(slices.Clone(v.Libraries), v.Package) {
		for _, f := range append(slices.Clone(p.Levels), p.More...) {
			if s.ids[p.Name] == id.BuildID && f.Series == id.Series && f.Level == id.Level {
				return s.patches[f.Name]
			}
		}
	}
	return ""
}

// compare notes what was lost and what has grown.
func (s *soak) compare(before, after map[int]*processRest) {
	for pid, was := range before {
		is := after[pid]
		if is == nil {
			s.fault("%s: process %d is gone", was.unit, pid)
			continue
		}
		fmt.Fprintf(s.out, "soak: %s, process %d: %v, and %v before\n", was.unit, pid, is, was)
		for _, f := range is.grown(was) {
			s.fault("%s, process %d: %s", was.unit, pid, f)
		}
	}
	for pid, is := range after {
		if before[pid] == nil {
			s.fault("%s: process %d is new", is.unit, pid)
		}
	}
}

// toolRun is what one run of the tool came to.
type toolRun struct {
	exit           int // -1: it was killed
	stdout, stderr string
}

// run runs the tool for one process. With a time it is killed then.
func (s *soak) run(ctx context.Context, pid int, kill time.Duration, verb string, args ...string) toolRun {
	cmd := exec.CommandContext(ctx, s.fother, append([]string{verb, "--json", "-p", fmt.Sprint(pid)}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return toolRun{exit: 1, stderr: err.Error()}
	}
	if kill > 0 {
		time.AfterFunc(kill, func() { _ = cmd.Process.Kill() })
	}
	err := cmd.Wait()
	r := toolRun{stdout: stdout.String(), stderr: stderr.String()}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		r.exit = exit.ExitCode()
	} else if err != nil {
		r.exit, r.stderr = 1, err.Error()
	}
	return r
}
