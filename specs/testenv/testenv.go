// Package testenv says what tests need of the machine. Where something is
// missing a test is skipped with the reason, but never in CI, where it fails: a
// test that did not run there must not look like one that passed.
//
// Only tests import it.
package testenv

import (
	"os"
	"os/exec"
	"testing"
)

// Needs skips the test if one of the programs is not on PATH; in CI it fails.
func Needs(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			Skip(t, p+" is not installed")
		}
	}
}

// Long reports whether tests are to try all there is, not a sample:
// FOTHER_LONG=1.
func Long() bool { return os.Getenv("FOTHER_LONG") == "1" }

// Skip skips the test for want of something; in CI it fails.
func Skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("nothing may be missing in CI: " + why)
	}
	t.Skip(why)
}
