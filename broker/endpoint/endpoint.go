package endpoint

import (
	"cmp"
	"context"
	"log"
	"log/slog"
	"math"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"gatepass/broker"
)

// ErrPortTaken is in the chain of [Server.Open]'s error when another program
// has the port that the lease had.
var ErrPortTaken error = broker.Errorf(broker.CodeDaemonUnreachable, "another program listens there")

// Bounds of what connections may do. A request may take as long as the AWS
// calls behind it do.
const (
	maxConns      = 1024             // of all leases at once; further ones wait
	maxLeaseConns = 128              // of one lease; further ones wait in the socket's queue
	maxForeign    = 4                // of one lease, by other users; further ones are closed
	maxHeader     = 16 << 10         // bytes
	readTimeout   = 5 * time.Second  // from the connection, or the first byte of a later request, to the last byte
	idleTimeout   = 30 * time.Second // between requests
	writeTimeout  = time.Minute      // from a request's header to the end of its answer
)

// The kinds of an [Endpoint], named as in broker.ServeModes.
const (
	Container = "container"
	IMDS      = "imds"
)

// Config is what a [Server] works with. Every field is required.
type Config struct {
	// Credentials is the gate for a lease's SDKs. It returns a session of the
	// lease's first profile with the margin left, records the hand-out, and
	// never prompts. Its errors reach the SDK's user: message and hint. The
	// caller is who asks, with Via the endpoint's kind; where Resolved is
	// false, it may be the lease's root in the stead of one that was not found.
	Credentials func(ctx context.Context, lease string, caller broker.Caller) (broker.Grant, error)
	// Refused records a refusal that was made before the gate, which is denied
	// ([broker.CodeDenied]). The caller is who asks as for Credentials; of
	// another user's no more is known than UID, and that is -1 where it is not
	// either. It is called at most three times a minute for a lease.
	Refused func(ctx context.Context, lease string, caller broker.Caller, why error)
	// Describe tells who a process of our user is, ancestors included.
	Describe func(pid int) (broker.Caller, error)
	Clock    broker.Clock // Now and Boot
	// Logger gets what clients are not told. Never a token, never a secret.
	Logger *slog.Logger
}

// An Endpoint is what is served for one lease.
type Endpoint struct {
	Lease string
	Kind  string // [Container] or [IMDS]
	Port  int    // on 127.0.0.1; 0 for a free one
	// TokenFile is the absolute path at which a container's token is written,
	// in a directory that is there and only our user may enter.
	TokenFile string
	Root      broker.ProcessID

	// What IMDS tells beside the session. A Role may be any name: what cannot
	// stand in a path is replaced.
	Role    string
	Account string // "" where it is not known
	Region  string // "" for none
}

// A Server serves the endpoints of a daemon's leases.
//
// mu guards leases, closed, and of each lease serving, and is held for no more
// than to read or change them. places has one element for each open connection.
type Server struct {
	cfg      Config
	kernel   *kernel
	errorLog *log.Logger
	places   chan struct{}
	searches chan struct{} // one element for each search of /proc that runs
	patience time.Duration // readTimeout

	mu     sync.Mutex
	leases map[string]*lease
	closed bool
}

// New returns a Server that serves no lease yet.
func New(cfg Config) *Server {
	return &Server{
		cfg:      cfg,
		kernel:   newKernel(),
		errorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		places:   make(chan struct{}, maxConns),
		searches: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))),
		patience: readTimeout,
		leases:   make(map[string]*lease),
	}
}

// Open begins to serve a lease and returns its port: e.Port where that is not
// 0, and no other. A container's token is new each time, and in its file when
// Open returns. What Open opened, Close closes.
func (s *Server) Open(e Endpoint) (port int, err error) {
	if err := check(e); err != nil {
		return 0, err
	}
	l, err := s.reserve(e)
	if err != nil {
		return 0, err
	}
	if err := s.install(l, l.open()); err != nil {
		return 0, err
	}
	return l.Port, nil
}

func check(e Endpoint) error {
	switch {
	case e.Lease == "":
		return broker.Errorf(broker.CodeUsage, "an endpoint needs a lease")
	case e.Kind != Container && e.Kind != IMDS:
		return broker.Errorf(broker.CodeUsage, "lease %s: %q is no kind of endpoint", e.Lease, e.Kind)
	case e.Port < 0 || e.Port > math.MaxUint16:
		return broker.Errorf(broker.CodeUsage, "lease %s: %d is no port", e.Lease, e.Port)
	case e.Kind == Container && !filepath.IsAbs(e.TokenFile):
		return broker.Errorf(broker.CodeUsage, "lease %s: the token's file must have an absolute path, not %q", e.Lease, e.TokenFile)
	}
	return nil
}

// reserve makes sure that one Open at a time writes a lease's token.
func (s *Server) reserve(e Endpoint) (*lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, broker.Errorf(broker.CodeDaemonUnreachable, "lease %s cannot be served: gatepassd is ending", e.Lease)
	}
	if s.leases[e.Lease] != nil {
		return nil, broker.Errorf(broker.CodeUsage, "lease %s is served already", e.Lease)
	}
	l := newLease(s, e)
	s.leases[e.Lease] = l
	return l, nil
}

// install begins to serve a lease that was opened, or with err gives its
// reservation up.
func (s *Server) install(l *lease, err error) error {
	s.mu.Lock()
	reserved := s.leases[l.Lease] == l
	if err == nil && reserved {
		l.serving = true
		go l.serve()
	} else if reserved {
		delete(s.leases, l.Lease)
	}
	s.mu.Unlock()
	if err == nil && !reserved {
		l.discard()
		err = broker.Errorf(broker.CodeDaemonUnreachable, "lease %s was closed before it was served", l.Lease)
	}
	return err
}

// End refuses all that is asked of a lease from now on, with a sentence that
// says why, until Close. What is under way is refused too.
func (s *Server) End(lease, why string) {
	s.mu.Lock()
	l := s.leases[lease]
	s.mu.Unlock()
	if l != nil {
		l.ended.Store(broker.Errorf(broker.CodeDenied, "%s", why))
	}
}

// Close closes a lease's port and all connections to it, and removes the
// token's file. When it returns, nothing of the lease is served any more.
func (s *Server) Close(lease string) {
	s.mu.Lock()
	l := s.leases[lease]
	delete(s.leases, lease)
	serving := l != nil && l.serving
	s.mu.Unlock()
	if serving {
		l.close()
	}
}

// Shutdown closes all ports and answers what is under way until ctx ends; what
// is left then is cut off. Token files stay: a daemon that comes after this one
// writes them anew, and until then SDKs find nobody listening, which they try
// again, instead of no file, which they do not.
func (s *Server) Shutdown(ctx context.Context) (err error) {
	s.mu.Lock()
	s.closed = true
	var leases []*lease
	for _, l := range s.leases {
		if l.serving {
			leases = append(leases, l)
		}
	}
	clear(s.leases)
	s.mu.Unlock()

	var all sync.WaitGroup
	errs := make(chan error, len(leases))
	for _, l := range leases {
		all.Go(func() { errs <- l.shutdown(ctx) })
	}
	all.Wait()
	s.kernel.close()
	close(errs)
	for e := range errs {
		err = cmp.Or(err, e)
	}
	return err
}
