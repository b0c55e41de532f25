package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs/specfile"
	"github.com/fother/fother/specs/testenv"
)

// Variables that make the test program something else: makeIn names a folder
// with spec.yaml and fother-cc in which it runs the pipeline, and ends. With
// rebuildFrom it makes the bundle once more that is in the registry of that
// name, or the bundle of that name.
const (
	makeIn      = "FOTHER_TEST_MAKE_IN"
	rebuildFrom = "FOTHER_TEST_REBUILD"
	becomeOther = "FOTHER_TEST_OTHER"
	makeUmask   = "FOTHER_TEST_UMASK" // octal, 077 if it is not set
)

// otherUser is who the second party is, if the tests run as root.
const otherUser = 1234

// makeThere runs the pipeline in a folder.
func makeThere(dir string) int {
	if os.Getenv(becomeOther) != "" {
		if err := become(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	mask, err := strconv.ParseUint(os.Getenv(makeUmask), 8, 9)
	if err != nil {
		mask = 0o077
	}
	syscall.Umask(int(mask))
	path := filepath.Join(dir, "spec.yaml")
	s, err := specfile.Read(path)
	o := Options{
		Work: filepath.Join(dir, "elsewhere"), Shim: filepath.Join(dir, "fother-cc"), Spec: path, Progress: os.Stderr,
		Registry: os.Getenv(rebuildFrom), Keys: filepath.Join(dir, "keys"),
	}
	switch {
	case err != nil:
	case o.Registry == "":
		_, err = Make(context.Background(), s, o)
	default:
		file := o.Registry
		if info, e := os.Stat(file); e == nil && info.IsDir() {
			file = ""
		}
		err = Rebuild(context.Background(), s, o, file)
		if place := (*PlaceError)(nil); errors.As(err, &place) {
			fmt.Fprintln(os.Stderr, "in a mount namespace:", err)
			err = InNamespace(context.Background(), place.Folder, o.Work)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, Explain(err))
		return 1
	}
	return 0
}

// become makes this program one of another user on another host, where the
// caller has put it in a UTS namespace of its own.
func become() error {
	runtime.LockOSThread()
	err := errors.Join(os.Unsetenv(becomeOther), unix.Sethostname([]byte("elsewhere")),
		syscall.Setgroups(nil), syscall.Setgid(otherUser), syscall.Setuid(otherUser))
	if err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

// places are folders in which this test program runs the pipeline.
type places struct {
	t   *testing.T
	dir string
}

func newPlaces(t *testing.T) *places {
	t.Helper()
	dir, err := os.MkdirTemp("", "fother-same-") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &places{t, dir}
	copyFile(t, self, p.path("self"), 0o755)
	return p
}

func (p *places) path(names ...string) string {
	return filepath.Join(append([]string{p.dir}, names...)...)
}

// put writes a file with fother-cc beside the first of them.
func (p *places) put(place, name, text string) {
	p.t.Helper()
	if _, err := os.Stat(p.path(place, "fother-cc")); err != nil {
		copyFile(p.t, bin.cc, p.path(place, "fother-cc"), 0o755)
	}
	path := p.path(place, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// sh runs a command in a place.
func (p *places) sh(place, command string) {
	p.t.Helper()
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = p.path(place)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// run runs the pipeline in a place and returns what it prints; with other, by
// another user on another host, as far as the tests may do that.
func (p *places) run(place string, other bool, env ...string) (string, error) {
	p.t.Helper()
	cmd := exec.Command(p.path("self"))
	cmd.Dir = p.path(place)
	cmd.Env = append(append(os.Environ(), makeIn+"="+p.path(place), "PWD="+p.path(place)), env...)
	if other {
		cmd.Env = append(cmd.Env, "HOME=/", "USER=somebody", "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "LANG=de_DE.UTF-8")
	}
	if other && os.Geteuid() == 0 {
		p.sh(place, fmt.Sprintf("chown -R %d:%d .", otherUser, otherUser))
		cmd.Env = append(cmd.Env, becomeOther+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// otherClock returns variables that put the clock of the programs that a build
// runs more than a year ahead.
func otherClock(t *testing.T) []string {
	t.Helper()
	testenv.Needs(t, "faketime")
	out, err := exec.Command("faketime", "-f", "+400d", "env").Output()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(string(out), "\n"), func(kv string) bool {
		// The others name memory of a run of faketime that has ended.
		return !strings.HasPrefix(kv, "LD_PRELOAD=") && !strings.HasPrefix(kv, "FAKETIME=")
	})
}

// TestSameBytes: two runs on a sample in two folders, with files of other times,
// by two users with other clocks, masks and environments on hosts of other names,
// give the same bundle. The time is that of the commit.
func TestSameBytes(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "")
	os.Unsetenv("SOURCE_DATE_EPOCH")
	p := newPlaces(t)
	p.put("one", "src/when.c", "const char *when(void)\n{\n\treturn __DATE__ \" \" __TIME__;\n}\n")
	p.sh("one/src", "cp "+sample(t, "simple")+"/* . && git init -q && git add . && GIT_COMMITTER_DATE='@1700000000 +0000' git commit -q -m one")
	for _, place := range []string{"one", "an/other"} {
		p.put(place, "spec.yaml", "name: simple\nsource: src\npatches: [src/fix.patch]\nlevel: 3\nenv: {CFLAGS: -O2, LDFLAGS: when.c}\nbuild: [make]\n")
	}
	p.sh(".", "git clone -q one/src an/other/src")
	old := time.Unix(1e9, 0)
	if err := os.Chtimes(p.path("an/other/src/main.c"), old, old); err != nil {
		t.Fatal(err)
	}
	var bundles [][]byte
	env := map[string][]string{"one": {makeUmask + "=022"}, "an/other": otherClock(t)}
	for _, place := range []string{"one", "an/other"} {
		if out, err := p.run(place, place != "one", env[place]...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		data, err := os.ReadFile(p.path(place, "elsewhere/simple-3/simple-3.kpatch.tar.zst"))
		if err != nil {
			t.Fatal(err)
		}
		bundles = append(bundles, data)
	}
	if !bytes.Equal(bundles[0], bundles[1]) {
		t.Errorf("the bundles differ: %v", compareBundles(bundles[0], bundles[1]))
	}
	out, err := exec.Command("tar", "--zstd", "-xOf", p.path("one/elsewhere/simple-3/simple-3.kpatch.tar.zst"), "manifest.json").Output()
	if err == nil && (!strings.Contains(string(out), `"2023-11-14T22:13:20Z"`) || strings.Contains(string(out), `"path"`)) {
		t.Errorf("manifest:\n%s", out)
	}
}

// sample returns the folder of a sample.
func sample(t *testing.T, name string) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(samples, name))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
