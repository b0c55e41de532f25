package pipeline

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProgress: a terminal is told what is done and for how long, on one line
// of which nothing is left; what is no terminal is told nothing.
func TestProgress(t *testing.T) {
	t.Setenv("TERM", "xterm")
	master, terminal := newTerminal(t)
	end := Options{Progress: terminal}.begin("tiny: building", func() int { return 7 })
	got := ""
	read := func(until func() bool) {
		for b := make([]byte, 4096); !until(); { // a read may bring a part
			n, err := master.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			got += string(b[:n])
		}
	}
	written := regexp.MustCompile(regexp.QuoteMeta(clearLine) + `tiny: building … \d+ s, 7 units and links captured`)
	read(func() bool { return len(written.FindAllString(got, -1)) >= 2 })
	end()
	end() // may be said twice
	read(func() bool { return strings.HasSuffix(got, clearLine) })
	if rest := written.ReplaceAllString(got, ""); rest != clearLine {
		t.Errorf("the terminal got %q", got)
	}
	var buf bytes.Buffer
	Options{Progress: &buf}.begin("tiny: building", nil)()
	Options{}.begin("tiny: building", nil)()
	if buf.Len() > 0 {
		t.Errorf("what is no terminal got %q", buf.String())
	}
	t.Setenv("TERM", "dumb")
	if isTerminal(terminal) {
		t.Error("a dumb terminal cannot clear a line")
	}
}

// newTerminal returns both ends of a pseudo terminal (pts(4)).
func newTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}
