package broker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
	"gatepass/profiles"
)

const aliceID = "AKIAALICE00000000001"

// who asks as gatepass whoami does, with a terminal that nobody may use.
func (w *world) who(t *testing.T, profile string) (broker.IdentityDetail, error) {
	t.Helper()
	caller := cli
	caller.Program, caller.Via = "gatepass", "whoami"
	w.sts.id = broker.Identity{Account: "111122223333", ARN: "arn:aws:sts::111122223333:assumed-role/Deploy/alice-s1", UserID: "AROA:alice-s1"}
	return w.WhoAmI(t.Context(), caller, broker.Request{Profile: profile, Reachable: broker.Reachable{Known: true}})
}

func (w *world) mustWho(t *testing.T, profile string) broker.IdentityDetail {
	t.Helper()
	d, err := w.who(t, profile)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// unknown returns what d says of something that could not be seen.
func unknown(t *testing.T, d broker.IdentityDetail, what string) broker.Unknown {
	t.Helper()
	i := slices.IndexFunc(d.Unknown, func(u broker.Unknown) bool { return u.What == what })
	if i < 0 {
		t.Fatalf("%s is not among what is unknown: %+v", what, d.Unknown)
	}
	return d.Unknown[i]
}

// denies is IAM's refusal of a call.
func denies(action string) error {
	e := &broker.AWSRefusal{Code: "AccessDenied", Text: "AWS refused: AccessDenied: not authorized to perform: iam:" + action}
	return broker.Errorf(broker.CodeAWSDenied, "%w", e).WithHint("or only with MFA")
}

func groupsOf(names ...string) func(context.Context, string) ([]string, error) {
	return func(context.Context, string) ([]string, error) { return names, nil }
}

// deniesKeys refuses what long-term keys sign, and tells sessions.
func deniesKeys(names ...string) func(context.Context, string) ([]string, error) {
	return func(_ context.Context, id string) ([]string, error) {
		if strings.HasPrefix(id, "AKIA") {
			return nil, denies("ListGroupsForUser")
		}
		return names, nil
	}
}

func TestWhoAmI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.iam.groups = groupsOf("on-call", "developers")
		enabled := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
		w.iam.devices = func(context.Context, string) ([]broker.MFADevice, error) {
			return []broker.MFADevice{{Serial: device, Enabled: enabled}}, nil
		}
		d := w.mustWho(t, "ops")
		if d.Identity != w.sts.id || d.Profile != "ops" || d.Session == nil || d.Session.RoleARN != roleARN || time.Until(d.Session.Expires) != time.Hour {
			t.Errorf("%+v", d)
		}
		if want := (broker.KeyUser{ARN: userARN, Name: "alice", Account: "111122223333", Key: "alice", AccessKeyID: aliceID}); d.User != want {
			t.Errorf("user %+v", d.User)
		}
		if !slices.Equal(d.Groups, []string{"developers", "on-call"}) || len(d.MFA.Devices) != 1 || d.MFA.Devices[0].Serial != device || len(d.MFA.Proofs) != 0 || len(d.Unknown) != 0 {
			t.Errorf("%+v", d)
		}
		// What is listed as within reach is what profiles list shows so.
		var want, got []string
		_, byName := listProfiles(t, w)
		for name, p := range byName {
			if p.Key == "alice" && p.RoleARN != "" && p.Reachable == broker.ReachYes {
				want = append(want, name)
			}
		}
		slices.Sort(want)
		for _, r := range d.Roles {
			got = append(got, r.Profile)
			if r.RoleARN != byName[r.Profile].RoleARN || r.Account != byName[r.Profile].Account {
				t.Errorf("role %+v", r)
			}
			if (r.Profile == "mfa") != (r.MFASerial == device) && r.Profile != "long" && r.Profile != "program" {
				t.Errorf("role %+v", r)
			}
			if r.Profile == "chain" && !slices.Equal(r.Through, []string{roleARN}) || r.Profile == "ops" && r.Through != nil {
				t.Errorf("role %+v", r)
			}
		}
		if !slices.Equal(got, want) || len(got) < 5 {
			t.Errorf("roles of %q, want %q", got, want)
		}

		// The session is recorded as any other, and the key's secret is gone.
		wantKinds(t, w, "session.requested", "session.issued", "credentials.served")
		if e := w.log.entries[2]; e.Caller.Via != "whoami" || e.Session.ID != d.Session.ID {
			t.Errorf("entry %+v", e)
		}
		slices.Sort(w.iam.calls)
		if !slices.Equal(w.iam.calls, []string{"devices of " + userARN + " with " + aliceID, "groups of " + userARN + " with " + aliceID}) {
			t.Errorf("IAM was asked %q", w.iam.calls)
		}
		for _, s := range w.keys.read {
			if strings.Trim(s.Reveal(), "\x00") != "" {
				t.Error("a secret was not cleared")
			}
		}
	})
}

// What programs read of it: the identity at the top as before, what is not
// known absent and told.
func TestWhoAmIJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.run(t.Context(), w.person(7, "mfa", types("123456"))); err != nil {
			t.Fatal(err)
		}
		w.profiles = fakeProfiles{"chain": {Profile: "chain", Key: "alice", MFASerial: device, Hops: []profiles.Hop{
			{Profile: "ops", RoleARN: roleARN},
			{Profile: "chain", RoleARN: "arn:aws:iam::444455556666:role/Far"},
		}}}
		w.start()
		w.iam.groups = func(context.Context, string) ([]string, error) { return nil, denies("ListGroupsForUser") }
		w.iam.devices = func(context.Context, string) ([]broker.MFADevice, error) {
			return []broker.MFADevice{{Serial: device, Enabled: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}}, nil
		}
		d := w.mustWho(t, "chain")
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		if err := json.Unmarshal(text, &doc); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		flatten(got, "", doc)
		want := map[string]string{
			"account": "111122223333", "arn": w.sts.id.ARN, "user_id": "AROA:alice-s1", "profile": "chain",
			"session.id": d.Session.ID, "session.profile": "chain", "session.account": "444455556666",
			"session.role_arn": "arn:aws:iam::444455556666:role/Far", "session.key": "alice", "session.access_key_id": d.Session.AccessKeyID,
			"session.issued": "2000-01-01T00:00:00Z", "session.expires": "2000-01-01T01:00:00Z", "session.served": "1", "session.last_served": "2000-01-01T00:00:00Z",
			"user.arn": userARN, "user.name": "alice", "user.account": "111122223333", "user.key": "alice", "user.access_key_id": aliceID,
			"mfa.devices.0.mfa_serial": device, "mfa.devices.0.enabled": "2020-01-01T00:00:00Z",
			"mfa.proofs.0.key": "alice", "mfa.proofs.0.mfa_serial": device,
			"mfa.proofs.0.verified": "2000-01-01T00:00:00Z", "mfa.proofs.0.expires": "2000-01-01T08:00:00Z",
			"roles.0.profile": "chain", "roles.0.role_arn": "arn:aws:iam::444455556666:role/Far", "roles.0.account": "444455556666",
			"roles.0.through.0": roleARN, "roles.0.mfa_serial": device,
			"unknown.0.what": "groups", "unknown.0.permission": "iam:ListGroupsForUser", "unknown.0.code": "aws_denied",
			"unknown.0.message": "IAM denies iam:ListGroupsForUser, with MFA too", "unknown.0.hint": "allow the user iam:ListGroupsForUser on itself",
			"unknown.0.detail": "AWS refused: AccessDenied: not authorized to perform: iam:ListGroupsForUser",
		}
		for _, path := range slices.Sorted(maps.Keys(want)) {
			value, ok := got[path]
			if at, err := time.Parse(time.RFC3339, value); err == nil { // in whatever zone
				value = at.UTC().Format(time.RFC3339)
			}
			if !ok || value != want[path] {
				t.Errorf("%s is %q, want %q", path, value, want[path])
			}
			delete(got, path)
		}
		if len(got) > 0 {
			t.Errorf("there is more: %v", got)
		}
		if strings.Contains(string(text), "secret") || strings.Contains(string(text), "session-token") {
			t.Errorf("a secret is in %s", text)
		}

		// Nothing is not the same as not known.
		w.iam.groups, w.iam.devices = nil, nil
		text, err = json.Marshal(w.mustWho(t, "chain"))
		if err != nil || !strings.Contains(string(text), `"groups":[],"mfa":{"devices":[],`) || strings.Contains(string(text), "unknown") {
			t.Errorf("%s, %v", text, err)
		}
	})
}

// flatten puts the values of a JSON document into into, by their paths.
func flatten(into map[string]string, path string, doc any) {
	under := func(name string) string { return strings.TrimPrefix(path+"."+name, ".") }
	switch v := doc.(type) {
	case map[string]any:
		for name, value := range v {
			flatten(into, under(name), value)
		}
	case []any:
		for i, value := range v {
			flatten(into, under(strconv.Itoa(i)), value)
		}
	default:
		into[path] = fmt.Sprint(v)
	}
}

// The calls wait for AWS together, not one after the other.
func TestWhoAmIAsksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(t, "ops")
		w.sts.inCall(func(string) error { time.Sleep(3 * time.Second); return nil })
		w.iam.groups = func(context.Context, string) ([]string, error) { time.Sleep(3 * time.Second); return nil, nil }
		w.iam.devices = func(context.Context, string) ([]broker.MFADevice, error) {
			time.Sleep(3 * time.Second)
			return nil, nil
		}
		start := time.Now()
		if w.mustWho(t, "ops"); time.Since(start) != 3*time.Second {
			t.Errorf("it took %v", time.Since(start))
		}
	})
}

// Where IAM wants MFA, a proof that is kept is used, also one that only the
// keychain has; nobody is ever asked for one.
func TestWhoAmIWithMFA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.iam.groups = deniesKeys("developers")
		d := w.mustWho(t, "ops")
		u := unknown(t, d, "groups")
		if d.Groups != nil || u.Message != "IAM denies iam:ListGroupsForUser without MFA" || u.Permission != "iam:ListGroupsForUser" ||
			u.Hint != "with MFA: gatepass whoami long; or allow the user iam:ListGroupsForUser on itself" || !strings.HasPrefix(u.Detail, "AWS refused") {
			t.Errorf("%+v", u)
		}
		if len(w.sts.tokens) != 0 {
			t.Error("a code was used")
		}

		if _, err := w.run(t.Context(), w.person(7, "mfa", types("123456"))); err != nil {
			t.Fatal(err)
		}
		wantProved := func(when string) {
			t.Helper()
			w.iam.calls = nil
			d := w.mustWho(t, "ops")
			if !slices.Equal(d.Groups, []string{"developers"}) || len(d.Unknown) != 0 {
				t.Errorf("%s: %q, unknown %+v", when, d.Groups, d.Unknown)
			}
			if len(d.MFA.Proofs) != 1 || d.MFA.Proofs[0].Serial != device || d.MFA.Proofs[0].Key != "alice" || d.MFA.Proofs[0].Verified.IsZero() {
				t.Errorf("%s: proofs %+v", when, d.MFA.Proofs)
			}
			if !slices.ContainsFunc(w.iam.calls, func(c string) bool { return strings.HasPrefix(c, "groups of "+userARN+" with ASIA") }) {
				t.Errorf("%s: IAM was asked %q", when, w.iam.calls)
			}
		}
		wantProved("in memory")
		w.start()
		wantProved("in the keychain")

		// One that is about to end is shown, and not used any more.
		time.Sleep(8*time.Hour - 30*time.Minute)
		w.mustAsk(t, "mfa")
		time.Sleep(29 * time.Minute)
		d = w.mustWho(t, "mfa")
		if u := unknown(t, d, "groups"); len(d.MFA.Proofs) != 1 || !strings.HasPrefix(u.Hint, "with MFA: gatepass whoami long; or") {
			t.Errorf("%+v, proofs %+v", u, d.MFA.Proofs)
		}
		time.Sleep(time.Minute)
		if d := w.mustWho(t, "mfa"); len(d.MFA.Proofs) != 0 || len(w.sts.tokens) != 1 {
			t.Errorf("an ended proof is shown: %+v", d.MFA.Proofs)
		}
	})
}

// How to see what IAM denies depends on what is known of MFA.
func TestWhoAmIHints(t *testing.T) {
	role := func(serial string) profiles.Chain {
		return profiles.Chain{Profile: "ops", Key: "alice", Hops: []profiles.Hop{{Profile: "ops", RoleARN: roleARN, MFASerial: serial}}}
	}
	for name, tt := range map[string]struct {
		config        fakeProfiles
		devices       []broker.MFADevice
		proved        bool
		message, hint string
	}{
		"nothing": {
			config:  fakeProfiles{"ops": role("")},
			message: "IAM denies iam:ListGroupsForUser",
			hint:    "allow the user iam:ListGroupsForUser on itself; if it wants MFA, name the device in a profile of this key: mfa_serial = ARN",
		},
		"a device": {
			config:  fakeProfiles{"ops": role("")},
			devices: []broker.MFADevice{{Serial: "arn:aws:iam::111122223333:u2f/user/alice/key-1"}, {Serial: device}},
			message: "IAM denies iam:ListGroupsForUser",
			hint:    "allow the user iam:ListGroupsForUser on itself; if it wants MFA, name the device in a profile of this key: mfa_serial = " + device,
		},
		"another profile": {
			config:  fakeProfiles{"ops": role(""), "x;y": {Profile: "x;y", Key: "alice", MFASerial: device}, "bob": {Profile: "bob", Key: "bob", MFASerial: device}},
			message: "IAM denies iam:ListGroupsForUser without MFA",
			hint:    "with MFA: gatepass whoami 'x;y'; or allow the user iam:ListGroupsForUser on itself",
		},
		"denied with MFA": {
			config:  fakeProfiles{"ops": role(device)},
			proved:  true,
			message: "IAM denies iam:ListGroupsForUser, with MFA too",
			hint:    "allow the user iam:ListGroupsForUser on itself",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.profiles = tt.config
				w.start()
				w.iam.groups = func(context.Context, string) ([]string, error) { return nil, denies("ListGroupsForUser") }
				w.iam.devices = func(context.Context, string) ([]broker.MFADevice, error) { return tt.devices, nil }
				if tt.proved {
					if _, err := w.run(t.Context(), w.person(7, "ops", types("123456"))); err != nil {
						t.Fatal(err)
					}
				}
				u := unknown(t, w.mustWho(t, "ops"), "groups")
				if u.Message != tt.message || u.Hint != tt.hint || u.Code != broker.CodeAWSDenied {
					t.Errorf("%+v", u)
				}
			})
		})
	}
	// A session that outlived its proof does not ask for another by itself.
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, broker.MFA{Keep: 15 * time.Minute})
		w.profiles = fakeProfiles{"ops": role(device)}
		w.start()
		w.iam.groups = deniesKeys("developers")
		if _, err := w.run(t.Context(), w.person(7, "ops", types("123456"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Minute)
		const again = "with MFA: gatepass whoami ops --min-left 3600; or"
		if u := unknown(t, w.mustWho(t, "ops"), "groups"); !strings.HasPrefix(u.Hint, again) {
			t.Errorf("%+v", u)
		}
		p := w.person(7, "ops", types("654321"))
		p.req.MinLeft = time.Hour
		if _, err := w.run(t.Context(), p); err != nil || len(p.asked) != 1 {
			t.Errorf("asked %d times, %v", len(p.asked), err)
		}
		if d := w.mustWho(t, "ops"); !slices.Equal(d.Groups, []string{"developers"}) {
			t.Errorf("%+v", d.Unknown)
		}
	})
}

// A proof is of one key: another's neither shows nor helps.
func TestWhoAmIOfAnotherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.keys.keys["bob"] = key("bob", "AKIABOB0000000000001")
		w.profiles = fakeProfiles{
			"mfa": {Profile: "mfa", Key: "alice", MFASerial: device},
			"bob": {Profile: "bob", Key: "bob", Hops: []profiles.Hop{{Profile: "bob", RoleARN: roleARN}}},
		}
		w.start()
		if _, err := w.run(t.Context(), w.person(7, "mfa", types("123456"))); err != nil {
			t.Fatal(err)
		}
		w.iam.groups = deniesKeys("developers")
		w.vault["mfa-AKIABOB0000000000001"] = w.vault["mfa-"+aliceID] // as if somebody had put it there
		d := w.mustWho(t, "bob")
		if u := unknown(t, d, "groups"); len(d.MFA.Proofs) != 0 || strings.Contains(u.Hint, "whoami") || len(d.Roles) != 1 || d.Roles[0].Profile != "bob" {
			t.Errorf("%+v, proofs %+v, roles %+v", u, d.MFA.Proofs, d.Roles)
		}
	})
}

// What IAM does not answer is told with the reason, and is no failure.
func TestWhoAmIWithoutIAM(t *testing.T) {
	for name, tt := range map[string]struct {
		answer error // nil: none comes
		code   broker.Code
		says   string
		hint   string
	}{
		"throttled":   {broker.Errorf(broker.CodeThrottled, "AWS asks to slow down").WithHint("wait"), broker.CodeThrottled, "slow down", "wait"},
		"unreachable": {broker.Errorf(broker.CodeAWSUnreachable, "no route"), broker.CodeAWSUnreachable, "no route", ""},
		"silent":      {nil, broker.CodeAWSUnreachable, "IAM did not answer within 15s", "check the network connection, and the proxy if there is one"},
		"renamed": {
			broker.Errorf(broker.CodeAWSDenied, "%w", &broker.AWSRefusal{Code: "NoSuchEntity", Text: "no user alice"}), broker.CodeAWSDenied, "no user alice",
			"was the user renamed? then store its key anew: gatepass keys remove alice, gatepass keys add alice",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				answer := func(ctx context.Context) error {
					if tt.answer != nil {
						return tt.answer
					}
					<-ctx.Done()
					return broker.Errorf(broker.CodeAWSUnreachable, "given up: %w", ctx.Err())
				}
				w.iam.groups = func(ctx context.Context, _ string) ([]string, error) { return nil, answer(ctx) }
				w.iam.devices = func(ctx context.Context, _ string) ([]broker.MFADevice, error) { return nil, answer(ctx) }
				start := time.Now()
				d := w.mustWho(t, "ops")
				if took := time.Since(start); took > 15*time.Second {
					t.Errorf("it took %v", took)
				}
				if d.ARN != w.sts.id.ARN || d.Groups != nil || d.MFA.Devices != nil || len(d.Roles) == 0 || len(d.Unknown) != 2 {
					t.Errorf("%+v", d)
				}
				for _, what := range []string{"groups", "mfa_devices"} {
					if u := unknown(t, d, what); u.Code != tt.code || !strings.Contains(u.Message, tt.says) || u.Hint != tt.hint || u.Permission == "" {
						t.Errorf("%+v", u)
					}
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.iam = nil
		w.start()
		if u := unknown(t, w.mustWho(t, "ops"), "groups"); u.Code != broker.CodeConfig {
			t.Errorf("%+v", u)
		}
	})
	// IAM tells of users: the root user is none.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		root := key("alice", aliceID)
		root.UserARN = "arn:aws:iam::111122223333:root"
		w.keys.keys["alice"] = root
		d := w.mustWho(t, "ops")
		if u := unknown(t, d, "groups"); !strings.Contains(u.Message, "111122223333:root") || d.User.Name != "root" || len(w.iam.calls) != 0 {
			t.Errorf("%+v, %+v", u, d.User)
		}
	})
}

// Without the keychain the identity of a cached session is told all the same.
func TestWhoAmILocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(t, "ops")
		w.keys.err = broker.Errorf(broker.CodeKeychainLocked, "it is locked").WithHint("unlock it")
		d := w.mustWho(t, "ops")
		if d.ARN != w.sts.id.ARN || d.User.ARN != userARN || len(d.Roles) == 0 || len(w.iam.calls) != 0 {
			t.Errorf("%+v", d)
		}
		for _, what := range []string{"groups", "mfa_devices"} {
			if u := unknown(t, d, what); u.Code != broker.CodeKeychainLocked || u.Hint != "unlock it" {
				t.Errorf("%+v", u)
			}
		}
	})
}

// A key that was stored unproved is proved now.
func TestWhoAmIOfUnprovedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		unproved := key("alice", aliceID)
		unproved.UserARN = ""
		w.keys.keys["alice"] = unproved
		w.iam.groups = groupsOf("developers")
		w.sts.ids = map[string]broker.Identity{aliceID: {Account: "111122223333", ARN: userARN, UserID: "AIDA"}}
		d := w.mustWho(t, "ops")
		if d.User.ARN != userARN || !slices.Equal(d.Groups, []string{"developers"}) {
			t.Errorf("%+v", d)
		}
		w.sts.inCall(func(call string) error {
			if call == "GetCallerIdentity "+aliceID {
				return broker.Errorf(broker.CodeAWSDenied, "the key was deleted")
			}
			return nil
		})
		d = w.mustWho(t, "ops")
		for _, what := range []string{"user", "groups", "mfa_devices"} {
			if u := unknown(t, d, what); u.Message != "the key was deleted" {
				t.Errorf("%+v", u)
			}
		}
	})
}

// The identity is what whoami proves: without it there is nothing, IAM's
// answers are not waited for, and the refusal is recorded.
func TestWhoAmIRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.iam.groups = func(ctx context.Context, _ string) ([]string, error) { <-ctx.Done(); return nil, ctx.Err() }
		w.sts.inCall(func(call string) error {
			if strings.HasPrefix(call, "GetCallerIdentity") {
				return broker.Errorf(broker.CodeAWSDenied, "expired")
			}
			return nil
		})
		start := time.Now()
		d, err := w.who(t, "ops")
		wantCode(t, err, broker.CodeAWSDenied)
		if d.ARN != "" || d.User.Key != "" || time.Since(start) > 0 {
			t.Errorf("%+v after %v", d, time.Since(start))
		}
		wantKinds(t, w, "session.requested", "session.issued", "credentials.served", "request.denied:aws_denied")
		_, err = w.who(t, "nowhere")
		wantCode(t, err, broker.CodeNotFound)
		// What the gate refuses asks IAM nothing.
		w.iam.calls = nil
		w.log.fail = func(broker.Event) error { return broker.Errorf(broker.CodeLogUnwritable, "disk full") }
		_, err = w.who(t, "ops")
		wantCode(t, err, broker.CodeLogUnwritable)
		if len(w.iam.calls) != 0 {
			t.Errorf("IAM was asked %q", w.iam.calls)
		}
	})
}

// Without a name: [default], else the only key, else a sentence.
func TestWhoAmIUnnamed(t *testing.T) {
	base := profiles.Chain{Profile: "default", Key: "alice", KeyFrom: profiles.KeyFrom{Profile: "default", Explicit: true}, Way: []string{"default"}}
	bare := profiles.Chain{Profile: "default", Key: "default", Region: "eu-west-1", KeyFrom: profiles.KeyFrom{Profile: "default"}, Way: []string{"default"}}
	lost := base
	lost.Key = "alcie"
	broken := base
	broken.Hops = make([]profiles.Hop, 17)
	two := []string{"alice", "bob"}
	for name, tt := range map[string]struct {
		config   fakeProfiles
		keys     []string
		locked   bool
		profile  string // that is shown; "" for the key
		unserved string // why [default] is not; "" for no word
		code     broker.Code
		says     string
	}{
		"default":                          {config: fakeProfiles{"default": base}, keys: two, profile: "default"},
		"no default, one key":              {config: fakeProfiles{}, keys: two[:1]},
		"default of a region, one key":     {config: fakeProfiles{"default": bare}, keys: two[:1]},
		"default of its own key":           {config: fakeProfiles{"default": bare}, keys: []string{"alice", "default"}, profile: "default"},
		"default of a key that is not":     {config: fakeProfiles{"default": lost}, keys: two[:1], unserved: "not stored"},
		"broken default, one key":          {config: fakeProfiles{"default": broken}, keys: two[:1], unserved: "17 roles"},
		"no default, two keys":             {config: fakeProfiles{}, keys: two, code: broker.CodeUsage, says: "2 keys are stored"},
		"default of a region, two keys":    {config: fakeProfiles{"default": bare}, keys: two, code: broker.CodeUsage, says: "no [default] with a stored key"},
		"broken default, two keys":         {config: fakeProfiles{"default": broken}, keys: two, code: broker.CodeConfig, says: "17 roles"},
		"no key":                           {config: fakeProfiles{"default": bare}, code: broker.CodeNotFound, says: "no key is stored"},
		"a keychain that is locked":        {config: fakeProfiles{"default": base}, keys: two, locked: true, code: broker.CodeKeychainLocked, says: "locked"},
		"no default, and it is locked":     {config: fakeProfiles{}, keys: two, locked: true, code: broker.CodeKeychainLocked, says: "locked"},
		"broken default, and it is locked": {config: fakeProfiles{"default": broken}, keys: two[:1], locked: true, code: broker.CodeKeychainLocked, says: "locked"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.profiles = tt.config
				clear(w.keys.keys)
				for _, name := range tt.keys {
					w.keys.keys[name] = key(name, "AKIA"+strings.ToUpper(name)+"00000000001")
				}
				if tt.locked {
					w.keys.err = broker.Errorf(broker.CodeKeychainLocked, "it is locked")
				}
				w.iam.groups = groupsOf("developers")
				w.start()
				d, err := w.who(t, "")
				if tt.code != "" {
					wantCode(t, err, tt.code)
					if e := broker.AsError(err); !strings.Contains(e.Message, tt.says) || e.Hint == "" && !tt.locked && tt.code != broker.CodeConfig {
						t.Errorf("%+v", e)
					}
					wantKinds(t, w, "request.failed:"+string(tt.code))
					return
				}
				if err != nil || d.Profile != tt.profile || (d.Session == nil) != (tt.profile == "") || d.ARN != w.sts.id.ARN || !slices.Equal(d.Groups, []string{"developers"}) {
					t.Fatalf("%+v, %v", d, err)
				}
				if tt.unserved != "" {
					if u := unknown(t, d, "profile"); !strings.Contains(u.Message, tt.unserved) || u.Permission != "" {
						t.Errorf("%+v", u)
					}
				} else if len(d.Unknown) != 0 {
					t.Errorf("%+v", d.Unknown)
				}
				if tt.profile == "" {
					// The key itself was asked about: nothing is served.
					if d.User.Key != "alice" || !slices.Equal(w.sts.calls, []string{"GetCallerIdentity " + aliceID}) || len(w.log.entries) != 0 || len(w.keys.read) != 1 {
						t.Errorf("%+v, STS %q, %q", d.User, w.sts.calls, w.log.kinds())
					}
				}
			})
		})
	}
}

// A [default] that could be served, were the request another, is what is meant.
func TestWhoAmIUnnamedAsksTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.profiles = fakeProfiles{"default": {Profile: "default", Key: "alice"}}
		w.start()
		_, err := w.WhoAmI(t.Context(), cli, broker.Request{Duration: time.Second})
		wantCode(t, err, broker.CodeUsage)
		if w.sts.count() != 0 {
			t.Errorf("STS was asked %q", w.sts.calls)
		}
	})
}

// IAM is asked where the profile says that AWS is.
func TestWhoAmIEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.profiles = fakeProfiles{"local": {Profile: "local", Key: "alice", IAMEndpoint: "http://127.0.0.1:4566"}}
		w.start()
		w.mustWho(t, "local")
		for _, call := range w.iam.calls {
			if !strings.HasSuffix(call, aliceID+" http://127.0.0.1:4566") {
				t.Errorf("IAM was asked %q", call)
			}
		}
	})
}
