package registry

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fother/fother/specs"
)

// eachStore runs a test with a registry in each kind of store.
func eachStore(t *testing.T, do func(t *testing.T, s *site, v *service)) {
	t.Parallel()
	t.Run("folder", func(t *testing.T) {
		t.Parallel()
		url := filepath.Join(t.TempDir(), "registry")
		do(t, newSiteAt(t, url), &service{url: url, requests: func() []string { return nil }})
	})
	for _, kind := range slices.Sorted(maps.Keys(services)) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v := services[kind](t)
			do(t, newSiteAt(t, v.url), v)
		})
	}
}

// most are the requests that each kind of store may need, counted in the
// server's log: a poll without news, one publish of a patch for one build-id,
// and a poll that brings it.
var most = map[string][3]int{
	"folder": {0, 0, 0},
	"http":   {2, 25, 3},
	"s3":     {2, 16, 3},
	"oci":    {2, 46, 3},
}

func TestStores(t *testing.T) {
	eachStore(t, func(t *testing.T, s *site, v *service) {
		one, two := newRelease("alpha", 1, buildID(1), buildID(2)), newRelease("alpha~x", 2, buildID(3))
		state := filepath.Join(t.TempDir(), "state")
		expect(t, s.clientAt(t, s.url, state), one.BuildIDs)
		s.publish(t, one)
		expect(t, s.clientAt(t, s.url, state), one.BuildIDs, one)

		limits := most[filepath.Base(t.Name())]
		v.requests()
		expect(t, s.clientAt(t, s.url, state), one.BuildIDs, one)
		within(t, "a poll without news", v.requests(), limits[0])
		p := s.open(t)
		if turns, ok := p.store.(*turns); ok {
			turns.hold, turns.settle = time.Minute, 2*time.Second // nothing is renewed, nobody late
		}
		if err := p.Publish(t.Context(), two); err != nil {
			t.Fatal(err)
		}
		within(t, "a publish", v.requests(), limits[1])
		expect(t, s.clientAt(t, s.url, state), one.BuildIDs, one)
		within(t, "a poll after others' publish", v.requests(), limits[2])
		expect(t, s.client(t, s.url), two.BuildIDs, two)

		if err := s.open(t).Publish(t.Context(), two); !errors.Is(err, ErrPublished) {
			t.Errorf("the same again: %v", err)
		}
		if err := s.p.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		if entries, err := s.p.List(t.Context()); err != nil || len(entries) != 3 {
			t.Errorf("list: %+v, %v", entries, err)
		}
		expect(t, s.clientAt(t, s.url, state), slices.Concat(one.BuildIDs, two.BuildIDs), one, two)
		if _, err := Init(t.Context(), InitOptions{URL: s.url, Keys: filepath.Join(t.TempDir(), "keys")}); !errors.Is(err, ErrExists) {
			t.Errorf("a second registry in the same place: %v", err)
		}
	})
}

func within(t *testing.T, what string, requests []string, most int) {
	t.Helper()
	t.Logf("%s: %d requests: %q", what, len(requests), requests)
	if len(requests) > most {
		t.Errorf("%s: %d requests, want at most %d", what, len(requests), most)
	}
}

// TestStoresTwoPublishers: neither loses the other's work.
func TestStoresTwoPublishers(t *testing.T) {
	eachStore(t, func(t *testing.T, s *site, _ *service) { twoPublishers(t, s, 3) })
}

// TestStoresInterrupted ends a publish before some of its writes: readers see
// nothing of it, another publisher is not held up for long, and it can be
// repeated.
func TestStoresInterrupted(t *testing.T) {
	eachStore(t, func(t *testing.T, s *site, _ *service) {
		var want []Release
		ids := []specs.BuildID{buildID(1)}
		for n, working := range []int{1, 3, 6} {
			one, other := newRelease("alpha", specs.Level(n+1), ids...), newRelease("beta", specs.Level(n+1), ids...)
			p := s.open(t)
			p.store = &failing{p.store, working}
			if err := p.Publish(t.Context(), one); !errors.Is(err, errInjected) {
				t.Fatal(err)
			}
			expect(t, s.client(t, s.url), ids, want...)
			s.publish(t, other)
			s.publish(t, one)
			want = append(want, one, other)
			expect(t, s.client(t, s.url), ids, want...)
		}
	})
}

// TestDeadPublisher: the lock of a publisher that was killed keeps others away
// until it is stale.
func TestDeadPublisher(t *testing.T) {
	for _, kind := range []string{"http", "oci"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSiteAt(t, services[kind](t).url)
			r := newRelease("alpha", 1, buildID(1))
			dead := s.open(t).store.(*turns)
			if _, err := dead.take(t.Context()); err != nil { // and renews nothing
				t.Fatal(err)
			}
			began := time.Now()
			s.publish(t, r)
			if waited := time.Since(began); waited < turnHold {
				t.Errorf("the lock was taken after %v", waited)
			}
			expect(t, s.client(t, s.url), r.BuildIDs, r)

			// It wakes up: its lease has ended.
			l := dead.begin(t.Context(), began.Add(-turnHold))
			dead.held = l
			<-l.ctx.Done()
			if err := dead.create(t.Context(), "metadata/9.snapshot.json", []byte("late")); !errors.Is(err, ErrRaced) {
				t.Errorf("a write after the lease: %v", err)
			}
			if err := dead.commit(t.Context(), timestampFile, nil, []byte("late")); !errors.Is(err, ErrRaced) {
				t.Errorf("a commit after the lease: %v", err)
			}
			dead.release(t.Context(), l)
			expect(t, s.client(t, s.url), r.BuildIDs, r)
		})
	}
}

// TestLockIsTaken: a publisher whose lock somebody else has taken does not
// commit, and begins anew.
func TestLockIsTaken(t *testing.T) {
	s := newSiteAt(t, startNginx(t).url)
	mine, other := s.p.store.(*turns), s.open(t).store.(*turns)
	unlock, err := mine.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old, err := mine.read(t.Context(), timestampFile, maxTimestamp)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.writeLock(t.Context(), lockRecord{other.owner, 0.5, 0}, false); err != nil {
		t.Fatal(err)
	}
	if err := mine.commit(t.Context(), timestampFile, old, []byte("mine")); !errors.Is(err, ErrRaced) {
		t.Errorf("a commit with another's lock: %v", err)
	}
	unlock()
	if now, _, err := other.look(t.Context()); err != nil || now.Owner != other.owner {
		t.Errorf("the other's lock is %v, %v", now, err)
	}
	s.publish(t, newRelease("alpha", 1, buildID(1)))
}

// TestRaces lets others commit in between: the loser begins anew, and skips
// the versions that they have used.
func TestRaces(t *testing.T) {
	t.Parallel()
	s := newSiteAt(t, startS3(t).url)
	mine := s.p.store
	for _, name := range []string{"1.bin-00", "2.snapshot", "3.snapshot"} {
		if err := mine.create(t.Context(), "metadata/"+name+".json", []byte("left by a dead publisher")); err != nil {
			t.Fatal(err)
		}
	}
	if err := mine.create(t.Context(), "metadata/2.snapshot.json", []byte("other")); !errors.Is(err, ErrTaken) {
		t.Errorf("a version twice: %v", err)
	}
	other := s.open(t)
	tries := 0
	err := s.p.change(t.Context(), func(e *edit) error {
		if tries++; tries <= 2 {
			if err := other.Publish(t.Context(), newRelease("other", specs.Level(tries), buildID(1))); err != nil {
				t.Fatal(err)
			}
		}
		return e.publish(t.Context(), []Release{newRelease("mine", 1, buildID(1))})
	})
	if err != nil || tries != 3 {
		t.Fatalf("%d tries: %v", tries, err)
	}
	expect(t, s.client(t, s.url), []specs.BuildID{buildID(1)},
		newRelease("other", 1, buildID(1)), newRelease("other", 2, buildID(1)), newRelease("mine", 1, buildID(1)))
	if files, err := s.p.store.read(t.Context(), "metadata/4.snapshot.json", maxSnapshot); err != nil || len(files) == 0 {
		t.Errorf("the versions of dead publishers are not skipped: %v", err)
	}
	for _, store := range []store{mine, newSite(t).p.store} {
		if err := store.commit(t.Context(), timestampFile, []byte("what was there once"), []byte("new")); !errors.Is(err, ErrRaced) {
			t.Errorf("%T: a commit over another state: %v", store, err)
		}
	}
}

func TestTags(t *testing.T) {
	seen := map[string]string{}
	digest := strings.Repeat("0123456789abcdef", 4)
	for name, want := range map[string]string{
		"metadata/timestamp.json":                            "metadata_timestamp.json",
		"metadata/12.root.json":                              "metadata_12.root.json",
		"targets/index/" + digest + ".0a1b.json":             "targets_index_" + digest + ".0a1b.json",
		"bundles/" + digest + "/simple-1.kpatch.tar.zst":     "bundles_" + digest + "_simple-1.kpatch.tar.zst",
		"bundles/" + digest + "/a_b":                         "",
		"bundles/" + digest + "/a+b":                         "",
		"bundles/" + digest + "/" + strings.Repeat("a", 200): "",
		"lock.json": "lock.json",
	} {
		tag := tagOf(name)
		if want != "" && tag != want || want == "" && !strings.HasPrefix(tag, "x_") || len(tag) > maxTag {
			t.Errorf("%s: tag %s, want %s", name, tag, want)
		}
		if other := seen[tag]; other != "" {
			t.Errorf("%s and %s have the tag %s", name, other, tag)
		}
		seen[tag] = name
	}
}

// TestTwoInits: of two who make a registry in one place one succeeds, and the
// other keeps no keys.
func TestTwoInits(t *testing.T) {
	t.Parallel()
	for kind, start := range services {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v := start(t)
			var all sync.WaitGroup
			var errs [2]error
			var sites [2]*site
			for n := range sites {
				s := &site{url: v.url, keys: filepath.Join(t.TempDir(), "keys"), now: time.Now()}
				sites[n] = s
				all.Go(func() {
					s.root, errs[n] = Init(t.Context(), InitOptions{URL: s.url, Keys: s.keys, Now: s.clock})
				})
			}
			all.Wait()
			if errs[0] != nil {
				errs[0], errs[1] = errs[1], errs[0]
				sites[0], sites[1] = sites[1], sites[0]
			}
			if errs[0] != nil || !errors.Is(errs[1], ErrExists) {
				t.Fatal(errs)
			}
			if _, err := os.Lstat(sites[1].keys); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("keys of nothing: %v", err)
			}
			s, r := sites[0], newRelease("alpha", 1, buildID(1))
			s.p = s.open(t)
			s.publish(t, r)
			expect(t, s.client(t, s.url), r.BuildIDs, r)
		})
	}
}
