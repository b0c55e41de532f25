package stop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMageKilled ends mage in the middle of a build.
func TestMageKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds the magefile")
	}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		dir := t.TempDir()
		reached := filepath.Join(dir, "reached")
		for name, text := range map[string]string{
			"src/a.c":   "int main(void)\n{\n\treturn 1;\n}\n",
			"fix.patch": "--- a/a.c\n+++ b/a.c\n@@ -1,4 +1,4 @@\n int main(void)\n {\n-\treturn 1;\n+\treturn 2;\n }\n",
			"spec.yaml": "name: stopped\nsource: src\npatches: [fix.patch]\nbuild: ['echo $$ >" + reached + ".new; mv " + reached + ".new " + reached + "; sleep 1000; :']\n",
		} {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		// The process that is killed is mage itself: go passes signals on.
		tool, err := exec.Command("go", "tool", "-n", "mage").Output()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(strings.TrimSpace(string(tool)), "patch:build", filepath.Join(dir, "spec.yaml"))
		cmd.Dir = "../../.."
		cmd.Env = append(os.Environ(), "FOTHER_WORK="+filepath.Join(dir, "work"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var shell int
		waitFor(t, "the build does not begin", func() bool {
			text, err := os.ReadFile(reached)
			if err == nil {
				shell, err = strconv.Atoi(strings.TrimSpace(string(text)))
			}
			return err == nil
		})
		if err := cmd.Process.Signal(s); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		waitFor(t, "the build lives on", func() bool { return syscall.Kill(shell, 0) != nil })
	}
}

func waitFor(t *testing.T, otherwise string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(otherwise)
		}
	}
}
