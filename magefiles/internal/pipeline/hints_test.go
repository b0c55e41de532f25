package pipeline

import (
	"errors"
	"fmt"
	"testing"
)

type hinted struct{ text, hint string }

func (e hinted) Error() string { return e.text }
func (e hinted) Hint() string  { return e.hint }

func TestExplain(t *testing.T) {
	if err := Explain(nil); err != nil {
		t.Errorf("nil becomes %v", err)
	}
	cause := hinted{"no gcc", "install gcc"}
	err := Explain(fmt.Errorf("build: %w", errors.Join(cause, hinted{"no cc", "install gcc"}, hinted{"bad", ""})))
	if got, want := err.Error(), "build: no gcc\nno cc\nbad\nhint: install gcc"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
}
