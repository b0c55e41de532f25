package nginx

import "github.com/fother/fother/magefiles/internal/load"

// page is what every request of the load has to be answered with.
const page = "hello\n"

// Load starts a process that keeps the server busy over some connections, until
// Stop.
func (s *Server) Load(connections int) (*load.Load, error) {
	return load.Start(load.Order{Kind: load.HTTP, Addr: s.addr, Connections: connections, Bodies: map[string]string{"/index.html": page}})
}
