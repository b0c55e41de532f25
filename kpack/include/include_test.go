package include

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs/testenv"
)

// shadowC has threads that attach the same objects, each of which must get one
// datum; objects that end and begin again in the same place; sizes of all kinds; and
// all memory given back in the end.
const shadowC = `
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "fother_shadow.h"
enum { THREADS = 4, OBJECTS = 3000, ROUNDS = 20 };
static char objects[OBJECTS], own[THREADS];
static int bad;
static void *run(void *arg) {
	long n = (long)arg;
	int i, r;
	for (r = 0; r < ROUNDS; r++)
		for (i = 0; i < OBJECTS; i++) {
			long *sum = (long *)fother_shadow_attach(&objects[i], 1, sizeof *sum);
			char *mine = (char *)fother_shadow_attach(&own[n], i, 1 + i % 300);
			if (!sum || !mine || (unsigned long)sum % 16 || sum != fother_shadow_get(&objects[i], 1)) { bad = 1; continue; }
			__atomic_fetch_add(sum, n + 1, __ATOMIC_RELAXED);
			if (mine[0] || mine[i % 300]) bad = 2;
			memset(mine, 0x55, 1 + i % 300);
			if (mine != fother_shadow_attach(&own[n], i, 1 + i % 300) || mine[0] != 0x55) bad = 3;
			fother_shadow_detach(&own[n], i);
			if (fother_shadow_get(&own[n], i)) bad = 4;
		}
	return 0;
}
static long lines(void) { FILE *f = fopen("/proc/self/maps", "r"); char b[600]; long n = 0; while (fgets(b, sizeof b, f)) n++; fclose(f); return n; }
int main(void) {
	pthread_t t[THREADS];
	long i, before;
	char *large;
	for (i = 0; i < THREADS; i++) pthread_create(&t[i], 0, run, (void *)i);
	for (i = 0; i < THREADS; i++) pthread_join(t[i], 0);
	for (i = 0; i < OBJECTS; i++)
		if (*(long *)fother_shadow_get(&objects[i], 1) != ROUNDS * THREADS * (THREADS + 1) / 2) bad = 5;
	large = (char *)fother_shadow_attach(&bad, 2, 1 << 20);
	if (!large || large[0] || large[(1 << 20) - 1]) bad = 6;
	if (fother_shadow_attach(&bad, 3, 1ul << 60) || fother_shadow_attach(0, 1, 1) || fother_shadow_get(&bad, 9)) bad = 7;
	fother_shadow_detach(&bad, 9);
	before = lines();
	fother_shadow_free();
	if (lines() >= before || fother_shadow_get(&objects[0], 1)) bad = 8;
	fother_shadow_free();
	printf("%d\n", bad);
	return 0;
}
`

// TestShadow runs the shadow variables of the header in a program of their own, as C
// of all ages and as C++, without a warning.
func TestShadow(t *testing.T) {
	dir := t.TempDir()
	env, err := Environ(nil, filepath.Join(dir, "include"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.c"), []byte(shadowC), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, flags := range []string{"gcc -O2 -std=gnu89", "gcc -O0 -std=c99 -Wpedantic -Wno-long-long", "g++ -O2 -x c++", "clang -O2", "clang++ -O1 -x c++"} {
		t.Run(flags, func(t *testing.T) {
			args := append(strings.Fields(flags), "-Wall", "-Wextra", "-Wno-deprecated", "-pthread", "-o", filepath.Join(dir, "a"), filepath.Join(dir, "a.c"))
			testenv.Needs(t, args[0])
			// As a folder of the project's own, so that warnings are not left out.
			for _, more := range [][]string{{}, {"-I" + filepath.Join(dir, "include")}} {
				cc := exec.Command(args[0], append(args[1:len(args):len(args)], more...)...)
				if len(more) == 0 {
					cc.Env = append(os.Environ(), env...)
				}
				if out, err := cc.CombinedOutput(); err != nil || len(out) > 0 {
					t.Fatalf("%v: %v\n%s", cc.Args, err, out)
				}
			}
			out, err := exec.Command(filepath.Join(dir, "a")).Output()
			if err != nil || string(out) != "0\n" {
				t.Errorf("%v: check %s does not hold", err, out)
			}
		})
	}
}

// TestEnviron: folders that were there stay, and come first.
func TestEnviron(t *testing.T) {
	t.Setenv("C_INCLUDE_PATH", "/one")
	t.Setenv("CPLUS_INCLUDE_PATH", "/two")
	dir := filepath.Join(t.TempDir(), "include")
	env, err := Environ([]string{"A=b", "C_INCLUDE_PATH=/three"}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(env[2:], " "), "C_INCLUDE_PATH=/three:"+dir+" CPLUS_INCLUDE_PATH=/two:"+dir; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "fother.h")); err != nil {
		t.Error(err)
	}
}
