package main

import (
	"encoding/binary"
	"errors"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// The runtime replaces the dispositions of nearly all signals before any code
// of ours runs, and keeps the old ones to itself, in an array that is indexed
// by the signal's number.
const (
	oldDispositions = "runtime.fwdSig"
	sigIgn          = 1 // SIG_IGN
)

// inherited ends the tool's own handling of signals, and returns what ignores
// those again that it was started with ignored. SIGCHLD is not among them: the
// program waits for the helper.
func (t *tool) inherited() func() {
	ignored, err := ignoredSignals()
	if err != nil && t.verbose {
		t.note("which signals were ignored is not known, and but for SIGHUP and SIGINT none will be: %v", err)
	}
	ignored = slices.DeleteFunc(ignored, func(s syscall.Signal) bool { return s == syscall.SIGCHLD })
	// What is ignored is inherited, what has a handler becomes the default.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGCHLD, syscall.SIGPIPE)
	signal.Reset()
	return func() {
		for _, s := range ignored {
			signal.Ignore(s)
		}
	}
}

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
	bias, err := ownBias(f)
	if err != nil {
		return nil, err
	}
	for _, s := range symbols {
		if s.Name != oldDispositions || s.Size == 0 || s.Size > 1024 {
			continue
		}
		table := make([]byte, s.Size)
		if _, err := mem.ReadAt(table, int64(bias.Addr(specs.VAddr(s.Value)))); err != nil {
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

// ownBias returns where the tool, whose file is f, was loaded, from the entry
// point that the kernel wrote into the auxiliary vector (AT_ENTRY, getauxval(3)).
func ownBias(f *elfobj.File) (specs.Bias, error) {
	const atEntry, pair = 9, 16
	aux, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		return 0, err
	}
	for ; len(aux) >= pair; aux = aux[pair:] {
		if binary.LittleEndian.Uint64(aux) == atEntry {
			return specs.Bias(binary.LittleEndian.Uint64(aux[8:]) - uint64(f.Entry)), nil
		}
	}
	return 0, errors.New("the auxiliary vector has no entry point")
}
