package nginx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/fother/fother/magefiles/internal/corpus"
	"github.com/fother/fother/specs"
)

// Workers is the number of worker processes of a [Server].
const Workers = 2

// Prepare fetches the source before the fix of a CVE into dir and returns the
// spec of the patch. CVE is one of [CVEs], or any other with a case in package
// corpus.
func Prepare(ctx context.Context, dir, cve string) (specs.Spec, error) {
	c, err := corpus.Find(cve)
	if err != nil {
		return specs.Spec{}, err
	}
	return c.Prepare(ctx, dir)
}

// Server is a running nginx.
type Server struct {
	cmd   *exec.Cmd
	dir   string // configuration, logs, content
	addr  string // host:port
	ended chan struct{}
}

// config has the locations at which the probes aim.
var config = template.Must(template.New("nginx.conf").Parse(`
daemon off;
master_process on;
worker_processes {{.Workers}};
{{if .Root}}user root;{{end}}
pid "{{.Dir}}/nginx.pid";
error_log "{{.Dir}}/error.log" info;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path "{{.Dir}}/tmp/body";
  proxy_temp_path "{{.Dir}}/tmp/proxy";
  fastcgi_temp_path "{{.Dir}}/tmp/fastcgi";
  uwsgi_temp_path "{{.Dir}}/tmp/uwsgi";
  scgi_temp_path "{{.Dir}}/tmp/scgi";
  server {
    listen {{.Addr}};
    root "{{.Dir}}/www";
    location /rewrite/ { rewrite ^(.*) /new?c=1; set $seen $1; return 200 $seen; }
    location /captures/ { rewrite ^/captures/((.*))$ http://{{.Addr}}/$1$2 redirect; return 200 foo; }
    location /longprefix/ { alias "{{.Dir}}/dav/"; dav_methods PUT MOVE COPY DELETE; }
  }
}
`))

// Start runs the nginx that was built in tree, from its objs folder, on a free
// port of the loopback address. Its files are in dir, an absolute path. Ctx
// bounds the start only; the server runs until Stop.
func Start(ctx context.Context, tree, dir string) (*Server, error) {
	var err error
	// The port is free when it is chosen; somebody else may be quicker.
	for range 5 {
		var s *Server
		if s, err = start(ctx, tree, dir); err == nil || !strings.Contains(err.Error(), "Address already in use") {
			return s, err
		}
	}
	return nil, err
}

func start(ctx context.Context, tree, dir string) (*Server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, addr: addr, ended: make(chan struct{})}
	if err := s.furnish(); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "output.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.cmd = exec.Command(filepath.Join(tree, "objs", "nginx"),
		"-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", filepath.Join(dir, "error.log"))
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait() // its state is read from ended on
		close(s.ended)
	}()
	if err := s.ready(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// furnish writes the server's files.
func (s *Server) furnish() error {
	for _, sub := range []string{"www", "dav", "tmp"} {
		if err := os.MkdirAll(filepath.Join(s.dir, sub), 0o755); err != nil {
			return err
		}
	}
	var conf bytes.Buffer
	err := config.Execute(&conf, map[string]any{
		"Dir": s.dir, "Addr": s.addr, "Workers": Workers, "Root": os.Geteuid() == 0,
	})
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"nginx.conf": conf.String(), "www/index.html": page, "dav/x": "data\n", "error.log": "",
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// ready waits until the server answers and all workers are there.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		pids, err := s.PIDs()
		if err == nil && len(pids) == 1+Workers {
			if c, err := net.Dial("tcp", s.addr); err == nil {
				return c.Close()
			}
		}
		select {
		case <-s.ended:
			said, _ := os.ReadFile(filepath.Join(s.dir, "output.log"))
			return fmt.Errorf("nginx ended: %v\n%s", s.cmd.ProcessState, bytes.TrimSpace(said))
		case <-ctx.Done():
			return fmt.Errorf("nginx is not ready on %s: %w", s.addr, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Addr is where the server listens, HOST:PORT.
func (s *Server) Addr() string { return s.addr }

// PIDs returns the process of the master and then those of the workers, in
// ascending order. It reads /proc/PID/stat, proc(5), of all processes.
func (s *Server) PIDs() ([]int, error) {
	master := s.cmd.Process.Pid
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var workers []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		// The name, in brackets, may hold anything: look behind it.
		f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(f) > 1 && f[0] != "Z" && f[1] == strconv.Itoa(master) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				return nil, err
			}
			workers = append(workers, pid)
		}
	}
	slices.Sort(workers)
	select {
	case <-s.ended:
		return nil, fmt.Errorf("nginx ended: %v", s.cmd.ProcessState)
	default:
		return append([]int{master}, workers...), nil
	}
}

// Crashes returns how many workers have been killed by a signal so far.
func (s *Server) Crashes() (int, error) {
	log, err := os.ReadFile(filepath.Join(s.dir, "error.log"))
	return bytes.Count(log, []byte("exited on signal")), err
}

// Stop ends master and workers and waits for the master. It may be called more
// than once.
func (s *Server) Stop() error {
	pids, err := s.PIDs()
	if err != nil {
		return nil // it is not running
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.ended:
		return nil
	case <-time.After(5 * time.Second):
	}
	for _, pid := range pids[1:] {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = s.cmd.Process.Kill()
	<-s.ended
	return errors.New("nginx had to be killed")
}
