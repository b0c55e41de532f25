package machine

import (
	"archive/tar"
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fother/fother/magefiles/internal/tools"
)

// recipe counts the ways in which the base was ever made: raise it when what
// this file or init.sh puts into the base changes.
const recipe = 3

//go:embed init.sh
var initScript []byte

// kernels are the packages with the machine's kernel, by the size of its pages in bytes:
// one that depends on the newest for virtual machines, one on the newest of backports,
// and the source of one.
var kernels = map[uint64]string{4 << 10: "linux-image-cloud-arm64", 16 << 10: "linux-image-arm64-16k", 64 << 10: kernelSource}

// Names in the folder of a base.
const (
	kernelName  = "vmlinuz"
	archiveName = "base.cpio"
)

// base returns the folder with kernel and base archive, which it makes if need
// be.
func base(ctx context.Context, o Options) (string, error) {
	key := append([]byte(strings.Join(append(slices.Clone(o.Packages), kernels[o.PageSize]), " ")), initScript...)
	if kernels[o.PageSize] == kernelSource {
		key = append(key, kernelConfig...)
	}
	return cached(o, fmt.Sprintf("aarch64-%d-%08x", recipe, crc32.ChecksumIEEE(key)), func(tmp, result string) error {
		o.Logger.Info("fetching an aarch64 kernel and C library")
		if err := makeBase(ctx, tmp, result, o); err != nil {
			return fmt.Errorf("make the base of the aarch64 machine: %w", err)
		}
		return nil
	})
}

// cached returns the folder of a name in the cache. If it is not there fill makes what
// is in it, in the folder result, with a folder for what it needs in between. A folder
// is complete when it has its name.
func cached(o Options, name string, fill func(tmp, result string) error) (string, error) {
	final := filepath.Join(o.Cache, name)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	if err := os.MkdirAll(o.Cache, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(o.Cache, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	result := filepath.Join(tmp, "result")
	if err := os.Mkdir(result, 0o755); err != nil {
		return "", err
	}
	if err := fill(tmp, result); err != nil {
		return "", err
	}
	if err := os.Rename(result, final); err != nil {
		if _, there := os.Stat(final); there != nil {
			return "", err
		}
	}
	return final, nil
}

// makeBase makes a base in the folder result.
func makeBase(ctx context.Context, tmp, result string, o Options) error {
	debs := filepath.Join(tmp, "debs")
	if err := os.Mkdir(debs, 0o755); err != nil {
		return err
	}
	apt := &tools.Apt{Dir: filepath.Join(tmp, "apt"), Arch: "arm64", Backports: o.PageSize == 16<<10}
	packages := append([]string{"busybox-static", "libc6", "libgcc-s1", "libstdc++6"}, o.Packages...)
	if kernels[o.PageSize] == kernelSource {
		kernel, err := built(ctx, o)
		if err != nil {
			return err
		}
		if err := os.Link(filepath.Join(kernel, kernelName), filepath.Join(result, kernelName)); err != nil {
			return err
		}
	} else {
		kernel, err := kernelPackage(ctx, apt, kernels[o.PageSize])
		if err != nil {
			return err
		}
		packages = append(packages, kernel)
	}
	if err := apt.Download(ctx, debs, packages...); err != nil {
		return err
	}
	return unpackAll(ctx, debs, result)
}

// kernelPackage returns the package with a kernel that one without depends on.
func kernelPackage(ctx context.Context, apt *tools.Apt, name string) (string, error) {
	depends, err := apt.Depends(ctx, name)
	if err != nil {
		return "", err
	}
	at := slices.IndexFunc(depends, func(d string) bool { return strings.HasPrefix(d, "linux-image-") })
	if at < 0 {
		return "", fmt.Errorf("%s: apt knows no such kernel for arm64", name)
	}
	return depends[at], nil
}

// unpackAll turns the packages in debs into a kernel and an archive in result.
func unpackAll(ctx context.Context, debs, result string) error {
	out, err := os.Create(filepath.Join(result, archiveName))
	if err != nil {
		return err
	}
	defer out.Close()
	buffered := bufio.NewWriterSize(out, 1<<20)
	a := newArchive(buffered)
	for _, dir := range strings.Fields("usr usr/bin usr/sbin usr/lib usr/lib/machine dev proc sys tmp etc root run job var") {
		a.dir(dir)
	}
	for _, name := range []string{"bin", "sbin", "lib"} {
		a.link(name, "usr/"+name)
	}
	a.bytes("init", typeFile|0o755, initScript)
	a.bytes("etc/passwd", typeFile|0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"))
	a.bytes("etc/group", typeFile|0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range files {
		if err := unpack(ctx, deb, a, filepath.Join(result, kernelName)); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(deb), err)
		}
	}
	if err := errors.Join(a.close(), buffered.Flush(), out.Close()); err != nil {
		return err
	}
	_, err = os.Stat(filepath.Join(result, kernelName))
	return err
}

// unpack adds the files of one package to a, but of a kernel package only the
// kernel, which it writes to the file kernel.
func unpack(ctx context.Context, deb string, a *archive, kernel string) error {
	isKernel := strings.HasPrefix(filepath.Base(deb), "linux-image-")
	return eachInDeb(ctx, deb, func(name string, h *tar.Header, r io.Reader) error {
		switch {
		case isKernel && strings.HasPrefix(name, "boot/vmlinuz-"):
			return writeFile(kernel, r)
		case isKernel && slices.Contains(modules, moduleName(name)):
			name = "usr/lib/machine/" + path.Base(name)
			add(a, name, h, r)
			return a.err
		case isKernel || strings.HasPrefix(name, "usr/share/") || strings.Contains(name, "/gconv/"):
			return nil
		}
		add(a, merged(name), h, r)
		return a.err
	})
}

// modules are those of the kernel package that init.sh loads, if they are not
// built in: what the port to this host needs.
var modules = []string{"virtio_ring", "virtio", "virtio_mmio", "virtio_console"}

// moduleName returns the name of the kernel module in a file, "" for another
// file. Some distributions compress them.
func moduleName(file string) string {
	name, ok := strings.CutSuffix(strings.TrimSuffix(path.Base(file), ".xz"), ".ko")
	if !ok {
		return ""
	}
	return name
}

// eachInDeb calls f for the entries of a package, with names free of "./".
func eachInDeb(ctx context.Context, deb string, f func(string, *tar.Header, io.Reader) error) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = each(tar.NewReader(pipe), f)
	_, _ = io.Copy(io.Discard, pipe)
	return errors.Join(err, cmd.Wait())
}

// each is eachInDeb of a tar stream.
func each(t *tar.Reader, f func(string, *tar.Header, io.Reader) error) error {
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if name := strings.TrimPrefix(path.Clean("/"+h.Name), "/"); name != "" {
			if err := f(name, h, t); err != nil {
				return err
			}
		}
	}
}

// merged moves what a package has in /bin, /sbin or /lib to /usr, where these
// folders lead on the machine.
func merged(name string) string {
	for _, dir := range []string{"bin", "sbin", "lib"} {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return "usr/" + name
		}
	}
	return name
}

func add(a *archive, name string, h *tar.Header, r io.Reader) {
	switch h.Typeflag {
	case tar.TypeDir:
		a.dir(name)
	case tar.TypeSymlink:
		a.link(name, h.Linkname)
	case tar.TypeReg:
		a.entry(name, typeFile|uint32(h.Mode&0o777), h.Size, func(w io.Writer) error {
			_, err := io.Copy(w, r)
			return err
		})
	}
}

func writeFile(name string, r io.Reader) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
