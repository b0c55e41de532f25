package apply

import (
	"debug/elf"
	"errors"
	"fmt"
	"slices"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// Plan says what an apply would do to a process. It was made from a snapshot,
// and nothing was written.
type Plan struct {
	// Apply are the patches that go in, Replace those that they replace.
	Apply, Replace []Applied
	// Present are patches that fit and are there already, at the same or at a
	// higher level.
	Present []specs.PatchID
	// Unfit are patches that are for no object of the process.
	Unfit []specs.PatchID

	steps   []*step
	options Options
}

// step is one patch for one object.
type step struct {
	patch    *kpack.Patch
	object   *object
	replaced *record
	layout   kpack.Layout
	// held are the blocks of the variables that it goes on with, fresh the names
	// of those of which it was asked not to.
	held   []specs.Range[specs.Addr]
	fresh  []string
	header uint64
	trial  uint64 // the record's word
	// heads are the first bytes of the functions, of which it was checked that they
	// are those of the target's file.
	heads [][]byte
	// record and image are made for one base address, by link.
	record *record
	image  *kpack.Image
}

// makePlan is pure: it reads the snapshot p, and memory through it.
func makePlan(p *Process, patches []*kpack.Patch, o Options) (*Plan, error) {
	plan := &Plan{options: o}
	var errs []error
	for _, patch := range newest(patches) {
		fits := false
		for _, o := range p.objects {
			if o.BuildID != patch.Target.BuildID || o.image.Arch != patch.Arch {
				continue
			}
			fits = true
			if err := plan.add(p, patch, o); err != nil {
				errs = append(errs, err)
			}
		}
		if !fits {
			plan.Unfit = append(plan.Unfit, patchID(patch))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(plan.steps) == 0 && len(plan.Present) == 0 {
		return nil, noFit(p, plan.Unfit)
	}
	if err := plan.conflicts(p); err != nil {
		return nil, err
	}
	if err := plan.place(p); err != nil {
		return nil, err
	}
	for _, s := range plan.steps { // what goes in must be able to go out
		out := exchange(nil, []*record{s.record})
		if s.record.Fallback != 0 {
			out = exchange([]*record{s.replaced}, []*record{s.record})
		}
		if err := out.check(p.page); err != nil {
			return nil, err
		}
	}
	return plan, plan.transaction().check(p.page)
}

func patchID(p *kpack.Patch) specs.PatchID {
	return specs.PatchID{BuildID: p.Target.BuildID, Series: p.Meta.Series, Level: p.Meta.Level}
}

// newest keeps the highest level of each series and target, in the given order.
func newest(patches []*kpack.Patch) []*kpack.Patch {
	type line struct {
		id specs.BuildID
		s  specs.Series
	}
	best := make(map[line]*kpack.Patch)
	for _, p := range patches {
		l := line{p.Target.BuildID, p.Meta.Series}
		if b := best[l]; b == nil || b.Meta.Level < p.Meta.Level {
			best[l] = p
		}
	}
	return slices.DeleteFunc(slices.Clone(patches), func(p *kpack.Patch) bool {
		return best[line{p.Target.BuildID, p.Meta.Series}] != p
	})
}

func noFit(p *Process, ids []specs.PatchID) error {
	e := &NoFitError{PID: p.PID, Patches: ids}
	for _, o := range p.objects {
		if o.BuildID != "" {
			e.Objects = append(e.Objects, o.ObjectInfo)
		}
	}
	return e
}

// add plans patch for object o, unless it is there.
func (plan *Plan) add(p *Process, patch *kpack.Patch, o *object) error {
	s := &step{patch: patch, object: o}
	for _, r := range p.records {
		if r.state != applied || !p.inForce(r) || r.Bias != o.image.Bias || r.ID.BuildID != patch.Target.BuildID || r.ID.Series != patch.Meta.Series {
			continue
		}
		if r.ID.Level == patch.Meta.Level || r.ID.Level > patch.Meta.Level && !slices.Contains(plan.options.Revoked, r.ID) {
			plan.Present = append(plan.Present, r.ID)
			return nil
		}
		s.replaced = r
	}
	if err := s.checkTrial(p, plan.options); err != nil {
		return err
	}
	if err := s.checkBodies(p); err != nil {
		return err
	}
	if err := s.layOut(p, plan.options); err != nil {
		return err
	}
	plan.steps = append(plan.steps, s)
	return nil
}

// layOut finds what the step goes on with and what memory it needs.
func (s *step) layOut(p *Process, o Options) error {
	shared, held, err := s.goOn()
	if err != nil {
		return err
	}
	for _, b := range held {
		if !stillMapped(p.maps, b, perms[2]) {
			return fmt.Errorf("%s: the memory %v of variables of level %d is not there", s.object.Path, b, s.replaced.ID.Level)
		}
	}
	s.held, s.header = held, headerSize(s.patch, s.object, len(held))
	layout := s.patch.Layout
	if o.Count {
		layout = s.patch.CountingLayout
	}
	if s.layout, err = layout(p.page, s.header); err != nil {
		return fmt.Errorf("%s: %w", s.object.Path, err)
	}
	s.layout.Shared = shared
	return nil
}

// original returns the n bytes at a as they were before any patch.
func (p *Process) original(a specs.Addr, n uint64) ([]byte, error) {
	b := make([]byte, n)
	if err := readFull(p.mem, a, b); err != nil {
		return nil, err
	}
	for _, r := range p.records {
		if r.state == staged || r.state == retired || !p.inForce(r) {
			continue
		}
		for _, f := range r.Functions {
			for i := range f.New {
				// Not where a run that was killed had not yet written, or had
				// already restored.
				if at := uint64(f.Site-a) + uint64(i); at < n && (b[at] == f.New[i] || b[at] == f.Gated[i]) {
					b[at] = f.Old[i]
				}
			}
		}
	}
	return b, nil
}

// maxBody bounds the size of one function, in bytes.
const maxBody = 64 << 20

// checkBodies compares each function's body in memory with the target's file.
func (s *step) checkBodies(p *Process) error {
	var errs []error
	for _, f := range s.patch.Functions {
		lo := s.object.image.Bias.Addr(f.Original.Lo)
		hi := s.object.image.Bias.Addr(f.Original.Hi)
		mismatch := func(why string) {
			errs = append(errs, &MismatchError{Object: s.object.Path, Function: f.Name, Addr: lo, Why: why})
		}
		if hi < lo || !s.object.image.Range.Contains(lo) || hi > s.object.image.Range.Hi || hi-lo > maxBody {
			mismatch("it is not inside the object")
			continue
		}
		if m := mappingAt(p.maps, lo); m == nil || !m.executable() || !m.private() {
			mismatch("it is not mapped as private code")
			continue
		}
		body, err := p.original(lo, uint64(hi-lo))
		if err != nil {
			mismatch(fmt.Sprintf("its code cannot be read: %v", err))
			continue
		}
		if specs.DigestOf(body) != f.Digest {
			mismatch("its code in memory is not that of the file the patch was made for")
			continue
		}
		s.heads = append(s.heads, slices.Clone(body[:min(len(body), maxEntry)]))
	}
	return errors.Join(errs...)
}

// conflicts refuses two patches of different series for one function.
func (plan *Plan) conflicts(p *Process) error {
	type claim struct {
		id     specs.PatchID
		lo, hi specs.Addr
	}
	var claims []claim
	for _, r := range p.records {
		leaves := func(s *step) bool { return s.replaced == r || s.replaced != nil && s.replaced == p.awaited(r) }
		if r.state != applied && p.awaited(r) == nil || !p.inForce(r) || slices.ContainsFunc(plan.steps, leaves) {
			continue
		}
		for _, f := range r.Functions {
			claims = append(claims, claim{r.ID, f.Lo, f.Hi})
		}
	}
	var errs []error
	for _, s := range plan.steps {
		for _, f := range s.patch.Functions {
			c := claim{patchID(s.patch), s.object.image.Bias.Addr(f.Original.Lo), s.object.image.Bias.Addr(f.Original.Hi)}
			for _, o := range claims {
				if c.lo < o.hi && o.lo < c.hi {
					errs = append(errs, fmt.Errorf("%s: %w", s.object.Path, &ConflictError{Function: f.Name, Patch: c.id, Other: o.id}))
				}
			}
			claims = append(claims, c)
		}
	}
	return errors.Join(errs...)
}

// place finds memory for each step and links it there.
func (plan *Plan) place(p *Process) error {
	taken := slices.Clone(p.maps)
	for _, s := range plan.steps {
		base, err := findRoom(taken, s, p.page)
		if err == nil {
			err = s.link(p, base)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.object.Path, err)
		}
		taken = append(taken, Mapping{Range: s.record.memory(), Perm: "rwxp"})
		slices.SortFunc(taken, func(a, b Mapping) int { return compareAddr(a.Range.Lo, b.Range.Lo) })
		plan.Apply = append(plan.Apply, s.record.describe())
		if s.replaced != nil {
			plan.Replace = append(plan.Replace, s.replaced.describe())
		}
	}
	return nil
}

// resolver looks imports up as the dynamic linker would.
func (p *Process) resolver(self *object) kpack.Resolver {
	return func(sym kpack.Symbol) (specs.Addr, bool, error) {
		version := ""
		if sym.Import != nil {
			version = sym.Import.Version
		}
		owner, found, err := p.lookup(self, sym.Name, version)
		if err != nil {
			return 0, false, err
		}
		if found.Type == elf.STT_TLS {
			return 0, false, fmt.Errorf("%s: is a thread-local variable", owner.Path)
		}
		return specs.Addr(found.Value), found.Type == elf.STT_GNU_IFUNC, nil
	}
}

var _ memory = (*ptrace.Mem)(nil)
