// Package registry publishes bundles to a signed registry and fetches them
// from it. A registry is static files, so that anything that serves files can
// hold it; LAYOUT.md describes them.
//
// In call order, on the side of those who publish:
//
//   - [Init] makes the keys and an empty registry, and returns the root.json
//     that clients have to be given.
//   - [Open] opens it, [Publisher.Publish] adds releases, [Publisher.Promote]
//     moves them up a channel, [Publisher.Revoke] has hosts take them out,
//     [Publisher.Refresh] signs anew what is going to expire, [Publisher.List]
//     tells what is there.
//   - [Publisher.MakeKey], [Publisher.Rotate] and [Publisher.SignRoot] change who
//     signs; [KeyOption] says where keys are that are not in the keys' folder.
//   - [Publisher.Find], [Publisher.Download] and [Publisher.Attached] are for
//     those who review a release; [Publisher.Countersign] adds their signature.
//
// And on each host:
//
//   - [NewClient] takes the trusted root.json and a private folder.
//   - [Client.Update] brings the signed metadata up to date.
//   - [Client.Lookup] finds the releases for the build-ids that run here.
//   - [Client.Fetch] returns a bundle that is proven to be the one published.
//
// The metadata follow The Update Framework
// (https://theupdateframework.github.io/specification/latest/), read and
// checked by go-tuf. A bundle is opaque: the package knows its length, its
// SHA-256 and the signature beside it, and no more.
//
// What clients tell is in package catalog, which imports no network: so is the
// program that patches without one.
//
// A registry is in a folder, on a web server, in an S3 bucket or in an OCI
// registry. Files are read through go-getter, with getters for the last two on
// minio-go and oras-go; LAYOUT.md states what each store promises to those who
// write. Not here yet: the removal of files that newer versions have replaced.
package registry
