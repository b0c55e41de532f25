package registry

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// maxKept bounds the bundles that stay in the cache, in bytes.
const maxKept = 1 << 30

// Prune removes from the cache the bundles of none of the given entries, and
// of these what is beyond 1 GiB. What is removed can be fetched again.
func (c *Client) Prune(used []Entry) error {
	keep, total := make(map[string]bool), int64(0)
	for _, e := range used {
		if name := e.Digest.String(); !keep[name] && e.Length >= 0 && e.Length <= maxKept-total {
			keep[name] = true
			total += e.Length
		}
	}
	dir := c.cache.path(bundlesDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return &Error{ErrState, dir, err}
	}
	var errs []error
	for _, e := range entries {
		// Revocations stay: they are small, and hold for ever.
		if keep[strings.TrimSuffix(e.Name(), ".sig")] || strings.HasSuffix(e.Name(), revokedSuffix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, &Error{ErrState, dir, err})
		}
	}
	return errors.Join(errs...)
}
