package registry

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/fother/fother/specs"
)

// Where files are in a registry; see LAYOUT.md.
const (
	metadataDir   = "metadata"
	targetsDir    = "targets"
	bundlesDir    = "bundles"
	timestampFile = metadataDir + "/timestamp.json"
)

// What a client's cache has beside the files of the registry: the timestamp of
// the last state that was fetched completely, and the index targets that the
// last Lookup used. timestampFile is the newest timestamp that was ever seen.
const (
	currentTimestamp = metadataDir + "/current.json"
	shardsFile       = "shards.json"
)

// The index has 2^shardBits targets, the list of packages 2^packageBits; 2^binBits
// delegated roles named binPrefix-XX sign them, 1/16 of them the latter. The
// snapshot names only roles that have signed something.
const (
	indexPrefix    = "index/"
	packagesPrefix = "packages/"

	shardBits   = 14
	packageBits = 12
	binBits     = 6
	binPrefix   = "bin"
)

// Limits of what is read, in bytes.
const (
	maxRoot      = 512 << 10
	maxTimestamp = 16 << 10
	maxSnapshot  = 1 << 20
	maxTargets   = 4 << 20
	maxListing   = 16 << 20
	maxSignature = 1 << 20
	// MaxAttachment is the size of the largest attachment.
	MaxAttachment = 16 << 20
	// MaxBundle is the size of the largest bundle.
	MaxBundle = 256 << 20
)

// maxRoots bounds how many new roots one update follows.
const maxRoots = 256

// How long signatures hold. [Publisher.Refresh] renews all but the timestamp,
// which it always renews, when less than a third is left.
const (
	timestampValidity = 7 * 24 * time.Hour
	snapshotValidity  = 30 * 24 * time.Hour
	targetsValidity   = 365 * 24 * time.Hour
	rootValidity      = 365 * 24 * time.Hour
)

// shardTarget returns the index target that lists the releases for id.
func shardTarget(id specs.BuildID) string {
	return placed(fmt.Sprintf("%s%04x", indexPrefix, firstBits(string(id), shardBits)), false)
}

// packageTarget returns the target that lists all releases of a package, and of
// some others. Publishers read it, hosts do not.
func packageTarget(name string) string {
	return placed(fmt.Sprintf("%s%03x", packagesPrefix, firstBits(name, packageBits)), true)
}

// placed completes a target's name, by a number if need be, so that its bin is
// one of the last 1/16 if it is for publishers, or else another: hosts load no
// bin for what they do not read.
func placed(name string, publishers bool) string {
	target := name + ".json"
	for n := 1; (firstBits(target, 4) == 15) != publishers; n++ {
		target = fmt.Sprintf("%s-%d.json", name, n)
	}
	return target
}

// firstBits returns the first n bits of the SHA-256 of s, 16 at most.
func firstBits(s string, n int) uint16 {
	sum := sha256.Sum256([]byte(s))
	return binary.BigEndian.Uint16(sum[:]) >> (16 - n)
}

// targetFile returns where the content of a target is: consistent snapshots
// put the digest before its last component (TUF, "Consistent snapshots").
func targetFile(target string, f *metadata.TargetFiles) (string, error) {
	sum := f.Hashes["sha256"]
	if len(sum) != sha256.Size {
		return "", fail(ErrUntrusted, target, "target without SHA-256")
	}
	dir, base := path.Split(target)
	return path.Join(targetsDir, dir, hex.EncodeToString(sum)+"."+base), nil
}

// metadataFile returns where a version of a role's metadata is.
func metadataFile(version int64, role string) string {
	return fmt.Sprintf("%s/%d.%s.json", metadataDir, version, role)
}

// bundleFile returns where a bundle is; its signature has ".sig" behind.
func bundleFile(d specs.Digest, file string) string {
	return path.Join(bundlesDir, d.String(), file)
}
