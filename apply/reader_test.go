package apply

import (
	"errors"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// TestReader: what a reader finds in the second process, whose files it knows, is
// what is found without it.
func TestReader(t *testing.T) {
	r := NewReader()
	for i := range 3 {
		bin := pie(t)
		if i == 2 {
			bin = compile(t, "apart", "-fPIE", "-pie", "-DAPART")
		}
		pid := start(t, bin).pid
		want, err := Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		defer want.Close()
		known := len(r.files)
		got, err := r.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		if new := len(r.files) - known; new != [...]int{len(want.objects), 0, 1}[i] { // the vDSO is as good as one
			t.Errorf("process %d: %d files are new", i, new)
		}
		if !reflect.DeepEqual(got.Objects(), want.Objects()) {
			t.Fatalf("%+v\nwant %+v", got.Objects(), want.Objects())
		}
		for how, read := range map[string]func(pid, tid int) ([]specs.BuildID, error){
			"either way": r.buildIDs, "as the kernel tells them": codeBuildIDs, "read": r.readBuildIDs,
		} {
			ids, err := read(pid, pid)
			if errors.Is(err, ptrace.ErrUntold) && how == "as the kernel tells them" {
				t.Log(err)
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range want.Objects() {
				if o.BuildID != "" && o.Path != vdso && !slices.Contains(ids, o.BuildID) {
					t.Errorf("%s: %s: build-id %s is not in %v", how, o.Path, o.BuildID, ids)
				}
			}
			if len(ids) > len(want.objects) {
				t.Errorf("%s: %d build-ids of %d objects", how, len(ids), len(want.objects))
			}
		}
		for j, o := range got.objects {
			w := want.objects[j].image
			if o.image.Bias != w.Bias || o.image.Range != w.Range || o.image.Entry != w.Entry || o.image.Base != w.Base {
				t.Errorf("%s: %+v, want %+v", o.Path, o.image, w)
			}
			mine, _, err1 := o.image.Lookup("memcpy", "")
			other, _, err2 := w.Lookup("memcpy", "")
			if mine != other || (err1 == nil) != (err2 == nil) {
				t.Errorf("%s: memcpy is %+v, %v; want %+v, %v", o.Path, mine, err1, other, err2)
			}
		}
	}
}

// TestReaderIsNotFooled: a file that is known by its place, and is another build, is
// read anew.
func TestReaderIsNotFooled(t *testing.T) {
	r := NewReader()
	pid := start(t, pie(t)).pid
	for range 2 {
		p, err := r.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		id := p.executable().BuildID
		p.Close()
		if plain, _ := openELF(t, pie(t)).BuildID(); id != plain {
			t.Errorf("build-id %s, want %s", id, plain)
		}
		for _, k := range r.files { // as if the file had been another one
			k.note[len(k.note)-1]++
			k.id = "00"
		}
	}
}

// TestBuildIDsOfNone: there are none of a process that has ended, and that is told.
func TestBuildIDsOfNone(t *testing.T) {
	if _, err := NewReader().BuildIDs(1 << 22); !errors.Is(err, ErrGone) {
		t.Errorf("no such process: %v", err)
	}
}

// TestKernelThread: what has no program is known, and this test has one.
func TestKernelThread(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ptrace.State(cmd.Process.Pid, cmd.Process.Pid) != "Z"; time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("it does not end")
		}
	}
	if !KernelThread(cmd.Process.Pid) {
		t.Error("a zombie has a program")
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if KernelThread(os.Getpid()) {
		t.Error("this test has no program")
	}
}
