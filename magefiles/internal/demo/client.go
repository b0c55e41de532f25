package demo

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Client asks the server again and again on one connection, so that it is seen
// whether a patch disturbs those who do no harm.
type client struct {
	conn net.Conn
	end  sync.Once
	done chan struct{} // closed to end it
	gone chan struct{} // closed when it has ended

	// disturbed is set while the server is patched.
	disturbed atomic.Bool

	// Valid when gone is closed.
	seen
	err error
}

// seen is what a client saw of the server.
type seen struct {
	asked int
	// The longest times from question to answer, while the server was patched
	// and at all other times.
	patching, otherwise time.Duration
}

const (
	question = "LOGIN alice wonderland\n"
	answer   = "welcome, secret=swordfish"
	pause    = time.Millisecond
	patience = 10 * time.Second // for one answer
)

// connect starts a client.
func connect(port string) (*client, error) {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", port), patience)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, done: make(chan struct{}), gone: make(chan struct{})}
	go c.run()
	return c, nil
}

func (c *client) run() {
	defer close(c.gone)
	replies := bufio.NewReader(c.conn)
	for c.err == nil {
		select {
		case <-c.done:
			return
		case <-time.After(pause):
			c.err = c.ask(replies)
		}
	}
}

// ask asks once.
func (c *client) ask(replies *bufio.Reader) error {
	began, disturbed := time.Now(), c.disturbed.Load()
	if err := c.conn.SetDeadline(began.Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c.conn, question); err != nil {
		return err
	}
	reply, err := replies.ReadString('\n')
	if err != nil {
		return fmt.Errorf("no answer to question %d: %w", c.asked+1, err)
	}
	if reply = strings.TrimSpace(reply); reply != answer {
		return fmt.Errorf("question %d was answered %q, not %q", c.asked+1, reply, answer)
	}
	c.asked++
	took := time.Since(began)
	if disturbed || c.disturbed.Load() {
		c.patching = max(c.patching, took)
	} else {
		c.otherwise = max(c.otherwise, took)
	}
	return nil
}

// stop ends the client and tells what it saw. It may be called more than once.
func (c *client) stop() (seen, error) {
	c.end.Do(func() { close(c.done) })
	<-c.gone
	c.conn.Close()
	return c.seen, c.err
}
