package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
)

// childMain is what the test binary does as a process of its own, which another
// user or a second tool has to be.
func childMain() int {
	pid, _ := strconv.Atoi(os.Getenv("APPLY_TEST_PID"))
	if err := refuse(os.Getenv("APPLY_TEST_REFUSE")); err != nil {
		fmt.Println(err)
		return 1
	}
	switch os.Getenv("APPLY_TEST_CHILD") {
	case "apply":
		data, err := os.ReadFile(os.Getenv("APPLY_TEST_PATCH"))
		if err != nil {
			fmt.Println(err)
			return 1
		}
		patch, err := kpack.Decode(data)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		_, err = Apply(context.Background(), pid, []*kpack.Patch{patch}, Options{})
		fmt.Println(err)
		switch {
		case errors.Is(err, ErrPermission):
			return 10
		case errors.Is(err, ErrSeccomp):
			return 11
		case errors.Is(err, ErrWriteForbidden):
			return 12
		}
	case "quiet": // apply, and nothing is said but errors; without a patch revert
		if err := quiet(pid, os.Getenv("APPLY_TEST_PATCH")); err != nil {
			fmt.Println(err)
			return 1
		}
	case "loop": // applies one patch after the other, and reverts
		var patches []*kpack.Patch
		for _, name := range filepath.SplitList(os.Getenv("APPLY_TEST_PATCH")) {
			data, err := os.ReadFile(name)
			if err != nil {
				fmt.Println(err)
				return 1
			}
			patch, err := kpack.Decode(data)
			if err != nil {
				fmt.Println(err)
				return 1
			}
			patches = append(patches, patch)
		}
		for {
			for _, patch := range patches {
				if _, err := Apply(context.Background(), pid, []*kpack.Patch{patch}, Options{}); err != nil && !errors.Is(err, ErrAlreadyApplied) {
					fmt.Println("loop:", err)
					return 1
				}
			}
			if _, err := Revert(context.Background(), pid, nil, Options{}); err != nil {
				fmt.Println("loop:", err)
				return 1
			}
		}
	case "trace":
		err := ptrace.Do(func() error {
			g, err := ptrace.Seize(pid, ptrace.Options{})
			if err != nil {
				return err
			}
			fmt.Println("traced")
			for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if err := g.Serve(); err != nil {
					return err
				}
			}
			return nil
		})
		fmt.Println(err)
	}
	return 0
}

func quiet(pid int, path string) error {
	if path == "" {
		_, err := Revert(context.Background(), pid, nil, Options{Wait: time.Minute})
		return done(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	patch, err := kpack.Decode(data)
	if err != nil {
		return err
	}
	_, err = Apply(context.Background(), pid, []*kpack.Patch{patch}, Options{Wait: time.Minute, Count: os.Getenv("APPLY_TEST_COUNT") != ""})
	return done(err)
}

// done leaves out errors that say that there was nothing to do.
func done(err error) error {
	if errors.Is(err, ErrAlreadyApplied) || errors.Is(err, ErrNotApplied) {
		return nil
	}
	return err
}

// refuse has all system calls of one number fail for the whole process, as where
// the kernel has been told to refuse them: "NUMBER ERRNO", or nothing.
func refuse(call string) error {
	if call == "" {
		return nil
	}
	var nr uint32
	var errno uint16
	if _, err := fmt.Sscan(call, &nr, &errno); err != nil {
		return err
	}
	const load, equal, give, allow, fail = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K,
		unix.BPF_RET | unix.BPF_K, 0x7fff0000, 0x00050000 // SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
	f := []unix.SockFilter{{Code: load}, {Code: equal, Jf: 1, K: nr}, {Code: give, K: fail | uint32(errno)}, {Code: give, K: allow}}
	p := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	const filter, all = 1, 1 // SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, filter, all, uintptr(unsafe.Pointer(&p))); e != 0 {
		return e
	}
	return nil
}
