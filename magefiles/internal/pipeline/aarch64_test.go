package pipeline

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/magefiles/internal/machine"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs/testenv"
)

// aarch64Job patches and reverts the samples in the folders below its own, and
// prints what each one answers. It is busybox's sh.
const aarch64Job = `
set -e
lines() { wc -l <out; }
ask() {
	want=$(($(lines) + 1))
	echo "$2" >&3
	i=0
	while [ $(lines) -lt $want ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done
	echo "ANSWER $1 $(tail -n 1 out)"
}
for dir in */; do
	cd $dir
	echo "SAMPLE $dir"
	mkfifo in
	: >out
	./simple --ask <in >out &
	pid=$!
	exec 3>in
	ask before 1900
	cat /proc/$pid/maps >maps.before
	../fother patch -p $pid patches
	ask patched 1900
	../fother info -p $pid
	../fother unpatch -p $pid
	ask reverted 1900
	cat /proc/$pid/maps >maps.after
	cmp maps.before maps.after && echo "MAPS same"
	exec 3>&-
	wait $pid
	cd ..
done
`

// TestSimpleOnAArch64 makes the patch of the sample simple with the cross
// compiler and applies it on an emulated machine: with a plain entry and with
// landing pads and signed return addresses.
func TestSimpleOnAArch64(t *testing.T) {
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
	for name, flags := range map[string]string{"plain": "-O2", "protected": "-O2 -g -mbranch-protection=standard -fno-omit-frame-pointer"} {
		f := makeSample(t, "simple", "CC=aarch64-linux-gnu-gcc", "CFLAGS="+flags)
		copyFile(t, filepath.Join(f.Original(), "simple"), filepath.Join(job, name, "simple"), 0o755)
		patches, err := filepath.Glob(filepath.Join(f.Patches(), "*"))
		if err != nil || len(patches) != 1 {
			t.Fatalf("patches %v: %v", patches, err)
		}
		copyFile(t, patches[0], filepath.Join(job, name, "patches", filepath.Base(patches[0])), 0o644)
	}
	if err := os.WriteFile(filepath.Join(job, "run.sh"), []byte(aarch64Job), 0o755); err != nil {
		t.Fatal(err)
	}
	var console bytes.Buffer
	status, err := machine.Run(t.Context(), machine.Options{Dir: job, Console: io.MultiWriter(&console, t.Output())})
	if err != nil || status != 0 {
		t.Fatalf("exit status %d: %v", status, err)
	}
	for _, want := range []string{
		"ANSWER before 1900 has 366 days", "ANSWER patched 1900 has 365 days", "ANSWER reverted 1900 has 366 days", "MAPS same",
	} {
		if n := strings.Count(console.String(), want); n != 2 {
			t.Errorf("%q %d times, want 2", want, n)
		}
	}
}

// TestShadowForAArch64 makes the patch of the sample shadow with the cross compiler.
// Its functions keep addresses in registers over returns and over calls.
func TestShadowForAArch64(t *testing.T) {
	testenv.Needs(t, "aarch64-linux-gnu-gcc")
	for _, flags := range []string{"-O2 -g -fno-section-anchors", "-Os -fno-section-anchors"} {
		makeSample(t, "shadow", "CC=aarch64-linux-gnu-gcc", "CFLAGS="+flags)
	}
}

// copyFile copies a file to a path whose folder it makes.
func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, mode); err != nil {
		t.Fatal(err)
	}
}
