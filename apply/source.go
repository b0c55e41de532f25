package apply

import (
	"debug/dwarf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// Bounds of what is read to name a source line, in bytes.
const (
	maxDebugFile    = 512 << 20
	maxDebugSection = 256 << 20
)

// addSources says for busy threads where in the source they are, as far as the
// debug data of the objects' files tell.
func (p *Process) addSources(err error) {
	busy := (*BusyError)(nil)
	if !errors.As(err, &busy) {
		return
	}
	known := make(map[*object]*dwarf.Data)
	for i := range busy.Threads {
		t := &busy.Threads[i]
		o := p.objectAt(t.PC)
		if o == nil {
			continue
		}
		data, ok := known[o]
		if !ok {
			data, _ = p.debugData(o) // most programs come without
			known[o] = data
		}
		if data != nil {
			t.Source = sourceLine(data, o.image.Bias.VAddr(p.instruction(t.PC)))
		}
	}
}

// instruction returns an address within the call that returns to a, or a itself.
func (p *Process) instruction(a specs.Addr) specs.Addr {
	code := make([]byte, 8)
	if readFull(p.mem, a-specs.Addr(len(code)), code) == nil && afterCall[p.objects[0].image.Arch](code) {
		return a - 1
	}
	return a
}

// debugData reads the debug data in the file of an object. What reads it is not
// made for hostile input, so the file has to be root's or the tool's user's own.
func (p *Process) debugData(o *object) (*dwarf.Data, error) {
	osf, err := p.objectFile(o)
	if err != nil {
		return nil, err
	}
	defer osf.Close()
	info, err := osf.Stat()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid != 0 && int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 || info.Size() > maxDebugFile {
		return nil, fmt.Errorf("%s: others can write it, or it is too large", o.Path)
	}
	f, err := elfobj.OpenFile(osf)
	if err != nil {
		return nil, err
	}
	if id, err := f.BuildID(); err != nil || id != o.BuildID {
		return nil, fmt.Errorf("%s: is another build", o.Path)
	}
	sections, err := f.DebugSections(maxDebugSection, nil) // the tool does not link zstd
	if err != nil {
		return nil, err
	}
	return sections.DWARF()
}

// objectFile opens the file of an object. Whatever is in its place now is not
// waited for.
func (p *Process) objectFile(o *object) (*os.File, error) {
	const flags = os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	if o == p.executable() {
		return os.OpenFile(fmt.Sprintf("/proc/%d/exe", p.PID), flags, 0)
	}
	m := mappingAt(p.maps, o.Base)
	if m == nil || m.Inode == 0 {
		return nil, fmt.Errorf("%s: no file", o.Path)
	}
	if f, err := os.OpenFile(fmt.Sprintf("/proc/%d/map_files/%x-%x", p.PID, uint64(m.Range.Lo), uint64(m.Range.Hi)), flags, 0); err == nil {
		return f, nil
	}
	return os.OpenFile(filepath.Join(fmt.Sprintf("/proc/%d/root", p.PID), o.Path), flags, 0)
}

// sourceLine returns FILE:LINE of an address, or "".
func sourceLine(data *dwarf.Data, a specs.VAddr) string {
	unit, err := data.Reader().SeekPC(uint64(a))
	if err != nil {
		return ""
	}
	lines, err := data.LineReader(unit)
	if err != nil || lines == nil {
		return ""
	}
	var at dwarf.LineEntry
	if lines.SeekPC(uint64(a), &at) != nil || at.File == nil || at.Line == 0 {
		return ""
	}
	return fmt.Sprintf("%s:%d", at.File.Name, at.Line)
}
