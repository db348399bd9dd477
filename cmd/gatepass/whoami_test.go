package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gatepass/broker"
	"gatepass/broker/wire"
)

var whoNow = time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)

func exampleIdentity() broker.IdentityDetail {
	const device = "arn:aws:iam::111122223333:mfa/alice"
	role := func(profile, arn, serial string, through ...string) broker.RoleInReach {
		return broker.RoleInReach{Profile: profile, RoleARN: arn, Account: arnAccount(arn), MFASerial: serial, Through: through}
	}
	const deploy, audit = "arn:aws:iam::111122223333:role/Deploy", "arn:aws:iam::444455556666:role/team/Audit"
	return broker.IdentityDetail{
		Identity: broker.Identity{Account: "111122223333", ARN: "arn:aws:sts::111122223333:assumed-role/Deploy/alice-s7f3k2m9qxd", UserID: "AROAEXAMPLE:alice-s7f3k2m9qxd"},
		Profile:  "deploy",
		Session:  &broker.SessionStatus{ID: "s-7f3k2m9qxd", Profile: "deploy", RoleARN: deploy, Expires: whoNow.Add(58 * time.Minute)},
		User:     broker.KeyUser{ARN: "arn:aws:iam::111122223333:user/alice", Name: "alice", Account: "111122223333", Key: "work", AccessKeyID: testID},
		Groups:   []string{"developers", "on-call"},
		MFA: broker.MFAState{
			Devices: []broker.MFADevice{{Serial: device}},
			Proofs:  []broker.ProofStatus{{Key: "work", Serial: device, Expires: whoNow.Add(7*time.Hour + 59*time.Minute)}},
		},
		Roles: []broker.RoleInReach{role("admin", "arn:aws:iam::111122223333:role/Admin", device), role("audit", audit, "", deploy), role("deploy", deploy, ""), role("deploy-us", deploy, "")},
	}
}

func TestIdentityPage(t *testing.T) {
	want := `account  111122223333
arn      arn:aws:sts::111122223333:assumed-role/Deploy/alice-s7f3k2m9qxd
session  s-7f3k2m9qxd: role Deploy, by profile deploy, for another 58m
user     alice in 111122223333
key      work (AKIAIOSFODNN7EXAMPLE)
groups   developers, on-call
mfa      arn:aws:iam::111122223333:mfa/alice, proved for another 7h59m
roles    Admin       111122223333  admin (with MFA)
         Deploy      111122223333  deploy, deploy-us
         team/Audit  444455556666  audit (through Deploy)
`
	for _, width := range []int{0, 80} {
		if got := string(identityPage(exampleIdentity(), whoNow, width, false)); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}

	// What is not known is said: on a line of its own, which a terminal wraps.
	d := exampleIdentity()
	d.Groups, d.MFA.Devices, d.Roles = nil, nil, nil
	d.Unknown = []broker.Unknown{
		{What: "groups", Permission: "iam:ListGroupsForUser", Code: broker.CodeAWSDenied, Message: "IAM denies iam:ListGroupsForUser without MFA", Hint: "with MFA: gatepass whoami admin; or allow the user iam:ListGroupsForUser on itself", Detail: "AWS refused"},
		{What: "mfa_devices", Code: broker.CodeThrottled, Message: "list the user's MFA devices: AWS asks to slow down\x1b[2J"},
		{What: "roles", Code: broker.CodeConfig, Message: "/home/alice/.aws/config:3: no section"},
	}
	want = `groups   unknown: IAM denies iam:ListGroupsForUser without MFA; with MFA: gatepass whoami admin; or allow the user iam:ListGroupsForUser on itself
mfa      arn:aws:iam::111122223333:mfa/alice, proved for another 7h59m
         its other devices are unknown: list the user's MFA devices: AWS asks to slow down\x1b[2J
roles    unknown: /home/alice/.aws/config:3: no section
`
	if got := string(identityPage(d, whoNow, 0, false)); !strings.HasSuffix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	want = `groups   unknown: IAM denies iam:ListGroupsForUser without MFA; with MFA:
         gatepass whoami admin; or allow the user iam:ListGroupsForUser on
         itself
mfa      arn:aws:iam::111122223333:mfa/alice, proved for another 7h59m
         its other devices are unknown: list the user's MFA devices: AWS asks to
         slow down\x1b[2J
roles    unknown: /home/alice/.aws/config:3: no section
`
	if got := string(identityPage(d, whoNow, 80, false)); !strings.HasSuffix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	// The key itself, of a user of whom nothing is known and who has nothing.
	d = broker.IdentityDetail{
		Identity: broker.Identity{Account: "111122223333", ARN: "arn:aws:iam::111122223333:user/alice"},
		User:     broker.KeyUser{Key: "work", AccessKeyID: testID},
		Groups:   []string{}, MFA: broker.MFAState{Devices: []broker.MFADevice{}}, Roles: []broker.RoleInReach{},
		Unknown: []broker.Unknown{
			{What: "profile", Message: `profile "default" starts with the key "alcie", which is not stored`, Hint: "one\ntwo"},
			{What: "user", Message: "AWS refused"},
		},
	}
	want = `profile  not [default]: profile "default" starts with the key "alcie", which is not stored; one; two
account  111122223333
arn      arn:aws:iam::111122223333:user/alice
session  none: no profile is named; this is the only stored key itself
user     unknown: AWS refused
key      work (AKIAIOSFODNN7EXAMPLE)
groups   none
mfa      no device
roles    none in your AWS config with this key
`
	if got := string(identityPage(d, whoNow, 0, false)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	// Devices without a proof, and those that cannot give one.
	d.MFA.Devices = []broker.MFADevice{{Serial: "GAHT12345678"}, {Serial: "arn:aws:iam::111122223333:u2f/user/alice/key-1"}}
	want = `mfa      GAHT12345678, no proof is kept
         arn:aws:iam::111122223333:u2f/user/alice/key-1, a security key, which has no codes for the API
`
	if got := string(identityPage(d, whoNow, 0, false)); !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	d.Session = &broker.SessionStatus{ID: "s-7f3k2m9qxd", Expires: whoNow.Add(time.Minute)}
	d.Profile = "plain"
	if got := string(identityPage(d, whoNow, 0, false)); !strings.Contains(got, "session  s-7f3k2m9qxd: no role, by profile plain, for another 1m\n") {
		t.Errorf("got\n%s", got)
	}
	// A daemon of an earlier version tells the identity alone.
	if got := string(identityPage(broker.IdentityDetail{Identity: d.Identity}, whoNow, 80, false)); got != "account  111122223333\narn      arn:aws:iam::111122223333:user/alice\n" {
		t.Errorf("got\n%s", got)
	}
}

// Whatever others named things, a terminal gets short lines and not too many,
// and nothing that it would obey; a pipe gets all.
func TestIdentityPageFits(t *testing.T) {
	d := exampleIdentity()
	d.Groups = strings.Split(strings.Repeat("a-group-of-many-people,", 10), ",")
	for i := range 30 {
		d.Roles = append(d.Roles, broker.RoleInReach{
			Profile: fmt.Sprintf("profile-of-a-team-%02d\x1b[31m\u202e", i), RoleARN: fmt.Sprintf("arn:aws:iam::444455556666:role/path/of/the/team/ARoleWithALongName%02d", i),
			Account: "444455556666", Through: []string{d.Roles[2].RoleARN, d.Roles[0].RoleARN}, MFASerial: "GAHT12345678",
		})
	}
	for _, width := range []int{60, 80, 120} {
		page := string(identityPage(d, whoNow, width, false))
		for line := range strings.Lines(page) {
			if n := utf8.RuneCountInString(line) - 1; n > width {
				t.Errorf("%d columns in %d: %q", n, width, line)
			}
		}
		if strings.ContainsAny(page, "\x1b\u202e") || !strings.HasSuffix(page, "         and 21 more; to see all: gatepass profiles list\n") {
			t.Errorf("got\n%s", page)
		}
	}
	if page := string(identityPage(d, whoNow, 0, false)); strings.ContainsAny(page, "\x1b\u202e") || strings.Count(page, "ARoleWithALongName") != 30 ||
		!strings.Contains(page, `profile-of-a-team-29\x1b[31m\u202e (through Deploy, Admin, with MFA)`) {
		t.Errorf("got\n%s", page)
	}
}

func TestWhoAmI(t *testing.T) {
	h := newHome(t)
	d := exampleIdentity()
	d.Session.Expires, d.MFA.Proofs = time.Now().Add(time.Hour-time.Second), nil
	var asked []string
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathWhoAmI: func(body []byte) (int, map[string]string, string) {
			var r wire.CredentialsRequest
			if err := json.Unmarshal(body, &r); err != nil {
				t.Error(err)
			}
			asked = append(asked, r.Profile+" "+r.Via+" "+r.Region)
			return 200, nil, jsonOf(t, d)
		},
	})
	want := string(identityPage(d, time.Now(), 0, false))
	if r := h.run("whoami"); r != (result{stdout: want}) { // no name at all: the daemon chooses
		t.Errorf("%+v", r)
	}
	h.env["AWS_PROFILE"] = "from-env"
	for _, args := range [][]string{{"whoami", "ops"}, {"whoami"}} {
		if r := h.run(args...); r != (result{stdout: want}) {
			t.Errorf("%q: %+v", args, r)
		}
	}
	r := h.run("whoami", "--json", "ops", "--region", "eu-west-1")
	var back broker.IdentityDetail
	if err := json.Unmarshal([]byte(r.stdout), &back); err != nil || r.code != 0 || jsonOf(t, back) != jsonOf(t, d) ||
		!strings.HasPrefix(r.stdout, "{\n  \"account\": \"111122223333\",\n  \"arn\": ") || !strings.Contains(r.stdout, "\n  \"user_id\": \"AROAEXAMPLE:") {
		t.Errorf("--json: %+v, %v", r, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if got := strings.Join(asked, ","); got != " whoami ,ops whoami ,from-env whoami ,ops whoami eu-west-1" {
		t.Errorf("asked %q", got)
	}
}
