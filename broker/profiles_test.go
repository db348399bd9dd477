package broker_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"gatepass/broker"
	"gatepass/profiles"
)

func listProfiles(t *testing.T, w *world) (broker.ProfileList, map[string]broker.ProfileInfo) {
	t.Helper()
	list, err := w.ListProfiles(t.Context(), cli, profiles.Files{})
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]broker.ProfileInfo{}
	for _, p := range list.Profiles {
		byName[p.Name] = p
	}
	return list, byName
}

// What is listed as within reach is what the gate would serve, and nothing
// else; to look costs no call to AWS, no secret and no entry.
func TestListProfiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		list, byName := listProfiles(t, w)
		if !slices.IsSortedFunc(list.Profiles, func(a, b broker.ProfileInfo) int { return strings.Compare(a.Name, b.Name) }) {
			t.Error("the list is not sorted")
		}
		if list.Keychain.State != "ok" {
			t.Errorf("keychain %+v", list.Keychain)
		}
		want := broker.ProfileInfo{Name: "ops", RoleARN: roleARN, Account: "111122223333", Key: "alice", Region: "eu-west-1", Reachable: broker.ReachYes}
		if byName["ops"] != want {
			t.Errorf("ops is %+v, want %+v", byName["ops"], want)
		}
		if p := byName["plain"]; p.Account != "111122223333" || p.RoleARN != "" {
			t.Errorf("plain is %+v", p)
		}
		if p := byName["chain"]; p.Account != "444455556666" {
			t.Errorf("chain is %+v", p)
		}
		for name, p := range byName {
			_, err := w.ask(t, name)
			code := broker.CodeOf(err)
			switch {
			case (code == "" || code == broker.CodePromptUnavailable) != (p.Reachable == broker.ReachYes):
				t.Errorf("%s is listed as %+v, and the gate says %v", name, p, err)
			case p.Reachable == broker.ReachNo && (p.Error == nil || p.Error.Code != code || p.Error.Message != err.Error()):
				t.Errorf("%s: listed with %+v, the gate says %v", name, p.Error, err)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		listProfiles(t, w)
		if w.sts.count() != 0 || len(w.keys.read) != 0 || len(w.log.entries) != 0 {
			t.Errorf("to look took %d calls, %d secrets and %d entries", w.sts.count(), len(w.keys.read), len(w.log.entries))
		}
	})
}

// With the keychain locked the listing still comes, says that it is, and
// claims nothing about keys, also when they were known before.
func TestListProfilesLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustAsk(t, "ops")
		w.keys.err = broker.Errorf(broker.CodeKeychainLocked, "it is locked").WithHint("unlock it")
		list, byName := listProfiles(t, w)
		if k := list.Keychain; k.State != "keychain_locked" || k.Message != "it is locked" || k.Hint != "unlock it" {
			t.Errorf("keychain %+v", k)
		}
		for name, want := range map[string]broker.Reach{"ops": broker.ReachUnknown, "lost": broker.ReachUnknown, "plain": broker.ReachUnknown, "endless": broker.ReachNo, "two devices": broker.ReachNo} {
			if got := byName[name]; got.Reachable != want || (want == broker.ReachNo) != (got.Error != nil) {
				t.Errorf("%s is %+v", name, got)
			}
		}
		if p := byName["ops"]; p.RoleARN != roleARN || p.Account != "111122223333" {
			t.Errorf("ops is %+v", p)
		}
		d, err := w.ShowProfile(t.Context(), cli, profiles.Files{}, "ops")
		if err != nil || d.Reachable != broker.ReachUnknown || d.Keychain.State != "keychain_locked" || len(d.Hops) != 1 {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

func TestShowProfile(t *testing.T) {
	for _, tt := range []struct {
		profile string
		seconds int
		reach   broker.Reach
		note    string // "" for none
	}{
		{"ops", 3600, broker.ReachYes, ""},
		{"short", 900, broker.ReachYes, ""},
		{"plain", 3600, broker.ReachYes, "without MFA it cannot call IAM"},
		{"plainmfa", 8 * 3600, broker.ReachYes, "never the key itself"},
		{"chain", 3600, broker.ReachYes, "chained: a role that is assumed by a role lasts 1 h at most, so its 12 h are not asked for"},
		{"long", 3600, broker.ReachYes, "with MFA, a session of 4 h needs a code of its own"},
		{"lost", 3600, broker.ReachNo, "without MFA"},
		{"endless", 0, broker.ReachNo, "chained"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			d, err := w.ShowProfile(t.Context(), cli, profiles.Files{}, tt.profile)
			if err != nil {
				t.Fatal(err)
			}
			if d.Name != tt.profile || d.DurationSeconds != tt.seconds || d.Reachable != tt.reach || (tt.reach == broker.ReachNo) != (d.Error != nil) {
				t.Errorf("%s is %+v", tt.profile, d)
			}
			if tt.note == "" && len(d.Notes) > 0 || !strings.Contains(strings.Join(d.Notes, "\n"), tt.note) {
				t.Errorf("%s: notes %q, want %q", tt.profile, d.Notes, tt.note)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, err := w.ShowProfile(t.Context(), cli, profiles.Files{}, "nowhere")
		wantCode(t, err, broker.CodeNotFound)
		_, err = w.ShowProfile(t.Context(), cli, profiles.Files{}, "alice")
		wantCode(t, err, broker.CodeNotFound)
		if !strings.Contains(broker.AsError(err).Hint, "a key is not a profile") {
			t.Errorf("hint %q", broker.AsError(err).Hint)
		}
	})
}

// The files that are not the user's own do not redirect what is shown either.
func TestListProfilesTrusts(t *testing.T) {
	seen := map[string]bool{}
	b := broker.New(broker.Config{
		Keys: &fakeKeys{}, Files: profiles.Files{Config: "/home/alice/.aws/config"}, Clock: stillClock,
		Profiles: resolverFunc(func(f profiles.Files, name string) (*profiles.Chain, error) {
			seen[f.Config] = f.Trusted
			return nil, &profiles.ConfigError{File: f.Config, Msg: "broken"}
		}),
	})
	for _, config := range []string{"", "/tmp/evil"} {
		_, err := b.ListProfiles(t.Context(), cli, profiles.Files{Config: config, Trusted: true})
		wantCode(t, err, broker.CodeConfig)
	}
	if !seen["/home/alice/.aws/config"] || seen["/tmp/evil"] {
		t.Errorf("trusted: %v", seen)
	}
}
