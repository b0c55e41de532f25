package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
)

// messages are all errors of a report.
func messages(r *Report) []string {
	var all []string
	for f := range r.Failures() {
		all = append(all, f.Message)
	}
	return all
}

// expect compares the errors of a report with wanted parts, in order.
func expect(t *testing.T, r *Report, want ...string) {
	t.Helper()
	got := messages(r)
	if len(got) != len(want) {
		t.Errorf("errors %q: want %q", got, want)
		return
	}
	for i := range got {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("error %q: want %q", got[i], want[i])
		}
	}
}

func patched(m machine, pid int, want ...specs.PatchID) error {
	if got := m[pid].applied; !slices.Equal(sortedIDs(got), sortedIDs(want)) {
		return fmt.Errorf("process %d has %v: want %v", pid, got, want)
	}
	return nil
}

func TestNothingFits(t *testing.T) {
	m, s := machine{7: {ids: []specs.BuildID{idA}}, 9: {}}, &store{}
	s.publish(t, "fix", "default", 1, idB)
	r := pass(t, m, s)
	expect(t, r)
	if r.Scanned != 2 || r.BuildIDs != 1 || len(r.Releases)+len(r.Processes)+len(s.fetched) != 0 {
		t.Errorf("%+v, fetched %v", r, s.fetched)
	}
}

func TestHighestLevelOfEachSeries(t *testing.T) {
	m, s := machine{
		7: {ids: []specs.BuildID{idA, idB}},
		8: {ids: []specs.BuildID{idA}, applied: []specs.PatchID{{BuildID: idA, Series: "default", Level: 1}}},
		9: {ids: []specs.BuildID{idB}, applied: []specs.PatchID{{BuildID: idB, Series: "default", Level: 3}}},
	}, &store{}
	s.publish(t, "fix", "default", 1, idA, idB)
	s.publish(t, "fix", "default", 2, idA)
	s.publish(t, "other", "extra", 5, idA)
	r := pass(t, m, s)
	expect(t, r)
	a2, a5 := specs.PatchID{BuildID: idA, Series: "default", Level: 2}, specs.PatchID{BuildID: idA, Series: "extra", Level: 5}
	b1, b3 := specs.PatchID{BuildID: idB, Series: "default", Level: 1}, specs.PatchID{BuildID: idB, Series: "default", Level: 3}
	for _, err := range []error{patched(m, 7, a2, a5, b1), patched(m, 8, a2, a5), patched(m, 9, b3)} {
		if err != nil {
			t.Error(err)
		}
	}
	if want := []string{"fix-1.kpatch.tar.zst", "fix-2.kpatch.tar.zst", "other-5.kpatch.tar.zst"}; !slices.Equal(s.fetched, want) {
		t.Errorf("fetched %v: want %v", s.fetched, want)
	}
	if !slices.Equal(r.Processes[2].Present, []specs.PatchID{b1}) || len(r.Processes[0].Steps) != 3 {
		t.Errorf("%+v", r.Processes)
	}
	if rel := r.Releases[0]; rel.Level != 1 || rel.Processes != 2 || rel.Lacking != 1 || !slices.Equal(rel.BuildIDs, []specs.BuildID{idB}) {
		t.Errorf("%+v", rel)
	}

	// The second pass finds everything there, and fetches nothing.
	s.fetched = nil
	r = pass(t, m, s)
	expect(t, r)
	if len(s.fetched) != 0 || m[7].commits != 3 || len(r.Processes) != 3 || len(r.Processes[0].Steps) != 0 {
		t.Errorf("second pass: fetched %v, %+v", s.fetched, r.Processes[0])
	}
}

func TestOneCommitForAllTargetsOfABundle(t *testing.T) {
	m, s := machine{7: {ids: []specs.BuildID{idB, idA}}}, &store{}
	s.publish(t, "fix", "default", 1, idA, idB, idC)
	r := pass(t, m, s)
	expect(t, r)
	if m[7].commits != 1 || len(m[7].applied) != 2 {
		t.Errorf("%d commits, %v", m[7].commits, m[7].applied)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	m, s := machine{7: {ids: []specs.BuildID{idA}}}, &store{}
	s.publish(t, "fix", "default", 1, idA)
	r := pass(t, m, s, func(o *Options) { o.DryRun = true })
	expect(t, r)
	if len(m[7].applied) != 0 || len(r.Processes) != 1 || len(r.Processes[0].Steps) != 1 || len(r.Processes[0].Steps[0].Apply) != 1 {
		t.Errorf("%v, %+v", m[7].applied, r.Processes)
	}
}

func TestOneProcessDoesNotHinderTheOthers(t *testing.T) {
	busy := &apply.BusyError{Threads: []apply.Inside{{TID: 8, Name: "worker", Function: "loop", Object: "/bin/prog"}}}
	ids := []specs.BuildID{idA}
	m, s := machine{
		3:  {ids: ids, read: apply.ErrGone},
		4:  {ids: ids, read: apply.ErrPermission},
		5:  {ids: ids, read: errors.New("odd")},
		6:  {ids: ids, apply: apply.ErrGone},
		7:  {ids: ids, apply: &apply.NoFitError{}}, // executed another program
		8:  {ids: ids, apply: busy},
		9:  {ids: ids, apply: apply.ErrAlreadyApplied}, // by another run
		10: {ids: ids},
	}, &store{}
	s.publish(t, "fix", "default", 1, idA)
	r := pass(t, m, s)
	expect(t, r, "process 5: odd", "fix-1.kpatch.tar.zst: busy for 0s in 0 tries: thread 8 (worker) is in loop")
	if m[10].commits != 1 || r.Denied != 1 || r.Gone != 2 || r.Scanned != 5 {
		t.Errorf("%d commits, %+v", m[10].commits, r)
	}
	if len(r.Processes) != 3 || len(r.Processes[0].Errors) != 1 || len(r.Processes[0].Errors[0].Threads) != 1 || !errors.As(r.Processes[0].Errors[0].Err, &busy) {
		t.Errorf("%+v", r.Processes)
	}
	if p := r.Processes[1]; p.PID != 9 || len(p.Present) != 1 || len(p.Steps) != 0 {
		t.Errorf("%+v", p)
	}
	// Where nothing may be traced a pass that says nothing would mislead.
	expect(t, pass(t, machine{3: {read: apply.ErrGone}, 4: {read: apply.ErrPermission}}, s), "not one of 1 processes can be looked at")
	// Asked for by name, a process that is not there is an error.
	expect(t, pass(t, m, s, func(o *Options) { o.PIDs = []int{3, 4} }), "process 3: ", "process 4: ")
}

func TestOneBundleDoesNotHinderTheOthers(t *testing.T) {
	m, s := machine{7: {ids: []specs.BuildID{idA, idB, idC}}}, &store{}
	s.list("junk", "s1", 1, []byte("junk"), idA)
	s.list("name", "s2", 1, bundleOf(t, "another", "s2", 1, idA), idA)
	s.list("series", "s3", 1, bundleOf(t, "series", "s4", 1, idA), idA)
	s.list("level", "s5", 2, bundleOf(t, "level", "s5", 1, idA), idA)
	s.list("target", "s6", 1, bundleOf(t, "target", "s6", 1, idA), idB)
	s.list("missing", "s7", 1, nil, idC)
	clear(s.bundles[s.entries[len(s.entries)-1].Path])
	delete(s.bundles, s.entries[len(s.entries)-1].Path)
	s.publish(t, "well", "s8", 1, idB)
	r := pass(t, m, s)
	expect(t, r,
		"junk-1.kpatch.tar.zst: not a bundle",
		"level-2.kpatch.tar.zst: is series s5, level 1: the registry lists it as series s5, level 2",
		"missing-1.kpatch.tar.zst: registry https://patches.example: not found",
		`name-1.kpatch.tar.zst: is a bundle of "another": the registry lists it for "name"`,
		"series-1.kpatch.tar.zst: is series s4, level 1",
		"target-1.kpatch.tar.zst: holds no patch for build-id "+string(idB),
	)
	if err := patched(m, 7, specs.PatchID{BuildID: idB, Series: "s8", Level: 1}); err != nil {
		t.Error(err)
	}
}

func TestContradictionsAreNotTaken(t *testing.T) {
	m, s := machine{7: {ids: []specs.BuildID{idA, idB}}}, &store{}
	s.publish(t, "one", "default", 1, idA, idB)
	s.publish(t, "two", "default", 2, idA)
	s.publish(t, "one", "extra", 1, idB)
	s.list("one", "extra", 1, []byte("other bytes"), idB)
	r := pass(t, m, s)
	expect(t, r,
		"registry https://patches.example: build-id "+string(idA)+", series default: is claimed by two packages",
		"build-id "+string(idB)+", series extra: two bundles have the same level",
	)
	if err := patched(m, 7, specs.PatchID{BuildID: idB, Series: "default", Level: 1}); err != nil {
		t.Error(err)
	}
	_, _, errs := choose([]registry.Entry{{BuildID: idC, Series: "default", Level: 1, File: "f"}, {BuildID: idA, Series: "../x", Level: 1}, {BuildID: idA, Series: "x"}}, []specs.BuildID{idA})
	if len(errs) != 3 {
		t.Errorf("%v", errs)
	}
}

func TestRegistryDown(t *testing.T) {
	m, s := machine{7: {ids: []specs.BuildID{idA}}}, &store{update: errors.New("connection refused")}
	s.publish(t, "fix", "default", 1, idA)
	r := pass(t, m, s)
	expect(t, r, "registry https://patches.example: connection refused")
	if m[7].commits != 1 {
		t.Error("what is known was not applied")
	}
	// What the registry can tell of one part of its index holds without others.
	m = machine{7: {ids: []specs.BuildID{idA, idB}}}
	s.publish(t, "fix", "default", 1, idB)
	s.lookup, s.unknown = errors.New("503"), []specs.BuildID{idB}
	r = pass(t, m, s)
	expect(t, r, "connection refused", "503")
	if err := patched(m, 7, specs.PatchID{BuildID: idA, Series: "default", Level: 1}); err != nil || s.pruned != 1 {
		t.Errorf("%v, pruned %d times: want it where all was told only", err, s.pruned)
	}
	s.lookup, s.unknown = errors.New("expired"), []specs.BuildID{idA}
	r = pass(t, machine{7: {ids: []specs.BuildID{idA}}}, s)
	expect(t, r, "connection refused", "registry https://patches.example: expired")
}

func TestListedInPart(t *testing.T) {
	s := &store{lookup: errors.New("503")}
	data := s.publish(t, "fix", "default", 1, idA)
	b, err := bundle.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if es, err := Listed(t.Context(), s, data, b.Patches); len(es) != 1 || !errors.Is(err, s.lookup) {
		t.Errorf("%v, %v", es, err)
	}
}

func TestSilentProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		m, s := machine{1000: {ids: []specs.BuildID{idA}}, 1001: {hang: hang}}, &store{}
		for pid := range 100 {
			m[pid] = &proc{uid: 42, hang: hang}
		}
		s.publish(t, "fix", "default", 1, idA)
		start := time.Now()
		r := pass(t, m, s)
		expect(t, r, "process 1001: ", "process 0: the process does not answer for 5s", "process 1: ", "process 2: ",
			"process 3: the process does not answer for 5s; the other processes of user 42 are left out")
		if took := time.Since(start); took != 5*ReadLimit || m[1000].commits != 1 || r.LeftOut != 96 {
			t.Errorf("took %v, %d commits, %d left out", took, m[1000].commits, r.LeftOut)
		}
		close(hang)
	})
}

// TestOneUserCannotHoldTheOthers holds that one user's time is bounded over all
// phases, and that root's processes come first in each.
func TestOneUserCannotHoldTheOthers(t *testing.T) {
	ids := []specs.BuildID{idA}
	for name, test := range map[string]struct {
		stall func(p *proc, never chan struct{})
		root  time.Duration // until root's process is patched, at most
		all   time.Duration // until the end, at most
	}{
		"read":  {func(p *proc, never chan struct{}) { p.later = never }, 4 * ReadLimit, 4 * ReadLimit},
		"apply": {func(p *proc, never chan struct{}) { p.stick = never }, 0, 3 * time.Minute},
		"busy":  {func(p *proc, _ chan struct{}) { p.busy = 2 * time.Second }, 0, userBudget + 22*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				never := make(chan struct{})
				m, s := machine{1000: {ids: ids}, 1001: {uid: 43, ids: ids}}, &store{}
				for pid := range 400 {
					m[pid] = &proc{uid: 42, ids: ids}
					test.stall(m[pid], never)
				}
				s.publish(t, "fix", "default", 1, idA)
				start := time.Now()
				r := pass(t, m, s, func(o *Options) { o.Wait = 2 * time.Second })
				if took := time.Since(start); took > test.all || m[1000].when.Sub(start) > test.root || m[1000].commits+m[1001].commits != 2 {
					t.Errorf("took %v, root's process %v; %d and %d commits", took, m[1000].when.Sub(start), m[1000].commits, m[1001].commits)
				}
				told := messages(r)
				all := strings.Join(told, "\n")
				if n := strings.Count(all, "left out"); n != 1 || !strings.Contains(all, "of user 42") || r.LeftOut+len(told) < 400 {
					t.Errorf("%d left out, told %d times: %s", r.LeftOut, n, all)
				}
				close(never)
			})
		})
	}
}

func TestProcessThatApplyDoesNotReturnFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stick := make(chan struct{})
		m, s := machine{7: {ids: []specs.BuildID{idA}, stick: stick}, 8: {ids: []specs.BuildID{idA}}}, &store{}
		s.publish(t, "fix", "default", 1, idA)
		s.publish(t, "fix", "extra", 1, idA)
		r := pass(t, m, s, func(o *Options) { o.Wait = -1 })
		expect(t, r, "fix-1.kpatch.tar.zst: the process does not answer for 1m10s")
		close(stick)
		synctest.Wait()
		if m[7].commits != 1 || m[8].commits != 2 {
			t.Errorf("%d commits, though one did not end: %d to the other", m[7].commits, m[8].commits)
		}
	})
}

func TestManyBuildIDs(t *testing.T) {
	all := []found{{pid: 1}, {pid: 2, ids: []specs.BuildID{idC}}}
	for i := range maxBuildIDs + 5 {
		all[0].ids = append(all[0].ids, specs.BuildID(fmt.Sprintf("%040x", i)))
	}
	p := newPull(Options{}, machine{})
	ids := p.buildIDs(all)
	if len(ids) != maxBuildIDs || !slices.Contains(ids, idC) || !slices.IsSorted(ids) {
		t.Errorf("%d build-ids, that of the other's executable among them: %v", len(ids), slices.Contains(ids, idC))
	}
	expect(t, p.report, "different build-ids run here: only 16384 were looked at")
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m, s := machine{7: {ids: []specs.BuildID{idA}}}, &store{}
	s.publish(t, "fix", "default", 1, idA)
	r, err := newPull(Options{Registry: s}, m).run(ctx)
	if err != nil || m[7].commits != 0 {
		t.Errorf("%v, %d commits", err, m[7].commits)
	}
	expect(t, r, "interrupted")
}

func TestReportIsStable(t *testing.T) {
	report := func() string {
		m, s := machine{}, &store{}
		for pid := range 20 {
			m[pid] = &proc{ids: []specs.BuildID{idB, idA, idC}}
		}
		for _, series := range []specs.Series{"c", "a", "b"} {
			s.publish(t, "p"+string(series), series, 1, idA, idC, idB)
		}
		r := pass(t, m, s)
		r.Time, r.Wall = time.Time{}, 0
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := report()
	for range 5 {
		if again := report(); again != first {
			t.Fatalf("%s\n%s", first, again)
		}
	}
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := Pull(t.Context(), Options{Registry: &store{}, State: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("second pass: %v", err)
	}
	unlock()
	unlock, err = lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	var private *PrivateError
	os.Chmod(dir, 0o777)
	if _, err := lock(dir); !errors.As(err, &private) {
		t.Errorf("folder that all can write: %v", err)
	}
	os.Chmod(dir, 0o700)
	if os.Getuid() == 0 {
		os.Chown(dir, 65534, 0)
		if _, err := lock(dir); !errors.As(err, &private) {
			t.Errorf("folder of another: %v", err)
		}
	}
	if _, err := lock(""); err == nil {
		t.Error("no folder is one")
	}
}

// BenchmarkPass is a pass with nothing to do on a host of a thousand processes
// with a hundred libraries each.
func BenchmarkPass(b *testing.B) {
	m, s := machine{}, &store{}
	for pid := range 1000 {
		p := &proc{}
		for i := range 100 {
			p.ids = append(p.ids, specs.BuildID(fmt.Sprintf("%040x", pid%50*100+i)))
		}
		m[pid] = p
	}
	for b.Loop() {
		if _, err := newPull(Options{Registry: s}, m).run(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
