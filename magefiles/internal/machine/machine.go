package machine

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fother/fother/magefiles/internal/tools"
)

// Options say what is run and on which machine.
type Options struct {
	// Dir is packed as /job; /job/run.sh is run by busybox's sh, in /job. No
	// file of Dir is changed.
	Dir string
	// Console gets what the machine writes, line by line; nil drops it.
	Console io.Writer
	// Logger gets what is slow and rare; nil is silent.
	Logger *slog.Logger
	// CPU as for qemu; the default has BTI and PAC, "cortex-a72" has neither.
	CPU string
	// Timeout of the machine, in wall-clock time; the default is ten minutes.
	Timeout time.Duration
	// Packages are more arm64 packages of Debian's to have on the machine.
	Packages []string
	// PageSize is that of the machine's kernel, in bytes; the default is 4 KiB. Debian has
	// kernels with that and, in backports, with 16 KiB. One with 64 KiB is built here, once,
	// for which [CheckBuild] says what it takes.
	PageSize uint64
	// Compilers has the machine run this host's cross compiler and its tools,
	// under the names of the machine's own: see package hosted.
	Compilers bool
	// Cache keeps the base; the default is in the user's cache folder.
	Cache string
}

// ErrNoStatus means that the machine did not get to the end of the job: it did
// not boot, crashed or was stopped.
var ErrNoStatus = errors.New("the aarch64 machine gave no exit status")

// Check says whether this host can run the machine: it returns nil or a
// [*tools.MissingError].
func Check() error {
	return tools.Check("qemu-system-aarch64", "apt-get", "dpkg-deb")
}

// Run boots a machine, runs the job and returns the exit status of its run.sh.
func Run(ctx context.Context, o Options) (int, error) {
	if err := Check(); err != nil {
		return 0, fmt.Errorf("run on an emulated aarch64 machine: %w", err)
	}
	if err := o.defaults(); err != nil {
		return 0, err
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "run.sh")); err != nil {
		return 0, fmt.Errorf("job without a script: %w", err)
	}
	dir, err := base(ctx, o)
	if err != nil {
		return 0, err
	}
	tmp, err := os.MkdirTemp("", "fother-machine-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(tmp)
	more := func(*archive) error { return nil }
	var port []string
	if o.Compilers {
		var end func()
		if more, port, end, err = compilers(ctx, tmp); err != nil {
			return 0, err
		}
		defer end()
	}
	token, initrd := rand.Text(), filepath.Join(tmp, "initrd")
	if err := pack(initrd, filepath.Join(dir, archiveName), o.Dir, token, more); err != nil {
		return 0, fmt.Errorf("pack %s: %w", o.Dir, err)
	}
	return boot(ctx, o, filepath.Join(dir, kernelName), initrd, token, port)
}

func (o *Options) defaults() error {
	if o.Console == nil {
		o.Console = io.Discard
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.CPU == "" {
		o.CPU = "max,pauth-impdef=on" // architected PAC is slow to emulate
	}
	if o.PageSize == 0 {
		o.PageSize = 4 << 10
	}
	if kernels[o.PageSize] == "" {
		return fmt.Errorf("no kernel has pages of %d bytes", o.PageSize)
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Minute
	}
	if o.Cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		o.Cache = filepath.Join(user, "fother", "machine")
	}
	return nil
}

// pack writes the initramfs of one run: the base, and after it the job and what
// more adds. It is not compressed, since the emulated machine would be slow to inflate it.
func pack(initrd, base, job, token string, more func(*archive) error) error {
	out, err := os.Create(initrd)
	if err != nil {
		return err
	}
	defer out.Close()
	in, err := os.Open(base)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(out, 1<<20)
	a := newArchive(buffered)
	a.bytes("run/token", typeFile|0o600, []byte(token+"\n"))
	a.tree("job", job)
	return errors.Join(more(a), a.close(), buffered.Flush(), out.Close())
}

// boot runs qemu, with more arguments, and looks for the line with the exit status on the console.
func boot(ctx context.Context, o Options, kernel, initrd, token string, more []string) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("stopped after %v", o.Timeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-aarch64", append(more,
		"-M", "virt", "-cpu", o.CPU, "-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048",
		"-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none", "-no-reboot",
		"-kernel", kernel, "-initrd", initrd,
		"-append", "console=ttyAMA0 panic=-1 oops=panic random.trust_cpu=on quiet")...)
	var said strings.Builder
	cmd.Stderr = &said
	console, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	status, found := follow(console, o.Console, "job-"+token+": ")
	err = cmd.Wait()
	switch {
	case found:
		return status, nil
	case ctx.Err() != nil:
		return 0, fmt.Errorf("%w: %w", ErrNoStatus, context.Cause(ctx))
	case err != nil:
		return 0, fmt.Errorf("%w: qemu: %w: %s", ErrNoStatus, err, strings.TrimSpace(said.String()))
	}
	return 0, ErrNoStatus
}

// follow copies the lines of the console to w, up to the one that begins with
// mark: it has the status.
func follow(console io.Reader, w io.Writer, mark string) (status int, found bool) {
	r := bufio.NewReader(console)
	for {
		line, err := r.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if rest, ok := strings.CutPrefix(line, mark); ok {
			if n, err := strconv.Atoi(rest); err == nil {
				status, found = n, true
			}
		} else if !found && (line != "" || err == nil) {
			fmt.Fprintln(w, line)
		}
		if err != nil {
			return status, found
		}
	}
}
