package source

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
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-getter/v2"

	"github.com/fother/fother/specs"
)

// fetchGit fetches the tree of a git repository into the folder work.
func fetchGit(ctx context.Context, work string, o specs.Origin) (string, error) {
	if _, err := exec.LookPath("git"); err != nil {
		return "", noGitError{err}
	}
	dst := filepath.Join(work, "tree")
	client := getter.Client{Getters: []getter.Getter{&gitGetter{origin: o}}, DisableSymlinks: true}
	_, err := client.Get(ctx, &getter.Request{Src: o.String(), Dst: dst, GetMode: getter.ModeDir})
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", err
	}
	return dst, nil
}

// noGitError says that git is missing.
type noGitError struct{ error }

// Unwrap gives the error of looking for it.
func (e noGitError) Unwrap() error { return e.error }

// Hint says what the user can do.
func (noGitError) Hint() string { return "install git, by apt install git or dnf install git" }

// gitGetter is a way for go-getter to fetch from git. Its own way follows the
// environment into another repository (GIT_DIR), runs hooks, asks for passwords
// at the terminal, fetches all history, outlives its cancellation, and takes
// whatever commit a name stands for.
type gitGetter struct {
	getter.GitGetter
	origin specs.Origin
}

// Get fetches the commit of the origin into the new folder req.Dst.
func (g *gitGetter) Get(ctx context.Context, req *getter.Request) error {
	r := repository{dir: req.Dst}
	if err := r.init(ctx, g.origin); err != nil {
		return err
	}
	commit, err := r.fetch(ctx, g.origin)
	if err != nil {
		return err
	}
	if err := new(gitTree).checkout(ctx, r, commit); err != nil {
		return err
	}
	seconds, err := r.git(ctx, "log", "-1", "--format=%ct", commit, "--")
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return err
	}
	return export(req.Dst, fileTime(time.Unix(n, 0)))
}

// initArgs make a repository that can hold the commit c.
func initArgs(c specs.Checksum) []string {
	args := []string{"init", "-q", "--template="}
	if len(c.Digits) == 64 {
		args = append(args, "--object-format=sha256")
	}
	return args
}

// repository is a git work tree.
type repository struct {
	dir string
	env []string // for git, beside that of this process
}

// fetch fetches the commit of o and returns its id.
func (r repository) fetch(ctx context.Context, o specs.Origin) (string, error) {
	ref := o.Ref
	if ref == "" {
		ref = o.Checksum.Digits
	}
	got := "FETCH_HEAD"
	_, err := r.git(ctx, "fetch", "-q", "--no-tags", "--depth=1", "origin", ref)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		// Not all servers cut history, or hand out any commit: fetch all of
		// it, and look for the commit.
		all := []string{"fetch", "-q", "--no-tags", "origin", ref}
		if ref == o.Checksum.Digits {
			all = []string{"fetch", "-q", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"}
			got = ref
		}
		_, err = r.git(ctx, all...)
	}
	if err != nil {
		return "", err
	}
	commit, err := r.git(ctx, "rev-parse", "--verify", "-q", "--end-of-options", got+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("git: commit %s is not in the repository", ref)
	}
	if commit != o.Checksum.Digits {
		return "", &ChecksumError{Want: o.Checksum, Got: specs.Checksum{Algorithm: specs.ChecksumGit, Digits: commit}}
	}
	return commit, nil
}

// gitOptions keep the tree as it is in the repository, and git from doing more
// than it is told.
var gitOptions = []string{
	"-c", "core.hooksPath=/dev/null", "-c", "core.autocrlf=false", "-c", "core.fsmonitor=false",
	"-c", "gc.auto=0", "-c", "fetch.unpackLimit=1", "-c", "maintenance.auto=false", "-c", "advice.detachedHead=false",
}

// maxTail bounds what is quoted of git's messages, in bytes.
const maxTail = 2000

// git runs git in the repository and returns what it printed.
func (r repository) git(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	if err := r.run(ctx, &out, args...); err != nil {
		return "", err
	}
	return strings.TrimSpace(out.String()), nil
}

// run runs git in the repository. What it prints goes to out.
func (r repository) run(ctx context.Context, out io.Writer, args ...string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	defer func() {
		cancel(nil)
		watch.Wait()
	}()
	cmd := exec.CommandContext(ctx, "git", slices.Concat(gitOptions, args)...)
	cmd.Dir = r.dir
	cmd.Env = append(gitEnv(os.Environ()), r.env...)
	var messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &messages
	// git's helpers for the transport are to end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Start()
	if err == nil {
		watch.Go(func() { r.watch(ctx, cmd.Process.Pid, cancel) })
		err = cmd.Wait()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		tail := strings.TrimSpace(messages.String())
		return fmt.Errorf("git %s: %w: %s", args[0], err, tail[max(0, len(tail)-maxTail):])
	}
	return nil
}

// gitOwn are the variables by which git knows that it runs inside of a
// repository, in a hook for example.
var gitOwn = []string{
	"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
	"GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE",
	"GIT_NO_REPLACE_OBJECTS", "GIT_QUARANTINE_PATH", "GIT_IMPLICIT_WORK_TREE", "GIT_INTERNAL_SUPER_PREFIX",
}

// gitEnv returns env without the variables of another repository, and such
// that git never waits for a person.
func gitEnv(env []string) []string {
	ssh := false
	env = slices.DeleteFunc(env, func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		ssh = ssh || key == "GIT_SSH_COMMAND" || key == "GIT_SSH"
		return slices.Contains(gitOwn, key)
	})
	env = append(env, "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	if !ssh {
		env = append(env, "GIT_SSH_COMMAND=ssh -oBatchMode=yes")
	}
	return env
}

// export makes a source tree of a work tree: without what is git's, checked
// like an archive, and all of it of one time, so that make takes nothing for
// older than what it was made from.
func export(dir string, t time.Time) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	var names []string
	entries, size := 0, int64(0)
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == ".git":
			if err := root.RemoveAll(name); err != nil || !d.IsDir() {
				return err
			}
			return fs.SkipDir
		case d.Type() == fs.ModeSymlink:
			return nil // when all is there
		case !d.IsDir() && !d.Type().IsRegular():
			return &UnsafeError{name, "is a device or the like: want files, folders and links"}
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		names = append(names, name)
		entries, size = entries+1, size+info.Size()
		if entries > maxEntries || size > maxSize {
			return ErrTooLarge
		}
		return root.Chmod(name, gitMode(info.Mode()))
	})
	if err != nil {
		return err
	}
	return errors.Join(checkLinks(root), stamp(root, names, t))
}

// gitMode is the mode that git has for a file or folder, whatever the umask.
func gitMode(m fs.FileMode) fs.FileMode {
	if m.IsDir() || m&0o100 != 0 {
		return 0o755
	}
	return 0o644
}

// stamp sets the times of files and folders.
func stamp(root *os.Root, names []string, t time.Time) error {
	for _, name := range slices.Backward(names) {
		if err := root.Chtimes(name, t, t); err != nil {
			return err
		}
	}
	return nil
}
