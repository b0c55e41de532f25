package ptrace

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
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

	queryExecutable = 0x04
	queryOrNext     = 0x10
	queryOfFiles    = 0x20
)

// ErrUntold means that the kernel does not tell of the build-ids of mapped files: it
// is older than Linux 6.11, or a file has none that it finds.
var ErrUntold = errors.New("the kernel does not tell the build-ids")

// CodeBuildIDs calls found with the build-id of each file that process pid has mapped
// as code, as the kernel finds it in the file: by address, the same one again where
// it is mapped more than once. It reads no memory of the process. The bytes are only
// found's for the call.
//
// Errors: [ErrUntold], [ErrGone], [ErrPermission].
func CodeBuildIDs(pid int, found func(id []byte)) error {
	f, err := OpenFile("/proc/" + strconv.Itoa(pid) + "/maps")
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ESRCH):
		return ErrGone
	case errors.Is(err, os.ErrPermission):
		return ErrPermission
	case err != nil:
		return err
	}
	defer f.Close()
	const longest = 64 // bytes of a build-id
	id := new([longest]byte)
	q := new(mapQuery)
	for address := uint64(0); ; address = q.end {
		*q = mapQuery{
			size: uint64(unsafe.Sizeof(*q)), flags: queryExecutable | queryOfFiles | queryOrNext, address: address,
			buildIDSize: longest, idBuffer: unsafe.Pointer(id),
		}
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
		case q.buildIDSize == 0 || q.buildIDSize > longest:
			return fmt.Errorf("%w: none in the file at %#x", ErrUntold, q.start)
		case q.end <= address:
			return fmt.Errorf("%w: the mapping at %#x ends at %#x", ErrUntold, q.start, q.end)
		}
		found(id[:q.buildIDSize])
	}
}
