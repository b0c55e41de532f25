package registry

import (
	"encoding/xml"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"golang.org/x/crypto/bcrypt"

	"github.com/fother/fother/specs/testenv"
)

// service is a server that holds registries, started by the test.
type service struct {
	// url is where a new registry can be made; after newRegistry it is another.
	url string
	// server is where requests go, for a [proxy].
	server *url.URL
	// requests returns what the server's log has since the last call, as METHOD
	// path.
	requests func() []string
}

// services start one of each kind that is not a folder.
var services = map[string]func(t testing.TB) *service{"http": startNginx, "s3": startS3, "oci": startOCI}

// freeAddress returns an address for a server that cannot be given a listener. Each
// is of another loopback host, so that nobody else gets its port meanwhile.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs a server until the test ends, and waits until it listens.
func start(t testing.TB, address, log string, cmd *exec.Cmd) {
	t.Helper()
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for range 400 {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	said, _ := os.ReadFile(log)
	t.Fatalf("%s does not listen on %s\n%s", cmd.Path, address, said)
}

var logged = regexp.MustCompile(`"(GET|HEAD|POST|PUT|PATCH|DELETE|MKCOL) (\S+) HTTP`)

// logOf returns the new requests in a log in Apache's form, which a server
// writes after it has answered.
func logOf(t testing.TB, path string) func() []string {
	seen := 0
	return func() []string {
		var all [][]string
		for quiet := 0; quiet < 3; {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			now := logged.FindAllStringSubmatch(string(data), -1)
			if len(now) == len(all) {
				quiet++
			}
			all = now
			time.Sleep(20 * time.Millisecond)
		}
		var lines []string
		for _, m := range all[seen:] {
			path, _, _ := strings.Cut(m[2], "?")
			lines = append(lines, m[1]+" "+path)
		}
		seen = len(all)
		return lines
	}
}

func startNginx(t testing.TB) *service {
	return nginx(t, "dav_methods PUT MKCOL; create_full_put_path on;", "")
}

// nginx starts one that serves a folder and takes files by PUT. Location and
// server are more directives.
func nginx(t testing.TB, location, server string) *service {
	testenv.Needs(t, "nginx")
	dir, address := t.TempDir(), freeAddress(t)
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	files := filepath.Join(dir, "files")
	conf := fmt.Sprintf(`%s daemon off; master_process off; pid %[2]s/pid; error_log %[2]s/error.log; worker_processes 1;
events {}
http {
	access_log %[2]s/access.log combined;
	client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/f; uwsgi_temp_path %[2]s/u; scgi_temp_path %[2]s/s;
	client_max_body_size 64m;
	server {
		listen %[3]s; root %[4]s;
		%[6]s
		location / { %[5]s }
	}
}
`, user, dir, address, files, location, server)
	if err := os.MkdirAll(filepath.Join(files, "patches"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, address, filepath.Join(dir, "out"), exec.Command("nginx", "-e", filepath.Join(dir, "error.log"), "-p", dir, "-c", filepath.Join(dir, "nginx.conf")))
	return &service{"http://" + address + "/patches", &url.URL{Scheme: "http", Host: address}, logOf(t, filepath.Join(dir, "access.log"))}
}

func startOCI(t testing.TB) *service { return dockerRegistry(t, "") }

// dockerRegistry starts one that wants a password, if there is any, of user
// fother.
func dockerRegistry(t testing.TB, password string) *service {
	testenv.Needs(t, "docker-registry")
	dir, address := t.TempDir(), freeAddress(t)
	conf := fmt.Sprintf("version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n", filepath.Join(dir, "files"), address)
	if password != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		users := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(users, fmt.Appendf(nil, "fother:%s\n", hash), 0o600); err != nil {
			t.Fatal(err)
		}
		conf += fmt.Sprintf("auth:\n  htpasswd:\n    realm: test\n    path: %s\n", users)
	}
	path, log := filepath.Join(dir, "config.yml"), filepath.Join(dir, "log")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", path)
	cmd.Env = []string{"HOME=" + dir} // each REGISTRY_… is part of its configuration
	start(t, address, log, cmd)
	return &service{"oci://" + address + "/live/patches", &url.URL{Scheme: "http", Host: address}, logOf(t, log)}
}

const s3Key, s3Secret = "AKIATEST", "a secret that nobody may see"

// startS3 starts an S3 server, which knows one key.
func startS3(t testing.TB) *service {
	backend := s3mem.New()
	if err := backend.CreateBucket("patches"); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var seen []string
	files := gofakes3.New(backend).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Method+" "+r.URL.Path)
		mu.Unlock()
		if !strings.Contains(r.Header.Get("Authorization"), "Credential="+s3Key+"/") {
			s3Fails(w, http.StatusForbidden, "InvalidAccessKeyId")
			return
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return &service{"s3://patches/team?endpoint=" + server.URL, u, func() []string {
		mu.Lock()
		defer mu.Unlock()
		now := seen
		seen = nil
		return now
	}}
}

func s3Fails(w http.ResponseWriter, code int, name string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(code)
	_ = xml.NewEncoder(w).Encode(struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
	}{Code: name})
}

// TestMain gives all tests the S3 server's key and no other credentials, and
// lets publishers wait less for each other.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": s3Key, "AWS_SECRET_ACCESS_KEY": s3Secret, "AWS_SESSION_TOKEN": "", "AWS_REGION": "", "AWS_ENDPOINT_URL": "",
		"NETRC": os.DevNull, "DOCKER_CONFIG": "/nowhere", "DOCKER_AUTH_CONFIG": "", "REGISTRY_AUTH_FILE": "",
	} {
		os.Setenv(name, value)
	}
	turnHold, turnSettle, turnLate = 2*time.Second, 400*time.Millisecond, 100
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // most of them wait for each other's locks
		panic(err)
	}
	os.Exit(m.Run())
}

// newSiteAt makes a registry in a service.
func newSiteAt(t testing.TB, url string) *site {
	t.Helper()
	s := &site{url: url, keys: filepath.Join(t.TempDir(), "keys"), now: time.Now()}
	if u := strings.TrimPrefix(url, "/"); u != url {
		s.dir = url
	}
	var err error
	if s.root, err = Init(t.Context(), InitOptions{URL: url, Keys: s.keys, Now: s.clock}); err != nil {
		t.Fatal(err)
	}
	s.p = s.open(t)
	return s
}
