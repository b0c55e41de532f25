// Hosted stands for a tool that only the machine's host has: it is called under
// the tool's name.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/magefiles/internal/machine/hosted"
)

func main() { os.Exit(run(os.Args, os.Stderr)) }

// run returns the exit status of the tool. What it said goes to stderr, unless
// it succeeded.
func run(args []string, stderr io.Writer) int {
	out, status, err := call(filepath.Base(args[0]), args[1:])
	if err != nil {
		fmt.Fprintf(stderr, "%s: on the host: %v\n", args[0], err)
		return 127
	}
	to := io.Writer(os.Stdout)
	if status != 0 {
		to = stderr
	}
	if _, err := to.Write(out); err != nil {
		return 127
	}
	return status
}

func call(name string, args []string) ([]byte, int, error) {
	lock, err := os.OpenFile("/run/hosted.lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, 0, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, 0, err
	}
	port, err := os.OpenFile(hosted.Port, os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	defer port.Close()
	return hosted.Client(port, os.TempDir(), name, args)
}
