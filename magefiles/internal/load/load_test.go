package load

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// cache is a server for memcached's set, get and incr, which gives a wrong
// answer or none now and then.
type cache struct {
	mu     sync.Mutex
	values map[string]string
	served int
	wrong  int // every so many answers one is wrong; 0 is never
	failed int
}

func (s *cache) listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return l.Addr().String()
}

func (s *cache) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		answer, err := s.answer(strings.Fields(line), r)
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func (s *cache) answer(words []string, r io.Reader) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served++
	if s.wrong > 0 && s.served%s.wrong == 0 {
		s.failed++
		if s.failed%2 == 0 {
			return "ERROR: out of luck, out of memory, out of all else\r\n", nil
		}
		return "", io.EOF // no answer, and the connection is closed
	}
	switch key := words[1]; words[0] {
	case "set":
		var size int
		if _, err := fmt.Sscan(words[4], &size); err != nil {
			return "", err
		}
		data := make([]byte, size+2)
		if _, err := io.ReadFull(r, data); err != nil {
			return "", err
		}
		s.values[key] = string(data[:size])
		return "STORED\r\n", nil
	case "incr":
		var n, by int
		if _, err := fmt.Sscan(s.values[key]+" "+words[2], &n, &by); err != nil {
			return "", err
		}
		s.values[key] = fmt.Sprint(n + by)
		return s.values[key] + "\r\n", nil
	default:
		v := s.values[key]
		return fmt.Sprintf("VALUE %s 7 %d\r\n%s\r\nEND\r\n", key, len(v), v), nil
	}
}

// TestMemcached holds the load to be content with a server that answers, and to
// count each answer of one that is wrong or does not come.
func TestMemcached(t *testing.T) {
	for _, wrong := range []int{0, 50} {
		s := &cache{values: map[string]string{}, wrong: wrong}
		l, err := Start(Order{Kind: Memcached, Addr: s.listen(t), Connections: 3, Short: 1})
		if err != nil {
			t.Fatal(err)
		}
		for enough := false; !enough; time.Sleep(time.Millisecond) {
			s.mu.Lock()
			enough = s.served >= 500
			s.mu.Unlock()
		}
		st, err := l.Stop()
		if err != nil || st.Requests < 500 {
			t.Errorf("stats %+v, %v", st, err)
		}
		if st.Failed != uint64(s.failed) || wrong > 0 && st.First == "" {
			t.Errorf("stats %+v, the server failed %d times", st, s.failed)
		}
	}
}

func TestUnknownKind(t *testing.T) {
	l, err := Start(Order{Kind: "gopher"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Stop(); err == nil {
		t.Error("a load of an unknown kind gave an account")
	}
}
