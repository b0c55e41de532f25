// Package catalog has what a registry tells of its releases. It imports none of
// what reads registries, so that programs may speak of releases which have no
// network code in them.
package catalog

import (
	"time"

	"github.com/fother/fother/specs"
)

// Channel is how far a release has come: hosts that follow a channel see what is
// in it and what is in a higher one. Who may change it is who holds the keys of
// the index; a bundle's signature does not say it.
type Channel string

// The channels, from the lowest.
const (
	Edge   Channel = "edge"
	Beta   Channel = "beta"
	Stable Channel = "stable"
)

// Revocation is why and when a release was revoked.
type Revocation struct {
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// Entry is a release as it concerns one build-id.
type Entry struct {
	BuildID specs.BuildID `json:"build_id"`
	Package string        `json:"package"`
	Series  specs.Series  `json:"series"`
	Level   specs.Level   `json:"level"`
	CVEs    []string      `json:"cves,omitempty"`
	File    string        `json:"file"`
	// Channel is the highest one that it is in.
	Channel Channel `json:"channel"`
	// Revoked is why its package's keys revoked it, nil if they did not: then no
	// host applies it, and those that did revert it.
	Revoked *Revocation `json:"revoked,omitempty"`
	// Path is where the bundle is in the registry.
	Path   string       `json:"path"`
	Length int64        `json:"length"` // in bytes
	Digest specs.Digest `json:"digest"` // SHA-256 of the bundle
	// KeyID is the SHA-256 of the first key that the package is bound to.
	KeyID string `json:"key_id"`
	// Need is how many of the package's keys have to sign, if that is more than
	// one, and Signed how many have. Only a publisher's list sets them.
	Signed int `json:"signed,omitempty"`
	Need   int `json:"need,omitempty"`

	// Origin is what the registry itself knows the release by. It is nil in an
	// entry that did not come from one.
	Origin any `json:"-"`
}
