package main

import (
	"bytes"
	"context"
	"slices"
	"testing"
)

// TestAhead: what is read comes in the order of the processes, all of it, and no
// more of it than was asked for.
func TestAhead(t *testing.T) {
	var pids []int
	for i := range 10*chunk + 3 {
		pids = append(pids, i)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	twice := func(_ context.Context, pid int) int { return 2 * pid }
	var got []int
	for v := range ahead(ctx, pids, twice) {
		got = append(got, v/2)
	}
	if !slices.Equal(got, pids) {
		t.Errorf("%v", got)
	}
	n := 0
	for range ahead(ctx, pids, twice) {
		if n++; n == 5 {
			stop()
		}
	}
	if n != 5 {
		t.Errorf("%d after the end of the context: want 5", n)
	}
	for range ahead(t.Context(), nil, twice) {
		t.Error("something of no processes")
	}
}

// TestGathered: what is written comes out whole and in order, no later than at the
// flush.
func TestGathered(t *testing.T) {
	var out, want bytes.Buffer
	tool := &tool{stdout: &output{Writer: &out}}
	flush := tool.gather()
	for range 3000 {
		text := []byte("naïve – \x1b\n")
		want.WriteString("naïve – \\x1b\n")
		if n, err := tool.stdout.Write(text); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
	}
	if out.Len() == 0 {
		t.Error("all is kept until the end")
	}
	flush()
	if out.String() != want.String() {
		t.Errorf("%d bytes, want %d", out.Len(), want.Len())
	}
}
