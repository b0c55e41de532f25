// Package nginx is the real-input run's nginx: a server to be patched while it
// serves, attacks that tell whether it is patched, and a load that counts every
// failed request.
//
//	s, err := nginx.Prepare(ctx, dir, nginx.CVEs[0])  // source, fix, commands
//	                                                  // built by package pipeline
//	srv, err := nginx.Start(ctx, tree, dir)           // master and workers
//	found, err := srv.Probe(ctx, cve)                 // BUG or FIXED
//	load, err := srv.Load(16)                         // from a second process
//	stats, err := load.Stop()                         // requests and failures
//	err = srv.Stop()
//
// Some attacks kill an unpatched worker. The master starts a new one at once,
// a copy of itself: so the master needs the patch too, the pids have to be read
// again after each probe, and no probe belongs into a counted load.
package nginx
