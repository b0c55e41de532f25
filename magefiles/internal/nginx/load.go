package nginx

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// page is what every request of the load has to be answered with.
const page = "hello\n"

// Stats is what a load has seen.
type Stats struct {
	// Requests counts all requests, Failed those that got no answer or a wrong
	// one.
	Requests, Failed uint64
	// First is the first failure.
	First string
	// Longest is the longest time to an answer.
	Longest time.Duration
	// Elapsed is the time from the first request to the last answer.
	Elapsed time.Duration
}

// A Load is a process that sends requests without a pause.
type Load struct {
	cmd    *exec.Cmd
	stdin  io.Closer // its end is the sign to stop, also when we die
	stdout io.ReadCloser
}

// loadVariable holds the order of a process that is to be the load.
const loadVariable = "FOTHER_NGINX_LOAD"

type loadOrder struct {
	Addr        string
	Connections int
}

// The load is this same program, started again: it works in every program that
// imports the package, and needs no other tool.
func init() {
	if text, ok := os.LookupEnv(loadVariable); ok {
		os.Exit(loadMain(text, os.Stdin, os.Stdout, os.Stderr))
	}
}

// Load starts a process that keeps the server busy over some connections, until
// Stop.
func (s *Server) Load(ctx context.Context, connections int) (*Load, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	order, err := json.Marshal(loadOrder{s.addr, connections})
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), loadVariable+"="+string(order))
	cmd.Stderr = os.Stderr
	l := &Load{cmd: cmd}
	if l.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if l.stdout, err = cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	return l, cmd.Start()
}

// Stop lets every connection finish its request, ends the process and returns
// what it has seen.
func (l *Load) Stop() (Stats, error) {
	var st Stats
	err := l.stdin.Close()
	if err == nil {
		err = json.NewDecoder(l.stdout).Decode(&st)
	}
	if err := errors.Join(err, l.cmd.Wait()); err != nil {
		return Stats{}, fmt.Errorf("load: %w", err)
	}
	return st, nil
}

// loadMain is the main function of the load's process.
func loadMain(text string, stdin io.Reader, stdout, stderr io.Writer) int {
	var o loadOrder
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(stderr, "load:", err)
		return 2
	}
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		stop.Store(true)
	}()
	var t tally
	begun := time.Now()
	var all sync.WaitGroup
	for range o.Connections {
		all.Go(func() { t.keepBusy(o.Addr, &stop) })
	}
	all.Wait()
	t.stats.Elapsed = time.Since(begun)
	if err := json.NewEncoder(stdout).Encode(t.stats); err != nil {
		fmt.Fprintln(stderr, "load:", err)
		return 1
	}
	return 0
}

// A tally adds up what the connections see.
type tally struct {
	mu    sync.Mutex
	stats Stats
}

func (t *tally) add(took time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stats.Requests++
	t.stats.Longest = max(t.stats.Longest, took)
	if err != nil {
		if t.stats.Failed++; t.stats.Failed == 1 {
			t.stats.First = err.Error()
		}
	}
}

// keepBusy sends one request after the other. It does without net/http's
// client, which sends a request again when a connection breaks and so would
// hide what is to be counted.
func (t *tally) keepBusy(addr string, stop *atomic.Bool) {
	var c net.Conn
	var r *bufio.Reader
	for !stop.Load() {
		begun := time.Now()
		var err error
		if c == nil {
			if c, err = net.DialTimeout("tcp", addr, 10*time.Second); err == nil {
				r = bufio.NewReader(c)
			}
		}
		again := false
		if err == nil {
			again, err = request(c, r)
		}
		t.add(time.Since(begun), err)
		if !again && c != nil {
			c.Close()
			c = nil
		}
		if err != nil {
			time.Sleep(time.Millisecond) // do not spin when the server is gone
		}
	}
	if c != nil {
		c.Close()
	}
}

// request sends one request and checks the answer. Again says whether the
// connection can be used for another.
func request(c net.Conn, r *bufio.Reader) (again bool, err error) {
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return false, err
	}
	if _, err := io.WriteString(c, "GET /index.html HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return false, err
	}
	if resp.StatusCode != http.StatusOK || string(body) != page {
		return false, fmt.Errorf("%s: %.100q", resp.Status, body)
	}
	return !resp.Close, nil
}
