package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/apply/fleet"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
)

func (s *shelf) publisher() *registry.Publisher {
	s.t.Helper()
	p, err := registry.Open(s.dir, s.keys)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *shelf) revoke(level specs.Level, reason string) {
	s.t.Helper()
	if _, err := s.publisher().Revoke(s.t.Context(), registry.Ref{Package: "the-fix", Level: level}, reason); err != nil {
		s.t.Fatal(err)
	}
}

// TestPullRevoked: a process goes back from a level that was revoked to the one
// before, in one commit, and from that to its own code. What was revoked does not
// come back, also not in a new process, nor with the registry down.
func TestPullRevoked(t *testing.T) {
	prog := fixture(t)
	s, c := newShelf(t), ask(t, prog)
	s.publish(prog.patch(t, "default", 1))
	s.publish(prog.patch(t, "default", 2))
	s.pull(0, "1 bundle applied", "-p", c.pid())
	c.expect("42")
	s.revoke(2, "it leaks")
	s.pull(0, "the-fix (series default, level 2) would be taken out, since it was revoked: it leaks", "-p", c.pid(), "--dry-run")
	c.expect("42")
	out := s.pull(0, "the-fix (series default, level 2) is replaced, since it was revoked: it leaks", "-p", c.pid())
	if !strings.Contains(out, "replaced level 2") || !strings.Contains(out, "applied the-fix (series default, level 1)") {
		t.Errorf("a lower level: %s", out)
	}
	c.expect("41")
	if out := s.pull(0, "", "-p", c.pid()); out != "" {
		t.Errorf("a second pass says %q", out)
	}
	c.expect("41")
	info := func(want string) {
		t.Helper()
		out, stderr, code := fother("info", "-p", c.pid(), "--state", s.state)
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("info: exit %d, %q, %q: want %q", code, out, stderr, want)
		}
	}
	info("revoked: the-fix (series default, level 2): it leaks")

	s.revoke(1, "so does it")
	var r fleet.Report
	if err := json.Unmarshal([]byte(s.pull(0, "", "-p", c.pid(), "--json")), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Revoked) != 1 || !r.Revoked[0].Out || r.Revoked[0].Reason != "so does it" || r.Revoked[0].Patch.Level != 1 || len(r.Revoked[0].Result.Removed) != 1 {
		t.Errorf("%+v", r.Revoked)
	}
	c.expect("2")
	info("revoked: the-fix (series default, level 1): so does it")
	if err := os.Rename(s.dir, s.dir+"-away"); err != nil {
		t.Fatal(err)
	}
	fresh := ask(t, prog)
	s.pull(1, "registry "+s.dir, "-p", fresh.pid())
	fresh.expect("2")
	if err := os.Rename(s.dir+"-away", s.dir); err != nil {
		t.Fatal(err)
	}
	// By hand, and by who asks the registry for a file.
	if out, stderr, code := fother("show", "--registry", s.dir, "--root", s.root, s.bundle); code != 0 || !strings.Contains(out, "it leaks") {
		t.Errorf("show: exit %d, %q, %q", code, out, stderr)
	}
	s.publish(prog.patch(t, "default", 3))
	s.pull(0, "applied the-fix (series default, level 3)", "-p", c.pid())
	c.expect("43")
}

// TestPullRevokedByAnother: what the package's key has not signed reverts
// nothing, and the status says that something is wrong.
func TestPullRevokedByAnother(t *testing.T) {
	prog := fixture(t)
	s, c := newShelf(t), ask(t, prog)
	s.publish(prog.patch(t, "default", 1))
	s.pull(0, "applied", "-p", c.pid())
	s.revoke(1, "it leaks")
	files, err := filepath.Glob(filepath.Join(s.dir, "bundles", "*", "*.revoked"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string]string{"changed": strings.Replace(string(good), `"sig":"`, `"sig":"AA`, 1), "empty": "", "of another": `{"payloadType":"x"}`} {
		if err := os.WriteFile(files[0], []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		s.pull(1, ".kpatch.tar.zst.revoked: ", "-p", c.pid())
		c.expect("41")
		t.Log(what)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	s.pull(1, ".kpatch.tar.zst.revoked: ", "-p", c.pid())
	c.expect("41")
	if err := os.WriteFile(files[0], good, 0o644); err != nil {
		t.Fatal(err)
	}
	s.pull(0, "reverted the-fix", "-p", c.pid())
	c.expect("2")
}

// TestPullChannel: what is in a channel is for those who follow it.
func TestPullChannel(t *testing.T) {
	t.Setenv("FOTHER_CHANNEL", "")
	prog := fixture(t)
	s, c := newShelf(t), ask(t, prog)
	s.channel = registry.Edge
	s.publish(prog.patch(t, "default", 1))
	s.pull(0, "", "-p", c.pid())
	s.pull(0, "", "-p", c.pid(), "--channel", "beta")
	c.expect("2")
	s.pull(2, "want edge, beta or stable", "-p", c.pid(), "--channel", "later")
	t.Setenv("FOTHER_CHANNEL", "edge")
	s.pull(0, "", "-p", c.pid(), "--channel", "stable")
	c.expect("2")
	s.pull(0, "applied", "-p", c.pid())
	c.expect("41")
	t.Setenv("FOTHER_CHANNEL", "")
	d := ask(t, prog)
	if _, err := s.publisher().Promote(t.Context(), registry.Ref{Package: "the-fix", Level: 1}, registry.Stable); err != nil {
		t.Fatal(err)
	}
	s.pull(0, "applied", "-p", d.pid())
	d.expect("41")
}
