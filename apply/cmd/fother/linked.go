//go:build !split

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/fother/fother/registry"
)

// handOver returns nil: this program has the code that reads registries.
func (r *registryFlags) handOver(*tool) error { return nil }

// maxRoot bounds the size of root.json, in bytes.
const maxRoot = 512 << 10

// client returns a client that keeps its metadata in the given folder.
func (r *registryFlags) client(t *tool, state string) (client, error) {
	channel, err := registry.ParseChannel(cmp.Or(r.channel, os.Getenv("FOTHER_CHANNEL")))
	if err != nil {
		return nil, usageError{err}
	}
	root, err := newTrust().read(r.root, maxRoot)
	if err != nil {
		return nil, rootError(err)
	}
	c, err := registry.NewClient(registry.ClientOptions{URL: r.url, Root: root, State: state, Channel: channel, Logger: t.logger()})
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", registry.Redacted(r.url), err)
	}
	return c, nil
}

// rootError explains why root.json cannot be used.
func rootError(err error) error {
	err = fmt.Errorf("whom to trust is not known: %w", err)
	var unsafe *unsafeFileError
	switch {
	case errors.Is(err, os.ErrNotExist):
		return hinted{err, "get root.json from the registry's owner in a way that you trust, and put it at /etc/fother/root.json or name it with --root"}
	case errors.As(err, &unsafe):
		return hinted{err, "whoever can write root.json decides what runs here: put it into a folder that only root can write"}
	}
	return err
}
