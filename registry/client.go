package registry

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/fother/fother/specs"
)

// ClientOptions say which registry a client trusts and where it is.
type ClientOptions struct {
	// URL is where the registry is: a folder's path, or an address that begins
	// with file://, http:// or https://. Where it is served from is not trusted.
	URL string
	// Root is the trusted root.json, from Init or a later one of that registry.
	Root []byte
	// State is a folder for metadata and bundles that were verified, made with
	// mode 0700. It keeps apart registries with different Root.
	State string
	// Channel is the lowest channel of which Lookup tells; empty is Stable.
	Channel Channel
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// Logger is told what is fetched; nil is silent.
	Logger *slog.Logger
}

// Client finds and fetches bundles. Its methods may be called concurrently.
type Client struct {
	address string
	root    []byte
	now     func() time.Time
	log     *slog.Logger
	remote  *transport
	cache   *cache
	follow  Channel

	mu    sync.Mutex
	state *trust // nil before the first use
}

// NewClient checks the options and makes the state folder. It fetches nothing.
func NewClient(o ClientOptions) (*Client, error) {
	c := &Client{address: Redacted(o.URL), root: o.Root, now: o.Now, log: o.Logger, follow: orStable(o.Channel)}
	if rank(c.follow) == 0 {
		return nil, fail(ErrInvalid, "channel", "%.80q: want %s, %s or %s", o.Channel, Edge, Beta, Stable)
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if _, err := newTrust(o.Root, c.now(), nil, none{}); err != nil {
		return nil, err
	}
	var err error
	if c.cache, err = openCache(o.State, specs.DigestOf(o.Root).String()[:16]); err != nil {
		return nil, err
	}
	if c.remote, err = newTransport(o.URL, c.cache.path(tempDir), c.log); err != nil {
		return nil, err
	}
	return c, nil
}

// Address is where the registry is, as it may be shown (see Redacted).
func (c *Client) Address() string { return c.address }

// Update brings the signed metadata up to date, and the parts of the index
// that the last Lookup used. It is all or nothing: after an error the state
// that was complete before stays in use, until it expires. When nothing was
// published since, it costs two requests.
func (c *Client) Update(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := newTrust(c.root, c.now(), c.remote.read, c.cache)
	if err != nil {
		return err
	}
	if err := t.refresh(ctx); err != nil {
		return err
	}
	if old := c.cache.get(currentTimestamp, maxTimestamp); string(old) == string(t.timestamp) {
		c.state = t
		return nil
	}
	if _, err := t.listings(ctx, c.shards()); err != nil {
		return err
	}
	if err := c.commit(t); err != nil {
		return err
	}
	c.state = t
	return nil
}

// commit makes t the state that later clients begin with, by one rename.
func (c *Client) commit(t *trust) error {
	if err := c.cache.put(currentTimestamp, t.timestamp); err != nil {
		return err
	}
	used := []string{metadataFile(t.set.Snapshot.Signed.Version, metadata.SNAPSHOT)}
	for role, m := range t.set.Targets {
		used = append(used, metadataFile(m.Signed.Version, role))
	}
	for _, shard := range c.shards() {
		if f := t.target(shard); f != nil {
			if name, err := targetFile(shard, f); err == nil {
				used = append(used, name)
			}
		}
	}
	c.cache.prune(used)
	c.log.Info("registry updated", "timestamp", t.set.Timestamp.Signed.Version, "snapshot", t.set.Snapshot.Signed.Version)
	return nil
}

// shards returns the index targets that the last Lookup used.
func (c *Client) shards() []string {
	var names []string
	if json.Unmarshal(c.cache.get(shardsFile, maxListing), &names) != nil {
		return nil
	}
	return slices.DeleteFunc(names, func(s string) bool { return !strings.HasPrefix(s, indexPrefix) })
}

// current returns the state in use: that of the last Update, or else the last
// complete one in the cache. It fails if it has expired.
func (c *Client) current(ctx context.Context) (*trust, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != nil {
		c.state.at(c.now())
		return c.state, c.state.expired()
	}
	t, err := newTrust(c.root, c.now(), c.remote.read, c.cache)
	if err != nil {
		return nil, err
	}
	t.useTimestamp(c.cache.get(currentTimestamp, maxTimestamp))
	if t.timestamp == nil {
		return nil, fail(ErrUnreachable, timestampFile, "nothing that is still valid was fetched from this registry")
	}
	if err := t.rest(ctx); err != nil {
		return nil, err
	}
	c.state = t
	return t, nil
}

// Lookup returns the releases for the given build-ids, as of the last complete
// Update: by build-id, package and series, the highest level first. What was
// looked up before needs no store. For some build-ids that may fail; then it
// returns all releases for the others, and the error. Of one build-id it
// returns all or none, but for a release whose revocation cannot be verified.
//
// Revoked releases are told too, of any channel.
func (c *Client) Lookup(ctx context.Context, ids []specs.BuildID) ([]Entry, error) {
	shards := map[string]bool{}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	if err := checkIDs(ids); err != nil {
		return nil, err
	}
	for _, id := range ids {
		shards[shardTarget(id)] = true
	}
	t, err := c.current(ctx)
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(shards))
	listings, failed := t.listings(ctx, names)
	var entries []Entry
	for _, id := range ids {
		l := listings[shardTarget(id)]
		if l == nil {
			continue
		}
		for _, r := range slices.SortedFunc(slices.Values(l.Releases), compareReleases) {
			if slices.Contains(r.BuildIDs, id) {
				entries = append(entries, r.entry(id, t.binding(r.Package)))
			}
		}
	}
	entries, err = c.revocations(ctx, entries)
	entries = slices.DeleteFunc(entries, func(e Entry) bool {
		return e.Revoked == nil && rank(e.Channel) < rank(c.follow)
	})
	if err != nil {
		return entries, errors.Join(failed, err)
	}
	if failed != nil {
		// An update would fail as a whole for want of what failed.
		return entries, failed
	}
	return entries, c.remember(names)
}

// remember notes which index targets this host needs.
func (c *Client) remember(names []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Equal(c.shards(), names) {
		return nil
	}
	data, err := json.Marshal(names)
	if err != nil {
		return err
	}
	return c.cache.put(shardsFile, data)
}

// Fetch returns the bundle of an entry that Lookup returned. Its signature by
// the package's key, its length and its digest have been checked; nothing else
// has looked at it. It is kept, so that a second call needs no store.
func (c *Client) Fetch(ctx context.Context, e Entry) ([]byte, error) {
	from := originOf(&e)
	if from.release == nil {
		return nil, fail(ErrUntrusted, e.Path, "the entry is not from Lookup")
	}
	e = from.release.entry(e.BuildID, from.binding)
	sigName := e.Path + ".sig"
	name, keep := bundlesDir+"/"+e.Digest.String(), bundlesDir+"/"+e.Digest.String()+".sig"
	sig, data := c.cache.get(keep, maxSignature), c.cache.get(name, e.Length)
	if sig == nil || verifyRelease(sig, &e) != nil {
		var err error
		if sig, err = c.remote.read(ctx, sigName, maxSignature); err != nil {
			return nil, err
		}
		if err := verifyRelease(sig, &e); err != nil {
			return nil, signatureError(sigName, err)
		}
		if err := c.cache.put(keep, sig); err != nil {
			return nil, err
		}
	}
	if checkBundle(data, &e) == nil {
		return data, nil
	}
	data, err := c.remote.read(ctx, e.Path, e.Length)
	if err != nil {
		return nil, err
	}
	if err := checkBundle(data, &e); err != nil {
		return nil, err
	}
	if err := c.cache.put(name, data); err != nil {
		return nil, err
	}
	return data, nil
}

func checkBundle(data []byte, e *Entry) error {
	switch {
	case int64(len(data)) != e.Length:
		return fail(ErrUntrusted, e.Path, "%d bytes: want %d", len(data), e.Length)
	case specs.DigestOf(data) != e.Digest:
		return fail(ErrUntrusted, e.Path, "its SHA-256 is not the one that was signed")
	}
	return nil
}
