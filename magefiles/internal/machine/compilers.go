package machine

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/fother/fother/magefiles/internal/machine/hosted"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs/arch"
)

// compilers serves the host's cross compiler to a machine. It returns what the
// initramfs needs for it, the arguments for qemu, and what ends it. tmp is a
// folder for this run alone.
func compilers(ctx context.Context, tmp string) (more func(*archive) error, args []string, end func(), err error) {
	tuple := arch.AArch64.Tuple
	if err := tools.Check(tuple + "-gcc"); err != nil {
		return nil, nil, nil, fmt.Errorf("compilers for the aarch64 machine: %w", err)
	}
	client := filepath.Join(tmp, "hosted")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", client,
		"github.com/fother/fother/magefiles/internal/machine/hosted/cmd/hosted")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=arm64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, nil, nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	shared, socket := filepath.Join(tmp, "tmp"), filepath.Join(tmp, "port")
	if err := os.Mkdir(shared, 0o755); err != nil {
		return nil, nil, nil, err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		port, err := l.Accept()
		if err != nil {
			return
		}
		defer port.Close()
		_ = hosted.Serve(ctx, port, shared, tuple) // ends with the machine, which closes the port
	}()
	end = func() {
		cancel()
		l.Close()
		<-done
	}
	return func(a *archive) error { return addClient(a, client, shared, tuple) },
		[]string{"-chardev", "socket,id=hosted,path=" + socket, "-device", "virtio-serial-device", "-device", "virtserialport,chardev=hosted,nr=1"},
		end, nil
}

// addClient adds the program that stands for the tools, under their names.
func addClient(a *archive, client, shared, tuple string) error {
	a.tree("usr/bin/hosted", client)
	for _, name := range hosted.Names {
		a.link("usr/bin/"+name, "hosted")
		a.link("usr/bin/"+tuple+"-"+name, "hosted")
	}
	a.bytes("run/tmpdir", typeFile|0o644, []byte(shared+"\n"))
	return a.err
}
