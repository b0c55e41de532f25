package demo

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// Client asks the server again and again on one connection, so that it is seen
// whether a patch disturbs those who do no harm.
type client struct {
	conn net.Conn
	end  sync.Once
	done chan struct{} // closed to end it
	gone chan struct{} // closed when it has ended

	// Valid when gone is closed.
	asked   int
	longest time.Duration // from question to answer
	err     error
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
	began := time.Now()
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
	c.longest = max(c.longest, time.Since(began))
	return nil
}

// stop ends the client and tells how often it was answered, and the longest
// time that an answer took. It may be called more than once.
func (c *client) stop() (asked int, longest time.Duration, err error) {
	c.end.Do(func() { close(c.done) })
	<-c.gone
	c.conn.Close()
	return c.asked, c.longest, c.err
}
