// Package load keeps a server busy from a process of its own, checks every
// answer and counts those that are wrong or do not come.
//
// The process is the program itself, started again, so that it works in every
// program that imports the package and needs no other tool.
package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what a server speaks.
type Kind string

// Kinds of servers.
const (
	HTTP      Kind = "http"
	Memcached Kind = "memcached"
)

// Order says what a load does.
type Order struct {
	Kind        Kind
	Addr        string // HOST:PORT
	Connections int    // at a time
	Short       int    // so many of them are closed after one request
	// Network, if set, is the file of a network namespace (/proc/PID/ns/net) that
	// the load enters, by nsenter(1).
	Network string
	// Bodies are what a web server has to answer with, by path.
	Bodies map[string]string
}

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

// variable is set for a process that is to be the load.
const variable = "FOTHER_LOAD"

func init() {
	if os.Getenv(variable) != "" {
		os.Exit(loadMain(os.Stdin, os.Stdout, os.Stderr))
	}
}

// Start starts a process that keeps a server busy until Stop, or until this
// process ends.
func Start(o Order) (*Load, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	if o.Network != "" {
		cmd = exec.Command("nsenter", "--net="+o.Network, self)
	}
	cmd.Env = append(os.Environ(), variable+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	l := &Load{cmd: cmd, stdin: stdin}
	if l.stdout, err = cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(stdin).Encode(o); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return l, nil
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
func loadMain(stdin io.Reader, stdout, stderr io.Writer) int {
	var o Order
	in := json.NewDecoder(stdin)
	if err := in.Decode(&o); err != nil {
		fmt.Fprintln(stderr, "load:", err)
		return 2
	}
	speak, ok := speakers[o.Kind]
	if !ok {
		fmt.Fprintf(stderr, "load: no kind %q\n", o.Kind)
		return 2
	}
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		stop.Store(true)
	}()
	t := tally{order: o}
	begun := time.Now()
	var all sync.WaitGroup
	for i := range o.Connections {
		all.Go(func() { t.keepBusy(speak(o, i), i < o.Short, &stop) })
	}
	all.Wait()
	t.stats.Elapsed = time.Since(begun)
	if err := json.NewEncoder(stdout).Encode(t.stats); err != nil {
		fmt.Fprintln(stderr, "load:", err)
		return 1
	}
	return 0
}

// A speaker speaks with a server over one connection after the other.
type speaker interface {
	// begin is called with each new connection.
	begin(net.Conn)
	// request sends one request and checks the answer. The server is asked to close
	// the connection if last is set. Again says whether it can be used for another.
	request(last bool) (again bool, err error)
}

// speakers make a speaker for connection i of an order.
var speakers = map[Kind]func(o Order, i int) speaker{HTTP: newHTTP, Memcached: newMemcached}

// A tally adds up what the connections see.
type tally struct {
	order Order
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
			t.stats.First = fmt.Sprintf("%s: %v", time.Now().Format(time.TimeOnly), err)
		}
	}
}

// keepBusy sends one request after the other. Nothing is sent again when a
// connection breaks: that is to be counted.
func (t *tally) keepBusy(s speaker, short bool, stop *atomic.Bool) {
	var c net.Conn
	for !stop.Load() {
		begun := time.Now()
		var err error
		if c == nil {
			if c, err = net.DialTimeout("tcp", t.order.Addr, 10*time.Second); err == nil {
				s.begin(c)
			}
		}
		again := false
		if err == nil {
			if err = c.SetDeadline(time.Now().Add(30 * time.Second)); err == nil {
				again, err = s.request(short)
			}
		}
		t.add(time.Since(begun), err)
		if c != nil && (!again || short || err != nil) {
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
