package ptrace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// mapQuery is struct procmap_query. Source: linux/fs.h, Linux 6.11.
type mapQuery struct {
	size, flags, address  uint64
	start, end            uint64
	access, page, offset  uint64
	inode                 uint64
	major, minor          uint32
	nameSize, buildIDSize uint32
	nameBuffer, idBuffer  unsafe.Pointer
}

const (
	mapQueryCall = 0xc0686611 // _IOWR('f', 17, struct procmap_query)

	queryReadable   = 0x01
	queryWritable   = 0x02
	queryExecutable = 0x04
	queryShared     = 0x08
	queryOrNext     = 0x10
	queryOfFiles    = 0x20
)

// ErrUntold means that the kernel does not tell of mapped files what is asked: it
// is older than Linux 6.11, or a file has no build-id that it finds.
var ErrUntold = errors.New("the kernel does not tell of mapped files")

// CodeBuildIDs calls found with the build-id of each file that process pid has mapped
// as code, as the kernel finds it in the file: by address, the same one again where
// it is mapped more than once. It reads no memory of the process, and asks by its
// thread tid. The bytes are only found's for the call.
//
// Errors: [ErrUntold], [ErrGone], [ErrPermission].
func CodeBuildIDs(pid, tid int, found func(id []byte)) error {
	const longest = 64 // bytes of a build-id
	id := new([longest]byte)
	ask := func(q *mapQuery) {
		q.flags, q.buildIDSize, q.idBuffer = queryExecutable|queryOfFiles, longest, unsafe.Pointer(id)
	}
	return queryMaps(Folder(pid, tid), ask, func(q *mapQuery) error {
		if q.buildIDSize == 0 || q.buildIDSize > longest {
			return fmt.Errorf("%w: none in the file at %#x", ErrUntold, q.start)
		}
		found(id[:q.buildIDSize])
		return nil
	})
}

// Code is a mapping that may be executed.
type Code struct {
	specs.Range[specs.Addr]
	Readable, Writable, Shared bool
	Offset, Inode              uint64
	Major, Minor               uint32 // of the device
	// Name is the path or the name that /proc/PID/maps has, in which a newline is itself.
	Name []byte
}

// CodeMappings calls found with each mapping of process pid that may be executed, by
// address. Its name is only found's for the call, and its error ends the look. Where
// a process has much else that is less work than to read its maps file.
//
// Errors: [ErrUntold], [ErrGone], [ErrPermission], those of found.
func CodeMappings(pid int, found func(*Code) error) error {
	name := names.Get().(*[unix.PathMax]byte)
	defer names.Put(name)
	ask := func(q *mapQuery) {
		q.flags, q.nameSize, q.nameBuffer = queryExecutable, uint32(len(name)), unsafe.Pointer(name)
	}
	c := new(Code)
	return queryMaps(Folder(pid, pid), ask, func(q *mapQuery) error {
		if q.nameSize > uint32(len(name)) {
			return fmt.Errorf("%w: a name of %d bytes", ErrUntold, q.nameSize)
		}
		*c = Code{
			Range:    specs.Range[specs.Addr]{Lo: specs.Addr(q.start), Hi: specs.Addr(q.end)},
			Readable: q.access&queryReadable != 0, Writable: q.access&queryWritable != 0, Shared: q.access&queryShared != 0,
			Offset: q.offset, Inode: q.inode, Major: q.major, Minor: q.minor,
			Name: bytes.TrimRight(name[:q.nameSize], "\x00"),
		}
		return found(c)
	})
}

var names = sync.Pool{New: func() any { return new([unix.PathMax]byte) }}

// queryMaps asks for the mappings of a process, by address: ask fills in what is wanted,
// answer gets what there is.
func queryMaps(folder string, ask func(*mapQuery), answer func(*mapQuery) error) error {
	f, err := OpenFile(folder + "/maps")
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ESRCH):
		return ErrGone
	case errors.Is(err, os.ErrPermission):
		return ErrPermission
	case err != nil:
		return err
	}
	defer f.Close()
	q := new(mapQuery)
	for address := uint64(0); ; address = q.end {
		*q = mapQuery{size: uint64(unsafe.Sizeof(*q)), address: address}
		ask(q)
		q.flags |= queryOrNext
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), mapQueryCall, uintptr(unsafe.Pointer(q)))
		switch {
		case e == unix.EINTR:
			q.end = address
			continue
		case e == unix.ENOENT:
			return nil
		case e == unix.ESRCH:
			return ErrGone
		case e != 0:
			return fmt.Errorf("%w: %w", ErrUntold, e)
		case q.end <= address:
			return fmt.Errorf("%w: the mapping at %#x ends at %#x", ErrUntold, q.start, q.end)
		}
		if err := answer(q); err != nil {
			return err
		}
	}
}
