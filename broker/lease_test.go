package broker_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/profiles"
)

// A fakeTree are the processes of leases, and all else that leases are kept
// with.
type fakeTree struct {
	mu       sync.Mutex
	boot     string
	scopes   map[broker.ProcessID]string // of processes that only their scope tells
	enclosed bool                        // new leases get a scope
	joinErr  error
	expected func(lease string) string // the scope that they are expected to get; nil for nobody knows
	moving   func() error              // runs while a process is moved into its scope; may be nil
	watches  map[broker.ProcessID][]func(broker.Exit)
	gone     map[broker.ProcessID]broker.Exit
	left     map[string][]broker.Process // what lives in a scope
	empty    map[string]func()           // who waits for a scope to be empty
	emptyErr error
	looked   func() // runs when WatchEmpty is called; may be nil
	signals  []string
	told     []string // by notification

	rooms, open []string // ids of leases that have one
	ended       []string // leases whose endpoint refuses
	portErr     error
	saved       []broker.Lease
	saveErr     error
}

func newTree() *fakeTree {
	return &fakeTree{
		boot: "boot-1", scopes: map[broker.ProcessID]string{}, watches: map[broker.ProcessID][]func(broker.Exit){},
		gone: map[broker.ProcessID]broker.Exit{}, left: map[string][]broker.Process{},
		empty: map[string]func(){},
	}
}

func (f *fakeTree) leases() *broker.Leases {
	return &broker.Leases{
		Processes: f, Rooms: fakeRooms{f}, Endpoints: fakeEndpoints{f}, Book: f, Notifier: f,
		Session: "own", Serve: "container", Renew: "auto", AtExpiry: "warn", Grace: 30 * time.Second,
	}
}

func (f *fakeTree) Boot() string { return f.boot }

func (f *fakeTree) Watch(id broker.ProcessID, ended func(broker.Exit)) (func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if exit, ok := f.gone[id]; ok {
		if exit == (broker.Exit{}) {
			return nil, errors.New("there is no such process")
		}
		go ended(exit)
		return func() {}, nil
	}
	f.watches[id] = append(f.watches[id], ended)
	return func() {}, nil
}

// end ends a process.
func (f *fakeTree) end(id broker.ProcessID, status int) {
	f.mu.Lock()
	watches := f.watches[id]
	delete(f.watches, id)
	f.gone[id] = broker.Exit{Known: true, Status: status}
	for scope, left := range f.left {
		f.left[scope] = slices.DeleteFunc(left, func(p broker.Process) bool { return p.ID == id })
		if empty := f.empty[scope]; empty != nil && len(f.left[scope]) == 0 {
			delete(f.empty, scope)
			go empty()
		}
	}
	f.mu.Unlock()
	for _, ended := range watches {
		go ended(broker.Exit{Known: true, Status: status})
	}
	synctest.Wait()
}

func (f *fakeTree) WatchEmpty(scope string, empty func()) (func(), error) {
	if f.looked != nil {
		f.looked()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.emptyErr != nil {
		return nil, f.emptyErr
	}
	if len(f.left[scope]) == 0 {
		go empty()
		return func() {}, nil
	}
	f.empty[scope] = empty
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.empty, scope)
	}, nil
}

func (f *fakeTree) Enclose(ctx context.Context, lease string, id broker.ProcessID) (string, error) {
	if f.moving != nil {
		if err := cmp.Or(f.moving(), ctx.Err()); err != nil {
			return "", err
		}
	}
	if !f.enclosed {
		return "", nil
	}
	return "scope-" + lease, nil
}

func (f *fakeTree) Join(_ context.Context, scope string, pid int) (broker.ProcessID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scopes[id(pid)] = scope
	return id(pid), f.joinErr
}

func (f *fakeTree) ScopeFor(lease string) string {
	if f.expected == nil {
		return ""
	}
	return f.expected(lease)
}

func (f *fakeTree) ScopeOf(id broker.ProcessID) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.gone[id]; ok {
		return "", errors.New("it has ended")
	}
	return f.scopes[id], nil
}

func (f *fakeTree) Inside(scope string, root broker.ProcessID) ([]broker.Process, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.left[scope]), nil
}

func (f *fakeTree) Signal(scope string, root broker.ProcessID, signal string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.signals = append(f.signals, signal)
	return nil
}

// sent returns the signals so far.
func (f *fakeTree) sent() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.signals)
}

func (f *fakeTree) Forget(string) {}

func (f *fakeTree) heard() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.told)
}

func (f *fakeTree) Notify(_ context.Context, text, tty string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, text+" on "+tty)
}

func (f *fakeTree) Leases() ([]broker.Lease, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.saved), nil
}

func (f *fakeTree) SaveLeases(all []broker.Lease) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.saveErr == nil {
		f.saved = all
	}
	return f.saveErr
}

type fakeRooms struct{ f *fakeTree }

func (r fakeRooms) Open(l *broker.Lease, program string) (string, error) {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.f.rooms = append(r.f.rooms, l.ID)
	return "/run/" + l.ID, nil
}
func (r fakeRooms) Close(dir string) error {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.f.rooms = slices.DeleteFunc(r.f.rooms, func(id string) bool { return dir == "/run/"+id })
	return nil
}

type fakeEndpoints struct{ f *fakeTree }

func (e fakeEndpoints) Open(l *broker.Lease) (int, error) {
	e.f.mu.Lock()
	defer e.f.mu.Unlock()
	if e.f.portErr == nil {
		e.f.open = append(e.f.open, l.ID)
	}
	return max(l.Port, 4711), e.f.portErr
}

func (e fakeEndpoints) End(lease, why string) {
	e.f.mu.Lock()
	defer e.f.mu.Unlock()
	e.f.ended = append(e.f.ended, lease)
}

func (e fakeEndpoints) Close(lease string) {
	e.f.mu.Lock()
	defer e.f.mu.Unlock()
	e.f.open = slices.DeleteFunc(e.f.open, func(id string) bool { return id == lease })
}

// process is a caller with the given ancestors, nearest first.
func process(pid int, ancestors ...int) broker.Caller {
	c := broker.Caller{UID: 1000, PID: pid, Program: "aws", Via: "credential-process", TTY: "/dev/pts/3", Resolved: true, ID: id(pid)}
	for _, a := range append(ancestors, 1) {
		c.Ancestors = append(c.Ancestors, broker.Process{PID: a, ID: id(a)})
	}
	return c
}

func id(pid int) broker.ProcessID { return broker.ProcessID{PID: pid, Start: uint64(1000 + pid)} }

// A leased is a world whose broker keeps leases.
type leased struct {
	*world
	*fakeTree
}

func newLeased(t *testing.T) leased {
	w := leased{fakeTree: newTree()}
	w.world = newWorldWith(t, broker.MFA{})
	w.restart()
	return w
}

// restart makes the broker anew over what is on disk.
func (w leased) restart() {
	w.world.leases = w.fakeTree.leases()
	w.world.start()
}

func (w leased) begin(t *testing.T, caller broker.Caller, profile string, with ...string) broker.LeaseGrant {
	t.Helper()
	g, err := w.Begin(t.Context(), caller, leaseRequest(profile, with...))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func leaseRequest(profile string, with ...string) broker.LeaseRequest {
	return broker.LeaseRequest{
		Request: broker.Request{Profile: profile, Reason: "ticket 4711", Reachable: broker.Reachable{Known: true}},
		With:    with, Program: "/usr/bin/gatepass", Command: "make deploy",
	}
}

func (w leased) as(t *testing.T, caller broker.Caller, profile string) error {
	t.Helper()
	_, err := w.Credentials(t.Context(), caller, broker.Request{Profile: profile, Files: profiles.Files{Config: "/elsewhere"}})
	return err
}

// Inside a lease its own profiles are served, and nothing else is done.
func TestTheWall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		g := w.begin(t, process(100, 50), "ops", "short")
		inside := map[string]broker.Caller{
			"the root":                process(100, 50),
			"a child":                 process(101, 100, 50),
			"a grandchild":            process(102, 101, 100, 50),
			"an orphan, by subreaper": process(103, 100, 50),
		}
		for who, caller := range inside {
			for _, profile := range []string{"ops", "short", ""} {
				if err := w.as(t, caller, profile); err != nil {
					t.Errorf("%s gets %q: %v", who, profile, err)
				}
			}
			for what, do := range map[string]func() error{
				"another profile": func() error { return w.as(t, caller, "ops2") },
				"unknown profile": func() error { return w.as(t, caller, "nowhere") },
				"whoami":          func() error { _, err := w.WhoAmI(t.Context(), caller, broker.Request{Profile: "ops2"}); return err },
				"keys list":       func() error { _, err := w.Keys(t.Context(), caller, broker.Reachable{}); return err },
				"keys add": func() error {
					_, err := w.AddKey(t.Context(), caller, broker.NewKey{Name: "x", AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: broker.NewSecret(longTermSecret)})
					return err
				},
				"keys remove": func() error { return w.RemoveKey(t.Context(), caller, "alice", broker.Reachable{}) },
				"keys rotate": func() error {
					_, err := w.RotateKey(t.Context(), caller, broker.RotateRequest{Name: "alice"})
					return err
				},
				"aws-vault list": func() error { _, err := w.AWSVaultKeys(t.Context(), caller, broker.AWSVault{}); return err },
				"aws-vault import": func() error {
					_, err := w.ImportKey(t.Context(), caller, broker.AWSVault{}, "x", "", broker.Reachable{})
					return err
				},
				"aws-vault remove": func() error { return w.RemoveImported(t.Context(), caller, broker.AWSVault{}, "x", broker.Reachable{}) },
				"profiles list":    func() error { _, err := w.ListProfiles(t.Context(), caller, profiles.Files{}); return err },
				"profiles show":    func() error { _, err := w.ShowProfile(t.Context(), caller, profiles.Files{}, "ops"); return err },
				"daemon stop":      func() error { return w.Outside(t.Context(), caller, "stop the daemon") },
				"end --all": func() error {
					_, err := w.End(t.Context(), caller, broker.EndRequest{All: true})
					return err
				},
				"exec of another": func() error {
					_, err := w.Begin(t.Context(), caller, leaseRequest("ops2"))
					return err
				},
				"exec with another": func() error {
					_, err := w.Begin(t.Context(), caller, leaseRequest("ops", "ops2"))
					return err
				},
			} {
				before := len(w.log.entries)
				err := do()
				wantCode(t, err, broker.CodeDenied)
				if err == nil || !strings.Contains(err.Error(), g.ID) && !strings.Contains(err.Error(), "not for") {
					t.Errorf("%s, %s: %v", who, what, err)
				}
				added := w.log.entries[before:]
				if len(added) != 1 || added[0].Kind != broker.EventRequestDenied || added[0].Lease != g.ID || added[0].Caller.PID != caller.PID {
					t.Errorf("%s, %s: recorded %+v", who, what, added)
				}
			}
		}
		// The same outside.
		for _, profile := range []string{"ops", "ops2"} {
			if err := w.as(t, process(60, 50), profile); err != nil {
				t.Errorf("outside, %q: %v", profile, err)
			}
		}
		wantCode(t, w.as(t, process(60, 50), ""), broker.CodeUsage)
		// Whose number the root's was, is not the root.
		other := process(100, 50)
		other.ID.Start++
		if err := w.as(t, other, "ops2"); err != nil {
			t.Errorf("another process of the same number: %v", err)
		}
	})
}

// What a lease's endpoint refuses by itself stands in the log all the same.
func TestRefusedAtTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		g := w.begin(t, process(100, 50), "ops")
		for _, lease := range []string{g.ID, "l-unknown"} {
			w.LeaseRefused(t.Context(), lease, broker.Caller{UID: 65534, Via: "container"}, broker.Errorf(broker.CodeDenied, "another's"))
			e := w.log.entries[len(w.log.entries)-1]
			if e.Kind != broker.EventRequestDenied || e.Lease != lease || e.Caller.UID != 65534 || e.Error.Message != "another's" || (e.Profile == "ops") != (lease == g.ID) {
				t.Errorf("recorded %+v", e)
			}
		}
	})
}

// What an mfa_process does that is run for somebody inside is done inside, and
// that of one outside is not.
func TestTheWallAroundMFAProcess(t *testing.T) {
	for name, ask := range map[string]func(*testing.T, leased, broker.Caller, broker.LeaseGrant) error{
		"by a request": func(t *testing.T, w leased, caller broker.Caller, _ broker.LeaseGrant) error {
			return w.as(t, caller, "program")
		},
		"by renew": func(t *testing.T, w leased, caller broker.Caller, g broker.LeaseGrant) error {
			_, err := w.Renew(t.Context(), caller, g.ID, broker.Request{})
			return err
		},
		"by a lease inside": func(t *testing.T, w leased, caller broker.Caller, _ broker.LeaseGrant) error {
			_, err := w.Begin(t.Context(), caller, leaseRequest("program"))
			return err
		},
		"by the endpoint": func(t *testing.T, w leased, caller broker.Caller, g broker.LeaseGrant) error {
			caller.Via = "container"
			_, err := w.LeaseCredentials(t.Context(), g.ID, caller)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newLeased(t)
				w.enclosed = true
				code, during := 100000, func() {}
				w.mfa.Prompter = dialog(func(context.Context) (string, error) {
					during()
					code++
					return fmt.Sprint(code), nil
				})
				w.restart()
				g := w.begin(t, process(100, 50), "program")
				inside, outside := process(101, 100, 50), process(60, 50)
				w.scopes[inside.ID] = g.Scope
				asks := func(caller broker.Caller, want broker.Code) {
					t.Helper()
					w.slept += 9 * time.Hour // over the proof's life
					ran := false
					during = func() {
						ran = true
						wantCode(t, w.as(t, process(901, mfaProcess, 42), "ops2"), want)
						// Orphaned, it is seen by its scope.
						w.scopes[id(902)] = w.scopes[id(mfaProcess)]
						wantCode(t, w.as(t, process(902), "ops2"), want)
					}
					if err := ask(t, w, caller, g); err != nil {
						t.Error(err)
					}
					if !ran {
						t.Error("mfa_process was not run")
					}
					clear(w.scopes)
					w.scopes[inside.ID] = g.Scope
					if err := w.as(t, process(901, mfaProcess, 42), "ops2"); err != nil {
						t.Errorf("another process of that number, afterwards: %v", err)
					}
				}
				asks(inside, broker.CodeDenied)
				if name == "by renew" {
					asks(outside, "")
				}

				// What cannot be put inside is not run.
				w.joinErr = errors.New("no")
				during = func() { t.Error("mfa_process is run outside") }
				w.slept += 9 * time.Hour
				wantCode(t, ask(t, w, inside, g), broker.CodeDenied)
			})
		})
	}
}

// Who cannot be seen may be inside.
func TestTheWallAndTheUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		unseen := process(70)
		unseen.Resolved = false
		if err := w.as(t, unseen, "ops"); err != nil {
			t.Errorf("without a lease: %v", err)
		}
		w.begin(t, process(100, 50), "ops")
		for _, profile := range []string{"ops", "ops2", ""} {
			wantCode(t, w.as(t, unseen, profile), broker.CodeDenied)
		}
		wantCode(t, w.as(t, broker.Caller{UID: 1000}, "ops"), broker.CodeDenied)
		w.end(id(100), 0)
		if err := w.as(t, unseen, "ops"); err != nil {
			t.Errorf("after the lease: %v", err)
		}
	})
}

// What the daemon does by itself, as ending an old key that was kept, is done
// outside of all leases.
func TestTheDaemonIsOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		w.enclosed = true
		w.begin(t, process(100, 50), "ops")
		self := broker.Caller{PID: 42, Via: "daemon", Resolved: true}
		w.gone[broker.ProcessID{}] = broker.Exit{}
		if err := w.Outside(t.Context(), self, "rotate keys"); err != nil {
			t.Error(err)
		}
		inside := process(101, 100, 50)
		inside.Via = "daemon"
		wantCode(t, w.Outside(t.Context(), inside, "stop the daemon"), broker.CodeDenied)
		self.PID = 43
		wantCode(t, w.Outside(t.Context(), self, "stop the daemon"), broker.CodeDenied)
	})
}

// A scope keeps those inside who have outlived the root, and they get nothing
// until the last of them has ended or somebody outside lets them go.
func TestScopesOutliveTheRoot(t *testing.T) {
	for _, way := range []string{"they end", "they end unseen", "they are released", "they are ended"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newLeased(t)
				w.enclosed = true
				g := w.begin(t, process(100, 50), "ops")
				left := process(103)
				w.scopes[left.ID] = g.Scope
				w.left[g.Scope] = []broker.Process{{PID: 103, ID: left.ID}}
				wantCode(t, w.as(t, left, "ops2"), broker.CodeDenied)
				if err := w.as(t, left, ""); err != nil {
					t.Errorf("inside, the root alive: %v", err)
				}
				lost := process(104)
				w.gone[lost.ID] = broker.Exit{}
				wantCode(t, w.as(t, lost, "ops2"), broker.CodeDenied)

				if way == "they end unseen" {
					w.emptyErr = errors.New("no")
				}
				w.end(id(100), 3)
				if last := w.log.entries[len(w.log.entries)-1]; last.Kind != broker.EventLeaseEnded || last.Lease != g.ID || last.Reason != "exit status 3, after 0s, 1 hand-out" {
					t.Errorf("%+v", last)
				}
				wantCode(t, w.as(t, left, "ops"), broker.CodeDenied)
				wantCode(t, w.as(t, left, "ops2"), broker.CodeDenied)
				if _, err := w.LeaseCredentials(t.Context(), g.ID, left); broker.CodeOf(err) != broker.CodeDenied {
					t.Errorf("by token: %v", err)
				}
				st, _ := w.Status(t.Context())
				if len(st.Leases) != 1 || st.Leases[0].State != "lingering" || len(st.Leases[0].Processes) != 1 || len(w.saved) != 1 || w.saved[0].Ended.IsZero() {
					t.Errorf("%+v, saved %+v", st.Leases, w.saved)
				}
				switch way {
				case "they end":
					w.end(left.ID, 0)
				case "they end unseen":
					w.end(left.ID, 0)
					w.fakeTree.mu.Lock()
					w.emptyErr = nil
					w.fakeTree.mu.Unlock()
					time.Sleep(time.Second)
					synctest.Wait()
				case "they are released":
					_, err := w.End(t.Context(), left, broker.EndRequest{Leases: []string{g.ID}, Release: true})
					wantCode(t, err, broker.CodeDenied)
					if _, err := w.End(t.Context(), process(60), broker.EndRequest{Leases: []string{g.ID}, Release: true}); err != nil {
						t.Error(err)
					}
					if last := w.log.entries[len(w.log.entries)-1]; last.Kind != broker.EventLeaseReleased || last.Caller.PID != 60 {
						t.Errorf("%+v", last)
					}
				case "they are ended":
					time.AfterFunc(45*time.Second, func() { w.end(left.ID, 137) })
					if _, err := w.End(t.Context(), process(60), broker.EndRequest{All: true}); err != nil {
						t.Error(err)
					}
					if !slices.Equal(w.sent(), []string{"HUP", "TERM"}) {
						t.Errorf("signals %v", w.sent())
					}
				}
				if err := w.as(t, process(105), "ops2"); err != nil {
					t.Errorf("after all: %v", err)
				}
				if len(w.saved) != 0 || len(w.rooms) != 0 || len(w.open) != 0 {
					t.Errorf("left behind: %v %v %v", w.saved, w.rooms, w.open)
				}
			})
		})
	}
}

// A lease inside another has a scope of its own, and ends with the one around
// it all the same: to begin one is no way to stay on. Without scopes its wall
// stands as long as its root, as what outlives the root around it is outside.
func TestInnerLeasesEnd(t *testing.T) {
	for _, way := range []string{"the root ends", "the root ends, without scopes", "the root ends while no daemon runs", "it is ended"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newLeased(t)
				w.enclosed = way != "the root ends, without scopes"
				w.begin(t, process(60), "ops2") // another's
				outer := w.begin(t, process(100, 50), "ops")
				var inner []broker.LeaseGrant
				for pid := 101; pid <= 102; pid++ {
					g := w.begin(t, process(pid, pid-1, 50), "ops")
					if g.Scope != "" {
						w.left[g.Scope] = []broker.Process{{PID: pid, ID: id(pid)}}
					}
					inner = append(inner, g)
				}
				switch way {
				case "the root ends while no daemon runs":
					w.gone[id(100)] = broker.Exit{}
					w.restart()
					if err := w.Start(t.Context()); err != nil {
						t.Fatal(err)
					}
				case "it is ended":
					var ends sync.WaitGroup
					ends.Go(func() {
						if ended, err := w.End(t.Context(), process(61), broker.EndRequest{Leases: []string{outer.ID}}); err != nil || !slices.Equal(ended, []string{outer.ID}) {
							t.Errorf("%q, %v", ended, err)
						}
					})
					synctest.Wait()
					_, err := w.Begin(t.Context(), process(104, 101, 100), leaseRequest("ops"))
					wantCode(t, err, broker.CodeDenied)
					time.Sleep(45 * time.Second) // HUP and TERM have been sent
					if got := w.sent(); !slices.Equal(got, []string{"HUP", "HUP", "HUP", "TERM", "TERM", "TERM"}) {
						t.Errorf("signals %v", got)
					}
					for pid := 100; pid <= 102; pid++ {
						w.end(id(pid), 143)
					}
					ends.Wait()
				default:
					w.end(id(100), 0)
				}
				want := map[string]bool{}
				for _, g := range inner {
					want[g.ID] = w.enclosed
				}
				for _, e := range w.log.entries {
					if e.Kind == broker.EventLeaseEnded && e.Lease != outer.ID {
						if !want[e.Lease] {
							t.Errorf("ended: %+v", e)
						}
						delete(want, e.Lease)
					}
				}
				for id, wanted := range want {
					if wanted {
						t.Errorf("%s has not ended", id)
					}
				}
				code := broker.CodeDenied
				if !w.enclosed {
					code = ""
				}
				if way != "it is ended" {
					wantCode(t, w.as(t, process(101), "ops"), code)
					wantCode(t, w.as(t, process(103, 102), "ops"), code)
					wantCode(t, w.as(t, process(103, 102), "ops2"), broker.CodeDenied)
				}
			})
		})
	}
}

// A lease does not begin inside one that ends meanwhile: it would be a way to
// stay on.
func TestOuterLeaseEndsMeanwhile(t *testing.T) {
	for name, expected := range map[string]func(string) string{
		"before the inner one stands": nil,
		"once it stands":              func(lease string) string { return "scope-" + lease },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newLeased(t)
				w.enclosed, w.expected = true, expected
				outer := w.begin(t, process(100, 50), "ops")
				w.left[outer.Scope] = []broker.Process{{PID: 101, ID: id(101)}}
				w.moving = func() error {
					time.Sleep(time.Second)
					w.end(id(100), 0)
					return nil
				}
				g, err := w.Begin(t.Context(), process(101, 100, 50), leaseRequest("ops"))
				if err == nil {
					t.Errorf("lease %s began", g.ID)
				}
				wantCode(t, err, broker.CodeDenied)
				synctest.Wait()
				if len(w.saved) != 1 || w.saved[0].ID != outer.ID || len(w.rooms) > 1 || len(w.open) > 1 {
					t.Errorf("left behind: %v %v %v", w.saved, w.rooms, w.open)
				}
			})
		})
	}
}

// A lease that ends before it is known that it has no scope takes nobody else's
// wall along.
func TestWallsOutliveALeaseWithoutScope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		w.enclosed, w.expected = true, func(lease string) string { return "scope-" + lease }
		stays := w.begin(t, process(200, 50), "short")
		w.begin(t, process(100, 50), "ops")
		w.moving = func() error {
			time.Sleep(time.Second)
			w.end(id(100), 0)
			return errors.New("the manager hangs")
		}
		_, err := w.Begin(t.Context(), process(101, 100, 50), leaseRequest("ops"))
		wantCode(t, err, broker.CodeDenied)
		synctest.Wait()
		w.scopes[id(201)] = stays.Scope // whose parents are gone
		wantCode(t, w.as(t, process(201), "ops"), broker.CodeDenied)
	})
}

// A lease that ends before it has begun has its start recorded before its end,
// or neither, and takes no other's wall along.
func TestInnerLeaseEndsBeforeItBegins(t *testing.T) {
	for name, enclosed := range map[string]error{"enclosed": nil, "not enclosed": errors.New("the manager hangs")} {
		for _, when := range []string{"before it is recorded", "while it is enclosed"} {
			t.Run(name+", "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newLeased(t)
					w.enclosed, w.expected = true, func(lease string) string { return "scope-" + lease }
					other := w.begin(t, process(60), "ops2")
					w.begin(t, process(100, 50), "ops")
					var outer sync.Once
					w.log.before = func(e broker.Event) {
						if e.Kind == broker.EventLeaseStarted && when == "before it is recorded" {
							outer.Do(func() { w.end(id(100), 0) })
						}
					}
					w.moving = func() error {
						time.Sleep(time.Second)
						outer.Do(func() { w.end(id(100), 0) })
						return enclosed
					}
					_, err := w.Begin(t.Context(), process(101, 100, 50), leaseRequest("ops"))
					wantCode(t, err, broker.CodeDenied)
					synctest.Wait()
					kinds := map[string][]broker.EventKind{}
					for _, e := range w.log.entries {
						if strings.HasPrefix(string(e.Kind), "lease.") {
							kinds[e.Lease] = append(kinds[e.Lease], e.Kind)
						}
					}
					delete(kinds, other.ID)
					for lease, got := range kinds {
						if !slices.Equal(got, []broker.EventKind{broker.EventLeaseStarted, broker.EventLeaseEnded}) {
							t.Errorf("lease %s: %v", lease, got)
						}
					}
					if len(w.saved) != 1 || len(w.rooms) != 1 || len(w.open) != 1 {
						t.Errorf("left behind: %v %v %v", w.saved, w.rooms, w.open)
					}
					w.scopes[id(70)] = other.Scope // only that tells of it
					wantCode(t, w.as(t, process(70), "ops"), broker.CodeDenied)
				})
			})
		}
	}
}

// While a lease's root is on its way into its scope, all else that is to be
// there before the command runs is done; what comes of the scope counts.
func TestScopesAreMadeMeanwhile(t *testing.T) {
	foresee := func(lease string) string { return "scope-" + lease }
	for _, tt := range []struct {
		name     string
		expected func(string) string
		enclosed bool
		err      error
		scoped   bool
	}{
		{"as foreseen", foresee, true, nil, true},
		{"elsewhere", func(lease string) string { return "/other/scope-" + lease }, true, nil, true},
		{"there is none", foresee, false, nil, false},
		{"it fails", foresee, true, errors.New("the manager hangs"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newLeased(t)
				w.enclosed, w.expected = tt.enclosed, tt.expected
				w.moving = func() error {
					time.Sleep(time.Second)
					w.fakeTree.mu.Lock()
					defer w.fakeTree.mu.Unlock()
					if len(w.saved) != 1 || w.saved[0].Scope != tt.expected(w.saved[0].ID) || !slices.Contains(w.log.kinds(), "lease.started") {
						t.Errorf("meanwhile: saved %+v, recorded %v", w.saved, w.log.kinds())
					}
					return tt.err
				}
				start := time.Now()
				g := w.begin(t, process(100, 50), "ops")
				if time.Since(start) != time.Second {
					t.Error("it began before the root was where it belongs")
				}
				want := ""
				if tt.scoped {
					want = "scope-" + g.ID
				}
				if g.Scope != want || len(w.saved) != 1 || w.saved[0].Scope != want {
					t.Errorf("scope %q, saved %+v", g.Scope, w.saved)
				}
				// Only where there are scopes is anybody's asked for.
				lost := process(104)
				w.gone[lost.ID] = broker.Exit{}
				if err := w.as(t, lost, "ops2"); (err != nil) != tt.scoped {
					t.Errorf("of a process that cannot be seen: %v", err)
				}
				w.end(id(100), 0)
				if err := w.as(t, lost, "ops2"); err != nil {
					t.Errorf("after the end: %v", err)
				}
			})
		})
	}
	t.Run("it is ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newLeased(t)
			w.enclosed, w.expected = true, foresee
			w.moving = func() error {
				go w.End(t.Context(), process(60), broker.EndRequest{All: true})
				time.Sleep(time.Second)
				return nil
			}
			_, err := w.Begin(t.Context(), process(100, 50), leaseRequest("ops"))
			wantCode(t, err, broker.CodeDenied)
			synctest.Wait()
			if kinds := w.log.kinds(); !slices.Contains(kinds, "lease.ended") || len(w.saved) != 0 || len(w.rooms) != 0 || len(w.open) != 0 {
				t.Errorf("%v; left behind: %v %v %v", kinds, w.saved, w.rooms, w.open)
			}
		})
	})
}

// Everything is there, and recorded, before the command runs; a lease that
// cannot begin leaves nothing behind.
func TestBeginIsRecordedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		g := w.begin(t, process(100, 50), "ops", "short")
		wantKinds(t, w.world, "session.requested", "session.issued", "session.requested", "session.issued", "lease.started")
		last := w.log.entries[4]
		if last.Lease != g.ID || last.Profile != "ops" || last.Session.ID == "" || last.Reason != "ticket 4711" || !w.log.durable[4] || last.Caller.PID != 100 {
			t.Errorf("%+v", last)
		}
		if len(w.saved) != 1 || w.saved[0].ID != g.ID || w.saved[0].Port != 4711 || w.saved[0].Boot != "boot-1" {
			t.Errorf("saved %+v", w.saved)
		}
		// Sessions are its own.
		if err := w.as(t, process(60, 50), "ops"); err != nil || w.sts.count() != 3 {
			t.Errorf("outside: %v, %d calls", err, w.sts.count())
		}
		w.end(id(100), 0)
		if kinds := w.log.kinds()[5:]; !slices.Contains(kinds, "lease.ended") || len(w.saved) != 0 || len(w.rooms) != 0 || len(w.open) != 0 {
			t.Errorf("%v; left behind: %v %v %v", kinds, w.saved, w.rooms, w.open)
		}
	})
	for name, spoil := range map[string]func(leased){
		"log": func(w leased) {
			w.log.fail = func(e broker.Event) error {
				if e.Kind == broker.EventLeaseStarted {
					return broker.Errorf(broker.CodeLogUnwritable, "disk full")
				}
				return nil
			}
		},
		"book":  func(w leased) { w.saveErr = errors.New("read-only") },
		"port":  func(w leased) { w.portErr = errors.New("no ports") },
		"watch": func(w leased) { w.gone[id(100)] = broker.Exit{} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newLeased(t)
				spoil(w)
				g, err := w.Begin(t.Context(), process(100, 50), leaseRequest("ops"))
				if err == nil || g.ID != "" {
					t.Fatalf("%+v, %v", g, err)
				}
				w.saveErr = nil
				if len(w.rooms) != 0 || len(w.open) != 0 {
					t.Errorf("left behind: %v %v", w.rooms, w.open)
				}
				started, ended := 0, 0
				for _, k := range w.log.kinds() {
					started, ended = started+count(k == "lease.started"), ended+count(k == "lease.ended")
				}
				if started != ended {
					t.Errorf("started %d, ended %d", started, ended)
				}
				if err := w.as(t, process(101, 100, 50), "ops2"); err != nil {
					t.Errorf("a wall is left: %v", err)
				}
				st, _ := w.Status(t.Context())
				for _, s := range st.Sessions {
					if s.Profile == "ops" {
						t.Errorf("a session is left: %+v", s)
					}
				}
			})
		})
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// What cannot be a lease is refused before anything is made.
func TestBeginRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		unseen := process(100)
		unseen.Resolved = false
		odd := leaseRequest("ops")
		odd.Serve = "telnet"
		relative := leaseRequest("ops")
		relative.Program = "gatepass"
		for name, try := range map[string]struct {
			caller broker.Caller
			req    broker.LeaseRequest
			code   broker.Code
		}{
			"unseen":   {unseen, leaseRequest("ops"), broker.CodeDenied},
			"no pid":   {broker.Caller{UID: 1000, Resolved: true}, leaseRequest("ops"), broker.CodeDenied},
			"no name":  {process(100), leaseRequest(""), broker.CodeUsage},
			"twice":    {process(100), leaseRequest("ops", "ops"), broker.CodeUsage},
			"unknown":  {process(100), leaseRequest("nowhere"), broker.CodeNotFound},
			"serve":    {process(100), odd, broker.CodeUsage},
			"relative": {process(100), relative, broker.CodeUsage},
		} {
			if _, err := w.Begin(t.Context(), try.caller, try.req); broker.CodeOf(err) != try.code {
				t.Errorf("%s: %v", name, err)
			}
		}
		if w.sts.count() != 0 || len(w.rooms) != 0 {
			t.Errorf("%d calls, rooms %v", w.sts.count(), w.rooms)
		}
	})
}

// A lease's session is renewed while its process lives, used or not, and its
// SDKs never meet an expired one.
func TestLeasesAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		g := w.begin(t, process(100, 50), "ops")
		for range 36 { // three hours
			time.Sleep(5 * time.Minute)
			got, err := w.LeaseCredentials(t.Context(), g.ID, process(101, 100, 50))
			if err != nil || time.Until(got.Credentials.Expires) < 25*time.Minute {
				t.Fatalf("%v: %s left", err, time.Until(got.Credentials.Expires))
			}
		}
		if n := w.sts.count(); n < 4 || n > 8 {
			t.Errorf("%d sessions in three hours", n)
		}
		if told := w.heard(); len(told) > 0 {
			t.Errorf("warned of what is renewed: %q", told)
		}
		w.end(id(100), 0)
		n := w.sts.count()
		time.Sleep(2 * time.Hour)
		if w.sts.count() != n {
			t.Error("a lease that has ended is renewed")
		}
	})
}

// Where nothing is renewed the sessions of the beginning are served to their
// end, and then the rule decides.
func TestLeasesThatAreNotRenewed(t *testing.T) {
	for _, atExpiry := range []string{"warn", "end"} {
		synctest.Test(t, func(t *testing.T) {
			w := newLeased(t)
			w.world.leases.Renew, w.world.leases.AtExpiry = "ask", atExpiry
			w.world.start()
			g := w.begin(t, process(100, 50), "ops")
			child := process(101, 100, 50)
			time.Sleep(59 * time.Minute)
			if err := w.as(t, child, ""); err != nil || w.sts.count() != 1 {
				t.Errorf("%v, %d calls", err, w.sts.count())
			}
			_, err := w.Begin(t.Context(), child, leaseRequest("ops"))
			wantCode(t, err, broker.CodeDenied)
			if _, err := w.Renew(t.Context(), child, "", broker.Request{Reachable: broker.Reachable{Known: true}}); err != nil || w.sts.count() != 2 {
				t.Errorf("renew: %v, %d calls", err, w.sts.count())
			}
			time.Sleep(59 * time.Minute)
			if err := w.as(t, child, "ops"); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Minute)
			err = w.as(t, child, "")
			wantCode(t, err, broker.CodeDenied)
			if !strings.Contains(err.Error(), "expired") || !strings.Contains(broker.AsError(err).Hint, "gatepass renew") {
				t.Errorf("%v", err)
			}
			_, err = w.LeaseCredentials(t.Context(), g.ID, child)
			wantCode(t, err, broker.CodeDenied)
			time.Sleep(time.Hour)
			want := []string(nil)
			if atExpiry == "end" {
				want = []string{"HUP", "TERM", "KILL"}
			}
			if !slices.Equal(w.sent(), want) {
				t.Errorf("%s: signals %v", atExpiry, w.sent())
			}
			told := "lease " + g.ID + " of profile ops expires in 5 min"
			if atExpiry == "end" {
				told += ", and its processes are ended"
			}
			told += "; to go on: gatepass renew " + g.ID + " on /dev/pts/3"
			if got := w.heard(); !slices.Equal(got, []string{told, told}) { // of the first session, and of the renewed one
				t.Errorf("%s: told %q", atExpiry, got)
			}
		})
	}
}

// A process that asked for a lease inside another has left that one's scope,
// whatever became of the lease: the wall is around it still.
func TestInnerLeaseThatCannotBegin(t *testing.T) {
	for name, spoil := range map[string]func(leased){
		"book": func(w leased) { w.saveErr = errors.New("read-only") },
		"port": func(w leased) { w.portErr = errors.New("no ports") },
		"the outer one ends": func(w leased) {
			w.moving = func() error { w.end(id(100), 0); return nil }
		},
		"the outer one is about to end": func(w leased) {
			w.sts.inCall(func(string) error {
				go w.End(context.Background(), process(60), broker.EndRequest{All: true})
				time.Sleep(time.Second)
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newLeased(t)
				w.enclosed, w.expected = true, func(lease string) string {
					w.fakeTree.mu.Lock()
					defer w.fakeTree.mu.Unlock()
					w.scopes[id(103)] = "scope-" + lease // only that tells of it
					return "scope-" + lease
				}
				w.begin(t, process(100, 50), "ops")
				spoil(w)
				made := func() error { return nil }
				if w.moving != nil {
					made = w.moving
				}
				w.moving = func() error {
					time.Sleep(time.Second)
					err := made()
					w.fakeTree.mu.Lock()
					defer w.fakeTree.mu.Unlock()
					w.left[w.scopes[id(103)]] = []broker.Process{{PID: 103, ID: id(103)}}
					return err
				}
				_, err := w.Begin(t.Context(), process(101, 100, 50), leaseRequest("ops"))
				if err == nil {
					t.Fatal("it began")
				}
				synctest.Wait()
				w.saveErr = nil
				wantCode(t, w.as(t, process(103), "ops"), broker.CodeDenied)
				wantCode(t, w.as(t, process(103), "ops2"), broker.CodeDenied)
				w.end(id(100), 0)
				wantCode(t, w.as(t, process(103), "ops2"), broker.CodeDenied)
				w.end(id(103), 0)
				synctest.Wait()
				if len(w.saved) != 0 || len(w.rooms) != 0 || len(w.open) != 0 {
					t.Errorf("left behind: %v %v %v", w.saved, w.rooms, w.open)
				}
				kinds := map[string][]broker.EventKind{}
				for _, e := range w.log.entries {
					if strings.HasPrefix(string(e.Kind), "lease.") {
						kinds[e.Lease] = append(kinds[e.Lease], e.Kind)
					}
				}
				for lease, got := range kinds {
					if !slices.Equal(got, []broker.EventKind{broker.EventLeaseStarted, broker.EventLeaseEnded}) {
						t.Errorf("lease %s: %v", lease, got)
					}
				}
			})
		})
	}
}

// A scope that cannot be watched is looked at again, until its lease is
// released, also in the middle of a look.
func TestReleasedWhileLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		w.enclosed, w.emptyErr = true, errors.New("too many open files")
		g := w.begin(t, process(100, 50), "ops")
		looks := 0
		w.looked = func() {
			if looks++; looks == 3 {
				if _, err := w.End(t.Context(), process(60), broker.EndRequest{Leases: []string{g.ID}, Release: true}); err != nil {
					t.Error(err)
				}
			}
		}
		w.end(id(100), 0)
		time.Sleep(time.Minute)
		synctest.Wait()
		if looks != 3 || len(w.saved) != 0 {
			t.Errorf("looked %d times, saved %+v", looks, w.saved)
		}
	})
}

// A process inside a lease that asks for another and hangs up is moved out of
// the outer one's scope all the same: it is outside of no wall.
func TestInnerLeaseWithoutAnyoneWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		w.enclosed = true
		w.begin(t, process(100, 50), "ops")
		w.expected = func(lease string) string {
			w.scopes[id(103)] = "scope-" + lease // only that tells of it
			w.left["scope-"+lease] = []broker.Process{{PID: 103, ID: id(103)}}
			return "scope-" + lease
		}
		ctx, hangUp := context.WithCancel(t.Context())
		w.moving = func() error {
			time.Sleep(time.Second)
			hangUp()
			return nil
		}
		w.Begin(ctx, process(101, 100, 50), leaseRequest("ops"))
		w.end(id(101), 0)
		wantCode(t, w.as(t, process(103), "ops2"), broker.CodeDenied)
	})
}

// A lease that ended before its root was watched is released with all that
// watches it.
func TestReleasedBeforeItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		w.enclosed, w.expected = true, func(lease string) string {
			w.left["scope-"+lease] = []broker.Process{{PID: 103, ID: id(103)}}
			return "scope-" + lease
		}
		w.begin(t, process(100, 50), "ops")
		w.log.before = func(e broker.Event) {
			if e.Kind == broker.EventLeaseStarted {
				w.end(id(100), 0)
			}
		}
		_, err := w.Begin(t.Context(), process(101, 100, 50), leaseRequest("ops"))
		wantCode(t, err, broker.CodeDenied)
		if len(w.empty) != 2 {
			t.Errorf("%d scopes are watched, want both", len(w.empty))
		}
		if _, err := w.End(t.Context(), process(60), broker.EndRequest{All: true, Release: true}); err != nil {
			t.Error(err)
		}
		if len(w.empty) != 0 || len(w.saved) != 0 {
			t.Errorf("%d scopes are watched, saved %+v", len(w.empty), w.saved)
		}
	})
}

// A lease that is released while it ends is recorded as it ended.
func TestReleasedWhileItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		g := w.begin(t, process(100, 50), "ops")
		w.log.before = func(e broker.Event) {
			if e.Kind == broker.EventSessionEnded {
				if _, err := w.End(t.Context(), process(60), broker.EndRequest{Leases: []string{g.ID}, Release: true}); err != nil {
					t.Error(err)
				}
			}
		}
		w.end(id(100), 3)
		var reasons []string
		for _, e := range w.log.entries {
			if e.Kind == broker.EventLeaseEnded {
				reasons = append(reasons, e.Reason)
			}
		}
		if want := []string{"exit status 3, after 0s, 0 hand-outs"}; !slices.Equal(reasons, want) {
			t.Errorf("ended with %q, want %q", reasons, want)
		}
	})
}

// What a process says of itself renews nothing.
func TestWhoSaysThatItRenews(t *testing.T) {
	for _, renew := range []string{"never", "ask"} {
		synctest.Test(t, func(t *testing.T) {
			w := newLeased(t)
			w.world.leases.Renew = renew
			w.world.start()
			w.begin(t, process(100, 50), "ops")
			for _, after := range []time.Duration{50 * time.Minute, 20 * time.Minute} {
				time.Sleep(after)
				for _, via := range []string{"renew", "daemon", "exec", "export"} {
					child := process(101, 100, 50)
					child.Via = via
					w.as(t, child, "ops")
					w.WhoAmI(t.Context(), child, broker.Request{})
				}
			}
			if roles := len(w.sts.roles); roles != 1 || slices.Contains(w.log.kinds(), "lease.renewed") {
				t.Errorf("renew %s: %d sessions, %v", renew, roles, w.log.kinds())
			}
		})
	}
}

// An environment cannot be renewed, so such a lease never is.
func TestEnvLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		req := leaseRequest("ops")
		req.Serve = "env"
		g, err := w.Begin(t.Context(), process(100, 50), req)
		if err != nil || g.Renewable || g.Credentials.SecretAccessKey.IsZero() || g.Port != 0 || len(w.open) != 0 {
			t.Fatalf("%+v, %v", g.Lease, err)
		}
		wantKinds(t, w.world, "session.requested", "session.issued", "lease.started", "credentials.served")
		_, err = w.Renew(t.Context(), process(101, 100, 50), "", broker.Request{})
		wantCode(t, err, broker.CodeDenied)
	})
}

// An IMDS endpoint asks for no token that outsiders do not get, so who is seen
// there must be inside; and no endpoint is for who was told another profile.
func TestWhoAnEndpointIsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		g := w.begin(t, process(100, 50), "ops")
		w.begin(t, process(102, 100, 50), "ops")
		for caller, served := range map[*broker.Caller]bool{
			new(process(101, 100, 50)):      true,
			new(process(103, 102, 100, 50)): true,
			new(process(60, 50)):            false,
		} {
			for _, via := range []string{"imds", "container"} {
				caller.Via = via
				_, err := w.LeaseCredentials(t.Context(), g.ID, *caller)
				if (err == nil) != (served || via == "container") {
					t.Errorf("process %d via %s: %v", caller.PID, via, err)
				}
			}
		}
		for profile, served := range map[string]bool{"": true, "ops": true, "default": true, "ops2": false, "short": false} {
			caller := process(101, 100, 50)
			caller.Via, caller.Profile = "container", profile
			if _, err := w.LeaseCredentials(t.Context(), g.ID, caller); (err == nil) != served {
				t.Errorf("with AWS_PROFILE=%s: %v", profile, err)
			}
			last := w.log.entries[len(w.log.entries)-1]
			if !served && (last.Kind != broker.EventRequestDenied || last.Profile != profile || last.Lease != g.ID) {
				t.Errorf("with AWS_PROFILE=%s the entry is %+v", profile, last)
			}
		}
		root := process(100, 50) // who was not found is taken for the root
		root.Via, root.Resolved = "imds", false
		if _, err := w.LeaseCredentials(t.Context(), g.ID, root); err != nil {
			t.Error(err)
		}
	})
}

// Shared sessions are everybody's: they outlast the lease that was first.
func TestLeasesThatShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		w.world.leases.Session = "shared"
		w.world.start()
		for pid := 100; pid < 103; pid++ {
			w.begin(t, process(pid, 50), "ops")
			st, err := w.Status(t.Context())
			if err != nil || len(st.Leases) != 1 || st.Leases[0].Expires.IsZero() {
				t.Errorf("%v: %+v", err, st.Leases)
			}
			w.end(id(pid), 0)
		}
		if err := w.as(t, process(60), "ops"); err != nil || w.sts.count() != 1 {
			t.Errorf("%v, %d calls", err, w.sts.count())
		}
	})
}

// One process may be the root of a lease and of one below it.
func TestLeasesOfOneRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		w.begin(t, process(100, 50), "ops", "short")
		inner := w.begin(t, process(100, 50), "short")
		wantCode(t, w.as(t, process(101, 100, 50), "ops"), broker.CodeDenied)
		time.AfterFunc(time.Second, func() { w.end(id(100), 129) })
		if _, err := w.End(t.Context(), process(60), broker.EndRequest{Leases: []string{inner.ID}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // the outer one ends too
		synctest.Wait()
		st, _ := w.Status(t.Context())
		if len(st.Leases) != 0 || len(w.saved) != 0 {
			t.Errorf("left behind: %+v", st.Leases)
		}
		if err := w.as(t, process(101, 100, 50), "ops2"); err != nil {
			t.Errorf("a wall is left: %v", err)
		}
	})
}

// From inside, a lease's own profiles make a lease below it, which ends with
// its own process and holds no more.
func TestLeasesBelowLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		outer := w.begin(t, process(100, 50), "ops", "short")
		inner := w.begin(t, process(101, 100, 50), "short")
		if inner.Parent != outer.ID {
			t.Errorf("parent %q", inner.Parent)
		}
		deep := process(102, 101, 100, 50)
		if err := w.as(t, deep, ""); err != nil {
			t.Error(err)
		}
		wantCode(t, w.as(t, deep, "ops"), broker.CodeDenied)
		before := len(w.log.entries)
		for pid, want := range map[int]string{50: "", 60: "", 100: outer.ID, 101: inner.ID, 102: inner.ID, 103: outer.ID} {
			caller := process(pid, 50)
			switch pid {
			case 101, 103:
				caller = process(pid, 100, 50)
			case 102:
				caller = deep
			}
			if l, ok := w.OwnLease(caller); l.ID != want || ok != (want != "") {
				t.Errorf("process %d is inside %q, %v, want %q", pid, l.ID, ok, want)
			}
		}
		unseen := process(70)
		unseen.Resolved = false
		if l, ok := w.OwnLease(unseen); ok || len(w.log.entries) != before {
			t.Errorf("one that cannot be seen is inside %q, and the log has %d entries more", l.ID, len(w.log.entries)-before)
		}
		_, err := w.End(t.Context(), deep, broker.EndRequest{Leases: []string{outer.ID}})
		wantCode(t, err, broker.CodeDenied)
		if _, err := w.End(t.Context(), process(103, 100, 50), broker.EndRequest{Leases: []string{inner.ID}}); err != nil {
			t.Errorf("from the outer one: %v", err)
		}
		w.end(id(101), 0)
		if err := w.as(t, process(103, 100, 50), "ops"); err != nil {
			t.Error(err)
		}
	})
}

// Another lease may write down that one has ended before the log says so. If
// the daemon is killed then, the next one says it, and no other does again.
func TestEndIsRecordedAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		w.enclosed = true
		g := w.begin(t, process(100, 50), "ops")
		w.left["scope-"+g.ID] = []broker.Process{{PID: 101, ID: id(101)}}
		var killed []broker.Lease
		var before []broker.Event
		w.log.before = func(e broker.Event) {
			if e.Kind == broker.EventLeaseEnded {
				w.log.before = nil
				w.begin(t, process(200, 50), "ops2")
				killed, before = w.saved, slices.Clone(w.log.entries)
			}
		}
		w.end(id(100), 0)
		for run := range 2 {
			if run == 0 {
				w.saved, w.log.entries = killed, before
			}
			w.restart()
			if err := w.Broker.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, e := range w.log.entries {
				if e.Kind == broker.EventLeaseEnded && e.Lease == g.ID {
					n++
				}
			}
			if n != 1 {
				t.Errorf("run %d: %d ends of the lease", run, n)
			}
		}
	})
}

// A restart of the daemon finds its leases again: the living at their port,
// the dead get their end.
func TestLeasesSurviveARestart(t *testing.T) {
	for name, tt := range map[string]struct {
		meanwhile func(leased)
		lives     bool
		why       string
	}{
		"alive":      {func(leased) {}, true, ""},
		"dead":       {func(w leased) { w.gone[id(100)] = broker.Exit{} }, false, "while no daemon ran"},
		"reboot":     {func(w leased) { w.boot = "boot-2" }, false, "the machine was restarted"},
		"port taken": {func(w leased) { w.portErr = errors.New("address in use") }, false, "address in use"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newLeased(t)
				g := w.begin(t, process(100, 50), "ops")
				if err := w.Close(t.Context(), "restart"); err != nil {
					t.Fatal(err)
				}
				if slices.Contains(w.log.kinds(), "lease.ended") {
					t.Error("ended with the daemon")
				}
				tt.meanwhile(w)
				w.restart()
				if err := w.Broker.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				child := process(101, 100, 50)
				if tt.lives {
					if _, err := w.LeaseCredentials(t.Context(), g.ID, child); err != nil {
						t.Error(err)
					}
					wantCode(t, w.as(t, child, "ops2"), broker.CodeDenied)
					w.end(id(100), 0)
				} else if err := w.as(t, child, "ops2"); err != nil {
					t.Errorf("a wall is left: %v", err)
				}
				last := w.log.entries[len(w.log.entries)-1]
				for i := len(w.log.entries) - 1; i >= 0 && last.Kind != broker.EventLeaseEnded; i-- {
					last = w.log.entries[i]
				}
				if last.Kind != broker.EventLeaseEnded || last.Lease != g.ID || !strings.Contains(last.Reason, tt.why) || len(w.saved) != 0 {
					t.Errorf("%+v, saved %v", last, w.saved)
				}
			})
		})
	}
}

// A bookAt runs saved after each time that the leases were written down.
type bookAt struct {
	*fakeTree
	saved func([]broker.Lease)
}

func (b bookAt) SaveLeases(all []broker.Lease) error {
	err := b.fakeTree.SaveLeases(all)
	b.saved(slices.Clone(all))
	return err
}

// However far a daemon comes with the leases of the one before, those that it
// has not come to are still written down.
func TestKilledWhileItRestores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		w.begin(t, process(100, 50), "ops")
		time.Sleep(time.Second)
		alive := w.begin(t, process(200, 50), "ops")
		w.gone[id(100)] = broker.Exit{}
		w.world.leases = w.fakeTree.leases()
		w.world.leases.Book = bookAt{w.fakeTree, func(all []broker.Lease) {
			if !slices.ContainsFunc(all, func(l broker.Lease) bool { return l.ID == alive.ID }) {
				t.Errorf("the one that lives is not among %+v", all)
			}
		}}
		w.world.start()
		if err := w.Broker.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// Where a root has several leases, each keeps its wall until it has ended,
// whichever of them end before.
func TestLeasesOfOneRootThatEndOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		for range 3 {
			w.begin(t, process(100, 50), "ops")
			time.Sleep(time.Second)
		}
		w.world.leases = w.fakeTree.leases()
		opened := 0
		w.world.leases.Endpoints = endpointsOf{fakeEndpoints{w.fakeTree}, func() error {
			if opened++; opened > 1 {
				return errors.New("address in use")
			}
			return nil
		}}
		w.world.start()
		if err := w.Broker.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(w.fakeTree.saved) != 1 {
			t.Fatalf("%d leases stand", len(w.fakeTree.saved))
		}
		wantCode(t, w.as(t, process(101, 100, 50), "ops2"), broker.CodeDenied)
	})
}

// endpointsOf are opened unless open fails.
type endpointsOf struct {
	fakeEndpoints
	open func() error
}

func (e endpointsOf) Open(l *broker.Lease) (int, error) {
	if err := e.open(); err != nil {
		return 0, err
	}
	return e.fakeEndpoints.Open(l)
}

// A lease that has another session by now does not end with the one before,
// and nobody is warned of that one's end.
func TestRenewedUnderAnotherMeaning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLeased(t)
		p := &changingProfiles{fakeProfiles: w.profiles.(fakeProfiles)}
		w.profiles = p
		w.world.leases.Renew, w.world.leases.AtExpiry = "ask", "end"
		w.world.start()
		g := w.begin(t, process(100, 50), "ops")
		time.Sleep(30 * time.Minute)
		p.change("ops", func(c *profiles.Chain) { c.Hops[0].SessionName = "another" })
		if _, err := w.Renew(t.Context(), process(60), g.ID, broker.Request{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Minute)
		if got := w.sent(); len(got) != 0 || len(w.heard()) != 0 {
			t.Errorf("sent %q, told %q", got, w.heard())
		}
		if err := w.as(t, process(101, 100, 50), "ops"); err != nil {
			t.Error(err)
		}
		time.Sleep(21 * time.Minute)
		if got := w.sent(); len(got) == 0 {
			t.Error("the last session ended, and no process")
		}
	})
}

// What is served is recorded before its lease, or its session, has ended, or
// does not leave.
func TestEndedWhileServed(t *testing.T) {
	for name, end := range map[string]func(w leased){
		"the lease": func(w leased) { w.end(id(100), 0) },
		"the key": func(w leased) {
			if err := w.RemoveKey(context.Background(), process(60), "alice", broker.Reachable{}); err != nil {
				panic(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newLeased(t)
				g := w.begin(t, process(100, 50), "ops")
				w.log.before = func(e broker.Event) {
					if e.Kind == broker.EventCredentialsServed {
						w.log.before = nil
						end(w)
					}
				}
				child := process(101, 100, 50)
				if _, err := w.LeaseCredentials(t.Context(), g.ID, child); err == nil {
					t.Errorf("served after %q", w.log.kinds())
				}
			})
		})
		t.Run(name+", in an environment", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newLeased(t)
				w.log.before = func(e broker.Event) {
					if e.Kind == broker.EventCredentialsServed {
						w.log.before = nil
						end(w)
					}
				}
				req := leaseRequest("ops")
				req.Serve = "env"
				if _, err := w.Begin(t.Context(), process(100, 50), req); err == nil {
					t.Errorf("served after %q", w.log.kinds())
				}
			})
		})
	}
}
