package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/endpoint"
	"gatepass/broker/keystore"
	"gatepass/broker/prompt"
	"gatepass/broker/prompt/program"
	"gatepass/broker/scope"
	"gatepass/broker/sts"
	"gatepass/broker/wire"
	"gatepass/broker/wire/door"
	"gatepass/profiles"
)

// drainTime is how long requests under way may take to end once the daemon
// was told to stop: as long as an AWS call and the keychain may take.
const drainTime = 30 * time.Second

// run is the daemon, from its configuration to its last entry. started is
// called once it serves. The error is an *[audit.ErrLocked] when another
// daemon serves this user.
func run(ctx context.Context, foreground bool, started func()) (err error) {
	home, paths, cfg, err := settings()
	if err != nil {
		return err
	}
	var diagnostics io.Writer = os.Stderr
	if !foreground {
		file, err := openLogFile(paths.DaemonLog)
		if err != nil {
			return broker.Errorf(broker.CodeConfig, "open the daemon's log: %w", err)
		}
		defer file.Close()
		diagnostics = file
	}
	log := slog.New(slog.NewTextHandler(diagnostics, nil))

	socket, err := wire.SocketPath(os.Getenv, os.Getuid())
	if err != nil {
		return err
	}
	listener, activated, err := door.Activation()
	if err != nil {
		return err
	}
	own := ""
	if activated {
		socket = listener.Addr().String()
		own = socket
	}

	keys, err := newKeyStore(cfg, paths, log)
	if err != nil {
		return err
	}
	os.Unsetenv(passphraseVariable)
	aws, err := newSTS(cfg, log)
	if err != nil {
		return err
	}
	prompter := prompt.New(prompt.Config{Env: program.Env(os.Environ()), Desktop: prompt.Desktop(os.Environ())})
	forwarder, err := newForwarder(cfg, paths, log)
	if err != nil {
		return err
	}
	// The log's lock is what makes this daemon the only one.
	book, err := openLog(ctx, own, logPatience, func(ctx context.Context) (*audit.Log, error) {
		return audit.Open(ctx, audit.Options{
			Dir: paths.AuditDir, Socket: socket, Command: audit.CommandMode(cfg.Audit.Command), Keep: cfg.Audit.keep, Alarm: logAlarm(prompter),
			Signer: auditSigner(keys, paths.AuditKey, log), SignerReady: keys.Unlocked(), Logger: log,
			Anchor: anchorBy(cfg.Audit.AnchorCommand, program.Env(os.Environ())),
		})
	})
	if err != nil {
		return err
	}
	defer func() { // with a time of its own: it signs the last entries
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		err = errors.Join(err, book.Close(closing))
	}()
	forwarder.Start()
	defer func() { forwarder.Close(book.Status().Entries) }()

	trees, err := scope.New(scope.Config{RuntimeDir: os.Getenv("XDG_RUNTIME_DIR"), BusAddress: os.Getenv("DBUS_SESSION_BUS_ADDRESS")})
	if err != nil {
		return err
	}
	defer trees.Close()
	// The gate, the door and the endpoints know one another.
	var gate *broker.Broker
	var server *door.Server
	clock := newClock()
	sdks := endpoint.New(endpoint.Config{
		Credentials: func(ctx context.Context, lease string, caller broker.Caller) (broker.Grant, error) {
			return gate.LeaseCredentials(ctx, lease, caller)
		},
		Refused: func(ctx context.Context, lease string, caller broker.Caller, why error) {
			gate.LeaseRefused(ctx, lease, caller, why)
		},
		Describe: func(pid int) (broker.Caller, error) { return server.Describe(pid) },
		Clock:    clock, Logger: log,
	})
	gate = broker.New(broker.Config{
		Keys: keys, Unlocker: keys, STS: aws, IAM: aws, AWSVault: keys, Notes: notebook{paths.KeyNotes}, Log: forwardedLog{book, forwarder}, Profiles: profiles.NewReader(), Clock: clock, Logger: log,
		Files:   profiles.Files{Config: filepath.Join(home, ".aws", "config"), Credentials: filepath.Join(home, ".aws", "credentials")},
		Trusted: cfg.TrustedConfigs,
		MFA: broker.MFA{
			Keep: cfg.MFA.keep, Prompt: cfg.MFA.Prompt, Vault: keys,
			Prompter: prompter,
		},
		Leases: &broker.Leases{
			Processes: trees, Rooms: rooms{filepath.Join(filepath.Dir(socket), "leases")}, Endpoints: endpoints{sdks},
			Book: leaseBook{paths.Leases}, Notifier: prompter,
			Session: cfg.Leases.Session, Serve: cfg.Leases.Serve, Renew: cfg.Leases.Renew,
			AtExpiry: cfg.Leases.AtExpiry, Grace: cfg.Leases.grace,
		},
		Daemon: broker.DaemonStatus{
			UID: os.Getuid(), PID: os.Getpid(), Version: broker.Version(), Started: time.Now(), Socket: socket,
		},
	})
	if !activated {
		if listener, err = door.Listen(socket); err != nil {
			return err
		}
	}
	asked := make(chan string, 1)
	server = door.New(door.Config{
		Broker: gate, Logger: log,
		Stop: func(c broker.Caller) {
			select {
			case asked <- fmt.Sprintf("stopped by process %d (%s)", c.PID, c.Program):
			default: // it is stopping already
			}
		},
	})
	if err := gate.Start(ctx); err != nil {
		listener.Close()
		return err
	}
	return serve(ctx, service{gate, server, sdks, asked}, listener, socket, log, started)
}

// A service is what answers.
type service struct {
	gate  *broker.Broker
	door  *door.Server
	sdks  *endpoint.Server
	asked <-chan string // why a client wants it to end
}

// check returns why a daemon could not work with the configuration as it is
// now. It changes nothing.
func check() error {
	_, paths, cfg, err := settings()
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if _, err := newKeyStore(cfg, paths, log); err != nil {
		return err
	}
	if _, err = newSTS(cfg, log); err != nil {
		return err
	}
	_, err = newForwarder(cfg, paths, log)
	return err
}

// settings returns where the user's files are, and gatepass.toml.
func settings() (home string, paths broker.Paths, cfg config, err error) {
	if home, err = os.UserHomeDir(); err != nil {
		return "", paths, cfg, broker.Errorf(broker.CodeConfig, "find the home directory: %w", err)
	}
	paths = broker.PathsFor(os.Getenv, home)
	cfg, err = readConfig(paths.ConfigFile)
	return home, paths, cfg, err
}

// newKeyStore returns the way to the keychain.
func newKeyStore(cfg config, paths broker.Paths, log *slog.Logger) (*keystore.Store, error) {
	return keystore.New(keystore.Config{
		Backend:        cfg.Keychain,
		Env:            keystore.Env(os.Environ()),
		FileDir:        filepath.Join(paths.StateDir, "keys"),
		FilePassphrase: broker.NewSecret(os.Getenv(passphraseVariable)),
		Logger:         log,
	})
}

// newSTS returns the way to AWS. What it cannot use of cfg is told with its
// place in the file.
func newSTS(cfg config, log *slog.Logger) (*sts.Client, error) {
	client, err := sts.New(sts.Config{
		EndpointURL: cfg.AWS.EndpointURL, EndpointURLSTS: cfg.AWS.EndpointURLSTS, EndpointURLIAM: cfg.AWS.EndpointURLIAM, CABundle: cfg.AWS.CABundle,
		Proxy: cfg.AWS.Proxy, NoProxy: cfg.AWS.NoProxy,
		Version: broker.Version(), Logger: log,
	})
	if bad, ok := errors.AsType[*sts.ConfigError](err); ok && cfg.refuse != nil {
		return nil, cfg.refuse("aws."+bad.Key, bad.Err)
	}
	return client, err
}

// serve answers until a signal, a request to stop, or the loss of the socket,
// then lets what is under way end.
func serve(ctx context.Context, s service, listener net.Listener, socket string, log *slog.Logger, started func()) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	watch, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	vanished := door.Vanished(watch, listener)
	served := make(chan error, 1)
	go func() { served <- s.door.Serve(listener) }()
	started()
	log.Info("serving", "socket", socket, "version", broker.Version())

	var reason string
	var failed error
	select {
	case reason = <-s.asked:
	case sig := <-signals:
		reason = sig.String()
	case <-vanished:
		reason = "the socket vanished"
	case <-ctx.Done():
		reason = context.Cause(ctx).Error()
	case failed = <-served:
		reason = "the socket failed"
	}
	log.Info("stopping", "reason", reason)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	stopWatching()
	s.gate.EndQuestions()
	return errors.Join(failed, s.door.Shutdown(drain), s.sdks.Shutdown(drain), s.gate.Close(drain, reason))
}
