package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs/specfile"
)

// TestHooksAreTold: whoever looks at a patch with hooks sees them, in the
// comparison, in the file, before and while it is in a process.
func TestHooksAreTold(t *testing.T) {
	s, err := specfile.Read(filepath.Join(samples, "shadow", "spec.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Work: t.TempDir(), Shim: bin.cc}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if _, err := Make(ctx, s, o); err != nil {
		t.Fatal(Explain(err))
	}
	f := FolderOf(s, o)
	report, err := ReadReport(s, o)
	if err != nil {
		t.Fatal(err)
	}
	var hooks []ReportHook
	for _, u := range report.Units {
		hooks = append(hooks, u.Hooks...)
	}
	for _, want := range []ReportHook{{"pre_apply", "any_accounts"}, {"post_apply", "prepare_accounts"}, {"post_revert", "fother_shadow_free"}} {
		if len(hooks) != 3 || !slices.Contains(hooks, want) {
			t.Errorf("the report has hooks %v, want %v", hooks, want)
		}
	}
	told := func(text string, lines ...string) {
		t.Helper()
		for _, line := range lines {
			if !strings.Contains(text, line) {
				t.Errorf("%q is not in\n%s", line, text)
			}
		}
	}
	var text strings.Builder
	report.Text(&text, false)
	told(text.String(), "hook     pre_apply: any_accounts", "hook     post_revert: fother_shadow_free")
	paths, err := filepath.Glob(filepath.Join(f.Patches(), "*.kpatch"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("%v, %v", paths, err)
	}
	told(fother(t, 0, "show", paths[0]), "pre_apply: any_accounts, at most 100ms", "post_apply: prepare_accounts, at most 1s")
	told(fother(t, 0, "show", "--json", paths[0]), `"point": "post_revert"`, `"function": "fother_shadow_free"`, `"limit_ns": 10000000000`)
	p := ask(t, filepath.Join(f.Original(), "shadow"))
	told(fother(t, 0, "patch", "--dry-run", "-p", p.pid(), f.Patches()), "it has hook any_accounts (pre_apply)")
	told(fother(t, 0, "patch", "-p", p.pid(), f.Patches()), "ran any_accounts (pre_apply) in ", "ran prepare_accounts (post_apply) in ")
	told(fother(t, 0, "info", "-p", p.pid()), "hook prepare_accounts (post_apply, at most 1s)")
	var outcomes []struct{ Result apply.Result }
	if err := json.Unmarshal([]byte(fother(t, 0, "unpatch", "--json", "-p", p.pid())), &outcomes); err != nil {
		t.Fatal(err)
	}
	if h := outcomes[0].Result.Hooks; len(h) != 1 || h[0].Point != kpack.PostRevert || h[0].Functions[0] != "fother_shadow_free" || h[0].Why != "" {
		t.Errorf("hooks of the revert: %+v", h)
	}
}

// TestHookVeto: a veto is a refusal, which names hook and reason, and leaves the
// process as it was.
func TestHookVeto(t *testing.T) {
	s, err := specfile.Read(filepath.Join(samples, "shadow", "spec.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	fix, err := os.ReadFile(s.Patches[0])
	if err != nil {
		t.Fatal(err)
	}
	// The other way round: a program with accounts can do without it.
	vetoed := bytes.Replace(fix, []byte("return account_count == 0;"), []byte("return account_count != 0;"), 1)
	s.Patches = []string{filepath.Join(t.TempDir(), "fix.patch")}
	if err := os.WriteFile(s.Patches[0], vetoed, 0o644); err != nil || bytes.Equal(fix, vetoed) {
		t.Fatal("the fix has no such hook", err)
	}
	o := Options{Work: t.TempDir(), Shim: bin.cc}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if _, err := Make(ctx, s, o); err != nil {
		t.Fatal(Explain(err))
	}
	f := FolderOf(s, o)
	p := ask(t, filepath.Join(f.Original(), "shadow"))
	p.answer("login ann 17")
	before := memory(t, p.pid())
	out := fother(t, 4, "patch", "-p", p.pid(), f.Patches())
	for _, want := range []string{"hook any_accounts (pre_apply) returned 1; nothing was changed", "hint: "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %s", want, out)
		}
	}
	sameMemory(t, before, memory(t, p.pid()))
	p.answer("login ann 17")
}

// TestShadowInsteadOfMember: the fix of the sample that changes the struct is
// refused, by name and member.
func TestShadowInsteadOfMember(t *testing.T) {
	s, err := specfile.Read(filepath.Join(samples, "shadow", "spec.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s.Patches = []string{filepath.Join(filepath.Dir(s.Patches[0]), "upstream.patch")}
	o := Options{Work: t.TempDir(), Shim: bin.cc}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	_, err = Make(ctx, s, o)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"struct account", "failures", "keep what is new in an object of its own"} {
		if text := Explain(err).Error(); !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}
