package compiler

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
)

// TestBuildsSeeNoKeys: a build runs what others wrote. It has this process's
// environment but for what signs and what opens registries.
func TestBuildsSeeNoKeys(t *testing.T) {
	for _, name := range []string{"FOTHER_KEY_TIMESTAMP", "FOTHER_KEY_PASSPHRASE", "FOTHER_KEY_PACKAGE_NGINX", "FOTHER_REGISTRY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "DOCKER_AUTH_CONFIG"} {
		t.Setenv(name, "s3cret")
	}
	t.Setenv("FOTHER_TEST", "seen")
	dir := t.TempDir()
	err := Run(t.Context(), Options{
		Dir: dir, Store: filepath.Join(t.TempDir(), "store"), Stage: specs.StageOriginal, Shim: fotherCC,
		Commands: []string{"env > seen; echo 'int main(void){return 0;}' > a.c; gcc -c a.c; gcc -o a a.o"}, Env: []string{"OF_SPEC=1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "seen"))
	if err != nil {
		t.Fatal(err)
	}
	if seen := string(data); strings.Contains(seen, "s3cret") || !strings.Contains(seen, "FOTHER_TEST=seen") || !strings.Contains(seen, "OF_SPEC=1") {
		t.Errorf("a build sees %s", seen)
	}
}
