package pipeline

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// tick is how often the line on a terminal is written anew.
const tick = 250 * time.Millisecond

// begin tells on a terminal what is being done, for how long and, if count is
// set, how many units and links were captured, until end is called, which
// leaves nothing of it. Elsewhere it tells nothing.
func (o Options) begin(doing string, count func() int) (end func()) {
	if !isTerminal(o.Progress) {
		return func() {}
	}
	l := &line{w: o.Progress, doing: doing, count: count, began: time.Now(), done: make(chan struct{})}
	l.wg.Go(l.run)
	return l.end
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil && os.Getenv("TERM") != "dumb"
}

// line is a line of a terminal that is written again and again.
type line struct {
	w     io.Writer
	doing string
	count func() int
	began time.Time
	done  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
}

// clearLine takes the cursor to the beginning of an empty line (ECMA-48: CR, EL).
const clearLine = "\r\x1b[K"

func (l *line) run() {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		fmt.Fprint(l.w, clearLine, l.text(time.Since(l.began)))
		select {
		case <-l.done:
			fmt.Fprint(l.w, clearLine)
			return
		case <-t.C:
		}
	}
}

func (l *line) text(elapsed time.Duration) string {
	s := fmt.Sprintf("%s … %d s", l.doing, int(elapsed.Seconds()))
	if l.count != nil {
		s += fmt.Sprintf(", %d units and links captured", l.count())
	}
	return s
}

func (l *line) end() {
	l.once.Do(func() { close(l.done) })
	l.wg.Wait()
}
