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

// TestOracleStrings: a string that a function has in its code only, and that lies
// behind another's all the same, is no part of that.
func TestOracleStrings(t *testing.T) {
	const tree = `
-- parse.c --
#include <stdio.h>
#include <string.h>
int send(int n) { return printf("%s %d\n", "application/octet-stream", n); }
int parse(const char *text) { return memcmp(text, "HTTP/", 5) == 0; }
-- main.c --
int send(int n);
int parse(const char *text);
int main(int argc, char **argv) { return send(argc) + parse(argv[0]); }
`
	s, o := semanticCase(t, tree, []string{"HTTP/", "ICAP/"}, "gcc -g -O2 -fno-inline -o server parse.c main.c")
	if _, err := Make(t.Context(), s, o); err != nil {
		t.Fatal(Explain(err))
	}
	own, err := definitions(FolderOf(s, o).store())
	if err != nil || !own.literals["HTTP/"] || !own.literals["ICAP/"] {
		t.Errorf("strings %v: %v", own, err)
	}
}
