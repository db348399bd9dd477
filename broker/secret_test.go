package broker_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
)

// However a value with secrets in it is printed, logged or marshalled, the
// secrets do not appear.
func TestSecretsDoNotShow(t *testing.T) {
	const hidden = "hunter2hunter2"
	c := broker.Credentials{AccessKeyID: "ASIA", SecretAccessKey: broker.NewSecret(hidden), SessionToken: broker.NewSecret(hidden)}
	for _, v := range []any{c, &c, c.SecretAccessKey, &c.SecretAccessKey, broker.Key{SecretAccessKey: c.SecretAccessKey}, broker.NewKey{SecretAccessKey: c.SecretAccessKey}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
			text := fmt.Sprintf(verb, v)
			if strings.Contains(text, hidden) || strings.Contains(text, fmt.Sprintf("%x", hidden)) || strings.Contains(text, "104 117 110") {
				t.Errorf("%s of %T shows it: %s", verb, v, text)
			}
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		if strings.Contains(log.String(), hidden) {
			t.Errorf("slog shows %T: %s", v, &log)
		}
		if b, err := json.Marshal(v); err == nil {
			t.Errorf("%T was marshalled: %s", v, b)
		}
	}
	if !c.SecretAccessKey.Equal(broker.NewSecret(hidden)) || c.SecretAccessKey.Equal(broker.NewSecret("other")) {
		t.Error("Equal is wrong")
	}
	c.SecretAccessKey.Clear()
	if c.SecretAccessKey.Equal(broker.NewSecret(hidden)) {
		t.Error("Clear left it")
	}
}

// The document is what facts of all SDKs agree on: Version a number, no empty
// Expiration, one object.
func TestDocument(t *testing.T) {
	expires := time.Date(2026, 11, 3, 11, 0, 0, 999, time.FixedZone("", 3600))
	c := broker.Credentials{
		AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: broker.NewSecret(`a"b\c/+`), SessionToken: broker.NewSecret("tok\n"),
		Expires: expires, AccountID: "111122223333",
	}
	var got map[string]any
	if err := json.Unmarshal(c.Document(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"Version": 1.0, "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": `a"b\c/+`, "SessionToken": "tok\n",
		"Expiration": "2026-11-03T10:00:00Z", "AccountId": "111122223333",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for name, doc := range map[string][]byte{"container": c.ContainerDocument(), "instance": c.InstanceDocument(expires.Add(-time.Hour))} {
		clear(got)
		if err := json.Unmarshal(doc, &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": `a"b\c/+`, "Token": "tok\n", "Expiration": "2026-11-03T10:00:00Z", "AccountId": "111122223333",
		}
		if name == "instance" {
			want["Code"], want["Type"], want["LastUpdated"] = "Success", "AWS-HMAC", "2026-11-03T09:00:00Z"
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	bare := string(broker.Credentials{AccessKeyID: "A", SecretAccessKey: broker.NewSecret("s")}.Document())
	if bare != `{"Version":1,"AccessKeyId":"A","SecretAccessKey":"s"}`+"\n" {
		t.Errorf("bare document: %s", bare)
	}
}
