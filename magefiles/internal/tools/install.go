package tools

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// lists is held while apt's lists are refreshed, once in a process.
var lists struct {
	sync.Mutex
	fresh bool
}

// Install installs what is missing of needs, if anything. It does so as root
// on distributions with apt; elsewhere it returns the [*MissingError] of
// [Check], which names the command.
func Install(ctx context.Context, needs ...string) error {
	h := thisHost()
	err := h.check(needs)
	missing, ok := errors.AsType[*MissingError](err)
	if !ok {
		return err
	}
	m := h.manager()
	if m != managers[0] || missing.Command == "" || os.Geteuid() != 0 {
		return missing
	}
	if err := refresh(ctx); err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(missing.Missing, ", "), err)
	}
	packages, _ := m.packages(missing.Missing)
	args := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
	if err := aptGet(ctx, args...); err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(missing.Missing, ", "), err)
	}
	return h.check(needs)
}

func refresh(ctx context.Context) error {
	lists.Lock()
	defer lists.Unlock()
	if lists.fresh {
		return nil
	}
	err := aptGet(ctx, "update")
	lists.fresh = err == nil
	return err
}

// aptGet changes the system, unlike [Apt].
func aptGet(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=600"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	_, err := run(cmd)
	return err
}

// run returns what cmd wrote to its standard output. Its error has the last
// lines that the command wrote to either stream.
func run(cmd *exec.Cmd) ([]byte, error) {
	var out, all lastBytes
	cmd.Stdout = both{&out, &all}
	cmd.Stderr = &all
	err := cmd.Run()
	if err != nil {
		name := strings.Join(append([]string{cmd.Args[0]}, verbs(cmd.Args[1:])...), " ")
		return nil, fmt.Errorf("%s: %w\n%s", name, err, all.tail(15))
	}
	return out, nil
}

// verbs leaves the options out of a command line, for messages.
func verbs(args []string) []string {
	var words []string
	for i := 0; i < len(args); i++ {
		if args[i] == "-o" {
			i++
		} else if !strings.HasPrefix(args[i], "-") {
			words = append(words, args[i])
		}
	}
	return words
}

// lastBytes keeps the end of what is written to it.
type lastBytes []byte

func (l *lastBytes) Write(p []byte) (int, error) {
	const limit = 1 << 20
	*l = append(*l, p...)
	if len(*l) > 2*limit {
		*l = append(lastBytes(nil), (*l)[len(*l)-limit:]...)
	}
	return len(p), nil
}

func (l lastBytes) tail(lines int) string {
	all := strings.Split(strings.TrimSpace(string(l)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// both writes to two places. It is not io.MultiWriter, because os/exec copies
// the two streams at once unless they are one: all is locked by this type.
type both struct{ a, b *lastBytes }

func (w both) Write(p []byte) (int, error) {
	w.a.Write(p)
	return w.b.Write(p)
}
