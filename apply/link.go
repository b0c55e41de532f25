package apply

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// headerSize bounds the size of the step's record before its addresses are
// known.
func headerSize(patch *kpack.Patch, o *object, held int) uint64 {
	const fixed, each, escaped = 1280, 928, 6 // JSON may write 6 bytes for one
	n := len(patch.Meta.Name) + len(patch.Meta.Description) + len(o.Path) + len(patch.Meta.Series)
	for _, c := range patch.Meta.CVEs {
		n += len(c) + 4
	}
	for _, f := range patch.Functions {
		n += len(f.Name) + len(f.File) + len(f.Alone)
	}
	if t := patch.Meta.AddressTaken; len(t) > 0 {
		n += len(t[0])
	}
	const hook = 96
	if len(patch.Hooks) > 0 {
		n += hook // the places
	}
	for _, h := range patch.Hooks {
		n += hook/escaped + len(h.Function)
	}
	const variable, block, released = 448, 64, 24
	fields := block*held + (variable+released)*len(patch.Variables)
	for _, v := range patch.Variables {
		n += len(v.Name) + len(v.Unit) + len(v.Scope) + len(v.Type)
		for _, u := range v.Users {
			n += len(u) + 1
		}
	}
	return uint64(recordFixed+fixed+fields+each*len(patch.Functions)+escaped*n+trialSize+len(memoryName)+15) &^ 15
}

// link makes image and record for memory at base.
func (s *step) link(p *Process, base specs.Addr) error {
	image, err := s.patch.Link(s.layout, base, s.object.image.Bias, p.resolver(s.object), p.threadResolver(s.object))
	if err != nil {
		return err
	}
	told, err := s.finderOf(p, image.Finder)
	if err != nil {
		return err
	}
	if at := image.Finder.Map; at != 0 {
		binary.LittleEndian.PutUint64(image.ROData[at-base:], uint64(p.linkMapOf(s.object)))
	}
	r := s.newRecord(base, image)
	r.Finder = told
	for i, sec := range s.patch.Sections {
		if sec.Name == ".eh_frame" {
			if sec.Size > maxFrames {
				return fmt.Errorf("%d bytes of call frame information: want at most %d", sec.Size, maxFrames)
			}
			r.Frames = region{s.layout.Offset(i), sec.Size}
		}
	}
	for i, f := range s.patch.Functions {
		rf, err := s.redirect(p, f, image, i)
		if err != nil {
			return fmt.Errorf("function %s: %w", f.Name, err)
		}
		r.Functions = append(r.Functions, rf)
	}
	size := s.header - uint64(trialSize+len(memoryName))
	if s.trial != trialNone {
		r.Trial, r.trial = base+specs.Addr(size), s.trial
	}
	head, err := r.encode(size)
	if err != nil {
		return err
	}
	copy(image.ROData, append(binary.LittleEndian.AppendUint64(head, s.trial), memoryName...))
	s.image, s.record = image, r
	return nil
}

// newRecord is what the record says of the patch and of its memory at base, without
// functions and finder.
func (s *step) newRecord(base specs.Addr, image *kpack.Image) *record {
	l := s.layout
	r := &record{recordState: recordState{state: staged, leader: base}, recordBody: recordBody{
		ID: patchID(s.patch), Name: s.patch.Meta.Name, Description: s.patch.Meta.Description, CVEs: s.patch.Meta.CVEs,
		Time: time.Now().UTC(), Object: s.object.Path, Bias: s.object.image.Bias, Base: base, Size: l.Size,
		Hooks:   hooksOf(s.patch, image),
		Gates:   region{l.Gates.Offset, l.Gates.Size},
		Regions: [3]region{{l.ROData.Offset, l.ROData.Size}, {l.Text.Offset, l.Text.Size}, {l.Data.Offset, l.Data.Size}},
		State:   region{l.State.Offset, l.State.Size}, Held: s.held,
	}}
	for i, v := range s.patch.Variables {
		r.Variables = append(r.Variables, recordedVariable{v, image.Variables[i]})
	}
	if s.trial != trialNone && s.replaced != nil {
		r.Fallback = s.replaced.Base
	}
	if t := s.patch.Meta.AddressTaken; len(t) > 0 {
		r.Taken = t[0]
	}
	return r
}

// redirect works out the bytes that lead from function f, the patch's i-th, to
// its new body and to its gate.
func (s *step) redirect(p *Process, f kpack.Function, image *kpack.Image, i int) (recordedFunction, error) {
	bias := s.object.image.Bias
	r := recordedFunction{
		Name: f.Name, File: f.File, Lo: bias.Addr(f.Original.Lo), Hi: bias.Addr(f.Original.Hi),
		Entry: image.Entries[i], Size: s.patch.Symbols[f.Symbol].Size, NextCall: f.NextCall,
		Through: image.Jumps[i], Count: at(image.Counters, i), Gate: image.Gates[i], Copy: image.Copies[i], Alone: f.Alone,
	}
	if f.Cold.Size() > 0 {
		r.Cold = specs.Range[specs.Addr]{Lo: bias.Addr(f.Cold.Lo), Hi: bias.Addr(f.Cold.Hi)}
	}
	if f.Copy != nil && f.Copy.Calls && ptrace.ShadowStacks(p.PID) {
		r.Copy, r.Alone = 0, "it begins with a call, and the process has shadow stacks"
	}
	old, err := p.original(r.Lo, min(f.Room, maxEntry))
	if err != nil {
		return r, err
	}
	if head := s.heads[i]; !bytes.Equal(head[:min(len(head), len(old))], old[:min(len(head), len(old))]) {
		return r, &MismatchError{Object: s.object.Path, Function: f.Name, Addr: r.Lo, Why: "it has changed meanwhile: its object may have been closed"}
	}
	skip := 0
	if f.Through != nil {
		skip = f.Through.Skip
	}
	if _, r.Gated, err = kpack.Redirect(s.patch.Arch, old, skip, r.Lo, r.Gate); err != nil {
		return r, err
	}
	if r.Site, r.New, err = kpack.Redirect(s.patch.Arch, old, skip, r.Lo, r.Through); err != nil {
		return r, err
	}
	skipped := uint64(r.Site - r.Lo)
	if len(r.New) == 0 || skipped > uint64(len(old)) || uint64(len(r.New)) > uint64(len(old))-skipped {
		return r, fmt.Errorf("%w: room for %d bytes", kpack.ErrTooShort, len(old))
	}
	r.Old = old[skipped : skipped+uint64(len(r.New))]
	if end := uint64(r.Site) + uint64(len(r.New)) - 1; end/p.page != uint64(r.Site)/p.page {
		return r, &SplitError{Site: r.Site}
	}
	return r, nil
}

// at returns the i-th address, or 0 if there are none.
func at(all []specs.Addr, i int) specs.Addr {
	if len(all) == 0 {
		return 0
	}
	return all[i]
}
