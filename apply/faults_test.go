package apply

import (
	"fmt"
	"testing"

	"github.com/fother/fother/specs/testenv"
)

// TestWritesFail has the kernel refuse one write to the target's memory, or all
// from one on. The target is wholly old or wholly new, and the next run, which may
// write, brings it to the end. With FOTHER_LONG=1 all writes have their turn.
func TestWritesFail(t *testing.T) {
	for _, op := range matrixOperations {
		for _, all := range []bool{false, true} {
			if !testenv.Long() && (op.name != "replace" || !all) {
				continue
			}
			t.Run(fmt.Sprintf("%s, all %v", op.name, all), func(t *testing.T) {
				m := newMatrix(t, op, []string{"together", "sleep"})
				n, failed := 1, 0
				for {
					run := traceToolAs(t, &toolTrace{failAt: n, failAll: all}, m.env...)
					if !run.failed {
						break
					}
					failed++
					t.Logf("write %d: %s", n, run.out)
					if all && run.out == "" {
						t.Errorf("write %d failed, and all that came: no word of it", n)
					}
					m.checkLeft(run.calls[len(run.calls)-1])
					m.finish(run)
					if n++; !testenv.Long() {
						n += m.random.IntN(8)
					}
				}
				t.Logf("%d times a write failed; then %d times old, %d times new", failed, m.old, m.new)
				if failed == 0 || m.old+m.new != failed {
					t.Error("nothing was tried")
				}
			})
		}
	}
}
