package audit_test

import (
	"testing"

	"gatepass/broker"
	"gatepass/broker/audit"
)

func TestSummary(t *testing.T) {
	for _, tt := range []struct {
		event broker.Event
		want  string
	}{
		{broker.Event{Kind: broker.EventDaemonStopped}, "daemon.stopped"},
		{broker.Event{Kind: broker.EventCredentialsServed, Profile: "deploy", Account: "111122223333", RoleARN: "arn:aws:iam::111122223333:role/team/Deploy",
			Key: &broker.EventKey{Name: "work"}, Session: &broker.EventSession{ID: "s-1"}, Lease: "l-1", Caller: &broker.Caller{Program: "terraform"}, Reason: "ticket 4711"},
			"credentials.served: profile deploy, role team/Deploy in 111122223333, by terraform, session s-1, lease l-1, reason ticket 4711"},
		{broker.Event{Kind: broker.EventKeyAdded, Key: &broker.EventKey{Name: "work"}}, "key.added: key work"},
		{broker.Event{Kind: broker.EventRequestDenied, Profile: "a\x1b[2J\u202e\nb", Error: &broker.EventError{Code: broker.CodeDenied, Message: "one\ntwo"}},
			"request.denied: denied, profile a[2J b, one two"},
	} {
		if got := (audit.Entry{Event: tt.event}).Summary(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}
