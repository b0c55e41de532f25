package services

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/magefiles/internal/load"
	"github.com/fother/fother/specs"
)

// Service is a unit of the box.
type Service struct {
	Unit      string
	Processes int
	Package   Package
	Libraries []Package
	Addr      string // inside of the box
	Kind      load.Kind
	ask       func(net.Conn) (Answer, error)
}

// Answer is which code answered: the levels of the default series and of the
// other one, and that of the library. 0 stands for the original.
type Answer struct{ Level, More, Library specs.Level }

// All are the services.
var All = []Service{
	{Unit: "nginx.service", Processes: 3, Package: Nginx, Addr: "127.0.0.1:8080", Kind: load.HTTP, ask: askNginx},
	{Unit: "memcached.service", Processes: 1, Package: Memcached, Libraries: []Package{Libevent}, Addr: "127.0.0.1:11211", Kind: load.Memcached, ask: askMemcached},
	{Unit: "lighttpd.service", Processes: 1, Package: Lighttpd, Addr: "127.0.0.1:8081", Kind: load.HTTP, ask: askLighttpd},
}

// Bodies are the files that the web servers have, by path.
func Bodies() map[string]string {
	all := map[string]string{}
	for i, size := range []int{0, 6, 1000, 5000, 40000} {
		path := fmt.Sprintf("/file%d.html", i)
		line := path + " is what was asked for\n"
		all[path] = strings.Repeat(line, size/len(line)+1)[:size]
	}
	return all
}

// Ask asks the service which code answers. With several workers it is that of
// one of them.
func (s Service) Ask(b *Box) (Answer, error) {
	c, err := b.dial(s.Addr)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", s.Unit, err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return Answer{}, err
	}
	a, err := s.ask(c)
	if err != nil {
		err = fmt.Errorf("%s: %w", s.Unit, err)
	}
	return a, err
}

// dial connects to an address inside of the box. A socket belongs to the network
// namespace of the thread that makes it, setns(2).
func (b *Box) dial(addr string) (c net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never lets go: the thread ends with the goroutine
		var ns *os.File
		if ns, err = os.Open(b.network()); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			c, err = net.DialTimeout("tcp", addr, 10*time.Second)
		}
	}()
	<-done
	return c, err
}

func (b *Box) network() string { return fmt.Sprintf("/proc/%d/ns/net", b.PID()) }

// Load keeps the service busy.
func (b *Box) Load(s Service, connections int) (*load.Load, error) {
	return load.Start(load.Order{
		Kind: s.Kind, Addr: s.Addr, Connections: connections, Short: connections / 4, Network: b.network(), Bodies: Bodies(),
	})
}

// askNginx sends an address that is too long for the fixes of the default
// series, and a header that is too long for the other.
func askNginx(c net.Conn) (Answer, error) {
	long, err := status(c, "GET /"+strings.Repeat("x", 1100)+" HTTP/1.1\r\nHost: soak\r\nUpgrade: x\r\n\r\n")
	if err != nil {
		return Answer{}, err
	}
	a, err := byStatus(long)
	if err != nil || a.Level > 0 {
		a.More = Unknown
		return a, err
	}
	upgrade, err := status(c, "GET /file1.html HTTP/1.1\r\nHost: soak\r\nUpgrade: "+strings.Repeat("x", 70)+"\r\n\r\n")
	if upgrade == http.StatusBadRequest {
		a.More = 1
	}
	return a, err
}

// askLighttpd does likewise; there, the other series minds long queries.
func askLighttpd(c net.Conn) (Answer, error) {
	query, err := status(c, "GET /file1.html?"+strings.Repeat("x", 700)+" HTTP/1.1\r\nHost: soak\r\n\r\n")
	if err != nil {
		return Answer{}, err
	}
	if query == http.StatusBadRequest {
		return Answer{Level: Unknown, More: 1}, nil
	}
	long, err := status(c, "GET /"+strings.Repeat("x", 1100)+" HTTP/1.1\r\nHost: soak\r\n\r\n")
	if err != nil {
		return Answer{}, err
	}
	return byStatus(long)
}

// Unknown is a level that the service could not be asked for: after a refusal for
// the one series it closes the connection.
const Unknown = ^specs.Level(0)

func byStatus(status int) (Answer, error) {
	for level, s := range []int{http.StatusNotFound, http.StatusRequestURITooLong, http.StatusBadRequest} {
		if s == status {
			return Answer{Level: specs.Level(level)}, nil
		}
	}
	return Answer{}, fmt.Errorf("status %d for a long address", status)
}

// status sends a request and reads the answer.
func status(c net.Conn, request string) (int, error) {
	if _, err := io.WriteString(c, request); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, err
}

// askMemcached asks for the versions of the program and of libevent, which the
// fixes change, and for an expiry time that is too long for the other series.
func askMemcached(c net.Conn) (a Answer, err error) {
	r := bufio.NewReader(c)
	line := func(request string) string {
		if err == nil && request != "" {
			_, err = io.WriteString(c, request)
		}
		var answer string
		if err == nil {
			answer, err = r.ReadString('\n')
		}
		return strings.TrimRight(answer, "\r\n")
	}
	if a.Level, err = suffix(line("version\r\n"), "VERSION "); err != nil {
		return a, err
	}
	switch answer := line("touch soak 0000000000005\r\n"); {
	case err != nil:
		return a, err
	case strings.HasPrefix(answer, "CLIENT_ERROR"):
		a.More = 1
	case answer != "NOT_FOUND":
		return a, fmt.Errorf("touch: %s", answer)
	}
	for answer := line("stats\r\n"); err == nil && answer != "END"; answer = line("") {
		if version, ok := strings.CutPrefix(answer, "STAT libevent "); ok {
			if a.Library, err = suffix(version, "2.1.12"); err != nil {
				return a, err
			}
		}
	}
	return a, err
}

// suffix returns the level that stands behind a version: "1.6.18+2" is level 2.
func suffix(text, prefix string) (specs.Level, error) {
	if !strings.HasPrefix(text, prefix) {
		return 0, fmt.Errorf("answer %q, want %q and more", text, prefix)
	}
	for _, l := range []specs.Level{1, 2} {
		if strings.HasSuffix(text, fmt.Sprintf("+%d", l)) {
			return l, nil
		}
	}
	return 0, nil
}

// hardened is what systemd-analyze security asks for of a web server, as far as
// one can work with it.
const hardened = `[Service]
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
SystemCallFilter=@system-service
SystemCallArchitectures=native
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
PrivateDevices=yes
PrivateTmp=yes
UMask=0077
ReadWritePaths=/run /var/log /var/lib/nginx /var/cache/lighttpd
`

// configure writes the files of the box that are not the distribution's.
func configure(dir string, o BoxOptions) error {
	files := map[string][]byte{
		"etc/nginx/sites-enabled/soak": []byte("server { listen 8080; root /var/www/html; access_log off; keepalive_requests 1000; }\n"),
	}
	for name, change := range map[string][2]string{
		"etc/nginx/nginx.conf": {"worker_processes auto;", "worker_processes 2;"},
		// On a crowded machine a client may get no processor for the 5 seconds after
		// which lighttpd closes a connection by itself.
		"etc/lighttpd/lighttpd.conf": {"= 80\n", "= 8081\nserver.max-keep-alive-idle = 60\n"},
	} {
		text, err := os.ReadFile(filepath.Join(o.Base, name))
		if err != nil {
			return err
		}
		if !bytes.Contains(text, []byte(change[0])) {
			return fmt.Errorf("%s has no %q", name, change[0])
		}
		files[name] = bytes.ReplaceAll(text, []byte(change[0]), []byte(change[1]))
	}
	for path, body := range Bodies() {
		files["var/www/html"+path] = []byte(body)
	}
	if o.Hardened {
		for _, unit := range []string{"nginx", "lighttpd"} {
			files["etc/systemd/system/"+unit+".service.d/hardened.conf"] = []byte(hardened)
		}
	}
	for path, file := range o.Replace {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		files[strings.TrimPrefix(path, "/")] = data
	}
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if _, replaced := o.Replace["/"+name]; replaced {
			mode = 0o755
		}
		if err := os.WriteFile(path, data, mode); err != nil {
			return err
		}
	}
	return nil
}
