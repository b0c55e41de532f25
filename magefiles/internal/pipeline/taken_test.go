package pipeline

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
)

// TestAddressTaken: new functions whose only address is the kernel's, or a
// mangled word of the C library, are called after the patch was taken out.
func TestAddressTaken(t *testing.T) {
	const program = `#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
static int calls;
static void old(int s) { calls += s ? 1 : 100; }
static void plain(void) { calls += 100; }
const char *answer(const char *request)
{
	static char out[40];
	switch (request[0]) {
	case 's': signal(SIGUSR1, old); break;
	case 'e': atexit(plain); break;
	case 'r': raise(SIGUSR1); break;
	case 'x': exit(0);
	}
	snprintf(out, sizeof out, "%d", calls);
	return out;
}
`
	p := newProject(t)
	p.write("src/a.c", program)
	p.write("src/main.c", askMain)
	p.write("fix.patch", `--- a/a.c
+++ b/a.c
@@ -5,5 +5,7 @@
 static void old(int s) { calls += s ? 1 : 100; }
 static void plain(void) { calls += 100; }
+static void handler(int s) { calls += s ? 10 : 1000; }
+static void leave(void) { puts("left"); fflush(stdout); }
 const char *answer(const char *request)
 {
 	static char out[40];
@@ -10,4 +12,4 @@
 	switch (request[0]) {
-	case 's': signal(SIGUSR1, old); break;
-	case 'e': atexit(plain); break;
+	case 's': signal(SIGUSR1, handler); break;
+	case 'e': atexit(leave); break;
 	case 'r': raise(SIGUSR1); break;
`)
	s := p.spec
	s.Name, s.Patches = "taken", []string{filepath.Join(p.dir, "fix.patch")}
	s.Build = []string{"cc -O1 -Wl,--build-id -o taken a.c main.c"}
	s.Allow = []specs.Allowance{{Change: "function old", Reason: "it is not registered yet"}, {Change: "function plain", Reason: "likewise"}}
	if _, err := Make(t.Context(), s, p.o); err != nil {
		t.Fatal(err)
	}
	f := FolderOf(s, p.o)
	a := ask(t, filepath.Join(f.Original(), "taken"))
	fother(t, 0, "patch", "-p", a.pid(), f.Patches())
	a.answer("s")
	a.answer("e")
	if got := a.answer("r") + a.answer(""); got != "1010" {
		t.Errorf("the new handler: %q", got)
	}
	if out := fother(t, 0, "unpatch", "-p", a.pid()); !strings.Contains(out, "stay for good") || !strings.Contains(out, "handler") {
		t.Errorf("the revert says %s", out)
	}
	for range 2 {
		fother(t, 3, "unpatch", "-p", a.pid()) // nothing is freed later
	}
	if got := a.answer("r") + a.answer(""); got != "2020" {
		t.Errorf("the new handler after the revert: %q", got)
	}
	if got := a.answer("x"); got != "left" {
		t.Errorf("the new function of atexit after the revert: %q", got)
	}
}
