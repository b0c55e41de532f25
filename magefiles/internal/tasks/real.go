package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fother/fother/magefiles/internal/nginx"
	"github.com/fother/fother/magefiles/internal/pipeline"
)

// rounds is how often the last patch is applied and reverted under load.
const rounds = 100

// Real makes the patches for three vulnerabilities of Debian's nginx, applies
// each to master and workers under load from another process, and shows by
// attacks that the bug is there before, gone after, and back when the patch is
// out. Then it applies and reverts one of them a hundred times under load. One
// failed request fails it.
func Real(ctx context.Context, out io.Writer, fother string, o pipeline.Options) error {
	for i, cve := range nginx.CVEs {
		dir := filepath.Join(o.Work, "real", cve)
		s, err := nginx.Prepare(ctx, dir, cve)
		if err != nil {
			return err
		}
		if _, err := pipeline.Make(ctx, s, o); err != nil {
			return err
		}
		r := &realRun{out: out, fother: fother, cve: cve, folder: pipeline.FolderOf(s, o)}
		if err := r.start(ctx, filepath.Join(dir, "run")); err != nil {
			return err
		}
		err = r.healed(ctx)
		if err == nil && i == len(nginx.CVEs)-1 {
			err = r.again(ctx, filepath.Join(dir, "run"))
		}
		if stop := r.server.Stop(); err == nil {
			err = stop
		}
		if err != nil {
			return fmt.Errorf("%s: %w", cve, err)
		}
	}
	return nil
}

// realRun is one server with one vulnerability.
type realRun struct {
	out     io.Writer
	fother  string
	cve     string
	folder  pipeline.Folder
	server  *nginx.Server
	longest time.Duration // stop
	stops   int
}

func (r *realRun) start(ctx context.Context, dir string) (err error) {
	r.server, err = nginx.Start(ctx, r.folder.Original(), dir)
	return err
}

func (r *realRun) patch(ctx context.Context) error {
	return r.each(ctx, "patch", r.folder.Patches())
}

func (r *realRun) unpatch(ctx context.Context) error { return r.each(ctx, "unpatch") }

// healed shows the bug before, with and after the patch.
func (r *realRun) healed(ctx context.Context) error {
	for _, step := range []struct {
		do   func(context.Context) error
		want bool // fixed
	}{{nil, false}, {r.patch, true}, {r.unpatch, false}} {
		if step.do != nil {
			if err := r.underLoad(ctx, step.do); err != nil {
				return err
			}
		}
		found, err := r.server.Probe(ctx, r.cve)
		if err != nil {
			return err
		}
		fmt.Fprintf(r.out, "%s: %v\n", r.cve, found)
		if found.Fixed != step.want {
			return fmt.Errorf("found %v", found)
		}
	}
	return nil
}

// again applies and reverts the patch many times under load, in a server that
// no attack has damaged.
func (r *realRun) again(ctx context.Context, dir string) error {
	if err := r.server.Stop(); err != nil {
		return err
	}
	if err := r.start(ctx, dir); err != nil {
		return err
	}
	r.stops, r.longest = 0, 0
	err := r.underLoad(ctx, func(ctx context.Context) error {
		for range rounds {
			if err := r.patch(ctx); err != nil {
				return err
			}
			if err := r.unpatch(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	fmt.Fprintf(r.out, "%s: applied and reverted %d times: %d stops, the longest %v\n", r.cve, rounds, r.stops, r.longest)
	return err
}

// underLoad calls do while another process keeps the server busy. No request
// may fail.
func (r *realRun) underLoad(ctx context.Context, do func(context.Context) error) error {
	load, err := r.server.Load(16)
	if err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond) // let every connection be in use
	err = do(ctx)
	stats, stopErr := load.Stop()
	if err != nil {
		return err
	}
	if stopErr != nil {
		return stopErr
	}
	fmt.Fprintf(r.out, "%s: %d requests in %v, %d failed, the longest took %v\n",
		r.cve, stats.Requests, stats.Elapsed.Round(time.Millisecond), stats.Failed, stats.Longest.Round(time.Microsecond))
	if stats.Failed > 0 || stats.Requests == 0 {
		return fmt.Errorf("%d of %d requests failed, the first: %s", stats.Failed, stats.Requests, stats.First)
	}
	return nil
}

// each runs the tool for master and workers.
func (r *realRun) each(ctx context.Context, verb string, files ...string) error {
	pids, err := r.server.PIDs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		args := append([]string{verb, "--json", "-p", strconv.Itoa(pid)}, files...)
		b, err := exec.CommandContext(ctx, r.fother, args...).Output()
		if exit, ok := err.(*exec.ExitError); ok {
			return fmt.Errorf("fother %s of process %d: %w\n%s", verb, pid, err, exit.Stderr)
		} else if err != nil {
			return err
		}
		stop, err := stopTime(b)
		if err != nil {
			return fmt.Errorf("fother %s --json: %w", verb, err)
		}
		r.stops++
		r.longest = max(r.longest, stop)
	}
	return nil
}

// stopTime reads the longest stop from what fother --json prints.
func stopTime(b []byte) (time.Duration, error) {
	var outcomes []struct {
		Result struct {
			Stop struct {
				Longest time.Duration `json:"longest_ns"`
			} `json:"stop"`
		} `json:"result"`
	}
	if err := json.Unmarshal(b, &outcomes); err != nil {
		return 0, err
	}
	var longest time.Duration
	for _, o := range outcomes {
		longest = max(longest, o.Result.Stop.Longest)
	}
	if longest == 0 {
		return 0, errors.New("no stop in it")
	}
	return longest, nil
}
