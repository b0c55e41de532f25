package pipeline

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/registry"
)

// TestKeys makes a registry with a passphrase in the environment, makes and
// rotates keys, and moves one into the environment, as a CI service has it.
func TestKeys(t *testing.T) {
	work := t.TempDir()
	var said bytes.Buffer
	o := Options{Work: work, Registry: filepath.Join(work, "registry"), Keys: filepath.Join(work, "keys"), Progress: &said}
	for _, root := range []string{"2", "of", "3of2", "0of1", "x", "1of99", "-1of1"} {
		var usage *UsageError
		if err := InitRegistry(t.Context(), o, InitOptions{Root: root}); !errors.As(err, &usage) && !errors.Is(err, registry.ErrKey) {
			t.Errorf("root %s: %v", root, err)
		}
	}
	if err := InitRegistry(t.Context(), o, InitOptions{Root: "2of3"}); err != nil {
		t.Fatal(err)
	}
	if err := MakeKey(t.Context(), o, "package.alpha", false); err != nil || !strings.Contains(said.String(), "signs from now on") {
		t.Fatalf("%v\n%s", err, said.String())
	}
	if err := MakeKey(t.Context(), o, "timestamp", false); err != nil || !strings.Contains(said.String(), "until registry:rotate") {
		t.Fatalf("%v\n%s", err, said.String())
	}
	t.Setenv(passphraseVariable, "xyzzy")
	if err := RotateKey(t.Context(), o, registry.Rotation{Name: "snapshot"}, false); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(o.Keys, "snapshot.2.pem"))
	if err != nil || !bytes.Contains(data, []byte("ENCRYPTED")) {
		t.Errorf("%s, %v", data, err)
	}
	t.Setenv(passphraseVariable, "wrong")
	if err := RefreshRegistry(t.Context(), o); err != nil { // the snapshot is not due
		t.Errorf("a key that does not sign is opened: %v", err)
	}
	if err := RotateKey(t.Context(), o, registry.Rotation{Name: "package.alpha"}, false); !errors.Is(err, registry.ErrPassphrase) {
		t.Errorf("a wrong passphrase: %v", err)
	}
	t.Setenv(passphraseVariable, "")
	// TIMESTAMP: it leaves the folder for the environment.
	path := filepath.Join(o.Keys, "timestamp.1.pem")
	if data, err = os.ReadFile(path); err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := RefreshRegistry(t.Context(), o); !errors.Is(err, registry.ErrKey) {
		t.Errorf("without the timestamp's key: %v", err)
	}
	t.Setenv("FOTHER_KEY_TIMESTAMP", string(data))
	if err := RefreshRegistry(t.Context(), o); err != nil {
		t.Error(err)
	}
	var list bytes.Buffer
	if err := ListKeys(t.Context(), &list, o); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 of 3 must", "FOTHER_KEY_TIMESTAMP", "package.alpha", "snapshot.2.pem"} {
		if !strings.Contains(list.String(), want) {
			t.Errorf("no %q in\n%s", want, list.String())
		}
	}
	if err := SignRoot(t.Context(), o); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("nothing waits: %v", err)
	}
	for name, err := range map[string]error{
		"promote": Promote(t.Context(), o, "alpha-1", ""), "revoke": Revoke(t.Context(), o, "alpha-1", "x"),
	} {
		if !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
