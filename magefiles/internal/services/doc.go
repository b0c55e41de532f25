// Package services is what the soak patches: Debian's nginx, memcached and
// lighttpd, in a Debian of their own that its own systemd has booted, in the
// sandbox that their own units ask for.
//
//	all := services.All()                  // what is known of each
//	specs, err := p.Specs(ctx, dir, dist)  // source, fixes, commands
//	                                       // built by package pipeline
//	box, err := services.Boot(ctx, o)      // pid 1 is systemd
//	pids, err := box.PIDs("nginx.service")
//	v, err := box.Version(ctx, p)          // which code answers
//	err = box.Stop()
//
// The builds repeat the distribution's: nginx, memcached and libevent come out
// with the build-ids of Debian's own files, so that Debian's own files are
// patched. lighttpd was built by an older compiler, whose name is in the file;
// there the build of here takes the place of the distribution's in the box.
//
// The box has namespaces of its own for mounts, processes, network, host name,
// IPC and control groups. Its root is an overlay over one that debootstrap made,
// so what the services write is gone when it stops. The network is a loopback
// interface; a load enters it by setns(2) (package load).
package services
