package pipeline

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/magefiles/internal/machine"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs/testenv"
)

// threadsJob asks the two builds in each folder below its own, and a process
// that is patched and reverted, on an emulated machine. It is busybox's sh.
const threadsJob = `
lines() { wc -l <$1; }
ask() {
	want=$(($(lines $1.out) + 1))
	eval "echo $2 >&$3"
	i=0
	while [ $(lines $1.out) -lt $want ] && [ $i -lt 100 ]; do sleep 0.05; i=$((i + 1)); done
	tail -n 1 $1.out
}
for dir in */; do
	cd $dir
	mkfifo original.in patched.in live.in
	: >original.out; : >patched.out; : >live.out
	original/case <original.in >original.out & one=$!
	exec 3>original.in
	patched/case <patched.in >patched.out & two=$!
	exec 4>patched.in
	original/case <live.in >live.out & pid=$!
	exec 5>live.in
	n=0
	for state in original patched original; do
		[ $state = patched ] && ../fother patch -p $pid patches
		[ $n -gt 2 ] && [ $state = original ] && ../fother unpatch -p $pid
		for i in 1 2; do
			n=$((n + 1))
			original=$(ask original $n 3); patched=$(ask patched $n 4); live=$(ask live $n 5)
			[ "$original" != "$patched" ] || echo "BAD $dir the builds answer alike"
			eval "want=\$$state"
			if [ -n "$live" ] && [ "$live" = "$want" ]; then echo "GOOD $dir"; else echo "BAD $dir $state $n: $live, want $want"; fi
		done
	done
	exec 3>&- 4>&- 5>&-
	wait $one $two $pid
	cd ..
done
`

// TestThreadLocalOnAArch64 is TestThreadLocal on an emulated machine.
func TestThreadLocalOnAArch64(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: boots an emulated machine")
	}
	for _, err := range []error{machine.Check(), tools.Check("aarch64-linux-gnu-gcc")} {
		if err != nil {
			testenv.Skip(t, err.Error())
		}
	}
	job := t.TempDir()
	path, err := Command(t.Context(), t.TempDir(), "apply/cmd/fother", "GOARCH=arm64")
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, path, filepath.Join(job, "fother"), 0o755)
	shapes := []struct{ name, build, flags string }{
		{"executable", oneFile, "-O2"},
		{"static", oneFile, "-O2 -static -DERRNO"},
		{"relaxed", oneFile, "-O2 -fPIC"},
		{"initial", linked, "-O2 -fPIC -ftls-model=initial-exec -DIMPORTS"},
		{"library", linked, "-O2 -fPIC"},
		{"traditional", linked, "-O2 -fPIC -mtls-dialect=trad -DIMPORTS"},
		{"opened", opened, "-O0 -fPIC"},
	}
	if !testenv.Long() {
		shapes = shapes[:2]
	}
	for _, c := range shapes {
		build := strings.ReplaceAll(fmt.Sprintf(c.build, "-fno-section-anchors "+c.flags), "cc -Wl", "aarch64-linux-gnu-gcc -Wl")
		f, err := makeThreads(t, build, threadsUnit, threadsFix)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for folder, from := range map[string]string{"original": f.Original(), "patched": f.Patched(), "patches": f.Patches()} {
			for _, pattern := range []string{"case", "lib*.so", "*.kpatch"} {
				files, _ := filepath.Glob(filepath.Join(from, pattern))
				for _, file := range files {
					copyFile(t, file, filepath.Join(job, c.name, folder, filepath.Base(file)), 0o755)
				}
			}
		}
	}
	if err := os.WriteFile(filepath.Join(job, "run.sh"), []byte(threadsJob), 0o755); err != nil {
		t.Fatal(err)
	}
	var console bytes.Buffer
	status, err := machine.Run(t.Context(), machine.Options{Dir: job, Console: io.MultiWriter(&console, t.Output())})
	if err != nil || status != 0 {
		t.Fatalf("exit status %d: %v", status, err)
	}
	if good := strings.Count(console.String(), "GOOD "); good != 6*len(shapes) || strings.Contains(console.String(), "BAD ") {
		t.Errorf("%d good answers of %d", good, 6*len(shapes))
	}
}
