package source

import (
	"slices"
	"strings"
	"time"
)

// absent notes which of the two files is not there by the times that diff -N
// writes. As GNU patch does, it believes them only where the one hunk has
// nothing of that file.
func (f *filePatch) absent() {
	if len(f.hunks) != 1 || f.isNew || f.isDelete {
		return
	}
	h := &f.hunks[0]
	f.isNew = f.oldEpoch && h.oldStart == 0 && !h.has('-', ' ')
	f.isDelete = !f.isNew && f.newEpoch && h.newStart == 0 && !h.has('+', ' ')
}

// has reports whether a line of h is of one of the given kinds.
func (h *hunk) has(ops ...byte) bool {
	return slices.ContainsFunc(h.lines, func(l hunkLine) bool { return slices.Contains(ops, l.op) })
}

// epochLayouts are the forms of the time behind a name: those of diff -u with its
// zone, and of older programs without one.
var epochLayouts = [...]string{"2006-01-02 15:04:05.999999999 -0700", "2006-01-02 15:04:05.999999999"}

// epoch reports whether the time on a --- or +++ line is the epoch, which diff -N
// writes for a file that is not there (patch(1) manual of GNU, "Creating and Removing Files"). A time without a zone is taken as UTC.
func epoch(line string) bool {
	_, stamp, tab := strings.Cut(line, "\t")
	if !tab {
		stamp = headerTime.FindString(strings.TrimRight(line, "\r\n"))
	}
	for _, layout := range epochLayouts {
		if at, err := time.Parse(layout, strings.TrimSpace(stamp)); err == nil {
			return at.UnixNano() == 0
		}
	}
	return false
}
