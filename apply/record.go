package apply

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// state is where a record is in the protocol (PROTOCOL.md).
type state uint32

const (
	staged     state = 1 + iota // memory is there, no entry leads to it
	committing                  // entries are being switched to it
	applied                     // entries lead to it
	leaving                     // entries are being switched away from it
	retired                     // no entry leads to it; kept while something may return into it
)

func (s state) String() string {
	names := []string{"", "staged", "committing", "applied", "leaving", "retired"}
	if int(s) < len(names) && s > 0 {
		return names[s]
	}
	return fmt.Sprintf("state %d", uint32(s))
}

// A record is at the start of a patch's memory: 64 bytes, then JSON.
//
//	0  magic          8 bytes
//	8  version        u32, little endian as all
//	12 size of JSON   u32
//	16 state          u32
//	20 open           u32, of a leader: 1 from its commit's decision on, to its end
//	24 leader         u64, address of the record that decides for all of a commit
//	32 SHA-256 of the JSON
const (
	recordMagic   = "\x7fFOTHER\x00"
	recordVersion = 2
	recordFixed   = 64
	stateOffset   = 16
	openOffset    = 20
	maxRecord     = 16 << 20
	maxRecords    = 4096
)

// record is one patch in one process.
type record struct {
	recordBody
	recordState
	// trial is the word at Trial, or 0.
	trial uint64
}

// recordState is what changes: written in one piece at stateOffset.
type recordState struct {
	state  state
	open   bool
	leader specs.Addr
}

// stateSize is its size in bytes.
const stateSize = 16

// recordBody is what does not change while the record exists. Addresses are
// run-time addresses.
type recordBody struct {
	ID          specs.PatchID `json:"id"`
	Name        string        `json:"name,omitempty"`
	Description string        `json:"description,omitempty"`
	CVEs        []string      `json:"cves,omitempty"`
	Time        time.Time     `json:"time"`

	Object string     `json:"object"` // path
	Bias   specs.Bias `json:"bias"`
	// Base and Size are the memory of the patch; Regions its parts, as offsets:
	// r--, r-x, rw-.
	Base    specs.Addr `json:"base"`
	Size    uint64     `json:"size"`
	Regions [3]region  `json:"regions"`
	// Frames is the call frame information of the new code, in the first
	// region; its size is 0 if there is none.
	Frames region `json:"frames,omitzero"`

	// Gates are, in the second region, the copies of first instructions and the
	// gates.
	Gates region `json:"gates,omitzero"`

	// Trial is where, in the first region, it stands when a trial ends, or 0.
	Trial specs.Addr `json:"trial,omitempty"`

	// Taken is a new function whose address somebody may have, or empty.
	Taken string `json:"taken,omitempty"`

	// Finder tells the process's unwinder of the frames.
	Finder finder `json:"finder,omitzero"`

	Hooks recordedHooks `json:"hooks,omitzero"`

	Functions []recordedFunction `json:"functions"`

	// State are, in the third region, the pages of the variables that the patch
	// brought. Held are those of earlier levels with whose variables it goes on:
	// they were mapped with another patch's memory. Variables are in either.
	State     region                    `json:"state,omitzero"`
	Held      []specs.Range[specs.Addr] `json:"held,omitempty"`
	Variables []recordedVariable        `json:"variables,omitempty"`

	// Fallback is the address of the record that is put back when a trial is over,
	// or 0.
	Fallback specs.Addr `json:"fallback,omitempty"`
}

type region struct {
	Offset uint64 `json:"o"`
	Size   uint64 `json:"s"`
}

type recordedFunction struct {
	Name string `json:"name"`
	File string `json:"file,omitempty"`
	// Lo, Hi are the original body, Entry the new one.
	Lo    specs.Addr `json:"lo"`
	Hi    specs.Addr `json:"hi"`
	Entry specs.Addr `json:"entry"`
	// Cold is the original's cold part.
	Cold specs.Range[specs.Addr] `json:"cold,omitzero"`
	// Size is that of the new body, 0 if it is not known.
	Size uint64 `json:"size,omitempty"`
	// NextCall is set if calls that were under way could go on in the old code.
	NextCall bool `json:"next_call,omitempty"`
	// Site is where New replaced Old, which are as long as each other.
	Site specs.Addr `json:"site"`
	Old  []byte     `json:"old"`
	New  []byte     `json:"new"`
	// Through is where New leads: to Entry, or to code that goes on there.
	Through specs.Addr `json:"through"`
	// Count is where its calls are counted, or 0.
	Count specs.Addr `json:"count,omitempty"`
	// Gated leads to the function's gate, and Copy is where the original goes on
	// then: 0 if it cannot, for which Alone is the reason.
	Gated []byte     `json:"gated"`
	Gate  specs.Addr `json:"gate"`
	Copy  specs.Addr `json:"copy,omitempty"`
	Alone string     `json:"alone,omitempty"`
}

func (r *record) memory() specs.Range[specs.Addr] {
	return specs.Range[specs.Addr]{Lo: r.Base, Hi: r.Base + specs.Addr(r.Size)}
}

func (r *record) at(g region) specs.Range[specs.Addr] {
	lo := r.Base + specs.Addr(g.Offset)
	return specs.Range[specs.Addr]{Lo: lo, Hi: lo + specs.Addr(g.Size)}
}

func (r *record) part(i int) specs.Range[specs.Addr] { return r.at(r.Regions[i]) }

// gates is the memory of the copies and gates.
func (r *record) gates() specs.Range[specs.Addr] { return r.at(r.Gates) }

// text is the memory of the new code.
func (r *record) text() specs.Range[specs.Addr] { return r.part(1) }

// stays reports whether the memory is never freed once an entry has led to it.
func (r *record) stays() bool { return r.Taken != "" || r.trial == trialFailed }

// encode returns the record's bytes, padded with zeros to size.
func (r *record) encode(size uint64) ([]byte, error) {
	body, err := json.Marshal(&r.recordBody)
	if err != nil {
		return nil, err
	}
	if uint64(recordFixed+len(body)) > size {
		return nil, fmt.Errorf("record of %d bytes: room for %d", recordFixed+len(body), size)
	}
	b := make([]byte, recordFixed, size)
	copy(b, recordMagic)
	binary.LittleEndian.PutUint32(b[8:], recordVersion)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(body)))
	r.recordState.put(b[stateOffset:])
	sum := sha256.Sum256(body)
	copy(b[32:], sum[:])
	return append(b, body...)[:size], nil
}

// put makes b begin with the state's bytes.
func (s recordState) put(b []byte) {
	open := uint32(0)
	if s.open {
		open = 1
	}
	binary.LittleEndian.PutUint32(b, uint32(s.state))
	binary.LittleEndian.PutUint32(b[openOffset-stateOffset:], open)
	binary.LittleEndian.PutUint64(b[8:], uint64(s.leader))
}

// errNoRecord means that there is no record at an address.
var errNoRecord = errors.New("no record")

// readRecord reads the record at base. What a process says about itself is not
// trusted: everything is bounded and has to agree with where it was found.
func readRecord(mem memory, base specs.Addr) (*record, error) {
	var fixed [recordFixed]byte
	if readFull(mem, base, fixed[:]) != nil || string(fixed[:8]) != recordMagic {
		return nil, errNoRecord
	}
	if v := binary.LittleEndian.Uint32(fixed[8:]); v != recordVersion {
		return nil, fmt.Errorf("record at %v: version %d: want %d", base, v, recordVersion)
	}
	n := binary.LittleEndian.Uint32(fixed[12:])
	if n > maxRecord {
		return nil, fmt.Errorf("record at %v: %d bytes: want at most %d", base, n, maxRecord)
	}
	body := make([]byte, n)
	if err := readFull(mem, base+recordFixed, body); err != nil {
		return nil, fmt.Errorf("record at %v: %w", base, err)
	}
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], fixed[32:]) {
		return nil, fmt.Errorf("record at %v: the checksum does not match", base)
	}
	r := &record{recordState: recordState{
		state:  state(binary.LittleEndian.Uint32(fixed[stateOffset:])),
		open:   binary.LittleEndian.Uint32(fixed[openOffset:]) != 0,
		leader: specs.Addr(binary.LittleEndian.Uint64(fixed[stateOffset+8:])),
	}}
	if err := json.Unmarshal(body, &r.recordBody); err != nil {
		return nil, fmt.Errorf("record at %v: %w", base, err)
	}
	if err := r.check(base); err != nil {
		return nil, fmt.Errorf("record at %v: %w", base, err)
	}
	r.readTrial(mem)
	return r, nil
}

// check reports what cannot be in a record that this tool wrote at base.
func (r *record) check(base specs.Addr) error {
	if r.Base != base || r.Size == 0 || r.Size > 1<<31 || r.Base+specs.Addr(r.Size) < r.Base {
		return fmt.Errorf("is for memory at %v", r.Base)
	}
	if r.state < staged || r.state > retired {
		return fmt.Errorf("%v is not known", r.state)
	}
	for _, p := range append(r.Regions[:], r.Frames, r.Gates, r.State) {
		if p.Offset > r.Size || p.Size > r.Size-p.Offset {
			return errors.New("a region is outside its memory")
		}
	}
	if r.Frames.Size > maxFrames {
		return fmt.Errorf("%d bytes of call frame information: want at most %d", r.Frames.Size, maxFrames)
	}
	if f := r.Finder; f != (finder{}) && (!r.text().Contains(f.Entry) || !r.part(0).Contains(f.Next) || f.Next&7 != 0) {
		return errors.New("its finder is not in its memory")
	}
	if r.Trial != 0 && (!r.part(0).Contains(r.Trial) || r.Trial&7 != 0) {
		return errors.New("the word about its trial is not in its memory")
	}
	if err := errors.Join(r.Hooks.check(r), r.checkState()); err != nil {
		return err
	}
	for _, f := range r.Functions {
		if len(f.Old) != len(f.New) || len(f.Old) == 0 || len(f.Old) > maxEntry ||
			f.Site < f.Lo || f.Site-f.Lo > maxEntry || f.Hi < f.Lo || f.Site+specs.Addr(len(f.Old)) < f.Site {
			return fmt.Errorf("function %q: its entry is not one", f.Name)
		}
		if g := r.gates(); len(f.Gated) != len(f.New) || !g.Contains(f.Gate) || f.Copy != 0 && !g.Contains(f.Copy) {
			return fmt.Errorf("function %q: its gate is not one", f.Name)
		}
		if f.Count != 0 && (!r.part(2).Contains(f.Count) || f.Count&7 != 0) {
			return fmt.Errorf("function %q: its counter is not one", f.Name)
		}
	}
	return nil
}

// maxEntry bounds what is overwritten at a function's entry, in bytes.
const maxEntry = 64

// maxRecordPages bounds the pages that are looked at for records: beyond it
// only the first page of each mapping is.
const maxRecordPages = 64 << 10

// findRecords looks for records at the starts of pages in private anonymous
// r-- memory. What is damaged is nobody's: memory of another's, or hurt by the
// program itself. It is neither trusted nor freed, only told.
func findRecords(mem memory, maps []Mapping, page uint64) (records []*record, damaged []string, err error) {
	spans := appendRecordSpans(nil, maps, page)
	if err := mem.ReadSpans(spans); err != nil {
		return nil, nil, err
	}
	for _, s := range spans {
		if string(s.Buf) != recordMagic || len(records) == maxRecords {
			continue
		}
		if r, err := readRecord(mem, s.Addr); err == nil {
			records = append(records, r)
		} else if len(damaged) < maxRecords {
			damaged = append(damaged, err.Error())
		}
	}
	slices.SortStableFunc(records, func(a, b *record) int { return a.Time.Compare(b.Time) })
	return records, damaged, nil
}

// appendRecordSpans adds the beginnings of the pages in which a record may begin.
func appendRecordSpans(spans []ptrace.Span, maps []Mapping, page uint64) []ptrace.Span {
	n := 0
	for i := range maps {
		m := &maps[i]
		if !m.mayRecord() {
			continue
		}
		for a := m.Range.Lo; a < m.Range.Hi; a += specs.Addr(page) {
			if n >= maxRecordPages && a != m.Range.Lo {
				break
			}
			n++
			spans = append(spans, ptrace.Span{Addr: a, Buf: make([]byte, len(recordMagic))})
		}
	}
	return spans
}

// setState writes a record's state and leader.
func (p *Process) setState(r *record, s state, leader specs.Addr) error {
	return p.writeState(r, recordState{state: s, leader: leader})
}

// openGates is the write by which all gates of a commit that r leads open.
func (p *Process) openGates(r *record) error {
	next := r.recordState
	next.open = true
	return p.writeState(r, next)
}

func (p *Process) writeState(r *record, next recordState) error {
	next.put(p.stateBytes[:])
	if err := p.mem.Write(r.Base+stateOffset, p.stateBytes[:]); err != nil {
		return fmt.Errorf("record at %v: %w", r.Base, err)
	}
	r.recordState = next
	return nil
}

// Damaged describes what looks like the record of a patch and is none.
func (p *Process) Damaged() []string { return p.damaged }

// Applied describes a patch in a process.
type Applied struct {
	specs.PatchID
	Name        string     `json:"name,omitempty"`
	Description string     `json:"description,omitempty"`
	CVEs        []string   `json:"cves,omitempty"`
	Object      string     `json:"object"`
	Functions   []string   `json:"functions"`
	Time        time.Time  `json:"time"`
	State       string     `json:"state"`
	Base        specs.Addr `json:"base"`
	Size        uint64     `json:"size"` // bytes
	// Hits are how often the functions, in the order of Functions, were called
	// by way of their old entries since the patch was applied, or a little more
	// often, if several threads call at once; nil if that is not counted. Only [Process.Applied] tells.
	Hits []uint64 `json:"hits,omitempty"`
	// TrialEnds is when it is reverted unless it is accepted, zero if it is not
	// on trial.
	TrialEnds time.Time `json:"trial_ends,omitzero"`
	// Stays is why the memory is never freed, or empty.
	Stays string `json:"stays,omitempty"`
	// Hooks are in the order in which they run.
	Hooks []AppliedHook `json:"hooks,omitempty"`
	// Carried are the variables of an earlier level with whose values it goes on,
	// Held the memory that they are in, which that level brought.
	Carried []string                  `json:"carried,omitempty"`
	Held    []specs.Range[specs.Addr] `json:"held,omitempty"`
}

// AppliedHook is a function that runs around the switch.
type AppliedHook struct {
	Point    kpack.HookPoint `json:"point"`
	Function string          `json:"function"`
	Limit    time.Duration   `json:"limit_ns"`
}

func (r *record) describe() Applied {
	a := Applied{
		PatchID: r.ID, Name: r.Name, Description: r.Description, CVEs: r.CVEs, Object: r.Object,
		Time: r.Time, State: r.state.String(), Base: r.Base, Size: r.Size, Functions: []string{},
		TrialEnds: r.trialEnds(), Held: r.Held,
	}
	for _, v := range r.Variables {
		if !r.block().Contains(v.At) {
			a.Carried = append(a.Carried, v.Name)
		}
	}
	for _, f := range r.Functions {
		a.Functions = append(a.Functions, f.Name)
	}
	for _, h := range r.Hooks.All {
		a.Hooks = append(a.Hooks, AppliedHook{h.Point, h.Function, h.Limit})
	}
	switch {
	case r.rejected():
		a.Stays = "it was on trial and nobody accepted it, so that a pull does not put it in again"
	case r.Taken != "":
		a.Stays = "the program may have given the address of " + r.Taken + ", which is new, to the kernel or the C library"
	}
	return a
}

// Applied are the patches of the process, in the order in which they came,
// also those that a run left half done.
func (p *Process) Applied() []Applied {
	all := make([]Applied, len(p.records))
	for i, r := range p.records {
		all[i] = r.describe()
		all[i].Hits = p.hits(r)
		if o := p.awaited(r); o != nil && r.state == retired {
			all[i].Stays = fmt.Sprintf("it comes back when the trial of level %d is over, unless that is accepted", o.ID.Level)
		}
	}
	return all
}

// hits reads the counters of a record, nil if there are none.
func (p *Process) hits(r *record) []uint64 {
	var spans []ptrace.Span
	for _, f := range r.Functions {
		if f.Count == 0 {
			return nil
		}
		spans = append(spans, ptrace.Span{Addr: f.Count, Buf: make([]byte, 8)})
	}
	if p.mem.ReadSpans(spans) != nil {
		return nil
	}
	hits := make([]uint64, len(spans))
	for i, s := range spans {
		if s.N < len(s.Buf) {
			return nil
		}
		hits[i] = binary.LittleEndian.Uint64(s.Buf)
	}
	return hits
}
