package testenv

import (
	"fmt"
	"runtime"
	"testing"
)

// recorder stands for a test that is going on.
type recorder struct {
	testing.TB
	said string
}

func (r *recorder) Helper()           {}
func (r *recorder) Skip(args ...any)  { r.end("skip: ", args) }
func (r *recorder) Fatal(args ...any) { r.end("fatal: ", args) }

func (r *recorder) end(how string, args []any) {
	r.said = how + fmt.Sprint(args...)
	runtime.Goexit()
}

func TestNeeds(t *testing.T) {
	for _, c := range []struct {
		ci       string
		programs []string
		want     string
	}{
		{"", []string{"go"}, "goes on"},
		{"true", []string{"go"}, "goes on"},
		{"", []string{"go", "no-such-program"}, "skip: no-such-program is not installed"},
		{"true", []string{"go", "no-such-program"}, "fatal: nothing may be missing in CI: no-such-program is not installed"},
	} {
		t.Setenv("CI", c.ci)
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			Needs(r, c.programs...)
			r.said = "goes on"
		}()
		if <-done; r.said != c.want {
			t.Errorf("CI=%q, %v: %q, want %q", c.ci, c.programs, r.said, c.want)
		}
	}
}
