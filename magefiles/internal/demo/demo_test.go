package demo

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fother/fother/magefiles/internal/pipeline"
)

// TestDemo shows all that the demo shows, twice: the second time there is
// nothing to build, and a registry of the first.
func TestDemo(t *testing.T) {
	t.Chdir("../../..")
	work := t.TempDir()
	fother, err := pipeline.Command(t.Context(), work, "apply/cmd/fother")
	if err != nil {
		t.Fatal(err)
	}
	shim, err := pipeline.Command(t.Context(), work, "compiler/cmd/fother-cc")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var out bytes.Buffer
		if err := Run(t.Context(), &out, fother, pipeline.Options{Work: work, Shim: shim}); err != nil {
			t.Fatalf("%v\n%s", pipeline.Explain(err), out.String())
		}
		at := 0
		for _, want := range []string{"verify", "registry:init", "publish", "FALLEN", "fother pull", "applied server", "HELD", "SERVED", "reverted", "FALLEN", "honest client"} {
			i := strings.Index(out.String()[at:], want)
			if i < 0 {
				t.Fatalf("no %q in what follows:\n%s", want, out.String()[at:])
			}
			at += i
		}
	}
}
