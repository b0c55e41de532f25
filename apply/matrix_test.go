package apply

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs/testenv"
)

// TestKillMatrix kills the tool at the entry or the exit of a call by which it
// touches its target. Whichever it is, the target lives, and is wholly as it was
// or wholly as it was to be; the next run brings it to the end; and a revert
// leaves nothing. The hooks of the patches, one of each kind, see that each of them
// runs that has to. With FOTHER_LONG=1 all calls have their turn (see full).
func TestKillMatrix(t *testing.T) {
	threads := map[string][]string{
		"1 that waits":    nil,
		"1 that computes": {"alone"},
		"16": {"together", "together", "vectors", "sleep", "sleep", "sleep", "poll", "poll", "poll",
			"futex", "futex", "futex", "wait", "read", "read"},
	}
	for _, name := range []string{"1 that waits", "1 that computes", "16"} {
		for _, op := range matrixOperations {
			t.Run(op.name+" "+name, func(t *testing.T) {
				m := newMatrix(t, op, threads[name])
				if testenv.Long() {
					m.full()
				} else {
					m.sample()
				}
			})
		}
	}
	for _, op := range matrixOperations { // with the sleeping threads parked
		if op.from > 0 && !testenv.Long() {
			continue
		}
		t.Run(op.name+" 16 parked", func(t *testing.T) {
			t.Setenv("APPLY_TEST_PARK", "1")
			if m := newMatrix(t, op, threads["16"]); testenv.Long() {
				m.full()
			} else {
				m.sample()
			}
		})
	}
}

// matrixOperation is what the tool does when it is killed. Levels are those of
// matrixPatch, 0 for none.
type matrixOperation struct {
	name     string
	from, to int
	count    bool // calls of what is applied
}

var matrixOperations = []matrixOperation{
	{"apply", 0, 1, false},
	{"replace", 1, 2, true},
	{"revert", 1, 0, false},
}

type matrix struct {
	t       *testing.T
	op      matrixOperation
	r       *running
	working bool // some thread calls the functions all the while
	pure    memoryState
	threads int
	patches map[int]*kpack.Patch
	env     []string
	random  *rand.Rand
	kills   []tracedCall
	// old and new count how the target was found.
	old, new int
}

func newMatrix(t *testing.T, op matrixOperation, kinds []string) *matrix {
	seed := uint64(time.Now().UnixNano())
	m := &matrix{t: t, op: op, r: start(t, matrixProgram(t), kinds...), working: len(kinds) > 0, random: rand.New(rand.NewPCG(seed, 0))}
	m.pure, m.threads = m.r.snapshot(), tasks(t, m.r.pid)
	m.patches = map[int]*kpack.Patch{1: matrixPatch(t, 1), 2: matrixPatch(t, 2)}
	path := ""
	if op.to > 0 {
		path = encoded(t, m.patches[op.to])
	}
	m.env = toolEnv("quiet", m.r.pid, path)
	if op.count {
		m.env = append(m.env, "APPLY_TEST_COUNT=1")
	}
	m.begin()
	return m
}

// begin brings the target to the state in which the tool finds it.
func (m *matrix) begin() {
	m.t.Helper()
	if m.op.from > 0 {
		applyTo(m.t, m.r.pid, m.patches[m.op.from])
	}
	m.r.expect("all", matrixAnswers[m.op.from])
	m.r.expect("hooked", hookedAfter(m.op.from))
}

// full kills at the first call of each phase, at the second, and so on until a
// run ends by itself. With FOTHER_MATRIX_STEP=n it is every nth of them only, and
// the test says so: for machines on which all would take too long.
func (m *matrix) full() {
	step := 1
	if s := os.Getenv("FOTHER_MATRIX_STEP"); s != "" {
		var err error
		if step, err = strconv.Atoi(s); err != nil || step < 1 {
			m.t.Fatalf("FOTHER_MATRIX_STEP=%s: it is to be a number above 0", s)
		}
		m.t.Logf("only every call in %d is a moment to be killed at", step)
	}
	var last *toolTrace
	for _, phase := range phases {
		for n := 1; n == 1 || last.killed; n += step {
			last = m.kill(moment{phase, n})
		}
	}
	m.report(last)
}

// sample kills at some calls of each phase. Which they are differs from run to
// run a little: the tool polls.
func (m *matrix) sample() {
	whole := m.kill(moment{})
	calls, _ := perPhase(whole.calls)
	for _, phase := range phases {
		n := map[string]int{"write": 4, "hooks": 2}[phase]
		for range max(1, n) {
			m.kill(moment{phase, 1 + m.random.IntN(max(1, calls[phase]))})
		}
		m.kill(moment{phase, 1}) // which there is in any run
	}
	m.report(whole)
}

// report prints what was done. A phase that was never in it would be one that is
// not tested.
func (m *matrix) report(whole *toolTrace) {
	_, all := perPhase(whole.calls)
	n, killed := perPhase(m.kills)
	m.t.Logf("calls: %s; killed: %s; then %d times old, %d times new", all, killed, m.old, m.new)
	for _, p := range phases {
		if n[p] == 0 {
			m.t.Errorf("never killed in phase %s", p)
		}
	}
	if m.old == 0 || m.new == 0 {
		m.t.Errorf("%d times old, %d times new", m.old, m.new)
	}
}

// kill runs the tool, kills it at some moment and looks at what it left.
func (m *matrix) kill(at moment) *toolTrace {
	m.t.Helper()
	run := traceTool(m.t, at, m.env...)
	if run.killed {
		at := run.calls[len(run.calls)-1]
		m.kills = append(m.kills, at)
		m.checkLeft(at)
		// What comes next may be killed too.
		if at.phase == "write" && m.random.IntN(2) == 0 {
			again := traceTool(m.t, moment{n: 1 + m.random.IntN(len(run.calls)+20)}, m.env...)
			if again.killed {
				m.checkLeft(again.calls[len(again.calls)-1])
			}
		}
	}
	m.finish(run)
	return run
}

// checkLeft checks that the target lives and is of one version.
func (m *matrix) checkLeft(at tracedCall) {
	m.t.Helper()
	answer := m.r.ask("all")
	switch answer {
	case matrixAnswers[m.op.from]:
		m.old++
	case matrixAnswers[m.op.to]:
		m.new++
	default:
		m.t.Fatalf("killed at %v: the answer is %s", at, answer)
	}
	m.alive(at)
	if again := m.r.ask("all"); again != answer {
		m.t.Fatalf("killed at %v: the answer was %s and is %s", at, answer, again)
	}
}

// alive waits until the threads go on.
func (m *matrix) alive(at tracedCall) {
	m.t.Helper()
	tids, err := ptrace.Threads(m.r.pid)
	if err != nil {
		m.t.Fatal(err)
	}
	well := 0
	for _, tid := range tids {
		switch s := ptrace.State(m.r.pid, tid); {
		case strings.Contains("RSD", s):
			well++
		case !strings.Contains("XZ", s): // the end of a hook's thread
			m.t.Fatalf("killed at %v: thread %d is in state %s", at, tid, s)
		}
	}
	if well < m.threads {
		m.t.Fatalf("killed at %v: %d threads of %d", at, well, m.threads)
	}
	if !m.working {
		return
	}
	before := m.r.ask("rounds")
	for end := time.Now().Add(10 * time.Second); m.r.ask("rounds") == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("killed at %v: nothing goes on", at)
		}
	}
}

// finish does what the tool was to do, reverts everything, and begins anew.
func (m *matrix) finish(run *toolTrace) {
	m.t.Helper()
	var err error
	o := Options{Wait: time.Minute, Count: m.op.count}
	if m.op.to > 0 {
		_, err = Apply(context.Background(), m.r.pid, []*kpack.Patch{m.patches[m.op.to]}, o)
	} else {
		_, err = Revert(context.Background(), m.r.pid, nil, o)
	}
	if err != nil && !errors.Is(err, ErrAlreadyApplied) && !errors.Is(err, ErrNotApplied) {
		m.t.Fatalf("after %v: %v", m.last(run), err)
	}
	m.r.expect("all", matrixAnswers[m.op.to])
	m.r.expect("hooked", hookedAfter(m.op.to))
	if m.op.to > 0 {
		revertAll(m.t, m.r.pid)
	}
	m.r.expect("all", matrixAnswers[0])
	m.r.expect("hooked", "0")
	if n := tasks(m.t, m.r.pid); n != m.threads {
		m.t.Errorf("%d threads, and %d before", n, m.threads)
	}
	freeKept(m.t, m.r, "wipe")
	m.pure.same(m.t, m.r.snapshot())
	if m.t.Failed() {
		m.t.Fatalf("after %v", m.last(run))
	}
	m.begin()
}

// last tells where a run was killed, and which calls went before.
func (m *matrix) last(run *toolTrace) []tracedCall {
	calls := slices.Clone(run.calls)
	return calls[max(0, len(calls)-5):]
}
