package compiler

import (
	"io/fs"
	"syscall"
	"time"
)

// statusChange returns when the file was last changed in any way: a file that
// was moved into the tree keeps its older time of modification.
func statusChange(info fs.FileInfo) time.Time {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.ModTime()
	}
	return time.Unix(st.Ctim.Unix())
}
