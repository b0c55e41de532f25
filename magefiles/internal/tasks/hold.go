package tasks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fother/fother/magefiles/internal/corpus"
	"github.com/fother/fother/magefiles/internal/pipeline"
)

// loader holds a library in a process until its input ends.
const loader = `
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
	if (argc < 2 || !dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL)) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	getchar();
	return 0;
}
`

// holdCase starts what can be held of the case's original build, one process
// for each target, applies the patches to it and takes them out again. It
// returns the targets that it did so with. Neither may end the process, and
// afterwards the code is as it was.
func holdCase(ctx context.Context, c corpus.Case, fother string, f pipeline.Folder, targets []pipeline.Target) ([]string, error) {
	hold, err := buildLoader(ctx, filepath.Dir(fother))
	if err != nil {
		return nil, err
	}
	libraries, err := libraryFolders(f.Original())
	if err != nil {
		return nil, err
	}
	var held []string
	for _, t := range targets {
		command, ok := "exec "+hold+" ./"+t.Name, strings.Contains(filepath.Base(t.Name), ".so")
		if !ok {
			var args string
			args, ok = c.Arguments(t.Name)
			command = "exec ./" + t.Name + " " + args
		}
		if !ok {
			continue
		}
		if err := holdOne(ctx, command, libraries, fother, f, t.Name); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
		held = append(held, t.Name)
	}
	return held, nil
}

func buildLoader(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "hold")
	cmd := exec.CommandContext(ctx, "gcc", "-x", "c", "-o", path, "-", "-ldl")
	cmd.Stdin = strings.NewReader(loader)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
}

// libraryFolders lists the folders of a tree that hold shared libraries, in the
// form of LD_LIBRARY_PATH. The tree has moved since libtool or cmake wrote its
// path into what they linked.
func libraryFolders(tree string) (string, error) {
	var dirs []string
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if dir := filepath.Dir(path); err == nil && strings.Contains(d.Name(), ".so") && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
		return err
	})
	return strings.Join(dirs, ":"), err
}

// holdOne holds one process by a shell command in the original tree.
func holdOne(ctx context.Context, command, libraries, fother string, f pipeline.Folder, name string) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir = f.Original()
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libraries)
	var said bytes.Buffer
	cmd.Stderr = &said
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	h := &held{pid: cmd.Process.Pid, path: filepath.Join(cmd.Dir, name), ended: ended}
	err = h.applied(ctx, fother, f.Patches())
	if errors.Is(err, errEnded) {
		err = fmt.Errorf("%w\n%s", err, bytes.TrimSpace(said.Bytes()))
	} else {
		err = errors.Join(err, h.stop(cmd, input))
	}
	return err
}

// held is a process that has one of the files to patch.
type held struct {
	pid   int
	path  string // of the file
	ended chan error
}

var errEnded = errors.New("the process ended")

// stop ends the process.
func (h *held) stop(cmd *exec.Cmd, input io.Closer) error {
	input.Close()
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-h.ended
	return nil
}

// applied applies the patches and takes them out, and compares the code before
// and after.
func (h *held) applied(ctx context.Context, fother, patches string) error {
	before, err := h.settled(ctx)
	if err != nil {
		return err
	}
	pid := strconv.Itoa(h.pid)
	for _, args := range [][]string{{"patch", "-p", pid, patches}, {"unpatch", "-p", pid}} {
		if out, err := exec.CommandContext(ctx, fother, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("fother %s: %w\n%s", args[0], err, bytes.TrimSpace(out))
		}
		select {
		case err := <-h.ended:
			return fmt.Errorf("%w after %s: %v", errEnded, args[0], err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	after, err := h.code()
	if err == nil && !bytes.Equal(before, after) {
		err = errors.New("the code is not as it was before the patch")
	}
	return err
}

// settled waits until the process has mapped the file, and returns its code.
func (h *held) settled(ctx context.Context) ([]byte, error) {
	for deadline := time.Now().Add(10 * time.Second); ; {
		select {
		case err := <-h.ended:
			return nil, fmt.Errorf("%w before anything was done: %v", errEnded, err)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
		code, err := h.code()
		if err != nil || len(code) > 0 {
			return code, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s is not in the process", h.path)
		}
	}
}

// code returns what the process has where the file is mapped as code.
func (h *held) code() ([]byte, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", h.pid))
	if err != nil {
		return nil, err
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", h.pid))
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	real, err := filepath.EvalSymlinks(h.path)
	if err != nil {
		return nil, err
	}
	var all []byte
	for line := range strings.Lines(string(maps)) {
		var lo, hi, offset, inode uint64
		var perm, device, path string
		// Fields of proc_pid_maps(5).
		n, _ := fmt.Sscanf(line, "%x-%x %s %x %s %d %s", &lo, &hi, &perm, &offset, &device, &inode, &path)
		if n < 7 || path != real || !strings.Contains(perm, "x") {
			continue
		}
		part := make([]byte, hi-lo)
		if _, err := memory.ReadAt(part, int64(lo)); err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}
