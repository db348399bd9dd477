// Package door is the daemon's end of the socket: the listener, the identity
// of who connects, and the HTTP server that turns requests into calls of the
// gate. See package wire for the protocol.
//
// The door refuses what no client of ours sends, before it looks at what is
// asked: other users, anything a browser or a proxy adds, requests that two
// parsers could read differently.
package door

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/user"
	"sync"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
	"gatepass/profiles"
)

// ErrDaemonRunning is in the chain of [Listen]'s error when a daemon has the
// socket already.
var ErrDaemonRunning error = broker.Errorf(broker.CodeDaemonUnreachable, "a daemon listens on the socket already")

// Bounds of what a connection may do. A request under way may take as long as
// its prompt and its AWS calls do (3 min + 15 s for each hop).
const (
	maxConns     = 512              // at once; further ones wait in the socket's queue
	maxHeader    = 16 << 10         // bytes
	readTimeout  = 10 * time.Second // from the connection, or the first byte of a later request, to the last byte
	idleTimeout  = 30 * time.Second // between requests
	writeTimeout = 4 * time.Minute  // from a request's header to the end of its answer
)

// A Broker is what the door leads to. Errors with a code reach the client as
// they are.
type Broker interface {
	Credentials(context.Context, broker.Caller, broker.Request) (broker.Grant, error)
	WhoAmI(context.Context, broker.Caller, broker.Request) (broker.IdentityDetail, error)
	AddKey(context.Context, broker.Caller, broker.NewKey) (broker.KeyInfo, error)
	Keys(context.Context, broker.Caller, broker.Reachable) ([]broker.KeyState, error)
	RotateKey(context.Context, broker.Caller, broker.RotateRequest) (broker.Rotated, error)
	RemoveKey(ctx context.Context, caller broker.Caller, name string, how broker.Reachable) error
	AWSVaultKeys(ctx context.Context, caller broker.Caller, at broker.AWSVault) ([]string, error)
	ImportKey(ctx context.Context, caller broker.Caller, at broker.AWSVault, name, region string, how broker.Reachable) (broker.ImportedKey, error)
	RemoveImported(ctx context.Context, caller broker.Caller, at broker.AWSVault, name string, how broker.Reachable) error
	Status(context.Context) (broker.Status, error)
	Glance(context.Context) (broker.Status, error)
	ListProfiles(context.Context, broker.Caller, profiles.Files) (broker.ProfileList, error)
	ShowProfile(ctx context.Context, caller broker.Caller, files profiles.Files, name string) (broker.ProfileDetail, error)
	Begin(context.Context, broker.Caller, broker.LeaseRequest) (broker.LeaseGrant, error)
	Renew(ctx context.Context, caller broker.Caller, lease string, req broker.Request) (broker.LeaseStatus, error)
	End(context.Context, broker.Caller, broker.EndRequest) ([]string, error)
	OwnLease(broker.Caller) (broker.LeaseStatus, bool)
	Outside(ctx context.Context, caller broker.Caller, what string) error
	PromptBeat(ctx context.Context, caller broker.Caller, id string) error
	PromptAnswer(ctx context.Context, caller broker.Caller, id string, answer broker.Secret, why broker.Code) error
}

// Config is what a [Server] works with.
type Config struct {
	Broker Broker
	// Stop is told that a client asked the daemon to end, and must not wait
	// for it: the client's answer comes after.
	Stop func(broker.Caller)
	// Logger gets what clients are not told. Never a body, never a secret.
	Logger *slog.Logger
}

// A Server answers the clients of one daemon.
type Server struct {
	cfg       Config
	user      string
	processes *processes
	http      *http.Server

	mu    sync.Mutex
	conns map[*conn]struct{} // all that are open
}

// New returns a Server that does not serve yet.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, processes: newProcesses(), conns: make(map[*conn]struct{})}
	if u, err := user.Current(); err == nil {
		s.user = u.Username
	}
	s.http = &http.Server{
		Handler:        s.handler(),
		ReadTimeout:    readTimeout,
		IdleTimeout:    idleTimeout,
		WriteTimeout:   writeTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			if state == http.StateActive {
				c.(*conn).spoke.Store(true)
			}
		},
		DisableGeneralOptionsHandler: true, // OPTIONS * is no exception
	}
	// net/http would give a connection that has not said anything 5 s more.
	s.http.RegisterOnShutdown(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			if !c.spoke.Load() {
				c.Conn.Close()
			}
		}
	})
	return s
}

// Serve answers connections from ln until Shutdown, and returns nil then.
func (s *Server) Serve(ln net.Listener) error {
	err := s.http.Serve(&gate{Listener: ln, server: s, places: make(chan struct{}, maxConns), closed: make(chan struct{})})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown closes the listener and every connection that asks nothing,
// answers what is under way, and returns when that is done or ctx ends; what
// is left then is cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	s.processes.close()
	return err
}

// Describe tells who a process of our own user is, as if it had connected.
func (s *Server) Describe(pid int) (broker.Caller, error) {
	p, err := s.processes.named(pid)
	if err != nil {
		return broker.Caller{}, gone(pid)
	}
	defer p.close()
	c, err := p.caller()
	c.User = s.user
	return c, err
}

// routes are the paths that are answered, by method. A request's target must
// be one of them to the byte: no query, no escapes, no dots, no host.
var routes = map[string]map[string]func(*Server, *request) (any, error){
	wire.PathCredentials:    {"POST": (*Server).credentials},
	wire.PathWhoAmI:         {"POST": (*Server).whoAmI},
	wire.PathStatus:         {"GET": (*Server).status},
	wire.PathGlance:         {"GET": (*Server).glance},
	wire.PathKeys:           {"POST": (*Server).addKey},
	wire.PathKeysList:       {"POST": (*Server).keys},
	wire.PathKeysRotate:     {"POST": (*Server).rotateKey},
	wire.PathKeysRemove:     {"POST": (*Server).removeKey},
	wire.PathAWSVault:       {"POST": (*Server).vaultKeys},
	wire.PathAWSVaultImport: {"POST": (*Server).importKey},
	wire.PathAWSVaultRemove: {"POST": (*Server).removeImported},
	wire.PathProfiles:       {"POST": (*Server).listProfiles},
	wire.PathProfileShow:    {"POST": (*Server).showProfile},
	wire.PathLeases:         {"POST": (*Server).beginLease},
	wire.PathLeaseOwn:       {"GET": (*Server).ownLease},
	wire.PathLeaseRenew:     {"POST": (*Server).renewLease},
	wire.PathLeaseEnd:       {"POST": (*Server).endLeases},
	wire.PathPromptBeat:     {"POST": (*Server).promptBeat},
	wire.PathPromptReply:    {"POST": (*Server).promptReply},
	wire.PathStop:           {"POST": (*Server).stop},
}

// A request is one that passed the door.
type request struct {
	ctx    context.Context
	caller broker.Caller
	body   []byte
	header http.Header // of the answer
}

func (s *Server) credentials(r *request) (any, error) {
	req, via, err := credentialsRequest(r)
	if err != nil {
		return nil, err
	}
	r.caller.Via = via
	grant, err := s.cfg.Broker.Credentials(r.ctx, r.caller, req)
	if err != nil {
		return nil, err
	}
	if grant.Region != "" {
		r.header.Set(wire.RegionHeader, grant.Region)
	}
	r.header.Set(wire.SessionHeader, grant.SessionID)
	return document(grant.Credentials.Document()), nil
}

// A document is an answer's body as it stands. It is cleared once sent.
type document []byte

func (s *Server) whoAmI(r *request) (any, error) {
	req, via, err := credentialsRequest(r)
	if err != nil {
		return nil, err
	}
	if r.caller.Via = via; via == "" {
		r.caller.Via = "whoami"
	}
	return s.cfg.Broker.WhoAmI(r.ctx, r.caller, req)
}

func (s *Server) status(r *request) (any, error) { return s.cfg.Broker.Status(r.ctx) }

func (s *Server) glance(r *request) (any, error) { return s.cfg.Broker.Glance(r.ctx) }

func (s *Server) keys(r *request) (any, error) {
	var in wire.ListKeysRequest
	if err := decode(r.body, &in); err != nil {
		return nil, err
	}
	how, err := reachable(in.Ask, r)
	if err != nil {
		return nil, err
	}
	r.caller.Via = "keys"
	keys, err := s.cfg.Broker.Keys(r.ctx, r.caller, how)
	if keys == nil {
		keys = []broker.KeyState{}
	}
	return wire.KeysResponse{Keys: keys}, err
}

func (s *Server) addKey(r *request) (any, error) {
	var in wire.AddKeyRequest
	if err := decode(r.body, &in); err != nil {
		return nil, err
	}
	if err := checkRegion(in.Region); err != nil {
		return nil, err
	}
	how, err := reachable(in.Ask, r)
	if err != nil {
		return nil, err
	}
	r.caller.Via = "keys"
	return s.cfg.Broker.AddKey(r.ctx, r.caller, broker.NewKey{
		Name:            in.Name,
		AccessKeyID:     in.AccessKeyID,
		SecretAccessKey: broker.NewSecret(in.SecretAccessKey),
		Region:          in.Region,
		NoVerify:        in.NoVerify,
		AllowRoot:       in.AllowRoot,
		Reachable:       how,
	})
}

func (s *Server) rotateKey(r *request) (any, error) {
	var in wire.RotateKeyRequest
	if err := decode(r.body, &in); err != nil {
		return nil, err
	}
	if err := checkRegion(in.Region); err != nil {
		return nil, err
	}
	if err := checkFiles(in.ConfigFile, in.CredentialsFile); err != nil {
		return nil, err
	}
	if in.KeepSeconds < 0 || in.KeepSeconds > math.MaxInt32 {
		return nil, broker.Errorf(broker.CodeUsage, "keep_seconds is %d", in.KeepSeconds)
	}
	how, err := reachable(in.Ask, r)
	if err != nil {
		return nil, err
	}
	r.caller.Via = "keys"
	return s.cfg.Broker.RotateKey(r.ctx, r.caller, broker.RotateRequest{
		Name: in.Name, Keep: time.Duration(in.KeepSeconds) * time.Second, Finish: in.Finish, Region: in.Region,
		Files:  profiles.Files{Config: in.ConfigFile, Credentials: in.CredentialsFile},
		Serial: in.MFASerial, Reachable: how, Code: broker.NewSecret(in.MFACode),
	})
}

func (s *Server) removeKey(r *request) (any, error) {
	var in wire.RemoveKeyRequest
	if err := decode(r.body, &in); err != nil {
		return nil, err
	}
	how, err := reachable(in.Ask, r)
	if err != nil {
		return nil, err
	}
	r.caller.Via = "keys"
	return struct{}{}, s.cfg.Broker.RemoveKey(r.ctx, r.caller, in.Name, how)
}

func (s *Server) vaultKeys(r *request) (any, error) {
	var in wire.AWSVaultRequest
	if err := decode(r.body, &in); err != nil {
		return nil, err
	}
	at, err := vaultOf(in)
	if err != nil {
		return nil, err
	}
	r.caller.Via = "keys"
	names, err := s.cfg.Broker.AWSVaultKeys(r.ctx, r.caller, at)
	if names == nil {
		names = []string{}
	}
	return wire.AWSVaultResponse{Names: names}, err
}

func (s *Server) importKey(r *request) (any, error) {
	in, at, how, err := vaultKeyRequest(r)
	if err != nil {
		return nil, err
	}
	r.caller.Via = "keys"
	return s.cfg.Broker.ImportKey(r.ctx, r.caller, at, in.Name, in.Region, how)
}

func (s *Server) removeImported(r *request) (any, error) {
	in, at, how, err := vaultKeyRequest(r)
	if err != nil {
		return nil, err
	}
	r.caller.Via = "keys"
	return struct{}{}, s.cfg.Broker.RemoveImported(r.ctx, r.caller, at, in.Name, how)
}

func (s *Server) listProfiles(r *request) (any, error) {
	in, err := profilesRequest(r.body)
	if err != nil {
		return nil, err
	}
	if in.Profile != "" {
		return nil, broker.Errorf(broker.CodeUsage, "a listing is of all profiles, and %q is named", in.Profile)
	}
	return s.cfg.Broker.ListProfiles(r.ctx, r.caller, profiles.Files{Config: in.ConfigFile, Credentials: in.CredentialsFile})
}

func (s *Server) showProfile(r *request) (any, error) {
	in, err := profilesRequest(r.body)
	if err != nil {
		return nil, err
	}
	if in.Profile == "" {
		return nil, broker.Errorf(broker.CodeUsage, "no profile is named")
	}
	return s.cfg.Broker.ShowProfile(r.ctx, r.caller, profiles.Files{Config: in.ConfigFile, Credentials: in.CredentialsFile}, in.Profile)
}

func (s *Server) promptBeat(r *request) (any, error) {
	var in wire.PromptBeatRequest
	if err := decode(r.body, &in); err != nil {
		return nil, err
	}
	return struct{}{}, s.cfg.Broker.PromptBeat(r.ctx, r.caller, in.ID)
}

func (s *Server) promptReply(r *request) (any, error) {
	var in wire.PromptReplyRequest
	if err := decode(r.body, &in); err != nil {
		return nil, err
	}
	switch in.Why {
	case "", broker.CodeCancelled, broker.CodePromptTimeout, broker.CodePromptUnavailable:
	default:
		return nil, broker.Errorf(broker.CodeUsage, "why is %q", in.Why)
	}
	return struct{}{}, s.cfg.Broker.PromptAnswer(r.ctx, r.caller, in.ID, broker.NewSecret(in.Answer), in.Why)
}

func (s *Server) stop(r *request) (any, error) {
	r.caller.Via = "daemon"
	if err := s.cfg.Broker.Outside(r.ctx, r.caller, "stop the daemon"); err != nil {
		return nil, err
	}
	s.cfg.Stop(r.caller)
	return wire.StopResponse{PID: os.Getpid()}, nil
}
