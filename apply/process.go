package apply

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// Process is a snapshot of a process: what was mapped and applied when it was
// opened. Reading it does not stop the process.
type Process struct {
	PID  int
	Name string // comm

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
	p := &Process{PID: pid, Name: ptrace.Comm(pid, pid), page: uint64(os.Getpagesize()), files: files}
	var err error
	if writable {
		if p.lock, err = lockProcess(pid, lockWait); err != nil {
			return nil, err
		}
	}
	if p.mem, err = ptrace.OpenMem(pid, writable); err == nil {
		err = p.refresh()
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close releases what Open took.
func (p *Process) Close() {
	if p.mem != nil {
		p.mem.Close()
	}
	if p.lock != nil {
		unlock(p.lock)
	}
}

// BuildIDs returns the build-ids of the objects of a process, each once. It reads
// less than [Reader.Open]: no more than the mappings, if it knows the files.
// Errors are those of [Open].
func (r *Reader) BuildIDs(pid int) ([]specs.BuildID, error) {
	p := Process{PID: pid, files: r}
	var err error
	if p.mem, err = ptrace.OpenMem(pid, false); err != nil {
		return nil, err
	}
	defer p.Close()
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
	p.records, p.damaged, err = findRecords(p.mem, p.maps, p.page)
	return err
}

// refreshObjects reads mappings and objects anew, these by address.
func (p *Process) refreshObjects() error {
	var err error
	if p.maps, err = readMaps(p.PID); err != nil {
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
	for _, s := range image.Segments {
		if s.Type != elf.PT_LOAD || s.Flags&elf.PF_X == 0 || s.Memsz == 0 {
			continue
		}
		m := mappingAt(maps, image.Bias.Addr(specs.VAddr(s.Vaddr)))
		return m != nil && m.executable() && m.Inode == head.Inode && m.Dev == head.Dev
	}
	return false
}

// order sorts the objects as the dynamic linker searches them: the executable
// first, then by its list (link_map), then the rest by address.
func (p *Process) order() {
	rank := make(map[*object]int, len(p.objects))
	for i, o := range p.objects {
		rank[o] = maxObjects + i
	}
	if exe := p.executable(); exe != nil {
		rank[exe] = -1
		for i, node := range p.linkMap(exe) {
			if o := p.objectAt(node.dynamic); o != nil && rank[o] >= maxObjects {
				rank[o] = i
			}
		}
	}
	slices.SortStableFunc(p.objects, func(a, b *object) int { return cmp.Compare(rank[a], rank[b]) })
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

// executable returns the main program's object, found by the address of its
// program headers (AT_PHDR of the auxiliary vector), or nil.
func (p *Process) executable() *object {
	const atPHDR = 3
	all := scratch.Get().(*[4096]byte)
	defer scratch.Put(all)
	n, err := ptrace.ReadStart("/proc/"+strconv.Itoa(p.PID)+"/auxv", all[:])
	if err != nil {
		return nil
	}
	for b := all[:n]; len(b) >= 16; b = b[16:] {
		if binary.LittleEndian.Uint64(b) == atPHDR {
			return p.objectAt(specs.Addr(binary.LittleEndian.Uint64(b[8:])))
		}
	}
	return nil
}

// linkMapNode is an entry of the dynamic linker's list: its own address, and
// that of the object's dynamic section.
type linkMapNode struct{ addr, dynamic specs.Addr }

// linkMapNodes returns the list, or nil if there is none.
func (p *Process) linkMapNodes() []linkMapNode {
	if exe := p.executable(); exe != nil {
		return p.linkMap(exe)
	}
	return nil
}

// linkMapOf returns the address of an object's entry in the list, or 0.
func (p *Process) linkMapOf(o *object) specs.Addr {
	for _, node := range p.linkMapNodes() {
		if p.objectAt(node.dynamic) == o {
			return node.addr
		}
	}
	return 0
}

// linkMap returns the dynamic linker's list of all objects, in its order:
// DT_DEBUG leads to struct r_debug, that to the list of struct link_map.
// Source: link.h.
func (p *Process) linkMap(exe *object) []linkMapNode {
	const bound = 4096
	var debug specs.Addr
	for _, s := range exe.image.Segments {
		if s.Type != elf.PT_DYNAMIC || s.Memsz > 64<<10 {
			continue
		}
		b := make([]byte, s.Memsz)
		if readFull(p.mem, exe.image.Bias.Addr(specs.VAddr(s.Vaddr)), b) != nil {
			return nil
		}
		for ; len(b) >= 16; b = b[16:] {
			if elf.DynTag(binary.LittleEndian.Uint64(b)) == elf.DT_DEBUG {
				debug = specs.Addr(binary.LittleEndian.Uint64(b[8:]))
			}
		}
	}
	var order []linkMapNode
	var node [40]byte
	mem := pageReader{ReaderAt: p.mem, page: scratch.Get().(*[4096]byte)} // neighbours in the list often are in memory
	defer scratch.Put(mem.page)
	if debug == 0 || readFull(&mem, debug, node[:16]) != nil {
		return nil
	}
	next := binary.LittleEndian.Uint64(node[8:])
	for next != 0 && len(order) < bound && readFull(&mem, specs.Addr(next), node[:]) == nil {
		order = append(order, linkMapNode{specs.Addr(next), specs.Addr(binary.LittleEndian.Uint64(node[16:]))})
		next = binary.LittleEndian.Uint64(node[24:])
	}
	return order
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

// pageReader keeps the page that was read last: for small reads that are near
// each other. Of memory that changes meanwhile it may return what was there.
type pageReader struct {
	io.ReaderAt
	at   int64 // of the page, if n > 0
	n    int   // bytes of it
	page *[4096]byte
}

// scratch are pages for what is read of a process and not kept: on the stack of a
// short-lived goroutine they would make it grow.
var scratch = sync.Pool{New: func() any { return new([4096]byte) }}

// ReadAt implements [io.ReaderAt].
func (r *pageReader) ReadAt(b []byte, off int64) (int, error) {
	start := off &^ int64(len(r.page)-1)
	if off < 0 || off-start+int64(len(b)) > int64(len(r.page)) {
		return r.ReaderAt.ReadAt(b, off)
	}
	if r.n == 0 || r.at != start {
		n, err := r.ReaderAt.ReadAt(r.page[:], start)
		if r.at, r.n = start, n; n == 0 {
			return 0, err
		}
	}
	n := copy(b, r.page[min(int(off-start), r.n):r.n])
	if n < len(b) {
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
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
// that with less work than the flags in /proc/PID/stat.
func KernelThread(pid int) bool {
	var first [1]byte
	_, err := ptrace.ReadStart("/proc/"+strconv.Itoa(pid)+"/statm", first[:])
	return err != nil || first[0] == '0'
}
