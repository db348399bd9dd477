package main

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"gatepass/broker"
	"gatepass/broker/wire"
)

func exampleProfiles() broker.ProfileList {
	return broker.ProfileList{
		Keychain: broker.KeychainStatus{Backend: "file", State: "ok"},
		Profiles: []broker.ProfileInfo{
			{Name: "audit-of-the-production-accounts", RoleARN: "arn:aws:iam::444455556666:role/service/team/AuditorsOfEverything", Account: "444455556666", Key: "work", Region: "ap-southeast-1", Adopted: true, Reachable: broker.ReachYes},
			{Name: "default", Account: "111122223333", Key: "work", Reachable: broker.ReachYes},
			{Name: "hub\x1b[2J", Reachable: broker.ReachNo, Error: &broker.Error{Code: broker.CodeConfig, Message: "/home/alice/.aws/config:28: profile \"hub\": source_profile: there is no profile \"bas\" (hub → ✗ bas); did you mean \"base\"?"}},
			{Name: "lost", RoleARN: "arn:aws:iam::111122223333:role/Lost", Account: "111122223333", Key: "alcie", Region: "eu-west-1", Reachable: broker.ReachNo, Error: &broker.Error{Code: broker.CodeNotFound, Message: "not stored"}},
			{Name: "ünknown", Key: "work", Reachable: broker.ReachUnknown},
		},
	}
}

// A pipe gets a line a profile, whole; a terminal rows that fit, and what is
// wrong below its profile.
func TestProfileTable(t *testing.T) {
	want := `PROFILE                           ACCOUNT       ROLE                               KEY      REGION          ADOPTED
audit-of-the-production-accounts  444455556666  service/team/AuditorsOfEverything  work     ap-southeast-1  yes
default                           111122223333  -                                  work     -               no
hub\x1b[2J                        ✗ /home/alice/.aws/config:28: profile "hub": source_profile: there is no profile "bas" (hub → ✗ bas); did you mean "base"?
lost                              111122223333  Lost                               ✗ alcie  eu-west-1       no
ünknown                           -             -                                  ? work   -               no
`
	if got := string(profileTable(exampleProfiles(), 0, false)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	want = `PROFILE          ACCOUNT       ROLE             KEY      REGION          ADOPTED
audit-of-the-p…  444455556666  service/team/A…  work     ap-southeast-1  yes
default          111122223333  -                work     -               no
hub\x1b[2J       ✗ not served
    /home/alice/.aws/config:28: profile "hub": source_profile: there is no
    profile "bas" (hub → ✗ bas); did you mean "base"?
lost             111122223333  Lost             ✗ alcie  eu-west-1       no
ünknown          -             -                ? work   -               no
`
	if got := string(profileTable(exampleProfiles(), 80, false)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, width := range []int{1, 20, 40, 60, 80, 120} {
		for line := range strings.Lines(string(profileTable(exampleProfiles(), width, false))) {
			if n := utf8.RuneCountInString(line) - 1; n > max(width, 46) {
				t.Errorf("%d columns in %d: %q", n, width, line)
			}
		}
	}
}

func exampleDetail() broker.ProfileDetail {
	return broker.ProfileDetail{
		ProfileInfo: broker.ProfileInfo{Name: "audit", RoleARN: "arn:aws:iam::444455556666:role/Audit", Account: "444455556666", Key: "work", Region: "eu-west-1", Adopted: true, Reachable: broker.ReachYes},
		User:        "arn:aws:iam::111122223333:user/team/alice", MFASerial: "arn:aws:iam::111122223333:mfa/alice", DurationSeconds: 3600,
		Hops: []broker.ProfileHop{
			{Profile: "deploy", RoleARN: "arn:aws:iam::111122223333:role/Deploy", SourceIdentity: "alice"},
			{Profile: "audit", RoleARN: "arn:aws:iam::444455556666:role/Audit", ExternalID: "x\x1b", Tags: map[string]string{"b": "2", "a": "1"}, TransitiveTags: []string{"a"}, DurationSeconds: 5400},
		},
		Notes:    []string{"chained: a role that is assumed by a role lasts 1 h at most, so its 90 min are not asked for", "config:3: x"},
		Keychain: broker.KeychainStatus{State: "ok"},
	}
}

func TestProfilePage(t *testing.T) {
	want := `profile    audit
chain      key work, of alice in 111122223333
           with MFA by arn:aws:iam::111122223333:mfa/alice
           → role Deploy  in 111122223333, by profile deploy
               source identity alice
           → role Audit   in 444455556666
               external id x\x1b
               tags a=1, b=2
               transitive tags a
               asks for 90 min
serves     a session of the last role for 1 h, region eu-west-1
adopted    yes: the AWS CLI and the SDKs get it from gatepass
reachable  yes
notes      - chained: a role that is assumed by a role lasts 1 h at most, so its
           90 min are not asked for
           - config:3: x
`
	if got := string(profilePage(exampleDetail(), 80, false)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	bad := broker.ProfileDetail{
		ProfileInfo: broker.ProfileInfo{Name: "lost", Key: "alcie", Reachable: broker.ReachNo, Error: &broker.Error{Code: broker.CodeNotFound, Message: "no key (lost → ✗ key alcie)", Hint: "gatepass keys add alcie"}},
	}
	want = `profile    lost
chain      ✗ key alcie, which is not stored
serves     a session of the key
adopted    no: the AWS CLI and the SDKs do without gatepass until "profiles adopt"
reachable  no: no key (lost → ✗ key alcie)
           gatepass keys add alcie
`
	if got := string(profilePage(bad, 0, false)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	locked := broker.ProfileDetail{
		ProfileInfo: broker.ProfileInfo{Name: "ops", Key: "work", Reachable: broker.ReachUnknown},
		Keychain:    broker.KeychainStatus{State: "keychain_locked", Message: "the keychain is locked", Hint: "unlock it\nor not"},
	}
	if got := string(profilePage(locked, 80, false)); !strings.Contains(got, "reachable  unknown: the keychain is locked\n           unlock it\n           or not\n") {
		t.Errorf("got\n%s", got)
	}
}

// The daemon is told which files to read; JSON goes through as it came.
func TestProfilesCommands(t *testing.T) {
	h := newHome(t)
	var asked []wire.ProfilesRequest
	list := exampleProfiles()
	note := func(body []byte) {
		var r wire.ProfilesRequest
		if err := json.Unmarshal(body, &r); err != nil {
			h.t.Error(err)
		}
		asked = append(asked, r)
	}
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathProfiles: func(body []byte) (int, map[string]string, string) {
			note(body)
			return 200, nil, jsonOf(t, list)
		},
		"POST " + wire.PathProfileShow: func(body []byte) (int, map[string]string, string) {
			note(body)
			return 200, nil, jsonOf(t, exampleDetail())
		},
	})
	h.env["AWS_CONFIG_FILE"], h.env["AWS_SHARED_CREDENTIALS_FILE"] = "/srv/aws/config", "/srv/aws/credentials"
	if r := h.run("profiles", "list"); r.code != 0 || r.stderr != "" || r.stdout != string(profileTable(list, 0, false)) {
		t.Errorf("%+v", r)
	}
	r := h.run("profiles", "list", "--json")
	var back broker.ProfileList
	if err := json.Unmarshal([]byte(r.stdout), &back); err != nil || len(back.Profiles) != 5 || !strings.HasPrefix(r.stdout, "{\n  \"profiles\": [\n") || strings.ContainsRune(r.stdout, 0x1b) {
		t.Errorf("%+v, %v", r, err)
	}
	h.env["AWS_PROFILE"] = "audit"
	for _, args := range [][]string{{"profiles", "show", "--json"}, {"profiles", "show", "audit", "--json"}} {
		r := h.run(args...)
		var got map[string]any
		if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || got["name"] != "audit" || got["key"] != "work" || got["adopted"] != true {
			t.Fatalf("%+v, %v", r, err)
		}
		hop := got["hops"].([]any)[1].(map[string]any)
		if hop["role_arn"] != "arn:aws:iam::444455556666:role/Audit" || hop["duration_seconds"] != 5400.0 || hop["tags"].(map[string]any)["a"] != "1" || hop["transitive_tags"].([]any)[0] != "a" {
			t.Errorf("hop %v", hop)
		}
		if _, there := hop["mfa_serial"]; there {
			t.Errorf("an absent field is shown: %v", hop)
		}
	}
	files := wire.ProfilesRequest{ConfigFile: "/srv/aws/config", CredentialsFile: "/srv/aws/credentials"}
	one := files
	one.Profile = "audit"
	if len(asked) != 4 || asked[0] != files || asked[1] != files || asked[2] != one || asked[3] != one {
		t.Errorf("asked %+v", asked)
	}
	list.Keychain = broker.KeychainStatus{State: "keychain_locked", Message: "the keychain is locked", Hint: "unlock it"}
	if r := h.run("profiles", "list"); r.code != 0 || r.stdout == "" || r.stderr != "gatepass: whether the keys are stored is not known: the keychain is locked\ngatepass: unlock it\n" {
		t.Errorf("%+v", r)
	}
	list.Profiles = nil
	if r := h.run("profiles", "list"); r.code != 0 || r.stdout != "" || !strings.Contains(r.stderr, "no profiles") {
		t.Errorf("%+v", r)
	}
}
