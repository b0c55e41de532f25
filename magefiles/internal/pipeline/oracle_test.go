package pipeline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/kpack"
)

// TestOracle: a patch that lacks what changed, or has other code than the
// patched build, is found by comparing the linked builds.
func TestOracle(t *testing.T) {
	p := newProject(t)
	p.make()
	f := FolderOf(p.spec, p.o)
	targets, err := Targets(p.spec, p.o)
	if err != nil {
		t.Fatal(err)
	}
	own, err := definitions(f.store())
	if err != nil {
		t.Fatal(err)
	}
	check := func(what, want string, change func(*kpack.Patch)) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(f.Patches(), string(targets[0].BuildID)+".kpatch"))
		if err != nil {
			t.Fatal(err)
		}
		patch, err := kpack.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		change(patch)
		err = oracle(patch, targets[0], own)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", what, err, want)
		}
	}
	check("the patch", "", func(*kpack.Patch) {})
	check("no function", "changed, but not in the patch", func(p *kpack.Patch) {
		p.Functions = nil
		for i := range p.Symbols {
			p.Symbols[i].Name = "" // nothing that it brings has the function's name
		}
	})
	check("another constant", "the patch's code is not the patched build's", func(p *kpack.Patch) {
		for i, s := range p.Sections {
			if s.Kind == kpack.Text {
				for j := range s.Data {
					p.Sections[i].Data[j] ^= 0x40
				}
			}
		}
	})
}
