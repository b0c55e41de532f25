//go:build split

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// handOver lets the whole program take this one's place if a registry is named, with
// its process id, command line and environment: most of what a program needs that
// speaks to registries is made ready whenever it starts, and takes longer than a
// patch. Then it returns only if that fails.
func (r *registryFlags) handOver(t *tool) error {
	if r.url == "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	path := filepath.Join(filepath.Dir(self), wholeName)
	if err := runnable(path); err != nil {
		err = fmt.Errorf("this %s leaves registries to the program %s beside it: %w", t.name, wholeName, err)
		return hinted{err, "build it with: CGO_ENABLED=0 go build -ldflags=-w -o " + path + " ./apply/cmd/fother"}
	}
	t.inherited()()
	return &os.PathError{Op: "execute", Path: path, Err: syscall.Exec(path, os.Args, os.Environ())}
}

// client never returns a client.
func (r *registryFlags) client(t *tool, _ string) (client, error) { return nil, r.handOver(t) }

// runnable checks that nobody else can change a program, and that it is not this
// one.
func runnable(path string) error {
	f, _, err := newTrust().open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	there, err := f.Stat()
	if err != nil {
		return err
	}
	own, err := os.Stat("/proc/self/exe")
	if err == nil && os.SameFile(there, own) {
		err = errors.New(path + " was built with -tags split, as this program")
	}
	return err
}
