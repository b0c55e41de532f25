package differ_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

var (
	makesBytes = regexp.MustCompile(`^\t([a-z]|\.(long|quad|byte|string|ascii|zero|value|word|xword|hword|comm)\t)`)
	number     = regexp.MustCompile(`[0-9]+\b`)
	dataLine   = regexp.MustCompile(`^\t\.(zero|comm)\t`)
)

// TestMutations changes one statement of a unit at a time: each time the unit
// must differ from the original or be refused. What is carried must be
// assembled by the real assembler (a sample of it is).
func TestMutations(t *testing.T) {
	for _, run := range []struct {
		arch  *arch.Arch
		flags string
	}{
		{arch.X86_64, "-O0"}, {arch.X86_64, "-O2"}, {arch.X86_64, "-O2 -fPIC -g"}, {arch.X86_64, "-O2 -fno-pie"},
		{arch.AArch64, "-O0"}, {arch.AArch64, "-O2"},
	} {
		t.Run(run.arch.Name+strings.ReplaceAll(run.flags, " ", ""), func(t *testing.T) {
			t.Parallel()
			mutations(t, run.arch, run.flags)
		})
	}
}

func mutations(t *testing.T, a *arch.Arch, flags string) {
	tools := map[*arch.Arch]string{arch.AArch64: a.Tuple + "-"}[a]
	testenv.Needs(t, tools+"gcc")
	args := append(strings.Fields(flags), "-w", "-S", "-o", "-", "testdata/mutate.c")
	out, err := exec.Command(tools+"gcc", args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	text := string(out)
	if a == arch.AArch64 {
		text = strings.ReplaceAll(text, "jmp 1b", "b 1b")
	}
	lines := strings.SplitAfter(text, "\n")
	debug, seen, carried := false, 0, 0
	for i, line := range lines {
		if strings.HasPrefix(line, "\t.section") || line == "\t.text\n" || line == "\t.data\n" || line == "\t.bss\n" {
			debug = strings.Contains(line, ".debug_") || strings.Contains(line, ".note")
		}
		if debug || !makesBytes.MatchString(line) {
			continue
		}
		for kind, mutant := range mutants(line) {
			patched := strings.Join(lines[:i], "") + mutant + strings.Join(lines[i+1:], "")
			set, err := differ.DiffBoth(t, differ.Input{Unit: "m.c", Arch: a, Original: []byte(text), Patched: []byte(patched)})
			seen++
			if err != nil {
				continue
			}
			if set.Assembly == nil {
				t.Errorf("line %d: %s of %q is not seen", i+1, kind, line)
				continue
			}
			if carried++; carried%20 == 0 && kind != "other number" {
				assembles(t, tools+"as", set, fmt.Sprintf("line %d: %s of %q", i+1, kind, line))
			}
		}
	}
	t.Logf("%d mutants, %d of them carried", seen, carried)
	if seen < 300 || carried < seen/3 {
		t.Errorf("only %d mutants, %d of them carried", seen, carried)
	}
}

// mutants returns statements that are not line.
func mutants(line string) map[string]string {
	m := map[string]string{"loss": "", "repetition": line + line}
	if at := number.FindAllStringIndex(line, -1); at != nil {
		last := at[len(at)-1]
		if strings.HasPrefix(line, "\t.comm") {
			last = at[len(at)-2] // the last is the alignment
		}
		m["other number"] = line[:last[0]] + "7" + line[last[0]:]
	}
	if dataLine.MatchString(line) {
		delete(m, "repetition") // defines a common symbol twice
	}
	return m
}

func assembles(t *testing.T, as string, set *differ.ChangeSet, what string) {
	t.Helper()
	cmd := exec.Command(as, "-o", filepath.Join(t.TempDir(), "o"), "-")
	cmd.Stdin = strings.NewReader(string(set.Assembly))
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %s", what, msg)
	}
}
