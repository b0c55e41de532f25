package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// watch ends a git by cancel when the server sends nothing for idleTime or a
// pack without end. git itself has such a limit for http alone. pgid is git's
// process group. It returns when ctx is done.
func (r repository) watch(ctx context.Context, pgid int, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(max(idleTime/60, time.Millisecond))
	defer tick.Stop()
	last, since := activity(pgid), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if r.packs() > maxBody {
			cancel(ErrTooLarge)
		}
		if now := activity(pgid); now != last {
			last, since = now, time.Now()
		} else if time.Since(since) > idleTime {
			cancel(fmt.Errorf("git: the server sent nothing for %v", idleTime))
		}
	}
}

// packs returns how many bytes of packs have come.
func (r repository) packs() int64 {
	var size int64
	entries, _ := os.ReadDir(filepath.Join(r.dir, ".git/objects/pack"))
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			size += info.Size()
		}
	}
	return size
}

// activity returns a number that changes as long as the processes of a group
// read, write or compute. Waiting takes no more than a tenth of a second of
// computing. Source: proc_pid_stat(5), proc_pid_io(5).
func activity(pgid int) string {
	const pgrp, utime, stime, tenth = 2, 11, 12, 10
	var all strings.Builder
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if err != nil || len(f) <= stime || f[pgrp] != strconv.Itoa(pgid) {
			continue
		}
		user, _ := strconv.Atoi(f[utime])
		system, _ := strconv.Atoi(f[stime])
		io, err := os.ReadFile("/proc/" + e.Name() + "/io")
		if errors.Is(err, fs.ErrPermission) {
			io = []byte(time.Now().String()) // it is not known to wait
		}
		fmt.Fprintln(&all, e.Name(), (user+system)/tenth, string(io))
	}
	return all.String()
}
