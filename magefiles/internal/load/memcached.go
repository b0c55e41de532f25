package load

import (
	"bufio"
	"fmt"
	"net"
	"strings"
)

// cacher stores, counts and reads back under keys of its own, in memcached's text
// protocol. It knows each value that it has to get.
type cacher struct {
	key   string
	turn  uint64
	value string // under key; "" is none
	count uint64 // under key and "-count"
	c     net.Conn
	r     *bufio.Reader
}

func newMemcached(_ Order, i int) speaker { return &cacher{key: fmt.Sprintf("load-%d", i)} }

func (m *cacher) begin(c net.Conn) { m.c, m.r = c, bufio.NewReader(c) }

func (m *cacher) request(bool) (again bool, err error) {
	m.turn++
	switch counter := m.key + "-count"; {
	case m.count == 0:
		if err = m.say("STORED\r\n", "set %s 0 0 1\r\n1\r\n", counter); err == nil {
			m.count = 1
		}
	case m.value == "" || m.turn%8 == 0:
		value := strings.Repeat(fmt.Sprintf("%s %d.", m.key, m.turn), int(m.turn%100)+1)
		if err = m.say("STORED\r\n", "set %s 7 0 %d\r\n%s\r\n", m.key, len(value), value); err == nil {
			m.value = value
		}
	case m.turn%3 == 0:
		m.count += 3
		err = m.say(fmt.Sprintf("%d\r\n", m.count), "incr %s 3\r\n", counter)
	default:
		err = m.say(fmt.Sprintf("VALUE %s 7 %d\r\n%s\r\nEND\r\n", m.key, len(m.value), m.value), "get %s\r\n", m.key)
	}
	if err != nil { // nobody knows now what is stored
		m.value, m.count = "", 0
	}
	return err == nil, err
}

// say sends a request, which has to be answered by want.
func (m *cacher) say(want, format string, args ...any) error {
	if _, err := fmt.Fprintf(m.c, format, args...); err != nil {
		return err
	}
	// As far as it is right, so that a short one that is wrong is not waited for.
	for i := range len(want) {
		b, err := m.r.ReadByte()
		if err != nil {
			return fmt.Errorf("%.100q: %w", want[:i], err)
		}
		if b != want[i] {
			rest, _ := m.r.Peek(m.r.Buffered())
			return fmt.Errorf("%.100q, want %.100q", want[:i]+string(b)+string(rest), want)
		}
	}
	return nil
}
