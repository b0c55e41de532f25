package apply

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// Process is a snapshot of a process: what was mapped and applied when it was
// opened. Reading it does not stop the process.
type Process struct {
	PID  int
	Name string // comm

	via     int    // the thread by whose folder in /proc it was opened
	aux     []byte // the auxiliary vector, if that is not the first one
	page    uint64
	files   *Reader // of the builds that are known, or nil
	mem     *ptrace.Mem
	lock    *os.File
	maps    []Mapping
	objects []*object
	records []*record
	damaged []string
	// stateBytes are those that are written last.
	stateBytes [stateSize]byte
	// unwinders are kept once they were looked for.
	unwinders *unwinders
	// scopes are those that were asked for.
	scopes map[*object][][]*object
	// hookTIDs are threads of hooks that were seen, by the address of the record.
	hookTIDs map[specs.Addr]int
}

// object is one ELF object that is loaded in the process.
type object struct {
	ObjectInfo
	image *elfobj.Image
}

// ObjectInfo describes an executable or library of a process.
type ObjectInfo struct {
	Path    string        `json:"path"` // as in /proc/PID/maps, "[vdso]"
	BuildID specs.BuildID `json:"build_id,omitempty"`
	Base    specs.Addr    `json:"base"`
}

// Open reads a process. The caller has to Close it. Errors: [ErrGone],
// [ErrPermission].
func Open(pid int) (*Process, error) { return open(pid, false) }

func open(pid int, writable bool) (*Process, error) { return openWith(nil, pid, writable) }

func openWith(files *Reader, pid int, writable bool) (*Process, error) {
	return openBy(files, pid, writable, (*Process).refresh)
}

// openBy opens a process, of which read is to read what there is.
func openBy(files *Reader, pid int, writable bool, read func(*Process) error) (*Process, error) {
	p, err := openVia(files, pid, pid, writable, read)
	if !errors.Is(err, ErrGone) {
		return p, err
	}
	if writable {
		return nil, orHeadless(pid, err)
	}
	err = byStandIn(pid, func(tid int) error {
		p, err = openVia(files, pid, tid, false, read)
		return err
	})
	return p, err
}

// openVia is openBy by the folder of one of the process's threads.
func openVia(files *Reader, pid, tid int, writable bool, read func(*Process) error) (*Process, error) {
	p := &Process{PID: pid, via: tid, Name: ptrace.Comm(pid, pid), page: uint64(os.Getpagesize()), files: files}
	var err error
	if writable {
		if p.lock, err = lockProcess(pid, lockWait); err != nil {
			return nil, err
		}
	}
	if err = p.openMem(writable); err == nil {
		err = read(p)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Headless reports whether only the first thread of the process has ended. Such a
// process can be read, but not changed ([ErrHeadless]).
func (p *Process) Headless() bool { return p.via != p.PID }

// Close releases what Open took.
func (p *Process) Close() {
	if p.mem != nil {
		p.mem.Close()
	}
	if p.lock != nil {
		unlock(p.lock)
	}
}

// BuildIDs returns the build-ids of the objects of a process, each once, and maybe of
// other files that are mapped as code. The vDSO's need not be there, nor what keeps
// memory from being read. It is to know with little work whether a process is of
// interest: where the kernel tells the build-ids of mapped files they are asked for,
// else it reads no more than the mappings, if it knows the files. Errors are those
// of [Open].
func (r *Reader) BuildIDs(pid int) ([]specs.BuildID, error) {
	ids, err := r.buildIDs(pid, pid)
	if errors.Is(err, ErrGone) {
		err = byStandIn(pid, func(tid int) error {
			ids, err = r.buildIDs(pid, tid)
			return err
		})
	}
	return ids, err
}

// buildIDs is BuildIDs by the folder of one of the process's threads.
func (r *Reader) buildIDs(pid, tid int) ([]specs.BuildID, error) {
	ids, err := codeBuildIDs(pid, tid)
	if errors.Is(err, ptrace.ErrUntold) {
		return r.readBuildIDs(pid, tid)
	}
	return ids, err
}

// codeBuildIDs are the build-ids of a process's code, as the kernel tells them.
func codeBuildIDs(pid, tid int) ([]specs.BuildID, error) {
	var ids []specs.BuildID
	var buf [128]byte
	err := ptrace.CodeBuildIDs(pid, tid, func(id []byte) {
		digits := hex.AppendEncode(buf[:0], id)
		if !slices.ContainsFunc(ids, func(have specs.BuildID) bool { return string(have) == string(digits) }) {
			ids = append(ids, specs.BuildID(digits))
		}
	})
	return ids, err
}

// readBuildIDs is BuildIDs by what is in the process's memory.
func (r *Reader) readBuildIDs(pid, tid int) ([]specs.BuildID, error) {
	p := Process{PID: pid, via: tid, files: r}
	defer p.Close()
	err := p.openMem(false)
	if err != nil {
		return nil, err
	}
	if err = p.refreshObjects(); err != nil {
		return nil, err
	}
	var ids []specs.BuildID
	for _, o := range p.objects {
		if o.BuildID != "" && !slices.Contains(ids, o.BuildID) {
			ids = append(ids, o.BuildID)
		}
	}
	return ids, nil
}

// Objects are the objects of the process in the order of symbol look-up.
func (p *Process) Objects() []ObjectInfo {
	all := make([]ObjectInfo, len(p.objects))
	for i, o := range p.objects {
		all[i] = o.ObjectInfo
	}
	return all
}

// refresh reads mappings, objects and records anew.
func (p *Process) refresh() error {
	err := p.refreshObjects()
	if err != nil {
		return err
	}
	p.order()
	p.unwinders, p.scopes = nil, nil
	return p.refreshRecords()
}

// refreshRecords reads the records in the mappings anew.
func (p *Process) refreshRecords() (err error) {
	p.records, p.damaged, err = findRecords(p.mem, p.maps, p.page)
	return err
}

// refreshObjects reads mappings and objects anew, these by address.
func (p *Process) refreshObjects() error {
	var err error
	if p.maps, err = readMapsBy(p.PID, p.via); err != nil {
		return err
	}
	if p.objects, err = findObjects(p.mem, p.maps, p.files); err != nil {
		return fmt.Errorf("process %d: read its memory: %w", p.PID, procError(err))
	}
	return nil
}

// vdso is the kernel's name for the object that it brings itself.
const vdso = "[vdso]"

// maxObjects bounds the objects of one process.
const maxObjects = 64 << 10

// findObjects opens everything that is mapped like a loaded ELF object. What
// looks like one and is damaged is left out: nothing can be patched in it.
// files are builds that are known from other processes.
func findObjects(mem memory, maps []Mapping, files *Reader) ([]*object, error) {
	const usual = 16 // objects
	spans, heads := make([]ptrace.Span, 0, usual), make([]head, 0, usual)
	buf := make([]byte, 0, usual*64) // for the first spans
	for i := range maps {
		m := &maps[i]
		if !m.readable() || m.Offset != 0 || m.Inode == 0 && m.Path != vdso || len(spans) >= maxObjects {
			continue
		}
		h := head{m: m, known: files.find(m)}
		at, size := m.Range.Lo, len(elf.ELFMAG)
		if h.known != nil {
			if h.image = h.known.image.At(mem, m.Range.Lo); h.image == nil {
				h.known = nil
			} else {
				at, size = at+h.known.offset, len(h.known.note)
			}
		}
		buf = slices.Grow(buf[len(buf):], size)[:size]
		spans, heads = append(spans, ptrace.Span{Addr: at, Buf: buf}), append(heads, h)
	}
	if err := mem.ReadSpans(spans); err != nil {
		return nil, err
	}
	var objects []*object
	for i, s := range spans {
		o := heads[i].open(mem, s, files)
		if o != nil && loaded(o.image, heads[i].m, maps) {
			objects = append(objects, o)
		}
	}
	return objects, nil
}

// head is a mapping that may begin an object. If it is of a file that is known,
// image is what it then is.
type head struct {
	m     *Mapping
	known *knownFile
	image *elfobj.Image
}

// open returns the object, nil if it is none. read is its note, if the file is
// known, or the first bytes.
func (h *head) open(mem memory, read ptrace.Span, files *Reader) *object {
	info := ObjectInfo{Path: h.m.Path, Base: h.m.Range.Lo}
	if h.known != nil && read.N == len(h.known.note) && bytes.Equal(read.Buf, h.known.note) {
		info.BuildID = h.known.id
		return &object{info, h.image}
	}
	if h.known == nil && string(read.Buf[:read.N]) != elf.ELFMAG {
		return nil
	}
	image, err := elfobj.OpenImage(mem, h.m.Range.Lo)
	if err != nil {
		return nil
	}
	info.BuildID, _ = image.BuildID()
	files.add(h.m, image, info.BuildID)
	return &object{info, image}
}

// loaded tells an object that runs from a file that is merely mapped: its code
// is mapped as code, from the same file.
func loaded(image *elfobj.Image, head *Mapping, maps []Mapping) bool {
	m := firstCode(image, maps)
	return m != nil && m.executable() && m.Inode == head.Inode && m.Dev == head.Dev
}

// firstCode returns the mapping where an object has the first of its executable
// segments, nil if there is none.
func firstCode(image *elfobj.Image, maps []Mapping) *Mapping {
	for _, s := range image.Segments {
		if s.Type == elf.PT_LOAD && s.Flags&elf.PF_X != 0 && s.Memsz != 0 {
			return mappingAt(maps, image.Bias.Addr(specs.VAddr(s.Vaddr)))
		}
	}
	return nil
}

// inForce reports whether the entries of r are there to lead to it: a library
// may have been closed since, and another one, or the same anew, be in its
// place.
func (p *Process) inForce(r *record) bool {
	there := slices.ContainsFunc(p.objects, func(o *object) bool {
		return o.BuildID == r.ID.BuildID && o.image.Bias == r.Bias
	})
	if !there || r.state != applied {
		return there
	}
	for _, f := range r.Functions {
		b := make([]byte, len(f.Old))
		if readFull(p.mem, f.Site, b) != nil || !bytes.Equal(b, f.Old) {
			return true
		}
	}
	return len(r.Functions) == 0
}

func (p *Process) objectAt(a specs.Addr) *object {
	for _, o := range p.objects {
		if o.image.Range.Contains(a) {
			return o
		}
	}
	return nil
}

// memory is what a plan reads of a process.
type memory interface {
	io.ReaderAt
	ReadSpans([]ptrace.Span) error
}

func readFull(r io.ReaderAt, a specs.Addr, b []byte) error {
	n, err := r.ReadAt(b, int64(a))
	if n == len(b) {
		return nil
	}
	return err
}

// Processes returns the ids of all processes, by rising id, but init (1), the
// caller's own and the kernel's threads.
func Processes() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == 1 || pid == os.Getpid() || KernelThread(pid) {
			continue
		}
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids, nil
}

// KernelThread reports whether a process has no program of its own, or has
// ended: then it has no memory, of which proc_pid_statm(5) tells. The kernel gives
// that with less work than the flags in /proc/PID/stat. One of which only the first
// thread has ended has others.
func KernelThread(pid int) bool {
	var first [1]byte
	if _, err := ptrace.ReadStart(ptrace.Folder(pid, pid)+"/statm", first[:]); err != nil || first[0] != '0' {
		return err != nil
	}
	n, ok := taskCount(pid)
	return !ok || n <= 1
}
