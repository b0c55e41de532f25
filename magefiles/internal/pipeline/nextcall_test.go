package pipeline

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
)

// serveC has a loop that never leaves the stack, like a server's worker.
const serveC = `#include <stdio.h>
#include <string.h>
__attribute__((noinline)) static int answer(const char *line)
{
	return (int)strlen(line);
}
__attribute__((noinline)) static int serve(void)
{
	char line[64];
	int n = 0;
	while (fgets(line, sizeof line, stdin)) {
		printf("%d\n", answer(line));
		fflush(stdout);
		n++;
	}
	return n;
}
int main(void)
{
	return serve() < 0;
}
`

// TestNextCall: a fix of a loop that never returns is refused, unless the spec
// says that its next call is soon enough.
func TestNextCall(t *testing.T) {
	p := newProject(t)
	p.write("src/a.c", serveC)
	p.write("fix.patch", "--- a/a.c\n+++ b/a.c\n@@ -4,3 +4,3 @@\n {\n-\treturn (int)strlen(line);\n+\treturn (int)strcspn(line, \"\\n\");\n }\n"+
		"@@ -13,3 +13,3 @@\n \t\tfflush(stdout);\n-\t\tn++;\n+\t\tn += 2;\n \t}\n")
	p.make()
	f := FolderOf(p.spec, p.o)
	a := ask(t, filepath.Join(f.Original(), "a"))
	if got := a.answer("abc"); got != "4" {
		t.Fatalf("before: %s", got)
	}
	if out := fother(t, 4, "patch", "-p", a.pid(), "--wait", "100ms", f.Bundle(p.spec)); !strings.Contains(out, "serve") {
		t.Errorf("strict: the refusal does not name the loop:\n%s", out)
	}
	p.spec.Consistency = specs.Consistency{NextCall: []string{"serve"}, Reason: "it counts what nobody reads"}
	p.make()
	fother(t, 0, "patch", "-p", a.pid(), f.Bundle(p.spec))
	if got := a.answer("abc"); got != "3" {
		t.Errorf("patched: %s", got)
	}
	fother(t, 0, "unpatch", "-p", a.pid())
	if got := a.answer("abc"); got != "4" {
		t.Errorf("reverted: %s", got)
	}
	if out := fother(t, 0, "show", f.Bundle(p.spec)); !strings.Contains(out, "serve") {
		t.Errorf("show does not name the loop:\n%s", out)
	}
}
