package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fother/fother/specs/specfile"
)

// makeIn is the variable that makes the test program run the pipeline in a
// folder and end.
const makeIn = "FOTHER_TEST_MAKE_IN"

// makeThere runs the pipeline in a folder that holds spec.yaml and fother-cc.
func makeThere(dir string) int {
	syscall.Umask(0o077)
	path := filepath.Join(dir, "spec.yaml")
	s, err := specfile.Read(path)
	if err == nil {
		_, err = Make(context.Background(), s, Options{Work: filepath.Join(dir, "elsewhere"), Shim: filepath.Join(dir, "fother-cc"), Spec: path})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, Explain(err))
		return 1
	}
	return 0
}

// TestSameBytes: two runs in two folders, with files of other times, by two
// users with other environments, give the same bundle.
func TestSameBytes(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	dir, err := os.MkdirTemp("", "fother-same-") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, self, filepath.Join(dir, "self"), 0o755)
	for _, place := range []string{"one", "an/other"} {
		copyFile(t, bin.cc, filepath.Join(dir, place, "fother-cc"), 0o755)
		for name, text := range map[string]string{
			"src/a.c": tiny, "fix.patch": tinyPatch("argc > 2"),
			"spec.yaml": "name: tiny\nsource: src\npatches: [fix.patch]\nlevel: 3\nbuild: [\"" + link + "\"]\n",
		} {
			path := filepath.Join(dir, place, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	run := func(place string, env ...string) []byte {
		t.Helper()
		cmd := exec.Command(filepath.Join(dir, "self"))
		cmd.Env = append(append(os.Environ(), makeIn+"="+filepath.Join(dir, place)), env...)
		if os.Geteuid() == 0 && place != "one" {
			if err := os.Chown(filepath.Join(dir, place), 1234, 1234); err != nil {
				t.Fatal(err)
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		data, err := os.ReadFile(filepath.Join(dir, place, "elsewhere/tiny-3/tiny-3.kpatch.tar.zst"))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	one := run("one")
	old := time.Unix(1e9, 0)
	if err := os.Chtimes(filepath.Join(dir, "an/other/src/a.c"), old, old); err != nil {
		t.Fatal(err)
	}
	other := run("an/other", "HOME=/", "USER=somebody", "TZ=Asia/Tokyo", "LC_ALL=C")
	if !bytes.Equal(one, other) {
		t.Errorf("the bundles differ: %d and %d bytes", len(one), len(other))
	}
	if out, err := exec.Command("tar", "--zstd", "-tf", filepath.Join(dir, "one/elsewhere/tiny-3/tiny-3.kpatch.tar.zst")).Output(); err == nil && !bytes.HasPrefix(out, []byte("manifest.json\n")) {
		t.Errorf("tar lists:\n%s", out)
	}
}
