package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// TestMakeRoom holds that nothing is collected after it, though much is held.
func TestMakeRoom(t *testing.T) {
	percent, limit := debug.SetGCPercent(-1), debug.SetMemoryLimit(memoryLimit)
	defer func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}()
	held := make([]byte, 2*memoryLimit)
	makeRoom()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var some [][]byte
	for range 256 {
		some = append(some, make([]byte, 64<<10))
	}
	runtime.ReadMemStats(&after)
	if n := after.NumGC - before.NumGC; n != 0 {
		t.Errorf("%d collections", n)
	}
	runtime.KeepAlive(held)
	runtime.KeepAlive(some)
}
