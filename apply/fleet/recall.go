package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/specs"
)

// below reports whether c is for a series of which the process has a revoked
// level that is higher: then c takes its place.
func (t *task) below(c choice) bool {
	return slices.ContainsFunc(t.recalled, func(r choice) bool {
		return r.id.BuildID == c.id.BuildID && r.id.Series == c.id.Series && r.id.Level > c.id.Level
	})
}

func (p *pull) revokedIDs() []specs.PatchID {
	var ids []specs.PatchID
	for _, c := range p.revoked {
		ids = append(ids, c.id)
	}
	return ids
}

// replaced notes the revoked patches in whose place a step has put others.
func (p *pull) replaced(t *task, s Step) {
	if s.Result == nil {
		return
	}
	t.recalled = slices.DeleteFunc(t.recalled, func(c choice) bool {
		out := slices.ContainsFunc(s.Result.Replaced, func(a apply.Applied) bool { return a.PatchID == c.id })
		if out {
			p.tellRecalled(t, c, true, nil)
		}
		return out
	})
}

// recall takes out what is revoked and nothing has replaced, of root's processes
// or all others.
func (p *pull) recall(ctx context.Context, root bool) {
	for _, t := range p.tasks {
		if (t.uid == 0) != root {
			continue
		}
		for _, c := range slices.Clone(t.recalled) {
			if t.gone || t.left || ctx.Err() != nil {
				break
			}
			if busy := (*apply.BusyError)(nil); slices.ContainsFunc(t.Errors, func(f Failure) bool { return errors.As(f.Err, &busy) }) {
				p.tellRecalled(t, c, false, nil) // it stays busy
				continue
			}
			p.takeOut(ctx, t, c)
		}
	}
}

// takeOut takes a revoked patch out of a process.
func (p *pull) takeOut(ctx context.Context, t *task, c choice) {
	t.recalled = slices.DeleteFunc(t.recalled, func(o choice) bool { return o.id == c.id })
	if p.DryRun {
		p.tellRecalled(t, c, false, nil)
		return
	}
	p.progress("process %d (%s): %s was revoked", t.PID, t.Name, c.entry.File)
	which := []apply.Selector{{BuildID: c.id.BuildID, Series: c.id.Series, Level: c.id.Level}}
	res, err := Do(ctx, p.limiter, t.PID, Patching(p.Wait), func(ctx context.Context) (*apply.Result, error) {
		return p.host.revert(ctx, t.PID, which, apply.Options{Wait: p.Wait, Check: p.Deny.Check, Logger: p.Logger})
	})
	var denied *DeniedError
	switch {
	case errors.As(err, &denied):
		t.left = true
		p.leave(denied)
	case err == nil:
		p.tellRecalled(t, c, true, res)
	case errors.Is(err, apply.ErrNotApplied): // by another run, meanwhile
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
	default:
		p.tellRecalled(t, c, false, nil)
		t.fail(fmt.Errorf("%s was revoked (%s), and cannot be taken out: %w", c.entry.File, c.entry.Revoked.Reason, err))
	}
}

func (p *pull) tellRecalled(t *task, c choice, out bool, res *apply.Result) {
	p.report.Revoked = append(p.report.Revoked, Recalled{
		PID: t.PID, Name: t.Name, Patch: c.id, Package: c.entry.Package, Reason: c.entry.Revoked.Reason, Out: out, Result: res,
	})
}

// RevokedPatch is a patch for a build that runs here, or ran when the registry
// was last asked, and that was revoked.
type RevokedPatch struct {
	Patch   specs.PatchID `json:"patch"`
	Package string        `json:"package"`
	Reason  string        `json:"reason"`
	Time    time.Time     `json:"time"`
}

// revokedFile, in the state folder, is the list of revoked patches that passes
// leave for [ReadRevoked].
const (
	revokedFile = "revoked.json"
	maxRevoked  = 4 << 20 // bytes
)

// ReadRevoked returns the revoked patches that the passes with a state folder
// were told of, as far as they are for builds that ran at the last one. It is
// what the registry's signatures said then: nothing is verified again.
func ReadRevoked(state string) ([]RevokedPatch, error) {
	if err := private(state); err != nil {
		return nil, err
	}
	path := filepath.Join(state, revokedFile)
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxRevoked {
		return nil, fmt.Errorf("%s: not a list of revoked patches", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []RevokedPatch
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// remember writes the list of revoked patches: of all builds, or if single
// processes were looked at, anew for theirs.
func (p *pull) remember(ids []specs.BuildID) {
	if !p.asked || p.State == "" || p.DryRun {
		return
	}
	old, err := ReadRevoked(p.State)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.log.Debug("the list of revoked patches is made anew", "error", err)
	}
	var list []RevokedPatch
	for _, r := range old {
		if _, asked := slices.BinarySearch(ids, r.Patch.BuildID); p.PIDs != nil && !asked {
			list = append(list, r)
		}
	}
	for _, c := range p.revoked {
		list = append(list, RevokedPatch{c.id, c.entry.Package, c.entry.Revoked.Reason, c.entry.Revoked.Time})
	}
	if len(list) == 0 && len(old) == 0 {
		return
	}
	if err := writeList(filepath.Join(p.State, revokedFile), list); err != nil {
		p.fail(fmt.Errorf("state folder: %w", err))
	}
}

func writeList(path string, list []RevokedPatch) error {
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".revoked-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
