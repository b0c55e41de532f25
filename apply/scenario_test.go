package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/kpack"
)

func pie(t testing.TB) string { return compile(t, "pie", "-fPIE", "-pie") }

func TestBusyFunctionIsWaitedFor(t *testing.T) {
	r := start(t, pie(t), "busy", "sleep", "call")
	patch := patchFor(t, pie(t), "default", 1, "busy")
	for range 5 {
		res, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{Wait: 20 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d stops, the longest %v", res.Stop.Tries, res.Stop.Longest)
		revertAll(t, r.pid)
	}
}

func TestFunctionThatIsNeverLeft(t *testing.T) {
	r := start(t, pie(t), "forever", "call", "sleep")
	patch := patchFor(t, pie(t), "default", 1, "forever", "answer")
	before := r.snapshot()
	calls := r.ask("calls")
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{Wait: 300 * time.Millisecond})
	busy := (*BusyError)(nil)
	if !errors.As(err, &busy) || len(busy.Threads) != 1 {
		t.Fatalf("error: %v", err)
	}
	if b := busy.Threads[0]; b.Name != "forever" || b.Function != "forever" || b.TID == 0 || b.PC == 0 {
		t.Errorf("who is busy: %+v", b)
	}
	t.Log(err)
	before.same(t, r.snapshot())
	if r.ask("calls") == calls {
		t.Error("other threads did not run")
	}
	r.expect("ask", oldAnswer)
}

// TestBusyLine: who is busy is told by thread, function and source line, if the
// program has debug data that can be trusted.
func TestBusyLine(t *testing.T) {
	lines := compile(t, "lines", "-fPIE", "-pie", "-g")
	loop := func(name string) string {
		before, _, _ := strings.Cut(programC, "API int "+name+"(")
		return fmt.Sprintf("%s.c:%d", lines, 1+strings.Count(before, "\n"))
	}
	for _, c := range []struct{ bin, kind, want string }{
		{lines, "forever", loop("forever")}, {lines, "busy", loop("busy")}, {pie(t), "forever", ""},
	} {
		r := start(t, c.bin, c.kind)
		var busy *BusyError
		for range 100 { // one of them leaves now and then
			_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, c.bin, "default", 1, c.kind)}, Options{Wait: -1})
			if errors.As(err, &busy) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			revertAll(t, r.pid)
		}
		if busy == nil || busy.Threads[0].Source != c.want || busy.Threads[0].Function != c.kind || !strings.Contains(busy.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.kind, busy, c.want)
		}
	}
	if err := os.Chmod(lines, 0o777); err != nil {
		t.Fatal(err)
	}
	r := start(t, lines, "forever")
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, lines, "default", 1, "forever")}, Options{Wait: -1})
	if busy := (*BusyError)(nil); !errors.As(err, &busy) || busy.Threads[0].Source != "" {
		t.Errorf("a file that everybody may write: %v", err)
	}
}

func TestNoThreadStandsStillWhileAnotherIsBusy(t *testing.T) {
	r := start(t, pie(t), "forever", "call")
	patch := patchFor(t, pie(t), "default", 1, "forever")
	done := make(chan error, 1)
	go func() {
		_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{Wait: time.Second})
		done <- err
	}()
	stalls := 0
	for last := r.ask("calls"); len(done) == 0; {
		time.Sleep(50 * time.Millisecond)
		now := r.ask("calls")
		if now == last {
			stalls++
		}
		last = now
	}
	if busy := (*BusyError)(nil); !errors.As(<-done, &busy) || stalls > 2 {
		t.Errorf("%d stalls of 50 ms", stalls)
	}
}

func TestLevelsReplaceEachOther(t *testing.T) {
	bin := pie(t)
	r := start(t, bin, "call")
	before := r.snapshot()
	one := patchFor(t, bin, "default", 1, "answer", "other")
	two := patchFor(t, bin, "default", 2, "answer2")
	applyTo(t, r.pid, one)
	r.expect("ask", newAnswer)
	res := applyTo(t, r.pid, one, two) // of one series only the highest counts
	if len(res.Applied) != 1 || res.Applied[0].Level != 2 {
		t.Errorf("result: %+v", res)
	}
	r.expect("ask", "2 11 old") // answer is 2 in level 2, too, and other is the old one
	p, err := Open(r.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got := slices.DeleteFunc(p.Applied(), func(a Applied) bool { return a.State != "applied" }); len(got) != 1 || got[0].Level != 2 {
		t.Errorf("applied: %+v", got)
	}
	if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{one}, Options{}); !errors.Is(err, ErrAlreadyApplied) {
		t.Errorf("a lower level: %v", err)
	}
	revertAll(t, r.pid)
	before.same(t, r.snapshot())
}

func TestSeriesCoexistOrAreRefused(t *testing.T) {
	bin := pie(t)
	r := start(t, bin)
	before := r.snapshot()
	applyTo(t, r.pid, patchFor(t, bin, "one", 1, "answer"))
	applyTo(t, r.pid, patchFor(t, bin, "two", 1, "other"))
	r.expect("ask", newAnswer)
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, bin, "three", 1, "answer2")}, Options{})
	conflict := (*ConflictError)(nil)
	if !errors.As(err, &conflict) || conflict.Function != "answer" || conflict.Other.Series != "one" {
		t.Errorf("same function: %v", err)
	}
	if _, err := Revert(context.Background(), r.pid, []Selector{{Series: "one"}}, Options{}); err != nil {
		t.Fatal(err)
	}
	r.expect("ask", "2 9 old")
	revertAll(t, r.pid)
	r.expect("ask", oldAnswer)
	before.same(t, r.snapshot())
}

func TestWhatIsReferredToIsKept(t *testing.T) {
	bin := compile(t, "keeper", "-fPIE", "-pie", "-DKEEP")
	r := start(t, bin)
	before := r.snapshot()
	applyTo(t, r.pid, patchFor(t, bin, "default", 1, "text"))
	r.expect("keep", "new")
	res := revertAll(t, r.pid)
	if len(res.Kept) != 1 || res.Kept[0].State != "retired" {
		t.Errorf("result: %+v", res)
	}
	r.expect("kept", "new") // its memory is there still
	r.expect("keep", "old")
	r.expect("ask", oldAnswer)
	for range 20 { // until no stale copy is left on the stack
		res, err := Revert(context.Background(), r.pid, nil, Options{})
		if err == nil {
			if len(res.Freed) != 1 || r.snapshot().maps != before.maps {
				t.Errorf("result: %+v", res)
			}
			return
		}
		if !errors.Is(err, ErrNotApplied) {
			t.Fatal(err)
		}
		r.ask("wipe")
	}
	t.Error("the memory was never freed")
}

func TestSharedObjects(t *testing.T) {
	dir := t.TempDir()
	lib := filepath.Join(dir, "libanswer.so")
	src := filepath.Join(dir, "libanswer.c")
	os.WriteFile(src, []byte(`static volatile int one = 1; __attribute__((noipa)) int answer(int x) { return x + one; }`), 0o600)
	command(t, "gcc", "-O1", "-fPIC", "-falign-functions=16", "-c", "-o", lib+".o", src)
	for _, name := range []string{lib, lib + ".patched"} {
		command(t, "gcc", "-shared", "-Wl,--build-id", "-Wl,-soname,libanswer.so", "-o", name, lib+".o")
	}
	main := filepath.Join(dir, "main.c")
	os.WriteFile(main, []byte(`
#include <stdio.h>
int answer(int);
int main(void) { char l[9]; puts("ready"); fflush(stdout); while (fgets(l, 9, stdin)) { printf("%d\n", answer(1)); fflush(stdout); } return 0; }`), 0o600)
	command(t, "gcc", "-O1", "-o", main+".bin", main, lib, "-Wl,-rpath,"+dir)
	r := start(t, main+".bin")
	r.expect("", "2")
	before := r.snapshot()
	patch := patchFor(t, lib, "default", 1, "answer")
	applyTo(t, r.pid, patch)
	r.expect("", "43")
	// The file may be gone: nothing is read but memory.
	os.Remove(lib)
	revertAll(t, r.pid)
	r.expect("", "2")
	after := r.snapshot()
	after.maps = strings.ReplaceAll(after.maps, " (deleted)", "")
	for k, v := range after.code {
		after.code[strings.ReplaceAll(k, " (deleted)", "")] = v
	}
	before.same(t, after)
	applyTo(t, r.pid, patch)
	r.expect("", "43")
}

func TestSleepDoesNotStartOver(t *testing.T) {
	r := start(t, pie(t), "sleep1s")
	patch := patchFor(t, pie(t), "default", 1, "answer")
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		applyTo(t, r.pid, patch)
		revertAll(t, r.pid)
	}
	if n := r.ask("naps"); n == "0" {
		t.Error("a sleep of one second did not end within four")
	}
}
