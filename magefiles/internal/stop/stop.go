// Package stop ends the Mage targets as Ctrl-C does when something else ends
// them.
//
// Mage runs targets in a process of their own and passes on no signal to it
// but SIGINT, which cancels the targets' context. [AsInterrupt] makes SIGINT of
// SIGTERM and SIGHUP, and of the end of mage itself: a CI service that stops a
// job does not stop what mage started.
package stop

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// interval is how often it is looked whether mage is still there.
const interval = 250 * time.Millisecond

var once sync.Once

// AsInterrupt begins to watch, if mage runs this process. It may be called
// more than once.
func AsInterrupt() {
	mage := os.Getppid()
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", mage))
	if err != nil || strings.TrimSpace(string(comm)) != "mage" {
		return
	}
	once.Do(func() { go watch(mage) })
}

func watch(mage int) {
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		// One that is ignored, as under nohup, stays so.
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	for tick := time.Tick(interval); ; {
		select {
		case <-signals:
		case <-tick:
			if os.Getppid() == mage {
				continue
			}
		}
		signal.Stop(signals) // a second one ends the process at once
		_ = syscall.Kill(os.Getpid(), syscall.SIGINT)
		return
	}
}
