package apply

import (
	"errors"
	"testing"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
)

// TestAwaitCallEnds: a program that does not come to where it is to wait is not
// waited for without end, nor one that has ended.
func TestAwaitCallEnds(t *testing.T) {
	r := start(t, pie(t))
	mem, err := ptrace.OpenMem(r.pid, false)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	if err := awaitCall(t.Context(), r.pid, mem, 1, 50*time.Millisecond); !errors.Is(err, ErrDiverted) {
		t.Errorf("%v: want %v", err, ErrDiverted)
	}
	if err := awaitCall(t.Context(), 1<<22, mem, 1, time.Hour); !errors.Is(err, ErrGone) {
		t.Errorf("%v: want %v", err, ErrGone)
	}
}
