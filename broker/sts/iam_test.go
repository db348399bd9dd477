package sts_test

import (
	"errors"
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
