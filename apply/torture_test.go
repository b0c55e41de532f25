package apply

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// TestTorture applies and reverts at random what there is of patches, in all ways
// that there are, to a program that makes it hard. Whatever happens, the program
// checks its answers, and in the end nothing is lost and nothing has grown. With
// FOTHER_LONG=1 it takes FOTHER_TORTURE, or two minutes, and then again in a
// sandbox.
func TestTorture(t *testing.T) {
	for _, sandboxed := range []bool{false, true} {
		if !sandboxed || testenv.Long() {
			t.Run(fmt.Sprintf("sandboxed %v", sandboxed), func(t *testing.T) { torment(t, sandboxed) })
		}
	}
}

func torment(t *testing.T, sandboxed bool) {
	long := 4 * time.Second
	if testenv.Long() {
		long = 2 * time.Minute
		if s := os.Getenv("FOTHER_TORTURE"); s != "" {
			var err error
			if long, err = time.ParseDuration(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	tt := newTorture(t, sandboxed)
	before := tt.rest()
	for end := time.Now().Add(long); time.Now().Before(end); {
		tt.turn()
	}
	t.Logf("operations:\n%s", tt.counts)
	t.Logf("the program: %s", tt.r.ask("done"))
	for range 50 { // a thread may be inside all the while, or wait for its vfork
		err := tt.revert(t.Context(), nil, Options{Wait: 10 * time.Second})
		if errors.Is(err, ErrNotApplied) {
			break
		}
		busy, stuck := (*BusyError)(nil), (*StuckError)(nil)
		if err != nil && !errors.As(err, &busy) && !errors.As(err, &stuck) {
			t.Fatal(err)
		}
	}
	tt.r.expect("all", "2 11")
	tt.r.expect("rest", "11 136 2 20 2")
	if !tt.hookless {
		tt.r.expect("hooked", "0")
	}
	before.same(t, tt.rest())
}

// torture is a program that is being tortured.
type torture struct {
	t       *testing.T
	r       *running
	kinds   []string // of threads that can be parked
	random  *rand.Rand
	patches map[string][]*kpack.Patch
	files   string // for another tool
	mu      sync.Mutex
	counts  tortureCounts
	// hookless is set once a hook could not be asked or did not end: then it is not
	// known what hooks have told the program.
	hookless bool
}

func newTorture(t *testing.T, sandboxed bool) *torture {
	bin, library := tortureProgram(t)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	more := patchFor(t, bin, "more", 1, "leaf", "depth", "locked")
	plugged := patchFor(t, library, "default", 1, "plugged")
	one, two := tortureLevel(t, bin, 1), tortureLevel(t, bin, 2)
	threads := "sleep3 poll3 futex3 wait3 read3 vectors"
	if testenv.Long() {
		threads = "sleep30 poll30 futex30 wait30 read30 vectors"
	}
	kinds := tortureKinds
	if sandboxed { // in which no program can make code
		threads = "sandbox " + threads
		kinds = slices.DeleteFunc(slices.Clone(kinds), func(k string) bool { return k == "jit" })
	}
	return &torture{
		kinds: kinds,
		t:     t, random: rand.New(rand.NewPCG(seed, 0)),
		r: start(t, bin, append(strings.Fields(threads), kinds...)...),
		patches: map[string][]*kpack.Patch{
			"level 1": {one}, "level 2": {two}, "another series": {more}, "a library": {plugged},
			"hooks": {patchFor(t, bin, "hooks", 1, "tail3")}, "everything": {two, more, plugged},
		},
		files:  strings.Join([]string{encodedAs(t, "one", one), encodedAs(t, "more", more), encodedAs(t, "two", two)}, string(filepath.ListSeparator)),
		counts: tortureCounts{},
	}
}

func encodedAs(t *testing.T, name string, p *kpack.Patch) string {
	t.Helper()
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tortureCounts are how often what was done with which outcome.
type tortureCounts map[string]int

func (c tortureCounts) String() string {
	var all []string
	for what, n := range c {
		all = append(all, fmt.Sprintf("%6d %s", n, what))
	}
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(a[7:], b[7:]) })
	return strings.Join(all, "\n")
}

// turn does one thing and checks what it left.
func (tt *torture) turn() {
	ways := []string{"", "", "", "counting", "on trial", "stopped", "interrupted", "impatient", "two at once", "killed", "looked at"}
	way := ways[tt.random.IntN(len(ways))]
	names := []string{"level 1", "level 2", "another series", "a library", "hooks", "everything", "", ""} // "" is a revert
	name := names[tt.random.IntN(len(names))]
	o := Options{Wait: time.Second, Count: way == "counting"}
	if way == "on trial" {
		o.Trial = time.Hour
	}
	act := func(ctx context.Context, o Options) error { return tt.apply(ctx, name, o) }
	if name == "" {
		name = "revert"
		act = func(ctx context.Context, o Options) error { return tt.revert(ctx, tt.selectors(), o) }
	}
	what := strings.TrimSpace(name + " " + way)
	switch way {
	case "looked at":
		tt.look()
	case "killed":
		tt.kill()
	case "two at once":
		other := make(chan error, 1)
		go func() { other <- tt.apply(tt.t.Context(), "level 1", o) }()
		tt.note(what, act(tt.t.Context(), o))
		tt.note("the other of two at once", <-other)
	case "interrupted":
		ctx, cancel := context.WithTimeout(tt.t.Context(), time.Duration(tt.random.IntN(5000))*time.Microsecond)
		tt.note(what, act(ctx, o))
		cancel()
	case "impatient":
		o.Wait = -1
		tt.note(what, act(tt.t.Context(), o))
	case "stopped":
		tt.signal(unix.SIGSTOP)
		o.Wait = 20 * time.Millisecond
		tt.note(what, act(tt.t.Context(), o))
		tt.signal(unix.SIGCONT)
	default:
		tt.note(what, act(tt.t.Context(), o))
	}
	tt.check()
}

func (tt *torture) signal(s unix.Signal) {
	tt.t.Helper()
	if err := unix.Kill(tt.r.pid, s); err != nil {
		tt.t.Error(err)
	}
}

// selectors are all patches, or some.
func (tt *torture) selectors() []Selector {
	all := [][]Selector{nil, nil, {{Series: "more"}}, {{Series: "default"}}, {{BuildID: tt.patches["a library"][0].Target.BuildID}}}
	return all[tt.random.IntN(len(all))]
}

func (tt *torture) apply(ctx context.Context, name string, o Options) error {
	res, err := Apply(ctx, tt.r.pid, tt.patches[name], o)
	tt.hooks(res)
	return err
}

func (tt *torture) revert(ctx context.Context, which []Selector, o Options) error {
	res, err := Revert(ctx, tt.r.pid, which, o)
	tt.hooks(res)
	if err == nil && len(res.Kept) > 0 {
		tt.mu.Lock()
		tt.counts["memory was kept after a revert"]++
		tt.mu.Unlock()
	}
	return err
}

// hooks counts those that ran.
func (tt *torture) hooks(res *Result) {
	if res == nil {
		return
	}
	tt.mu.Lock()
	defer tt.mu.Unlock()
	for _, h := range res.Hooks {
		outcome := "done"
		if h.Why != "" {
			outcome = string(h.Cause)
			tt.hookless = true
		}
		tt.counts[fmt.Sprintf("hook %v: %s", h.Point, outcome)]++
	}
}

// note counts an outcome. Others than those that are to be expected fail the
// test.
func (tt *torture) note(what string, err error) {
	tt.t.Helper()
	busy, stuck, noFit, trial, mismatch := (*BusyError)(nil), (*StuckError)(nil), (*NoFitError)(nil), (*TrialError)(nil), (*MismatchError)(nil)
	outcome := "done"
	switch {
	case err == nil:
	case errors.Is(err, ErrAlreadyApplied), errors.Is(err, ErrNotApplied):
		outcome = "nothing to do"
	case errors.As(err, &busy):
		outcome = "busy"
	case errors.As(err, &stuck):
		outcome = "a thread did not stop"
	case errors.As(err, &noFit):
		outcome = "the library is not open"
	case errors.As(err, &trial):
		outcome = "refused: on trial"
	case errors.Is(err, context.DeadlineExceeded):
		outcome = "interrupted"
	case errors.Is(err, ErrLocked):
		outcome = "locked"
	case errors.As(err, new(*HookError)):
		outcome, tt.hookless = "a hook did not end in time", true
	case errors.Is(err, ErrStopped):
		outcome = "refused: hooks, and the process is stopped"
	case errors.As(err, new(*FilteredError)):
		outcome = "refused: a filter"
	case (errors.As(err, &mismatch) || errors.Is(err, unix.EIO)) && strings.Contains(err.Error(), "plugin.so"):
		outcome = "the library came and went"
	default:
		tt.t.Errorf("%s: %v", what, err)
		outcome = "failed"
	}
	tt.mu.Lock()
	tt.counts[what+": "+outcome]++
	tt.mu.Unlock()
}

// look does what only reads.
func (tt *torture) look() {
	p, err := Open(tt.r.pid)
	if err != nil {
		tt.t.Error(err)
		return
	}
	defer p.Close()
	p.Symbols()
	tt.counts["looked at"]++
}

// kill starts a tool of its own and kills it.
func (tt *torture) kill() {
	cmd := child(tt.t, "loop", tt.r.pid, tt.files, nil)
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		tt.t.Error(err)
		return
	}
	time.Sleep(20*time.Millisecond + time.Duration(tt.random.IntN(40000))*time.Microsecond)
	cmd.Process.Kill()
	cmd.Wait()
	outcome := "a tool was killed"
	switch text := out.String(); {
	case strings.Contains(text, "busy for"), strings.Contains(text, "does not stop"):
		outcome = "a tool gave up before it was killed"
	case text != "":
		tt.t.Errorf("the tool that is to be killed: %s", text)
	}
	tt.counts[outcome]++
}

// check asks the program for its version, which is that of the patches in it.
func (tt *torture) check() {
	tt.t.Helper()
	answer := tt.r.ask("all")
	var level specs.Level
	p, err := Open(tt.r.pid)
	if err != nil {
		tt.t.Fatal(err)
	}
	defer p.Close()
	half := false
	for _, a := range p.Applied() {
		half = half || a.State == "committing" || a.State == "leaving"
		if a.State == "applied" && a.Functions[0] == "answer" {
			level = a.Level
		}
	}
	if want := []string{"2 11", "43 9", "44 12"}; half && !slices.Contains(want, answer) || !half && answer != want[level] {
		tt.t.Errorf("level %d, half done %v: the answer is %s", level, half, answer)
	}
}

// torturePause is the state of a program whose threads stand still.
type torturePause struct {
	memory  memoryState
	files   []string
	threads int
	size    int // pages
}

// rest has all threads that come to an end of their turn stand still, and
// returns what must not grow.
func (tt *torture) rest() torturePause {
	tt.t.Helper()
	time.Sleep(500 * time.Millisecond) // what is only mapped when it is first used
	tt.r.expect(fmt.Sprintf("park %d", len(tt.kinds)+1), "parked")
	freeKept(tt.t, tt.r, "wipe")
	var p torturePause
	p.memory = tt.r.snapshot().program()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", tt.r.pid))
	if err != nil {
		tt.t.Fatal(err)
	}
	for _, e := range entries {
		p.files = append(p.files, e.Name())
	}
	p.threads = tasks(tt.t, tt.r.pid)
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", tt.r.pid)); err != nil {
		tt.t.Error(err)
	} else if _, err := fmt.Sscan(string(status), new(int), &p.size); err != nil {
		tt.t.Error(err)
	}
	tt.r.expect("go", "gone on")
	return p
}

func (p torturePause) same(t *testing.T, o torturePause) {
	t.Helper()
	p.memory.same(t, o.memory)
	if !slices.Equal(p.files, o.files) || p.threads != o.threads {
		t.Errorf("files %v and %v, threads %d and %d", p.files, o.files, p.threads, o.threads)
	}
	t.Logf("files %d, threads %d, memory %d pages, and %d before", len(o.files), o.threads, o.size, p.size)
	if o.size > 2*p.size+16<<20/os.Getpagesize() {
		t.Error("the memory has grown")
	}
}
