package registry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// newLevel is the level of the release that is published for the host.
const newLevel = 9999

// crowd is a registry of many build-ids, one release for each.
type crowd struct {
	*site
	ids, packages int
}

// release returns the n-th release. Packages have 50 each.
func (c *crowd) release(n int) Release {
	r := newRelease(fmt.Sprintf("package-%05d", n%c.packages), specs.Level(1+n/c.packages), buildID(n))
	r.CVEs = []string{fmt.Sprintf("CVE-2026-%05d", n%100000)}
	return r
}

// quick is a folder that does not wait until what it writes is on the disk.
type quick struct{ folder }

func (q quick) write(_ context.Context, name string, data []byte) error {
	err := os.WriteFile(q.path(name), data, 0o644)
	if errors.Is(err, os.ErrNotExist) {
		err = errors.Join(os.MkdirAll(filepath.Dir(q.path(name)), 0o755), os.WriteFile(q.path(name), data, 0o644))
	}
	return err
}

// fill writes the listings of all releases, as so many calls of Publish would
// leave them, and signs them. The bundles are not there.
func (c *crowd) fill(t testing.TB) {
	t.Helper()
	e, err := c.p.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e.store = quick{e.store.(folder)}
	shards, packs := map[string][]int32{}, map[string][]int32{}
	for n := range c.ids {
		shards[shardTarget(buildID(n))] = append(shards[shardTarget(buildID(n))], int32(n))
	}
	for n := range c.packages {
		target := packageTarget(c.release(n).Package)
		packs[target] = append(packs[target], int32(n))
	}
	list := func(target string, numbers []int32, step int) {
		l := &listing{Format: listingFormat}
		for _, first := range numbers {
			for n := int(first); n < c.ids; n += step {
				r := c.release(n)
				rel, err := r.describe()
				if err != nil {
					t.Fatal(err)
				}
				rel.Length = 123456
				l.Releases = append(l.Releases, rel)
			}
		}
		e.listings[target], e.dirty[target] = l, true
		if err := e.writeListings(t.Context()); err != nil {
			t.Fatal(err)
		}
		clear(e.listings)
		clear(e.dirty)
	}
	for target, numbers := range shards {
		list(target, numbers, c.ids)
	}
	for target, numbers := range packs {
		list(target, numbers, c.packages)
	}
	if err := e.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// web is nginx in front of a folder. It counts by its access log.
type web struct {
	url, log string
	at       int64 // what of the log has been counted
}

const webConfig = `daemon off;
pid %[1]s/pid;
error_log %[1]s/error.log;
user root;
worker_processes 1;
events { worker_connections 256; }
http {
	log_format counted '$status $bytes_sent $request_uri';
	access_log %[1]s/access.log counted;
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	server { listen %[2]s; root %[3]s; }
}
`

// serveByNginx starts nginx, until the test ends.
func (s *site) serveByNginx(t testing.TB) *web {
	t.Helper()
	testenv.Needs(t, "nginx")
	dir := t.TempDir()
	address := freeAddress(t)
	config, root := fmt.Sprintf(webConfig, dir, address, s.dir), "user root;\n"
	if os.Geteuid() != 0 { // then it runs as who started it
		config = strings.Replace(config, root, "", 1)
	}
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nginx", "-e", filepath.Join(dir, "error.log"), "-p", dir, "-c", filepath.Join(dir, "conf"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return &web{url: "http://" + address, log: filepath.Join(dir, "access.log")}
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// spent returns requests since the last call, and the bytes of the answers with
// their headers.
func (w *web) spent(t testing.TB) (requests int, bytes int64) {
	t.Helper()
	// nginx writes a request's line when its answer has been sent, which its
	// client may have read before: a last request is waited for.
	marker := fmt.Sprintf("/marker-%d", time.Now().UnixNano())
	if res, err := http.Get(w.url + marker); err == nil {
		res.Body.Close()
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		f, err := os.Open(w.log)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(w.at, 0); err != nil {
			t.Fatal(err)
		}
		requests, bytes = 0, 0
		lines, read := bufio.NewScanner(f), w.at
		for lines.Scan() {
			read += int64(len(lines.Bytes())) + 1
			var status int
			var n int64
			var uri string
			if _, err := fmt.Sscan(lines.Text(), &status, &n, &uri); err != nil {
				break // half a line
			}
			if uri == marker {
				f.Close()
				w.at = read
				return requests, bytes
			}
			requests, bytes = requests+1, bytes+n
		}
		f.Close()
	}
	t.Fatal("the access log does not have the last request")
	return 0, 0
}

// TestScale measures what a host and a publisher pay for in a registry of
// many build-ids, by nginx's access log. FOTHER_LONG has a million of them, and
// a host with 500.
func TestScale(t *testing.T) {
	c := &crowd{newSite(t), 2_000, 40}
	host := 20
	if os.Getenv("FOTHER_LONG") != "" {
		c.ids, c.packages, host = 1_000_000, 20_000, 500
	}
	began := time.Now()
	c.fill(t)
	t.Logf("%d releases were signed in %.1f s", c.ids, time.Since(began).Seconds())
	w := c.serveByNginx(t)
	state := filepath.Join(t.TempDir(), "state")
	var ids []specs.BuildID
	mine := map[string]bool{}
	for n := range host {
		ids = append(ids, buildID(n))
		mine[shardTarget(buildID(n))] = true
	}
	var table strings.Builder
	rows := tabwriter.NewWriter(&table, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(rows, "requests\tbytes\tat most\tbytes\t")
	look := func(what string, entries, requests int, bytes int64) *Client {
		t.Helper()
		client := c.clientAt(t, w.url, state)
		if err := client.Update(t.Context()); err != nil {
			t.Fatal(err)
		}
		found, err := client.Lookup(t.Context(), ids)
		if err != nil || len(found) != entries {
			t.Fatalf("%s: %d entries, %v", what, len(found), err)
		}
		for _, e := range found {
			if e.Level != newLevel {
				continue
			}
			if _, err := client.Fetch(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		n, sent := w.spent(t)
		fmt.Fprintf(rows, "%d\t%d\t%d\t%d\t%s\n", n, sent, requests, bytes, what)
		if n > requests || sent > bytes {
			t.Errorf("%s: %d requests, %d bytes", what, n, sent)
		}
		return client
	}
	look("first start", host, 1000, 15e6)
	look("nobody has published", host, 2, 2<<10)
	publish := func(what string, r Release) {
		t.Helper()
		c.p.store = &written{store: folder{c.dir}}
		start := time.Now()
		c.publish(t, r)
		took := time.Since(start)
		by := c.p.store.(*written)
		fmt.Fprintf(rows, "%d\t%d\t\t\t%s: files written, in %.0f ms\n", by.files, by.bytes, what, took.Seconds()*1000)
	}
	for n := c.ids; ; n++ {
		if r := newRelease("others", 1, buildID(n)); !mine[shardTarget(buildID(n))] {
			publish("one publish", r)
			break
		}
	}
	look("others have published", host, 4, 100e3)
	r := newRelease("package-00000", newLevel, ids[0])
	r.Bundle = make([]byte, 4096)
	publish("one publish for this host", r)
	look("one patch for this host, with its bundle of 4096 bytes", host+1, 7, 150e3)
	if err := c.p.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	look("nobody has published, but the timestamp was renewed", host+1, 2, 2<<10)
	rows.Flush()
	t.Logf("%d build-ids, %d on the host\n%s", c.ids, host, table.String())
	c.arithmetic(t, host)
}

// written counts what goes through a store.
type written struct {
	store
	files int
	bytes int64
}

func (w *written) note(data []byte) {
	w.files++
	w.bytes += int64(len(data))
}

func (w *written) write(ctx context.Context, name string, data []byte) error {
	w.note(data)
	return w.store.write(ctx, name, data)
}

func (w *written) create(ctx context.Context, name string, data []byte) error {
	w.note(data)
	return w.store.create(ctx, name, data)
}

func (w *written) commit(ctx context.Context, name string, old, data []byte) error {
	w.note(data)
	return w.store.commit(ctx, name, old, data)
}

// arithmetic holds what LAYOUT.md computes against the files that are there.
func (c *crowd) arithmetic(t testing.TB, host int) {
	t.Helper()
	mean := func(pattern string) float64 {
		files, err := filepath.Glob(filepath.Join(c.dir, pattern))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		var sum int64
		for _, f := range files {
			info, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			sum += info.Size()
		}
		return float64(sum) / float64(len(files))
	}
	newest := func(role string) float64 {
		e, err := c.p.begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if role == metadata.SNAPSHOT {
			return float64(e.trust.set.Timestamp.Signed.Meta["snapshot.json"].Length)
		}
		return float64(e.trust.set.Snapshot.Signed.Meta[role].Length)
	}
	hit := func(places float64) float64 { return places * (1 - math.Pow(1-1/places, float64(host))) }
	shards, bins := math.Exp2(shardBits), math.Exp2(binBits)*15/16
	index, bin, snapshot := mean("targets/index/*"), newest("bin-00.json"), newest(metadata.SNAPSHOT)
	t.Logf("index target %.0f bytes of %.1f releases, package target %.0f; bin of the index %.0f bytes, of packages %.0f; snapshot %.0f\n"+
		"first start: 4 + %.0f bins + %.0f index targets = %.0f requests, %.2f MB",
		index, float64(c.ids)/shards, mean("targets/packages/*"), bin, newest("bin-3f.json"), snapshot,
		hit(bins), hit(shards), 4+hit(bins)+hit(shards), (2048+snapshot+hit(bins)*bin+hit(shards)*index)/1e6)
}
