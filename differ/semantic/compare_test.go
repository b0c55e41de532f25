package semantic_test

import (
	"strings"
	"testing"

	"github.com/fother/fother/differ/semantic"
)

// text of a unit around a declaration that changes.
const frame = `
#include <stddef.h>
extern void *keep(void *);
DECL
USE
`

func unit(decl, use string) string {
	return strings.NewReplacer("DECL", decl, "USE", use).Replace(frame)
}

// useConn has globals, functions and types that use struct conn.
const useConn = `
struct conn first;
struct server { int n; struct conn *head; };
struct pair { struct conn a, b; };
static struct pair *pairs;
int poll_all(struct server *s) { return s->n + (s->head != NULL); }
void *take(struct conn *c) { return keep(c); }
void *both(void) { pairs = keep(pairs); return pairs; }
int alone(int n) { return n + 1; }
`

// compilers are the ways in which each case is compiled.
var compilers = [][]string{
	{"gcc", "-g", "-O2"},
	{"gcc", "-gdwarf-4", "-O0", "-gz"},
	{"gcc", "-gdwarf-2", "-gstrict-dwarf", "-O1"},
	{"gcc", "-g", "-O2", "-flto"},
	{"clang", "-g", "-O2"},
	{"clang", "-gdwarf-4", "-O0", "-gz"},
}

var compilersCXX = [][]string{{"g++", "-g", "-O2"}, {"clang++", "-g", "-O2", "-fstandalone-debug"}, {"g++", "-gdwarf-4", "-O0"}}

func each(t *testing.T, compilers [][]string, check func(t *testing.T, command []string)) {
	for _, command := range compilers {
		t.Run(strings.Join(command, " "), func(t *testing.T) { check(t, command) })
	}
}

// strings of the changes that are not harmless.
func texts(r *semantic.Report) (all []string) {
	for _, c := range r.Changes {
		if !c.Harmless {
			all = append(all, c.String())
		}
	}
	return all
}

// TestChanged: each kind of change is told with names, the old and the new.
func TestChanged(t *testing.T) {
	conn := "struct conn { char kind; int fd; unsigned a : 3, b : 5; void (*done)(int); union { int i; struct { short x, y; }; } u; };"
	for name, c := range map[string]struct {
		original, patched, use string
		want                   []string // parts of the one change
	}{
		"field inserted": {conn, strings.Replace(conn, "int fd;", "int flags; int fd;", 1), useConn, []string{
			"struct conn (unit.c:4): field flags: new, at offset 4, field fd: offset 4 became 8, field a: byte 8, bit 0 became byte 12, bit 0",
			"functions take; used by variables first, pairs; used by types struct pair, struct server"}},
		"field into padding": {conn, strings.Replace(conn, "char kind;", "char kind, more;", 1), useConn, []string{
			"struct conn (unit.c:4): field more: new, at offset 1; used by"}},
		"field removed": {conn, strings.Replace(conn, "char kind;", "", 1), useConn, []string{"field kind: removed"}},
		"bit-field widened": {conn, strings.Replace(conn, "a : 3", "a : 4", 1), useConn, []string{
			"field a: 3 bits became 4 bits, field b: byte 8, bit 3 became byte 8, bit 4"}},
		"type of a field":  {conn, strings.Replace(conn, "int fd", "unsigned fd", 1), useConn, []string{"field fd: int became unsigned int"}},
		"function pointer": {conn, strings.Replace(conn, "(*done)(int)", "(*done)(long)", 1), useConn, []string{"field done: void(int) * became void(long"}},
		"inside what has no name": {conn, strings.Replace(conn, "short x, y;", "short x, y, z;", 1), useConn, []string{
			"unit.c:4): field u.z: new, at offset 4; used"}},
		"by a typedef": {"typedef int fd_t; struct conn { fd_t fd; };", "typedef long fd_t; struct conn { fd_t fd; };", useConn, []string{
			"struct conn (unit.c:4): field fd: fd_t of 4 became one of 8 bytes, size 4 became 8 bytes"}},
		"a typedef without a tag": {"typedef struct { int a; } conn;", "typedef struct { int a, b; } conn;", "conn c[3];", []string{
			"typedef conn (unit.c:4): field b: new, at offset 4, size 4 became 8 bytes; used by variables c"}},
		"enumerator": {"enum color { RED, GREEN };", "enum color { RED = 1, GREEN };", "enum color paint;", []string{
			"enum color (unit.c:4): enumerator RED: 0 became 1, enumerator GREEN: 1 became 2; used by variables paint"}},
		"enumerator without a type": {"enum { RED, LAST };", "enum { RED, BLUE, LAST };", "int f(int n) { return n == LAST; }", []string{
			"enumerator LAST (unit.c:4): 1 became 2"}},
		"variable": {"static int limit;", "static long limit;", "int f(int n) { limit += n; return limit > 7; }", []string{
			"variable limit (unit.c:4): type int became long"}},
		"array": {"int table[4];", "int table[5];", "", []string{"variable table (unit.c:4): type int[4] became int[5]"}},
		"variable of a function": {"int f(int n) { static int sum; return sum += n; }", "int f(int n) { static unsigned sum; return sum += n; }", "", []string{
			"variable sum in f (unit.c:4): type int became unsigned int"}},
		"variable without a type name": {"struct { int a, b; } state;", "struct { int a, x, b; } state;", "", []string{
			"variable state (unit.c:4): field x: new, at offset 4, size 8 became 12 bytes, field b: offset 4 became 8"}},
		"thread-local": {"__thread int mine;", "__thread unsigned mine;", "", []string{"variable mine (unit.c:4): type int became unsigned int"}},
		"parameter":    {"int f(int n) { return n; }", "int f(long n) { return n; }", "", []string{"function f (unit.c:4): int(int) became int(long"}},
		"result":       {"int f(int n) { return n; }", "void f(int n) { keep(&n); }", "", []string{"function f (unit.c:4): int(int) became void(int)"}},
		"variadic":     {"int f(int n) { return n; }", "int f(int n, ...) { return n; }", "", []string{"function f (unit.c:4): int(int) became int(int, ...)"}},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, sample(compilers), func(t *testing.T, command []string) {
				r := compare(t, unit(c.original, c.use), unit(c.patched, c.use), nil, command...)
				got := texts(r)
				if len(got) != 1 {
					t.Fatalf("changes:\n%s\nwant one", strings.Join(got, "\n"))
				}
				for _, want := range c.want {
					if !strings.Contains(got[0], want) {
						t.Errorf("got %s\nwant %s in it", got[0], want)
					}
				}
			})
		})
	}
}

// TestSame: what changes nothing in memory and at calls is no change.
func TestSame(t *testing.T) {
	for name, c := range map[string][2]string{
		"comment":         {"struct conn { int a; };", "/* a\n b */\nstruct conn { int a; };"},
		"renamed":         {"struct conn { int a; int b; };", "struct conn { int a; int was_b; };"},
		"typedef":         {"struct conn { unsigned a; };", "typedef unsigned u32; struct conn { u32 a; };"},
		"const":           {"struct conn { char *a; };", "struct conn { const char *a; };"},
		"new function":    {"struct conn { int a; };", "struct conn { int a; }; int more(struct conn *c) { return c->a; }"},
		"new local type":  {"struct conn { int a; }; void g(void) {}", "struct conn { int a; }; void g(void) { struct tmp { int x[4]; } t; keep(&t); }"},
		"new enumerator":  {"struct conn { enum color { RED } a; };", "struct conn { enum color { RED, GREEN } a; };"},
		"unnamed local":   {"struct conn { int a; }; void g(void) { struct { int x[2]; } t; keep(&t); }", "struct conn { int a; }; void g(void) { struct { int x[4]; } t; keep(&t); }"},
		"constants":       {"struct conn { int a; }; static const int odd[] = {1, 3}; int g(int i) { return odd[i]; }", "struct conn { int a; }; static const int odd[] = {1, 3, 5}; int g(int i) { return odd[i]; }"},
		"parameter names": {"struct conn { int a; }; int g(const struct conn *p) { return p->a; }", "struct conn { int a; }; int g(struct conn *q) { return q->a; }"},
		"cycle": {"struct b; struct a { struct b *b; }; struct b { struct a *a; struct { struct b *self; } in; }; struct conn { struct a *a; };",
			"struct b; struct a { struct b *b; }; struct b { struct a *a; struct { struct b *self; } in; }; struct conn { struct a *z; };"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, sample(compilers), func(t *testing.T, command []string) {
				use := "struct conn first; void *take(struct conn *c) { return keep(c); }"
				if got := texts(compare(t, unit(c[0], use), unit(c[1], use), nil, command...)); len(got) > 0 {
					t.Errorf("changes:\n%s\nwant none", strings.Join(got, "\n"))
				}
			})
		})
	}
}
