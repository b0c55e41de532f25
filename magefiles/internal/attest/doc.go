// Package attest writes what lies beside a bundle in a registry for those who
// review releases and for scanners, as in-toto statements:
//
//   - [Provenance] says how the bundle was made: SLSA provenance, version 1
//     (https://slsa.dev/spec/v1.0/provenance).
//   - [VEX] says which vulnerabilities of which programs it closes: an OpenVEX
//     document (https://github.com/openvex/spec, version 0.2.0).
//
// Both depend on their arguments alone; there is no clock in them. They are not
// signed here.
package attest
