package sts_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"gatepass/broker"
	"gatepass/broker/sts"
	"gatepass/broker/sts/ststest"
)

func TestIAMAgainstSandbox(t *testing.T) {
	config := ststest.Example()
	config.Accounts[0].Users[3].Deny = []string{"iam:CreateAccessKey"} // mallory
	srv := ststest.NewServer(t, config)
	// endpoint_url_iam goes before endpoint_url, where nobody listens.
	c := newClient(t, sts.Config{EndpointURL: "http://127.0.0.1:1", EndpointURLIAM: srv.URL, EndpointURLSTS: srv.URL})
	creds := func(user string) broker.Credentials {
		k := srv.Key(user)
		return broker.Credentials{AccessKeyID: k.ID, SecretAccessKey: broker.NewSecret(k.Secret), AccountID: "111122223333"}
	}
	ctx, old := t.Context(), creds("alice")
	made, err := c.CreateAccessKey(ctx, old, ststest.AliceARN)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := c.CallerIdentity(ctx, made, broker.Target{}); err != nil || id.ARN != ststest.AliceARN {
		t.Fatalf("the new key is of %+v, %v", id, err)
	}
	_, err = c.CreateAccessKey(ctx, old, ststest.AliceARN)
	wantError(t, err, broker.CodeAWSDenied, "LimitExceeded", "AccessKeysPerUser: 2")
	if refusal, ok := errors.AsType[*broker.AWSRefusal](err); !ok || refusal.Code != "LimitExceeded" {
		t.Errorf("no AWSRefusal in %v", err)
	}
	if used, err := c.AccessKeyUsed(ctx, made, ststest.AliceARN, made.AccessKeyID); err != nil || used.IsZero() {
		t.Errorf("used %v, %v", used, err)
	}
	if err := c.SetAccessKeyStatus(ctx, made, ststest.AliceARN, old.AccessKeyID, false); err != nil {
		t.Fatal(err)
	}
	_, err = c.AccessKeys(ctx, old, ststest.AliceARN)
	wantError(t, err, broker.CodeAWSDenied, "InvalidClientTokenId", "inactive")
	keys, err := c.AccessKeys(ctx, made, ststest.AliceARN)
	if err != nil || len(keys) != 2 || keys[0].ID != old.AccessKeyID || keys[0].Active || !keys[1].Active || keys[1].Created.IsZero() {
		t.Fatalf("keys %+v, %v", keys, err)
	}
	if err := c.SetAccessKeyStatus(ctx, made, ststest.AliceARN, old.AccessKeyID, true); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AccessKeys(ctx, old, ststest.AliceARN); err != nil {
		t.Errorf("active again: %v", err)
	}
	if err := c.DeleteAccessKey(ctx, made, ststest.AliceARN, old.AccessKeyID); err != nil {
		t.Fatal(err)
	}
	err = c.DeleteAccessKey(ctx, made, ststest.AliceARN, old.AccessKeyID)
	wantError(t, err, broker.CodeAWSDenied, "NoSuchEntity")

	_, err = c.CreateAccessKey(ctx, creds("mallory"), "arn:aws:iam::111122223333:user/mallory")
	wantError(t, err, broker.CodeAWSDenied, "explicit deny", "iam:CreateAccessKey")
	for arn, part := range map[string]string{
		"":                                   "not the ARN of an IAM user",
		"arn:aws:iam::111122223333:root":     "not the ARN of an IAM user",
		"arn:gcp:iam::111122223333:user/a":   "partition",
		"arn:aws:iam::111122223333:user/a b": "does not name",
	} {
		_, err := c.AccessKeys(ctx, made, arn)
		wantError(t, err, broker.CodeConfig, part)
	}

	// What may have made a key is not sent again.
	srv.ForgetCalls()
	for _, kind := range []ststest.FaultKind{ststest.Drop, ststest.Truncate, ststest.Fail} {
		srv.Faults().Add(ststest.Fault{Kind: kind, Action: "CreateAccessKey"})
		if _, err := c.CreateAccessKey(ctx, made, ststest.AliceARN); err == nil {
			t.Errorf("%s: no error", kind)
		}
		srv.Faults().Clear()
	}
	if n := srv.Count("CreateAccessKey"); n != 3 {
		t.Errorf("sent %d times for 3 calls", n)
	}
	// What may be repeated is.
	srv.Faults().Add(ststest.Fault{Kind: ststest.Throttle, Action: "ListAccessKeys", Count: 2})
	if keys, err := c.AccessKeys(ctx, made, ststest.AliceARN); err != nil || len(keys) != 2 {
		t.Errorf("throttled in passing: %+v, %v", keys, err)
	}
}

// What IAM tells of a user comes in parts, all of which are asked for.
func TestGroupsAndDevices(t *testing.T) {
	config := ststest.Example()
	config.PageSize = 1
	alice := &config.Accounts[0].Users[0]
	alice.Groups = []string{"developers", "on-call", "billing"}
	alice.MFA = append(alice.MFA, ststest.Device{Serial: "GAHT12345678", Seed: alice.MFA[0].Seed})
	config.Accounts[0].Users[3].Deny = []string{"iam:ListGroupsForUser"}
	config.Accounts[0].Users[3].RequiresMFA = []string{"iam:ListMFADevices"}
	srv := ststest.NewServer(t, config)
	c := newClient(t, sts.Config{EndpointURL: srv.URL})
	creds := func(user string) broker.Credentials {
		k := srv.Key(user)
		return broker.Credentials{AccessKeyID: k.ID, SecretAccessKey: broker.NewSecret(k.Secret)}
	}
	const mallory = "arn:aws:iam::111122223333:user/mallory"
	ctx := t.Context()
	groups, err := c.Groups(ctx, creds("alice"), ststest.AliceARN, "")
	if err != nil || !slices.Equal(groups, alice.Groups) || srv.Count("ListGroupsForUser") != 3 {
		t.Errorf("groups %q after %d calls, %v", groups, srv.Count("ListGroupsForUser"), err)
	}
	devices, err := c.MFADevices(ctx, creds("alice"), ststest.AliceARN, "")
	if err != nil || len(devices) != 2 || devices[0].Serial != ststest.AliceDevice || devices[1].Serial != "GAHT12345678" || devices[0].Enabled.IsZero() {
		t.Errorf("devices %+v, %v", devices, err)
	}
	if devices, err := c.MFADevices(ctx, creds("alice"), mallory, ""); err != nil || len(devices) != 0 {
		t.Errorf("mallory's devices %+v, %v", devices, err)
	}
	if groups, err := c.Groups(ctx, creds("alice"), mallory, ""); err != nil || len(groups) != 0 {
		t.Errorf("mallory's groups %q, %v", groups, err)
	}
	_, err = c.Groups(ctx, creds("mallory"), mallory, "")
	wantError(t, err, broker.CodeAWSDenied, "list the user's groups: AWS refused: AccessDenied", "explicit deny", "iam:ListGroupsForUser")
	_, err = c.MFADevices(ctx, creds("mallory"), mallory, "")
	wantError(t, err, broker.CodeAWSDenied, "list the user's MFA devices: AWS refused: AccessDenied", "iam:ListMFADevices")
	if refusal, ok := errors.AsType[*broker.AWSRefusal](err); !ok || refusal.Code != "AccessDenied" {
		t.Errorf("no AWSRefusal in %v", err)
	}
	_, err = c.Groups(ctx, creds("alice"), "arn:aws:iam::111122223333:user/bobby", "")
	wantError(t, err, broker.CodeAWSDenied, "NoSuchEntity")
	_, err = c.Groups(ctx, creds("alice"), "arn:aws:iam::111122223333:root", "")
	wantError(t, err, broker.CodeConfig, "not the ARN of an IAM user")

	// A profile's endpoint goes before the configuration's.
	lost := newClient(t, sts.Config{EndpointURL: "http://127.0.0.1:1"})
	if groups, err := lost.Groups(ctx, creds("alice"), ststest.AliceARN, srv.URL); err != nil || len(groups) != 3 {
		t.Errorf("groups %q, %v", groups, err)
	}
	for _, endpoint := range []string{"http://iam.example.com", "gopher://127.0.0.1", "https://alice:hunter2@127.0.0.1"} {
		_, err = c.MFADevices(ctx, creds("alice"), ststest.AliceARN, endpoint)
		if e := wantError(t, err, broker.CodeConfig, "endpoint_url"); strings.Contains(e.Message, "hunter2") {
			t.Errorf("a password is in %q", e.Message)
		}
	}

	// Throttling passes, or is said.
	srv.Faults().Add(ststest.Fault{Kind: ststest.Throttle, Action: "ListMFADevices", Count: 2})
	if devices, err := c.MFADevices(ctx, creds("alice"), ststest.AliceARN, ""); err != nil || len(devices) != 2 {
		t.Errorf("throttled in passing: %+v, %v", devices, err)
	}
	srv.Faults().Add(ststest.Fault{Kind: ststest.Throttle, Action: "ListGroupsForUser"})
	_, err = c.Groups(ctx, creds("alice"), ststest.AliceARN, "")
	wantError(t, err, broker.CodeThrottled, "list the user's groups: AWS asks to slow down")
	srv.Faults().Clear()
}

// What is no listing of IAM's is not believed, nor followed for ever.
func TestListingsThatMakeNoSense(t *testing.T) {
	group := func(name, rest string) string {
		return "<Groups><member><GroupName>" + name + "</GroupName></member></Groups>" + rest
	}
	n := 0
	for name, tt := range map[string]struct {
		answer func() string
		asked  int64
		says   string
	}{
		"endless": {func() string {
			n++
			return group("g", fmt.Sprintf("<IsTruncated>true</IsTruncated><Marker>%d</Marker>", n))
		}, 16, "does not come to an end"},
		"the same marker": {func() string { return group("g", "<IsTruncated>true</IsTruncated><Marker>m</Marker>") }, 2, "where the rest is"},
		"no marker":       {func() string { return group("g", "<IsTruncated>true</IsTruncated>") }, 1, "where the rest is"},
		"no name":         {func() string { return "<Groups><member></member></Groups>" }, 1, "no group"},
		"an odd name":     {func() string { return group("a\u202eb", "") }, 1, "no group"},
		"a long name":     {func() string { return group(strings.Repeat("g", 129), "") }, 1, "no group"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
				answer(w, 200, resultXML("ListGroupsForUser", tt.answer()))
			})
			_, err := newClient(t, sts.Config{EndpointURL: f.URL}).Groups(t.Context(), key(), ststest.AliceARN, "")
			wantError(t, err, broker.CodeAWSUnreachable, tt.says)
			if got := f.asked.Load(); got != tt.asked {
				t.Errorf("asked %d times, not %d", got, tt.asked)
			}
		})
	}
	for name, device := range map[string]string{
		"no serial":     "<EnableDate>2020-01-01T00:00:00Z</EnableDate>",
		"an odd serial": "<SerialNumber>arn:aws:iam::111122223333:mfa/a b</SerialNumber><EnableDate>2020-01-01T00:00:00Z</EnableDate>",
		"no date":       "<SerialNumber>GAHT12345678</SerialNumber>",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
				answer(w, 200, resultXML("ListMFADevices", "<MFADevices><member>"+device+"</member></MFADevices>"))
			})
			_, err := newClient(t, sts.Config{EndpointURL: f.URL}).MFADevices(t.Context(), key(), ststest.AliceARN, "")
			wantError(t, err, broker.CodeAWSUnreachable, "no MFA device")
		})
	}
}
