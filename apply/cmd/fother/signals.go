package main

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"

	"github.com/fother/fother/kpack/elfobj"
)

// The runtime replaces the dispositions of nearly all signals before any code
// of ours runs, and keeps the old ones to itself, in an array that is indexed
// by the signal's number.
const (
	oldDispositions = "runtime.fwdSig"
	sigIgn          = 1 // SIG_IGN
)

// ignoredSignals returns those that the tool was started with ignored, as
// systemd does it with SIGPIPE and nohup with SIGHUP.
//
// Errors: that it cannot be known, since the tool was stripped of its symbols.
func ignoredSignals() ([]syscall.Signal, error) {
	const self = "/proc/self/"
	f, err := elfobj.Open(self + "exe")
	if err != nil {
		return nil, err
	}
	symbols, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	mem, err := os.Open(self + "mem")
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	for _, s := range symbols {
		if s.Name != oldDispositions || s.Size == 0 || s.Size > 1024 {
			continue
		}
		table := make([]byte, s.Size)
		if _, err := mem.ReadAt(table, int64(s.Value)); err != nil {
			return nil, err
		}
		var all []syscall.Signal
		for n := 1; 8*n+8 <= len(table); n++ {
			if binary.LittleEndian.Uint64(table[8*n:]) == sigIgn {
				all = append(all, syscall.Signal(n))
			}
		}
		return all, nil
	}
	return nil, errors.New("this program has no symbols")
}
