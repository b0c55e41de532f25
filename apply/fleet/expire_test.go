package fleet

import (
	"testing"
	"time"

	"github.com/fother/fother/specs"
)

// TestExpire: a pass ends the trials that are over, tells of those that it
// cannot, and does not put in again what was rejected.
func TestExpire(t *testing.T) {
	var s store
	s.publish(t, "first", "default", 1, idA)
	id := specs.PatchID{BuildID: idA, Series: "default", Level: 1}
	over := func() *proc { return &proc{ids: []specs.BuildID{idA}, applied: []specs.PatchID{id}, trialOver: true} }
	m := machine{10: over(), 11: over(), 12: {ids: []specs.BuildID{idA}}}
	m[11].busy = time.Millisecond
	r := pass(t, m, &s, func(o *Options) { o.DryRun = true })
	if len(r.Expired) != 2 || !m[10].trialOver {
		t.Errorf("dry run: %+v", r.Expired)
	}
	r = pass(t, m, &s)
	if len(r.Expired) != 1 || r.Expired[0].PID != 10 || r.Expired[0].Result == nil || len(r.Errors) != 1 {
		t.Errorf("expired %+v, errors %+v", r.Expired, r.Errors)
	}
	if m[10].commits != 0 || m[11].commits != 0 || m[12].commits != 1 {
		t.Errorf("commits: %d, %d, %d", m[10].commits, m[11].commits, m[12].commits)
	}
	if p := r.Processes[0]; p.PID != 10 || len(p.Rejected) != 1 || len(p.Present) != 0 || r.Releases[0].Lacking != 1 {
		t.Errorf("%+v, %+v", p, r.Releases[0])
	}
	s.publish(t, "first", "default", 2, idA)
	if pass(t, m, &s); m[10].commits != 1 {
		t.Error("a higher level was not applied")
	}
}
