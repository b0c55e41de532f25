package machine

import (
	"archive/tar"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs/arch"
)

// kernelSource is the package of Debian's with the source of the kernel that is built
// here: the release that is also built with pages of 16 KiB.
const kernelSource = "linux-source-6.12"

// kernelConfig is what is asked of that kernel. A line in it that the source does not
// know, or does not allow, is an error.
//
//go:embed kernel.config
var kernelConfig []byte

// buildNeeds are the programs that build a kernel, besides the cross compiler.
var buildNeeds = []string{"gcc", "make", "bc", "bison", "flex", "tar", "xz"}

// CheckBuild says whether this host can build a kernel for the machine: it returns nil
// or a [*tools.MissingError].
func CheckBuild() error {
	return tools.Check(append(buildNeeds, arch.AArch64.Tuple+"-gcc")...)
}

// built returns the folder of a kernel with pages of 64 KiB. It is built once, which takes
// minutes.
func built(ctx context.Context, o Options) (string, error) {
	if err := CheckBuild(); err != nil {
		return "", fmt.Errorf("build an aarch64 kernel: %w", err)
	}
	name := fmt.Sprintf("%s-%08x", kernelSource, crc32.ChecksumIEEE(kernelConfig))
	return cached(o, name, func(tmp, result string) error {
		o.Logger.Info("building an aarch64 kernel", "source", kernelSource)
		apt := &tools.Apt{Dir: filepath.Join(tmp, "apt"), Backports: true}
		if err := apt.Download(ctx, tmp, kernelSource); err != nil {
			return err
		}
		debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
		if err != nil || len(debs) != 1 {
			return fmt.Errorf("%d packages %s: %w", len(debs), kernelSource, err)
		}
		tree := filepath.Join(tmp, "tree")
		if err := unpackSource(ctx, debs[0], tree); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(debs[0]), err)
		}
		return buildKernel(ctx, tree, filepath.Join(result, kernelName))
	})
}

// unpackSource unpacks the kernel's source from a package into a new folder.
func unpackSource(ctx context.Context, deb, tree string) error {
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	some := false
	err := eachInDeb(ctx, deb, func(name string, h *tar.Header, r io.Reader) error {
		if h.Typeflag != tar.TypeReg || !strings.HasSuffix(name, ".tar.xz") {
			return nil
		}
		some = true
		// Half of it are the headers of graphics cards.
		cmd := exec.CommandContext(ctx, "tar", "-xJ", "-C", tree, "--strip-components=1", "--exclude=*/drivers/gpu/*.[ch]")
		cmd.Stdin = r
		return said(cmd)
	})
	if err == nil && !some {
		err = errors.New("no archive in it")
	}
	return err
}

// buildKernel builds the kernel in a source tree and writes it to the file kernel.
func buildKernel(ctx context.Context, tree, kernel string) error {
	config := filepath.Join(tree, "asked.config")
	if err := os.WriteFile(config, kernelConfig, 0o644); err != nil {
		return err
	}
	target := func(words ...string) error {
		cmd := exec.CommandContext(ctx, "make", append(words, "-s", fmt.Sprintf("-j%d", runtime.NumCPU()))...)
		cmd.Dir = tree
		cmd.Env = append(os.Environ(), "ARCH=arm64", "CROSS_COMPILE="+arch.AArch64.Tuple+"-", "LC_ALL=C")
		return said(cmd)
	}
	if err := target("allnoconfig", "KCONFIG_ALLCONFIG="+config); err != nil {
		return err
	}
	if err := configured(filepath.Join(tree, ".config")); err != nil {
		return err
	}
	if err := target("Image"); err != nil {
		return err
	}
	return os.Rename(filepath.Join(tree, "arch/arm64/boot/Image"), kernel)
}

// configured returns an error with what was asked for and is not in the file config.
func configured(config string) error {
	got, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	lines := slices.Collect(strings.Lines(string(got)))
	var lacks []string
	for line := range strings.Lines(string(kernelConfig)) {
		if strings.HasPrefix(line, "CONFIG_") && !slices.Contains(lines, line) {
			lacks = append(lacks, strings.TrimSpace(line))
		}
	}
	if lacks != nil {
		return fmt.Errorf("the kernel's configuration does not take %s", strings.Join(lacks, ", "))
	}
	return nil
}

// said runs a command. Its error ends with what the command said.
func said(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		out = bytes.TrimSpace(out)
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out[max(0, len(out)-4000):])
	}
	return nil
}
