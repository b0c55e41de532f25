package pipeline

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestPlugins: two libraries that a program opens define the same names, and
// new code of the second one refers to them. What it finds is what the patched
// build finds: its own, unless the first library's were made everybody's, or
// the program has them itself.
func TestPlugins(t *testing.T) {
	const program = `#include <dlfcn.h>
static const char *(*reply)(const char *);
const char *answer(const char *request)
{
	if (!reply) {
		void *a = dlopen("liba.so", RTLD_NOW | MODE);
		void *b = dlopen("libb.so", RTLD_NOW | RTLD_LOCAL);
		if (!a || !b)
			return dlerror();
		reply = (const char *(*)(const char *))dlsym(b, "reply");
	}
	return reply(request);
}
`
	const plugin = `#include <stdio.h>
int op(int x);
extern __thread int state;
const char *reply(const char *r)
{
	static char out[40];
	snprintf(out, sizeof out, "%d", r[0]);
	return out;
}
`
	const definitions = "__thread int state = N; int op(int x) { return x + N; }\n"
	for name, c := range map[string]struct{ mode, uses, second, want string }{
		"function":            {"RTLD_LOCAL", "op(r[0])", "", "97+98"},
		"variable":            {"RTLD_LOCAL", "r[0] + state", "", "97+98"},
		"function, global":    {"RTLD_GLOBAL", "op(r[0])", "", "97+1097"},
		"variable, global":    {"RTLD_GLOBAL", "r[0] + state", "", "97+1097"},
		"function, symbolic":  {"RTLD_GLOBAL", "op(r[0])", "-Wl,-Bsymbolic", "97+98"},
		"function, needed by": {"RTLD_LOCAL", "op(r[0])", "needed", "97+98"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProject(t)
			p.write("src/main.c", askMain)
			p.write("src/program.c", strings.ReplaceAll(program, "MODE", c.mode))
			p.write("src/b.c", plugin)
			p.write("src/opa.c", strings.ReplaceAll(definitions, "N", "1000"))
			p.write("src/opb.c", strings.ReplaceAll(definitions, "N", "1"))
			p.write("use.patch", "--- a/b.c\n+++ b/b.c\n@@ -5,4 +5,4 @@\n {\n \tstatic char out[40];\n-\tsnprintf(out, sizeof out, \"%d\", r[0]);\n+\tsnprintf(out, sizeof out, \"%d+%d\", r[0], "+c.uses+");\n \treturn out;\n")
			second := "cc -O1 -fPIC -shared -Wl,--build-id " + c.second + " -o libb.so b.c opb.c"
			if c.second == "needed" { // libb.so only needs the one that has it all
				second = "cc -O1 -fPIC -shared -Wl,--build-id -o libinner.so b.c && cc -O1 -fPIC -shared -o libb.so opb.c -Wl,--no-as-needed -L. -linner -Wl,-rpath,'$ORIGIN'"
			}
			s := p.spec
			s.Name, s.Patches = "plugins", []string{filepath.Join(p.dir, "use.patch")}
			s.Build = []string{"cc -O1 -fPIC -shared -Wl,--build-id -o liba.so opa.c && " + second +
				" && cc -Wl,--build-id -o plugins program.c main.c -ldl -Wl,-rpath,'$ORIGIN'"}
			if _, err := Make(t.Context(), s, p.o); err != nil {
				t.Fatal(err)
			}
			f := FolderOf(s, p.o)
			if got := ask(t, filepath.Join(f.Patched(), "plugins")).answer("a"); got != c.want {
				t.Fatalf("the patched build answers %q, want %q", got, c.want)
			}
			a := ask(t, filepath.Join(f.Original(), "plugins"))
			a.follow(f, "a", "97", c.want, "97")
		})
	}
}
