package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/fleet"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// shelf is a registry in a folder, with a root.json and a state folder for
// clients.
type shelf struct {
	t                      *testing.T
	dir, keys, root, state string
	bundle                 string // the file that was published last
	channel                registry.Channel
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	dir := t.TempDir()
	s := &shelf{t, filepath.Join(dir, "registry"), filepath.Join(dir, "keys"), filepath.Join(dir, "root.json"), filepath.Join(dir, "state"), "", ""}
	root, err := registry.Init(t.Context(), registry.InitOptions{URL: s.dir, Keys: s.keys})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.root, root, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// publish publishes a patch file as a bundle of its own.
func (s *shelf) publish(file []byte) {
	s.t.Helper()
	p, err := kpack.Decode(file)
	if err != nil {
		s.t.Fatal(err)
	}
	s.publishPatch(p)
}

func (s *shelf) publishPatch(p *kpack.Patch) {
	s.t.Helper()
	file, err := p.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	m := p.Meta
	manifest := bundle.Manifest{Name: m.Name, Series: m.Series, Level: m.Level, Description: m.Description, CVEs: m.CVEs, Created: time.Unix(1e9, 0).UTC()}
	if m.Producer != "" {
		manifest.Toolchain = []string{m.Producer}
	}
	data, err := bundle.Encode(manifest, [][]byte{file})
	if err != nil {
		s.t.Fatal(err)
	}
	s.release(registry.Release{Package: m.Name, Series: m.Series, Level: m.Level, CVEs: m.CVEs, BuildIDs: []specs.BuildID{p.Target.BuildID}, Bundle: data})
}

func (s *shelf) release(r registry.Release) {
	s.t.Helper()
	r.File, r.Channel = bundle.Name(r.Package, r.Level), s.channel
	s.bundle = filepath.Join(s.t.TempDir(), r.File)
	if err := os.WriteFile(s.bundle, r.Bundle, 0o600); err != nil {
		s.t.Fatal(err)
	}
	pub, err := registry.Open(s.dir, s.keys)
	if err == nil {
		err = pub.Publish(s.t.Context(), r)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// pull runs fother pull and checks its exit status and what it writes.
func (s *shelf) pull(code int, want string, args ...string) string {
	s.t.Helper()
	args = append([]string{"pull", "--registry", s.dir, "--root", s.root, "--state", s.state}, args...)
	stdout, stderr, got := fother(args...)
	if got != code || !strings.Contains(stdout+stderr, want) {
		s.t.Errorf("fother %v: exit %d, %q, %q: want %d, %q", args, got, stdout, stderr, code, want)
	}
	return stdout
}

// asked is the program while it runs, which answers a line by a number.
type asked struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

func ask(t *testing.T, prog *program, wrap ...string) *asked {
	t.Helper()
	args := append(wrap, prog.bin)
	cmd := exec.Command(args[0], args[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	a := &asked{t, cmd, in, bufio.NewReader(out)}
	a.expect("2") // it runs its own code, no longer the loader's
	return a
}

func (a *asked) pid() string { return strconv.Itoa(a.cmd.Process.Pid) }

func (a *asked) expect(want string) {
	a.t.Helper()
	fmt.Fprintln(a.in)
	if got, err := a.out.ReadString('\n'); strings.TrimSpace(got) != want {
		a.t.Errorf("the program answers %q, %v: want %s", got, err, want)
	}
}

// stuck is a patch for main, which the program never leaves.
func stuck(t *testing.T, prog *program) *kpack.Patch {
	t.Helper()
	p := prog.build(t, "stuck", 1, "main", 0).Patch
	p.Meta.Name = "stuck-fix"
	return p
}

func TestPull(t *testing.T) {
	prog := fixture(t)
	s, c := newShelf(t), ask(t, prog)
	if out := s.pull(0, "", "-p", c.pid()); out != "" {
		t.Errorf("an empty registry: %q", out)
	}
	c.expect("2")
	s.publish(prog.patch(t, "default", 1))
	s.pull(0, "would apply the-fix (series default, level 1) to prog: answer", "-p", c.pid(), "--dry-run")
	c.expect("2")
	s.pull(0, "1 bundle applied", "-p", c.pid())
	c.expect("41")
	if out := s.pull(0, "", "-p", c.pid()); out != "" {
		t.Errorf("a pass with nothing to do says %q", out)
	}
	s.pull(0, "has series default, level 1 of ", "-p", c.pid(), "-v")

	s.publish(prog.patch(t, "default", 3))
	var r fleet.Report
	if err := json.Unmarshal([]byte(s.pull(0, "", "-p", c.pid(), "--json")), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Processes) != 1 || len(r.Processes[0].Steps) != 1 || len(r.Releases) != 1 || r.Releases[0].Level != 3 {
		t.Errorf("%+v", r)
	} else if res := r.Processes[0].Steps[0].Result; len(res.Applied) != 1 || res.Stop.Total <= 0 {
		t.Errorf("%+v", res)
	}
	c.expect("43")
	s.publish(prog.patch(t, "default", 2)) // older than what is there
	s.pull(0, "", "-p", c.pid())
	c.expect("43")
}

func TestPullFindsProcessesByItself(t *testing.T) {
	prog := fixture(t)
	s, a, b := newShelf(t), ask(t, prog), ask(t, prog)
	s.publish(prog.patch(t, "default", 1))
	out := s.pull(0, "1 release for 2 processes, 2 bundles applied")
	for _, c := range []*asked{a, b} {
		c.expect("41")
		if !strings.Contains(out, c.pid()+" (prog): applied the-fix") {
			t.Errorf("no word of %s: %s", c.pid(), out)
		}
	}
}

func TestPullBusyIsRefused(t *testing.T) {
	prog := fixture(t)
	s, c := newShelf(t), ask(t, prog)
	s.publish(prog.patch(t, "default", 1))
	s.publishPatch(stuck(t, prog))
	args := []string{"-p", c.pid(), "--wait", "50ms"}
	s.pull(4, "(prog) is in main at 0x", args...)
	c.expect("41") // the other one went in
	var r fleet.Report
	if err := json.Unmarshal([]byte(s.pull(4, "give the threads longer with --wait", append(args, "--json")...)), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Processes) != 1 || len(r.Processes[0].Errors) != 1 {
		t.Fatalf("%+v", r)
	}
	f := r.Processes[0].Errors[0]
	if f.Exit != 4 || len(f.Threads) != 1 || f.Threads[0].Function != "main" || f.Threads[0].Name != "prog" || f.Hint == "" {
		t.Errorf("%+v", f)
	}
	// An error goes before a refusal.
	s.release(registry.Release{Package: "junk", Series: "junk", Level: 1, BuildIDs: []specs.BuildID{prog.id}, Bundle: []byte("no bundle")})
	s.pull(1, "junk-1.kpatch.tar.zst: not a bundle", args...)
}

func TestPullTrustsRootAlone(t *testing.T) {
	prog := fixture(t)
	s, c := newShelf(t), ask(t, prog)
	s.publish(prog.patch(t, "default", 1))
	args := []string{"-p", c.pid()}
	other := newShelf(t)
	keep := s.root
	s.root = other.root
	s.pull(1, "registry "+s.dir+": ", args...)
	c.expect("2")
	s.root = keep
	os.Chmod(s.root, 0o666)
	s.pull(1, "hint: whoever can write root.json decides what runs here", args...)
	s.root = filepath.Join(t.TempDir(), "none.json")
	s.pull(1, "hint: get root.json from the registry's owner", args...)
	os.WriteFile(s.root, []byte("{}"), 0o600)
	s.pull(1, "registry "+s.dir+": ", args...)
	s.root = keep
	os.Chmod(s.root, 0o600)

	// A bundle that was changed in the store is not taken.
	var bundles []string
	filepath.WalkDir(s.dir, func(path string, _ os.DirEntry, _ error) error {
		if strings.HasSuffix(path, bundle.Suffix) {
			bundles = append(bundles, path)
		}
		return nil
	})
	if len(bundles) != 1 {
		t.Fatalf("bundles %v", bundles)
	}
	good, err := os.ReadFile(bundles[0])
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte(nil), good...)
	bad[len(bad)/2] ^= 1
	os.Chmod(bundles[0], 0o644)
	os.WriteFile(bundles[0], bad, 0o644)
	s.pull(1, "the-fix-1.kpatch.tar.zst: registry "+s.dir+": ", args...)
	c.expect("2")
	os.WriteFile(bundles[0], good, 0o644)
	s.pull(0, "applied", args...)
	c.expect("41")
}

func TestPullFromServer(t *testing.T) {
	prog := fixture(t)
	s, c := newShelf(t), ask(t, prog)
	s.publish(prog.patch(t, "default", 1))
	var asked []string
	files := http.FileServer(http.Dir(s.dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		files.ServeHTTP(w, r)
	}))
	defer server.Close()
	t.Setenv("FOTHER_REGISTRY", server.URL)
	pull := func(code int, want string) {
		t.Helper()
		_, stderr, got := fother("pull", "--root", s.root, "--state", s.state, "-p", c.pid())
		if got != code || !strings.Contains(stderr, want) {
			t.Errorf("exit %d, %q: want %d, %q", got, stderr, code, want)
		}
	}
	pull(0, "")
	c.expect("41")
	cached := s.cached()
	for _, path := range cached {
		os.Remove(path)
	}
	asked = nil
	pull(0, "")
	if len(asked) != 2 || len(s.cached()) != 0 {
		t.Errorf("with nothing to do it asks for %v, and has %v", asked, s.cached())
	}
	c = ask(t, prog)
	pull(0, "")
	c.expect("41")
	// With the store down, what is known still holds: also for a new process.
	server.Close()
	c = ask(t, prog)
	pull(1, "fother: error: registry "+server.URL+": ")
	c.expect("41")
}

// cached are the bundles and signatures that the client keeps.
func (s *shelf) cached() []string {
	s.t.Helper()
	names, err := filepath.Glob(filepath.Join(s.state, "*", "bundles", "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	return names
}

func TestPullCacheIsCleaned(t *testing.T) {
	prog := fixture(t)
	s, c := newShelf(t), ask(t, prog)
	kept := func(want int) {
		t.Helper()
		n := 0
		for _, name := range s.cached() {
			if !strings.HasSuffix(name, ".sig") {
				n++
			}
		}
		if n != want {
			t.Errorf("%d bundles in the cache: want %d: %v", n, want, s.cached())
		}
	}
	s.publish(prog.patch(t, "default", 1))
	s.pull(0, "applied")
	kept(1)
	s.publish(prog.patch(t, "default", 2))
	s.pull(0, "applied", "-p", c.pid()) // one process cannot tell what the others need
	kept(2)
	s.pull(0, "")
	kept(1)
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	s.pull(0, "")
	kept(0)
}

// TestPullWhileProcessesComeAndGo makes passes while processes that a patch is
// for start and end all the time, which is no error.
func TestPullWhileProcessesComeAndGo(t *testing.T) {
	prog, s := fixture(t), newShelf(t)
	s.publish(prog.patch(t, "default", 1))
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		started := 0
		defer func() { done <- started }()
		for ; ; started++ {
			cmd := exec.Command(prog.bin)
			in, err := cmd.StdinPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
			case <-time.After(time.Duration(started%40) * time.Millisecond):
			}
			if in.Close(); started%2 == 0 { // it ends by itself, or
				_ = cmd.Process.Kill()
			}
			_ = cmd.Wait()
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for range 20 {
		// Not in this process: the wait for a child would take away what its
		// tracer waits for.
		cmd := exec.Command("fother", "pull", "--registry", s.dir, "--root", s.root, "--state", s.state)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	close(stop)
	t.Logf("%d processes came and went", <-done)
}

// TestPullOnTerminal looks at what a person sees.
func TestPullOnTerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testenv.Skip(t, "no pseudo terminals: "+err.Error())
	}
	defer master.Close()
	n, err := unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	prog, s := fixture(t), newShelf(t)
	c := ask(t, prog)
	s.publish(prog.patch(t, "default", 1))
	args := []string{"pull", "--registry", s.dir, "--root", s.root, "--state", s.state, "-p", c.pid()}
	for range 2 {
		if code := run(t.Context(), args, nil, tty, tty); code != exitDone {
			t.Errorf("exit %d", code)
		}
	}
	tty.Close()
	seen, _ := io.ReadAll(master) // ends with EIO
	for _, want := range []string{
		"looking at what runs", "asking /", "fetching the-fix-1.kpatch.tar.zst", "(prog): the-fix-1", "1 bundle applied",
		"looked at 1 process: 1 release for 1 process, 0 bundles applied",
	} {
		if !strings.Contains(string(seen), want) {
			t.Errorf("no %q in %q", want, seen)
		}
	}
}

func TestPullUsage(t *testing.T) {
	t.Setenv("FOTHER_REGISTRY", "")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"pull -h", 0, "usage: fother pull"},
		{"pull", 2, "no registry is named"},
		{"pull x", 2, "takes no argument"},
		{"pull --registry /r --wait -5s", 2, "wait"},
		{"pull --frob", 2, "frob"},
		{"pull --registry /r --root /nonexistent/root.json", 1, "no such file"},
		{"show -h", 0, "usage: fother show"},
		{"show", 2, "no file is named"},
		{"show /nonexistent", 1, "no such file"},
		{"show /dev", 1, "not a regular file"},
	} {
		out, err, code := fother(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out+err, c.want) {
			t.Errorf("fother %s: exit %d, %q, %q: want %d, %q", c.args, code, out, err, c.code, c.want)
		}
	}
	s := newShelf(t)
	os.MkdirAll(s.state, 0o755)
	os.Chmod(s.state, 0o777)
	s.pull(1, "hint: use a folder that only you can write")
}

func TestStateFolder(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/x")
	want := "/var/lib/fother"
	if os.Geteuid() != 0 {
		want = "/x/fother"
	}
	if got, err := stateFolder(""); got != want || err != nil {
		t.Errorf("%q, %v: want %q", got, err, want)
	}
	if got, err := stateFolder("/y/"); got != "/y" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got := registry.Redacted("https://user:secret@patches.example/x"); strings.Contains(got, "secret") {
		t.Errorf("the password is shown: %s", got)
	}
	if got := registry.Redacted("../x"); !filepath.IsAbs(got) {
		t.Errorf("whose folder is %s?", got)
	}
	if e := pullError(fmt.Errorf("x: %w", fleet.ErrLocked)); exitCode(e) != exitError || hint(e) == "" || !errors.Is(e, fleet.ErrLocked) {
		t.Errorf("%v", e)
	}
}
