package services

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
)

// TestFixes: each fix is a patch, and none lies there unused.
func TestFixes(t *testing.T) {
	used := map[string]bool{}
	for _, p := range Packages {
		for _, f := range append(append([]Fix{}, p.Levels...), p.More...) {
			used[f.Name+".patch"] = true
			text, err := fixes.ReadFile("fixes/" + f.Name + ".patch")
			if err != nil || !strings.HasPrefix(string(text), "--- a/") {
				t.Errorf("%s: %v, %.20q", f.Name, err, text)
			}
		}
	}
	entries, err := fixes.ReadDir("fixes")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !used[e.Name()] {
			t.Errorf("%s is not used", e.Name())
		}
	}
}

// TestConfigure: the distribution's configuration is changed, not replaced, and
// what takes a place can be executed.
func TestConfigure(t *testing.T) {
	base, dir := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	write("etc/nginx/nginx.conf", "user www-data;\nworker_processes auto;\n")
	write("etc/lighttpd/lighttpd.conf", "server.port                 = 80\n")
	write("built", "program")
	o := BoxOptions{Base: base, Hardened: true, Replace: map[string]string{Lighttpd.File: filepath.Join(base, "built")}}
	if err := configure(dir, o); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"etc/nginx/nginx.conf":                                "user www-data;\nworker_processes 2;\n",
		"etc/lighttpd/lighttpd.conf":                          "server.port                 = 8081\nserver.max-keep-alive-idle = 60\n",
		"etc/systemd/system/nginx.service.d/hardened.conf":    hardened,
		"etc/systemd/system/lighttpd.service.d/hardened.conf": hardened,
		Lighttpd.File:             "program",
		"var/www/html/file0.html": "",
	} {
		if got := read(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, Lighttpd.File)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	write("etc/nginx/nginx.conf", "worker_processes 1;\n")
	if err := configure(dir, o); err == nil || !strings.Contains(err.Error(), "nginx.conf") {
		t.Errorf("a configuration that is not understood: %v", err)
	}
}

// TestAnswers asks servers that answer as each level does.
func TestAnswers(t *testing.T) {
	http := func(status string) string { return "HTTP/1.1 " + status + " X\r\nContent-Length: 2\r\n\r\nok" }
	memcached := func(version, touch, library string) []string {
		return []string{"VERSION 1.6.18" + version + "\r\n", touch + "\r\n", "STAT pid 7\r\nSTAT libevent 2.1.12-stable" + library + "\r\nEND\r\n"}
	}
	for _, c := range []struct {
		ask     func(net.Conn) (Answer, error)
		answers []string
		want    Answer
		err     string
	}{
		{askNginx, []string{http("404"), http("200")}, Answer{}, ""},
		{askNginx, []string{http("404"), http("400")}, Answer{More: 1}, ""},
		{askNginx, []string{http("414")}, Answer{Level: 1, More: Unknown}, ""},
		{askNginx, []string{http("400")}, Answer{Level: 2, More: Unknown}, ""},
		{askNginx, []string{http("500")}, Answer{}, "status 500"},
		{askLighttpd, []string{http("200"), http("404")}, Answer{}, ""},
		{askLighttpd, []string{http("200"), http("400")}, Answer{Level: 2}, ""},
		{askLighttpd, []string{http("400")}, Answer{Level: Unknown, More: 1}, ""},
		{askMemcached, memcached("", "NOT_FOUND", ""), Answer{}, ""},
		{askMemcached, memcached("+2", "CLIENT_ERROR x", "+1"), Answer{Level: 2, More: 1, Library: 1}, ""},
		{askMemcached, memcached("+2", "TOUCHED", ""), Answer{}, "touch: TOUCHED"},
		{askMemcached, []string{"ERROR\r\n"}, Answer{}, "want \"VERSION \""},
	} {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			buf := make([]byte, 4096)
			for _, a := range c.answers {
				if _, err := server.Read(buf); err != nil {
					return
				}
				if _, err := io.WriteString(server, a); err != nil {
					return
				}
			}
		}()
		got, err := c.ask(client)
		client.Close()
		if c.err == "" && (err != nil || got != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%.40q: %+v, %v: want %+v %s", c.answers, got, err, c.want, c.err)
		}
	}
}

func TestSuffix(t *testing.T) {
	for text, want := range map[string]specs.Level{"VERSION 1.6.18": 0, "VERSION 1.6.18+1": 1, "VERSION 1.6.18+2": 2} {
		if got, err := suffix(text, "VERSION "); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}
