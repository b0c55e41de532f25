package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// free unmaps the memory of records that no entry leads to, as far as nothing
// refers to it, and returns which it freed. stacks are of a stop since which the code could not be entered,
// empty if there was none.
func (p *Process) free(ctx context.Context, records []*record, stacks *stackUses, res *Result) (freed []*record, err error) {
	ran := slices.DeleteFunc(slices.Clone(records), func(r *record) bool { return r.state != staged || !p.hooksRan(r) })
	rest := slices.DeleteFunc(slices.Clone(records), func(r *record) bool { return slices.Contains(ran, r) })
	freed, err = p.freeUnused(ctx, rest, stacks, res)
	if len(ran) == 0 || err != nil {
		return freed, err
	}
	// No commit has made a stop for these, and nothing has been at their code but
	// who was given its address by a hook.
	own, empty, err := p.emptied(ctx, ran)
	if err != nil {
		return freed, fmt.Errorf("the functions are as they were, but memory is left: %w", err)
	}
	if !empty {
		for _, r := range ran {
			res.Kept = append(res.Kept, r.describe())
		}
		return freed, nil
	}
	more, err := p.freeUnused(ctx, ran, own, res)
	return append(freed, more...), err
}

// emptied stops the process to see that no thread is in the code of records, and
// reports whether that is so.
func (p *Process) emptied(ctx context.Context, records []*record) (stacks *stackUses, empty bool, err error) {
	t := &transaction{emptied: records}
	for _, r := range records {
		t.zones = append(t.zones, goingZones(r, func(*recordedFunction) bool { return false })...)
	}
	stacks = &stackUses{}
	_, err = p.commit(ctx, t, commitOptions{wait: unhookWait, stacks: stacks})
	busy, stuck := (*BusyError)(nil), (*StuckError)(nil)
	if errors.As(err, &busy) || errors.As(err, &stuck) {
		return nil, false, nil
	}
	return stacks, err == nil, err
}

// freeUnused is free for records of which some are proved to be empty by stacks.
func (p *Process) freeUnused(ctx context.Context, records []*record, stacks *stackUses, res *Result) (freed []*record, err error) {
	if len(records) == 0 {
		return nil, nil
	}
	referred, err := p.referred(records, stacks)
	if err != nil {
		return nil, fmt.Errorf("the functions are as they were, but memory is left: %w", err)
	}
	for i, r := range records {
		inside := r.mayBeLeft() && !slices.Contains(stacks.proven, r)
		if (referred[i] || inside || r.stays()) && (r.state != staged || p.hooksRan(r)) {
			res.Kept = append(res.Kept, r.describe())
		} else {
			freed = append(freed, r)
		}
	}
	if freed, err = p.unhook(ctx, freed, res); err != nil {
		return nil, fmt.Errorf("the functions are as they were, but memory is left: %w", err)
	}
	held, err := p.unmap(ctx, freed)
	res.Held += held
	if err != nil && !errors.Is(err, ErrGone) {
		return nil, fmt.Errorf("the functions are as they were, but memory is left: %w", err)
	}
	return freed, nil
}
