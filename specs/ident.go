package specs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// BuildID is the GNU build-id of a linked file in lower-case hexadecimal
// digits: the descriptor of its NT_GNU_BUILD_ID note (ld(1), --build-id).
type BuildID string

// Bounds of a build-id, in bytes. ld makes 8 (fast), 16 (md5, uuid) or 20
// (sha1) bytes; --build-id=0xHEX any number.
const (
	minBuildID = 2
	maxBuildID = 64
)

// NewBuildID returns the build-id whose note descriptor is desc.
func NewBuildID(desc []byte) (BuildID, error) {
	if len(desc) < minBuildID || len(desc) > maxBuildID {
		return "", fmt.Errorf("build-id of %d bytes: want %d to %d", len(desc), minBuildID, maxBuildID)
	}
	return BuildID(hex.EncodeToString(desc)), nil
}

// ParseBuildID reads a build-id written in hexadecimal digits of either case.
func ParseBuildID(s string) (BuildID, error) {
	desc, err := hex.DecodeString(s)
	if err != nil {
		return "", fmt.Errorf("build-id %q: want hexadecimal digits, two for each byte", s)
	}
	return NewBuildID(desc)
}

// Bytes returns the note descriptor, or nil if id is not a valid build-id.
func (id BuildID) Bytes() []byte {
	b, err := hex.DecodeString(string(id))
	if err != nil {
		return nil
	}
	return b
}

// Short returns the first twelve digits, for people.
func (id BuildID) Short() string { return string(id[:min(12, len(id))]) }

// Digest is a SHA-256 of a file's content.
type Digest [sha256.Size]byte

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText writes d as 64 lower-case hexadecimal digits.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != 2*len(d) {
		return fmt.Errorf("digest of %d digits: want %d", len(text), 2*len(d))
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// Series names a line of successive patches of one target. Patches of one
// series replace each other, patches of different series coexist.
type Series string

// DefaultSeries is the series of patches that name none, and of LibCare's
// folder layouts.
const DefaultSeries Series = "default"

// ParseSeries checks that s can stand in file names and on command lines:
// 1 to 64 letters, digits, dots, dashes and underscores, the first a letter
// or digit.
func ParseSeries(s string) (Series, error) {
	ok := len(s) > 0 && len(s) <= 64 && !strings.ContainsRune("._-", rune(s[0]))
	for _, r := range s {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}
	if !ok {
		return "", fmt.Errorf("series %q: want 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit", s)
	}
	return Series(s), nil
}

// Level is the ordinal of a patch in its series: 1 or more.
type Level uint32

// ParseLevel reads a decimal level.
func ParseLevel(s string) (Level, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("level %q: want a number from 1 to %d", s, uint32(1<<32-1))
	}
	return Level(n), nil
}

// PatchID tells patches of all targets apart.
type PatchID struct {
	BuildID BuildID `json:"build_id"`
	Series  Series  `json:"series"`
	Level   Level   `json:"level"`
}

func (id PatchID) String() string {
	return fmt.Sprintf("%s:%s:%d", id.BuildID, id.Series, id.Level)
}

// Stage tells the two builds of one tree apart.
type Stage string

// The stages of KPATCH_STAGE. In StageConfigure nothing is captured.
const (
	StageConfigure Stage = "configure"
	StageOriginal  Stage = "original"
	StagePatched   Stage = "patched"
)
