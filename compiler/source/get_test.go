package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// TestFetchHTTP fetches from a server that is good, broken or hostile.
func TestFetchHTTP(t *testing.T) {
	good := packed(t, "a.tar.gz", project(t))
	sum := "sha256:" + specs.DigestOf(good).String()
	secret := put(t, "secret.tar.gz", good)
	mux := http.NewServeMux()
	serve := func(path string, h http.HandlerFunc) { mux.HandleFunc(path, h) }
	serve("/a.tar.gz", func(w http.ResponseWriter, r *http.Request) { w.Write(good) })
	serve("/chunked", func(w http.ResponseWriter, r *http.Request) {
		for i := range good {
			w.Write(good[i : i+1])
			if i%100 == 0 {
				w.(http.Flusher).Flush()
			}
		}
	})
	serve("/signed", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "a=1&b=%2F" {
			http.Error(w, r.URL.RawQuery, http.StatusForbidden)
			return
		}
		w.Write(good)
	})
	serve("/encoded", func(w http.ResponseWriter, r *http.Request) { // many servers call the file itself encoded
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(good)
	})
	serve("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/a.tar.gz", http.StatusFound) })
	serve("/local", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "file://"+secret)
		w.WriteHeader(http.StatusFound)
	})
	serve("/terraform", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Terraform-Get", "file://"+secret)
	})
	serve("/circle", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/circle", http.StatusFound) })
	serve("/short", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(good)))
		w.Write(good[:len(good)/2])
	})
	serve("/shortchunk", func(w http.ResponseWriter, r *http.Request) {
		w.Write(good[:len(good)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	serve("/cut", func(w http.ResponseWriter, r *http.Request) { w.Write(good[:len(good)/2]) })
	serve("/endless", func(w http.ResponseWriter, r *http.Request) {
		for block := make([]byte, 1<<16); r.Context().Err() == nil; {
			w.Write(block)
		}
	})
	serve("/silent", func(w http.ResponseWriter, r *http.Request) {
		w.Write(good[:10])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	serve("/mute", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server := httptest.NewServer(mux)
	defer server.Close()
	t.Setenv("NETRC", filepath.Join(t.TempDir(), "none"))
	defer func(idle time.Duration, body int64) { idleTime, maxBody = idle, body }(idleTime, maxBody)
	maxBody = 1 << 20

	for _, test := range []struct{ name, path, want string }{
		{"good", "/a.tar.gz", ""},
		{"chunked", "/chunked", ""},
		{"signed", "/signed?b=%2F&a=1", ""},
		{"encoded", "/encoded", ""},
		{"moved", "/moved", ""},
		{"redirect to a file", "/local", `redirect to a "file" address`},
		{"header to a file", "/terraform", "checksum is sha256:e3b0c442"}, // of nothing
		{"circle", "/circle", "more than 10 redirects"},
		{"missing", "/none", "bad response code: 404"},
		{"short", "/short", "unexpected EOF"},
		{"short chunk", "/shortchunk", "unexpected EOF"},
		{"cut", "/cut", "checksum is sha256:"},
		{"endless", "/endless", ErrTooLarge.Error()},
		{"silent", "/silent", "the server sent nothing for"},
		{"mute", "/mute", "the server sent nothing for"},
	} {
		t.Run(test.name, func(t *testing.T) {
			idleTime = time.Minute
			if strings.Contains(test.want, "nothing") {
				idleTime = 50 * time.Millisecond
			}
			dst, err := fetch(t.Context(), t, server.URL+test.path, sum)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("got  %v\nwant %s", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := listing(t, dst); got != projectListing {
				t.Errorf("got\n%s", got)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := fetch(ctx, t, server.URL+"/mute", sum); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("checksum in the address", func(t *testing.T) {
		if _, err := fetch(t.Context(), t, server.URL+"/a.tar.gz?checksum="+sum, ""); err != nil {
			t.Error(err)
		}
		wrong := "sha256:" + strings.Repeat("0", 64)
		if _, err := fetch(t.Context(), t, server.URL+"/a.tar.gz?checksum="+wrong, sum); err == nil || !strings.Contains(err.Error(), "does not agree") {
			t.Errorf("two that differ: %v", err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		gone := httptest.NewServer(mux)
		gone.Close()
		if _, err := fetch(t.Context(), t, gone.URL+"/a.tar.gz", sum); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v", err)
		}
	})
}

// TestFetchDowngrade: https stays https.
func TestFetchDowngrade(t *testing.T) {
	from, _ := http.NewRequest("GET", "https://h/a", nil)
	to, _ := http.NewRequest("GET", "http://h/a", nil)
	if err := checkRedirect(to, []*http.Request{from}); err == nil {
		t.Error("a redirect from https to http is followed")
	}
	if err := checkRedirect(from, []*http.Request{to}); err != nil {
		t.Error(err)
	}
}

func TestFetchFileURL(t *testing.T) {
	data := packed(t, "a.tar.xz", project(t))
	archive := put(t, "a b%.tar.xz", data)
	address := "file://" + strings.NewReplacer(" ", "%20", "%", "%25").Replace(archive)
	dst, err := fetch(t.Context(), t, address, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dst); got != projectListing {
		t.Errorf("got\n%s", got)
	}
	if got := read(t, archive); got != string(data) {
		t.Error("the archive is another now")
	}
	for address, want := range map[string]string{
		"file:///dev/zero":                                      "not a regular file",
		"file://" + filepath.Dir(archive):                       "not a regular file",
		"file://" + archive + ".none":                           "invalid URL escape",
		"file:///none.tar":                                      "no such file",
		address + "?checksum=sha256:" + strings.Repeat("0", 64): "checksum is sha256:",
	} {
		if _, err := fetch(t.Context(), t, address, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", address, err, want)
		}
	}
}

// gitIn runs git as a user with no configuration.
func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org",
		"GIT_AUTHOR_DATE=1500000000 +0000", "GIT_COMMITTER_DATE=1500000000 +0000", "GIT_ALLOW_PROTOCOL=file")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// gitRepository makes a repository with three commits and returns its path and
// their ids. The second is tagged, the last is that of branch main.
func gitRepository(t *testing.T, format string) (dir string, commits []string) {
	t.Helper()
	testenv.Needs(t, "git")
	none := filepath.Join(t.TempDir(), "none")
	t.Setenv("GIT_CONFIG_GLOBAL", none)
	t.Setenv("GIT_CONFIG_SYSTEM", none)
	dir = filepath.Join(t.TempDir(), "repo")
	gitIn(t, filepath.Dir(dir), "init", "-q", "-b", "main", "--object-format="+format, dir)
	for i := range 3 {
		write(t, filepath.Join(dir, "x.c"), fmt.Sprintf("int x = %d;\r\n", i))
		write(t, filepath.Join(dir, "sub", "y.c"), "y\n")
		if i == 0 {
			if err := errors.Join(os.Symlink("../x.c", filepath.Join(dir, "sub", "l")), os.Chmod(filepath.Join(dir, "sub", "y.c"), 0o755)); err != nil {
				t.Fatal(err)
			}
		}
		gitIn(t, dir, "add", ".")
		gitIn(t, dir, "commit", "-q", "-m", fmt.Sprint(i))
		if i == 1 {
			gitIn(t, dir, "tag", "-a", "-m", "tag", "v1.1")
		}
		commits = append(commits, gitIn(t, dir, "rev-parse", "HEAD"))
	}
	return dir, commits
}

func gitListing(i int) string {
	return fmt.Sprintf("drwxr-xr-x .\ndrwxr-xr-x sub\nLrwxrwxrwx sub/l ../x.c\n-rwxr-xr-x sub/y.c \"y\\n\"\n-rw-r--r-- x.c \"int x = %d;\\r\\n\"\n", i)
}

func TestFetchGit(t *testing.T) {
	dir, commits := gitRepository(t, "sha1")
	url := "git::file://" + dir
	// None of these may be followed: the first would have git work in the
	// repository that a hook runs for.
	t.Setenv("GIT_DIR", filepath.Join(dir, ".git"))
	t.Setenv("GIT_WORK_TREE", dir)
	before := gitIn(t, dir, "rev-parse", "HEAD")
	for _, test := range []struct {
		name, address, checksum, want string
		commit                        int
	}{
		{"last", url + "?ref=" + commits[2], "", "", 2},
		{"first", url + "?ref=" + commits[0], "", "", 0},
		{"commit as checksum", url, "git:" + commits[1], "", 1},
		{"commit twice", url + "?ref=" + commits[1], "git:" + commits[1], "", 1},
		{"tag", url + "?ref=v1.1", "git:" + commits[1], "", 1},
		{"branch", url + "?ref=main&checksum=git:" + commits[2], "", "", 2},
		{"branch was moved", url + "?ref=main", "git:" + commits[1], "checksum is git:" + commits[2] + ", want git:" + commits[1], 0},
		{"no such commit", url, "git:" + strings.Repeat("0", 40), "is not in the repository", 0},
		{"no such ref", url + "?ref=v2", "git:" + commits[0], "couldn't find remote ref v2", 0},
		{"no repository", url + ".none?ref=" + commits[0], "", "does not appear to be a git repository", 0},
		{"without a commit", url + "?ref=main", "", "can be moved", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			dst, err := fetch(t.Context(), t, test.address, test.checksum)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("got  %v\nwant %s", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, want := listing(t, dst), gitListing(test.commit); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
	if after := gitIn(t, dir, "rev-parse", "HEAD"); after != before || gitIn(t, dir, "status", "--porcelain") != "" {
		t.Errorf("the repository of GIT_DIR was touched: %s, %s", before, after)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fetch(ctx, t, url+"?ref="+commits[0], ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestFetchGitHTTP: a server of plain files can neither cut history nor hand
// out one commit.
func TestFetchGitHTTP(t *testing.T) {
	dir, commits := gitRepository(t, "sha1")
	top := t.TempDir()
	gitIn(t, top, "clone", "-q", "--bare", dir, "repo.git")
	gitIn(t, filepath.Join(top, "repo.git"), "update-server-info")
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(top)))
	asked := make(chan bool, 100)
	mux.HandleFunc("/mute/", func(w http.ResponseWriter, r *http.Request) {
		asked <- true
		<-r.Context().Done()
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, address := range []string{"?ref=" + commits[0], "?ref=main&checksum=git:" + commits[2], "?ref=v1.1&checksum=git:" + commits[1]} {
		if _, err := fetch(t.Context(), t, "git::"+server.URL+"/repo.git"+address, ""); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked // git's helper for http is at work
		cancel()
	}()
	if _, err := fetch(ctx, t, "git::"+server.URL+"/mute/repo.git?ref="+commits[0], ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestFetchGitSHA256(t *testing.T) {
	dir, commits := gitRepository(t, "sha256")
	dst, err := fetch(t.Context(), t, "git::file://"+dir+"?ref="+commits[1], "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := listing(t, dst), gitListing(1); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestFetchGitHostile: a link out is refused, a hook of the user is not run,
// and a submodule cannot reach files of this machine.
func TestFetchGitHostile(t *testing.T) {
	dir, commits := gitRepository(t, "sha1")
	ran := filepath.Join(t.TempDir(), "ran")
	hooks := t.TempDir()
	hook := write(t, filepath.Join(hooks, "post-checkout"), "#!/bin/sh\ntouch "+ran+"\n")
	if err := os.Chmod(hook, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_CONFIG_GLOBAL", write(t, filepath.Join(t.TempDir(), "config"), "[core]\nhooksPath="+hooks+"\nautocrlf=true\n"))
	dst, err := fetch(t.Context(), t, "git::file://"+dir+"?ref="+commits[0], "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := listing(t, dst), gitListing(0); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if _, err := os.Lstat(ran); err == nil {
		t.Error("a hook ran")
	}

	if err := os.Symlink("../../etc/passwd", filepath.Join(dir, "sub", "out")); err != nil {
		t.Fatal(err)
	}
	gitIn(t, dir, "add", ".")
	gitIn(t, dir, "commit", "-q", "-m", "out")
	_, err = fetch(t.Context(), t, "git::file://"+dir+"?ref="+gitIn(t, dir, "rev-parse", "HEAD"), "")
	if unsafe := (*UnsafeError)(nil); !errors.As(err, &unsafe) || unsafe.Entry != "sub/out" {
		t.Errorf("a link out: %v", err)
	}

	gitIn(t, dir, "rm", "-q", "sub/out")
	gitIn(t, dir, "-c", "protocol.file.allow=always", "submodule", "add", "-q", "file://"+dir, "inner")
	gitIn(t, dir, "commit", "-q", "-m", "submodule")
	_, err = fetch(t.Context(), t, "git::file://"+dir+"?ref="+gitIn(t, dir, "rev-parse", "HEAD"), "")
	if err == nil || !strings.Contains(err.Error(), "transport 'file' not allowed") {
		t.Errorf("a submodule on this machine: %v", err)
	}
}
