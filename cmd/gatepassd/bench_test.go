package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/profiles"
)

// One hand-out from the cache through the gate, with the real log and the
// real profiles: what a request costs beside the socket.
func BenchmarkGate(b *testing.B) {
	dir := b.TempDir()
	config := filepath.Join(dir, "config")
	text := "[profile deploy]\ngatepass_key = alice\nrole_arn = arn:aws:iam::111122223333:role/Deploy\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	old := time.Now().Add(-time.Hour) // a file that changed just now is read again
	if err := os.Chtimes(config, old, old); err != nil {
		b.Fatal(err)
	}
	book, err := audit.Open(b.Context(), audit.Options{Dir: filepath.Join(dir, "audit")})
	if err != nil {
		b.Fatal(err)
	}
	defer book.Close(context.Background())
	gate := broker.New(broker.Config{
		Keys: oneKey{}, STS: oneSession{}, Log: book, Profiles: profiles.NewReader(), Clock: newClock(),
		Logger: slog.New(slog.DiscardHandler), Files: profiles.Files{Config: config},
	})
	caller := broker.Caller{
		UID: 1000, User: "alice", PID: 4242, Program: "/usr/bin/aws", Exe: "/home/alice/.local/bin/gatepass",
		Command: "/home/alice/.local/bin/gatepass credential-process deploy", Cwd: "/home/alice/src", TTY: "/dev/pts/3",
		Via: "credential-process", Resolved: true,
		Ancestors: []broker.Process{
			{PID: 4241, Exe: "/usr/bin/python3.11", Command: "/usr/bin/python3 /usr/bin/aws --profile deploy s3 ls"},
			{PID: 4000, Exe: "/usr/bin/bash", Command: "-bash"},
			{PID: 3999, Exe: "/usr/bin/tmux", Command: "tmux"},
			{PID: 900, Exe: "/usr/bin/terminal", Command: "/usr/bin/terminal " + strings.Repeat("--option=some-value ", 60)},
			{PID: 1, Command: "/sbin/init"},
		},
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := gate.Credentials(b.Context(), caller, broker.Request{Profile: "deploy"}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

type oneKey struct{ broker.KeyStore }

func (oneKey) Keys(context.Context) ([]broker.KeyInfo, error) {
	return []broker.KeyInfo{{Name: "alice", AccessKeyID: "AKIAEXAMPLEALICE0001", UserARN: "arn:aws:iam::111122223333:user/alice"}}, nil
}

func (k oneKey) Key(ctx context.Context, _ string) (broker.Key, error) {
	list, err := k.Keys(ctx)
	return broker.Key{KeyInfo: list[0], SecretAccessKey: broker.NewSecret("secret")}, err
}

type oneSession struct{ broker.STS }

func (oneSession) AssumeRole(_ context.Context, _ broker.Credentials, in broker.AssumeRoleInput, _ broker.Target) (broker.STSSession, error) {
	return broker.STSSession{Credentials: broker.Credentials{
		AccessKeyID: "ASIAEXAMPLE000000001", SecretAccessKey: broker.NewSecret("secret"), SessionToken: broker.NewSecret("token"),
		Expires: time.Now().Add(in.Duration),
	}}, nil
}
