package tasks

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// processRest is what a process has while nothing is asked of it.
type processRest struct {
	unit      string
	files     map[string]string            // mappings of files, and of the kernel's own, by address: permissions and path
	text      map[string][sha256.Size]byte // contents of those that are executable
	anonymous int                          // other mappings
	fds       int
	threads   int
	resident  int // bytes
}

func (p *processRest) String() string {
	return fmt.Sprintf("%d mappings of files, %d others, %d descriptors, %d threads, %d kB", len(p.files), p.anonymous, p.fds, p.threads, p.resident>>10)
}

// restOf reads /proc/PID: maps, mem, fd and task.
func restOf(pid int) (*processRest, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	p := &processRest{files: map[string]string{}, text: map[string][sha256.Size]byte{}}
	maps, err := os.ReadFile(filepath.Join(dir, "maps"))
	if err != nil {
		return nil, err
	}
	mem, err := os.Open(filepath.Join(dir, "mem"))
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		if err := p.mapping(line, mem); err != nil {
			return nil, err
		}
	}
	for name, n := range map[string]*int{"fd": &p.fds, "task": &p.threads} {
		entries, err := os.ReadDir(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		*n = len(entries)
	}
	statm, err := os.ReadFile(filepath.Join(dir, "statm"))
	if err != nil {
		return nil, err
	}
	pages := 0
	if _, err := fmt.Sscan(string(statm), new(int), &pages); err != nil {
		return nil, err
	}
	p.resident = pages * os.Getpagesize()
	return p, nil
}

// mapping takes in one line of maps (proc_pid_maps(5)).
func (p *processRest) mapping(line string, mem io.ReaderAt) error {
	f := strings.Fields(line)
	if len(f) < 5 {
		return fmt.Errorf("maps: %q", line)
	}
	name := strings.Join(f[5:], " ")
	executable := strings.Contains(f[1], "x")
	if !executable && (name == "" || strings.HasPrefix(name, "[heap") || strings.HasPrefix(name, "[anon") || strings.HasPrefix(name, "[stack")) {
		p.anonymous++
		return nil
	}
	p.files[f[0]] = f[1] + " " + name
	lo, hi, _ := strings.Cut(f[0], "-")
	from, err := strconv.ParseUint(lo, 16, 64)
	if err != nil {
		return err
	}
	to, err := strconv.ParseUint(hi, 16, 64)
	if err != nil {
		return err
	}
	if !executable || name == "[vsyscall]" {
		return nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(mem, int64(from), int64(to-from))); err != nil {
		return fmt.Errorf("%s: %w", f[0], err)
	}
	p.text[f[0]] = [sha256.Size]byte(sum.Sum(nil))
	return nil
}

// roomToGrow are mappings and memory that a busy server may come to have.
const (
	roomForMappings = 16
	roomForMemory   = 16 << 20 // and as much again as there was
)

// grown says what was lost and what has grown since was.
func (p *processRest) grown(was *processRest) []string {
	var all []string
	if !maps.Equal(p.files, was.files) {
		for _, at := range slices.Sorted(maps.Keys(p.files)) {
			if p.files[at] != was.files[at] {
				all = append(all, fmt.Sprintf("mapping %s %s, and %q before", at, p.files[at], was.files[at]))
			}
		}
		for _, at := range slices.Sorted(maps.Keys(was.files)) {
			if _, there := p.files[at]; !there {
				all = append(all, fmt.Sprintf("mapping %s %s is gone", at, was.files[at]))
			}
		}
	}
	for at, sum := range was.text {
		if p.text[at] != sum {
			all = append(all, fmt.Sprintf("code at %s %s is not what it was", at, was.files[at]))
		}
	}
	if p.anonymous > was.anonymous+roomForMappings {
		all = append(all, fmt.Sprintf("%d anonymous mappings, and %d before", p.anonymous, was.anonymous))
	}
	if p.fds > was.fds || p.threads != was.threads {
		all = append(all, fmt.Sprintf("descriptors %d, and %d before, threads %d, and %d before", p.fds, was.fds, p.threads, was.threads))
	}
	if p.resident > 2*was.resident+roomForMemory {
		all = append(all, fmt.Sprintf("%d bytes resident, and %d before", p.resident, was.resident))
	}
	return all
}
