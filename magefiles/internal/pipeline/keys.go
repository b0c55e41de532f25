package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"golang.org/x/term"

	"github.com/fother/fother/registry"
)

// passphraseVariable has the passphrase of keys.
const passphraseVariable = "FOTHER_KEY_PASSPHRASE"

// keyOptions say where keys are besides the folder, and who is asked for
// passphrases.
func keyOptions() []registry.KeyOption {
	return []registry.KeyOption{registry.WithEnvironment(os.Getenv), registry.WithPassphrase(func(file string) ([]byte, error) {
		if phrase := os.Getenv(passphraseVariable); phrase != "" {
			return []byte(phrase), nil
		}
		return askPassphrase("Passphrase of " + Rel(file) + ": ")
	})}
}

// askPassphrase asks on the terminal, which standard input need not be.
func askPassphrase(prompt string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("there is no terminal to ask on, and %s is not set", passphraseVariable)
	}
	defer tty.Close()
	fmt.Fprint(tty, prompt)
	phrase, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	if err == nil && len(phrase) == 0 {
		err = errors.New("none was given")
	}
	return phrase, err
}

// newPassphrase returns what new keys are encrypted with, nil if they are not.
func newPassphrase(ask bool) ([]byte, error) {
	if phrase := os.Getenv(passphraseVariable); phrase != "" || !ask {
		return []byte(phrase), nil
	}
	first, err := askPassphrase("Passphrase of the new keys: ")
	if err != nil {
		return nil, err
	}
	again, err := askPassphrase("The same again: ")
	if err == nil && !bytes.Equal(first, again) {
		err = errors.New("the two passphrases differ")
	}
	return first, err
}

// InitOptions say how the keys of a registry are made.
type InitOptions struct {
	Root       string // as 2of3: how many of root's keys have to sign; "" is 1of1
	Passphrase bool   // ask for one
}

// InitRegistry makes an empty registry and its keys.
func InitRegistry(ctx context.Context, o Options, how InitOptions) error {
	init := registry.InitOptions{URL: o.Registry, Keys: o.Keys, More: keyOptions()}
	if how.Root != "" {
		need, of, ok := strings.Cut(how.Root, "of")
		var errs [2]error
		init.RootThreshold, errs[0] = strconv.Atoi(need)
		init.RootKeys, errs[1] = strconv.Atoi(of)
		if !ok || errors.Join(errs[:]...) != nil || init.RootThreshold < 1 || init.RootKeys < init.RootThreshold {
			return &UsageError{fmt.Errorf("root %q: want as many of so many keys, as 2of3", how.Root)}
		}
	}
	var err error
	if init.Passphrase, err = newPassphrase(how.Passphrase); err != nil {
		return err
	}
	if _, err := registry.Init(ctx, init); err != nil {
		return err
	}
	o.say("registry: %s", Rel(o.Registry))
	o.say("keys:     %s (who has them can publish)", Rel(o.Keys))
	o.say("hosts trust the registry by %s; there it is /etc/fother/root.json", Rel(Root(o)))
	return nil
}

// UsageError means that what the caller was asked for makes no sense.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

func (e *UsageError) Unwrap() error { return e.Err }

// MakeKey makes a key for a role or, as package.NAME, for a package.
func MakeKey(ctx context.Context, o Options, name string, passphrase bool) error {
	p, err := openRegistry(o)
	if err != nil {
		return err
	}
	phrase, err := newPassphrase(passphrase)
	if err != nil {
		return err
	}
	k, err := p.MakeKey(ctx, name, phrase)
	if err != nil {
		return err
	}
	switch {
	case k.Bound:
		o.say("%s: key %s signs from now on: %s", name, k.ID, Rel(k.File))
	case strings.HasPrefix(name, "package."):
		o.say("%s: key %s signs from the first release of the package on, or, if there are any, from registry:rotate %s on: %s", name, k.ID, name, Rel(k.File))
	default:
		o.say("%s: key %s signs nothing until registry:rotate %s: %s", name, k.ID, name, Rel(k.File))
	}
	return nil
}

// ListKeys prints the keys that are at hand or may sign something.
func ListKeys(ctx context.Context, w io.Writer, o Options) error {
	p, err := openRegistry(o)
	if err != nil {
		return err
	}
	keys, err := p.Keys(ctx)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "FOR\tKEY\tMAY SIGN\tAT HAND")
	for _, k := range keys {
		may, file := "no", "no"
		if k.Bound {
			may = fmt.Sprintf("%d of %d must", k.Threshold, k.Keys)
		}
		if k.File != "" {
			file = Rel(k.File)
		}
		if k.File != "" && !k.Signs {
			file += " (public half)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", k.Name, k.ID, may, file)
	}
	return t.Flush()
}

// RotateKey lets a key join a role or package and another leave.
func RotateKey(ctx context.Context, o Options, r registry.Rotation, passphrase bool) error {
	p, err := openRegistry(o)
	if err != nil {
		return err
	}
	if r.Passphrase, err = newPassphrase(passphrase); err != nil {
		return err
	}
	if err := p.Rotate(ctx, r); err != nil {
		return err
	}
	o.say("%s: done; registry:keys lists who signs now", r.Name)
	return nil
}

// SignRoot adds signatures to the root.json that waits in the keys' folder.
func SignRoot(ctx context.Context, o Options) error {
	p, err := openRegistry(o)
	if err != nil {
		return err
	}
	if err := p.SignRoot(ctx); err != nil {
		return err
	}
	o.say("the new root.json is in use; hosts follow by themselves")
	return nil
}
