package elfobj

import (
	"bytes"
	"debug/elf"
	"errors"
	"slices"

	"github.com/fother/fother/specs"
)

// match is one search of an image's dynamic symbols.
type match struct {
	image   *Image
	table   *lookupTable
	name    []byte // with its final zero
	version string

	found    *Symbol // ends the search
	fallback *Symbol // the default version, if there is no better
}

// hashGNU is the hash function of DT_GNU_HASH.
func hashGNU(name []byte) uint32 {
	h := uint32(5381)
	for _, c := range name {
		h = h*33 + uint32(c)
	}
	return h
}

// hashSysV is the hash function of DT_HASH. Source: gABI, "Hash Table".
func hashSysV(name []byte) uint32 {
	var h uint32
	for _, c := range name {
		h = h<<4 + uint32(c)
		g := h & 0xf0000000
		h = (h ^ g>>24) &^ g
	}
	return h
}

// gnuHash searches DT_GNU_HASH: a Bloom filter, buckets, then for each symbol
// from the first hashed one its hash, whose lowest bit ends the bucket.
func (m *match) gnuHash() error {
	i, at := m.image, m.table.gnuHash
	head, err := i.bytes(at, 0, 16)
	if err != nil {
		return err
	}
	buckets, first := le.Uint32(head), le.Uint32(head[4:])
	bloom, shift := le.Uint32(head[8:]), le.Uint32(head[12:])
	if buckets == 0 || bloom == 0 || bloom&(bloom-1) != 0 {
		return errors.New("DT_GNU_HASH: damaged header")
	}
	h := hashGNU(m.name[:len(m.name)-1])
	word, err := i.bytes(at, 16+8*uint64(h/64&(bloom-1)), 8)
	if err != nil {
		return err
	}
	if w := le.Uint64(word); w>>(h%64)&1 == 0 || w>>(h>>(shift%32)%64)&1 == 0 {
		return nil
	}
	bucketsAt := 16 + 8*uint64(bloom)
	n, err := i.word(at, bucketsAt+4*uint64(h%buckets))
	if err != nil || n == 0 {
		return err
	}
	if n < first {
		return errors.New("DT_GNU_HASH: bucket of symbols that are not hashed")
	}
	chainsAt := bucketsAt + 4*uint64(buckets)
	for range maxChain {
		hash, err := i.word(at, chainsAt+4*uint64(n-first))
		if err != nil {
			return err
		}
		if hash|1 == h|1 {
			if err := m.try(n); err != nil || m.found != nil {
				return err
			}
		}
		if hash&1 != 0 {
			return nil
		}
		n++
	}
	return errors.New("DT_GNU_HASH: endless bucket")
}

// sysvHash searches DT_HASH: counts of buckets and chains, then both.
func (m *match) sysvHash() error {
	i, at := m.image, m.table.hash
	head, err := i.bytes(at, 0, 8)
	if err != nil {
		return err
	}
	buckets, chains := le.Uint32(head), le.Uint32(head[4:])
	if buckets == 0 {
		return nil
	}
	n, err := i.word(at, 8+4*uint64(hashSysV(m.name[:len(m.name)-1])%buckets))
	for steps := 0; err == nil && n != 0; steps++ {
		if n >= chains || steps >= maxChain {
			return errors.New("DT_HASH: damaged chain")
		}
		if err := m.try(n); err != nil || m.found != nil {
			return err
		}
		n, err = i.word(at, 8+4*(uint64(buckets)+uint64(n)))
	}
	return err
}

// try looks at symbol n.
func (m *match) try(n uint32) error {
	i := m.image
	b, err := i.bytes(m.table.symtab, symSize*uint64(n), symSize)
	if err != nil {
		return err
	}
	s := decodeSymbol(b)
	if !visible(&s) {
		return nil
	}
	name, err := i.bytes(m.table.strtab, uint64(le.Uint32(b)), uint64(len(m.name)))
	if err != nil {
		return err
	}
	if !bytes.Equal(name, m.name) {
		return nil
	}
	if s.Type != elf.STT_TLS && s.Section != elf.SHN_ABS {
		s.Value = uint64(i.Bias.Addr(specs.VAddr(s.Value)))
	}
	return m.checkVersion(n, &s)
}

// visible reports whether ld.so would take s for a definition.
func visible(s *Symbol) bool {
	if s.Section == elf.SHN_UNDEF || s.Value == 0 && s.Section != elf.SHN_ABS && s.Type != elf.STT_TLS {
		return false
	}
	if s.Vis == elf.STV_HIDDEN || s.Vis == elf.STV_INTERNAL {
		return false
	}
	types := []elf.SymType{elf.STT_NOTYPE, elf.STT_OBJECT, elf.STT_FUNC, elf.STT_COMMON, elf.STT_TLS, elf.STT_GNU_IFUNC}
	binds := []elf.SymBind{elf.STB_GLOBAL, elf.STB_WEAK, stbGNUUnique}
	return slices.Contains(types, s.Type) && slices.Contains(binds, s.Bind)
}

// stbGNUUnique is STB_GNU_UNIQUE.
const stbGNUUnique elf.SymBind = 10

// checkVersion decides whether symbol n, whose name matches, is the one.
// Source: glibc, elf/dl-lookup.c, check_match.
func (m *match) checkVersion(n uint32, s *Symbol) error {
	if m.table.versym == 0 {
		m.found = s
		return nil
	}
	b, err := m.image.bytes(m.table.versym, 2*uint64(n), 2)
	if err != nil {
		return err
	}
	ndx, hidden := le.Uint16(b)&verIndex, le.Uint16(b)&verHidden != 0
	ver := m.table.versions[ndx]
	if ndx > verGlobal && !ver.base {
		s.Version, s.VersionHidden = ver.name, hidden
	}
	switch {
	case m.version != "" && s.Version == m.version:
		m.found = s
	case m.version != "" && s.Version == "" && !hidden:
		m.found = s // defined without a version: serves every version
	case m.version == "" && ndx <= verGlobal:
		m.found = s
	case m.version == "" && !hidden && m.fallback == nil:
		m.fallback = s
	}
	return nil
}
