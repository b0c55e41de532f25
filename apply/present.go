package apply

import "github.com/fother/fother/specs"

// Has reports whether every object of the snapshot with id's BuildID has a
// patch of id's series in force, at id's level or a higher one. It is false if
// there is no such object. It reads the process's memory and changes nothing.
func (p *Process) Has(id specs.PatchID) bool {
	objects := 0
	for _, o := range p.objects {
		if o.BuildID != id.BuildID {
			continue
		}
		objects++
		if !p.patchedAt(o, id) {
			return false
		}
	}
	return objects > 0
}

func (p *Process) patchedAt(o *object, id specs.PatchID) bool {
	for _, r := range p.records {
		if r.state == applied && r.Bias == o.image.Bias && r.ID.BuildID == id.BuildID &&
			r.ID.Series == id.Series && r.ID.Level >= id.Level && p.inForce(r) {
			return true
		}
	}
	return false
}
