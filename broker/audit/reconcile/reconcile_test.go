package reconcile_test

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit/reconcile"
	"gatepass/broker/audit/reconcile/trailtest"
)

// An ordinary day is explained: who, why, and that some events are of others.
func TestExplained(t *testing.T) {
	w := newWorld(t)
	shared, own := day(w)
	r := w.reconcile()
	r.want(t, theDay())
	if r.Unexplained != 0 || r.Foreign != 3 || r.Duplicates == 0 || r.Explained != 10 {
		t.Errorf("summary: %+v", r.Summary)
	}
	if r.Records != 13+r.Duplicates || len(r.Addresses) != 1 || r.Addresses[0] != "203.0.113.7" {
		t.Errorf("summary: %+v", r.Summary)
	}
	for _, f := range r.the(reconcile.KindProcess) {
		p := f.By[0]
		switch {
		case f.Event.Name == "DescribeInstances":
			if p.Program != "/usr/bin/terraform" || p.PID != 4000 || p.Reason != "ticket 4711" || f.Session.ID != shared.ID || p.Command != "terraform --profile deploy" {
				t.Errorf("%+v of %+v", p, f.Session)
			}
		case p.Program != "/usr/bin/python3" || p.Lease != "l-0000000001" || f.Session.ID != own.ID:
			t.Errorf("%s: %+v", f.Event.Name, p)
		}
	}
	if c := r.the(reconcile.KindCandidates)[0]; len(c.By) != 2 || c.By[1].Program != "/usr/bin/aws" || c.Event.Name != "GetObject" {
		t.Errorf("candidates: %+v", c)
	}
	// The same trail, as lookup-events prints it, and with what others did.
	file := filepath.Join(t.TempDir(), "events.json")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.trail.LookupEvents(out); err != nil {
		t.Fatal(err)
	}
	out.Close()
	again := w.reconcile(func(o *reconcile.Options) { o.Files, o.All = []string{file}, true })
	again.want(t, theDay())
	if again.Duplicates != 0 || len(again.the(reconcile.KindForeign)) != 3 {
		t.Errorf("lookup-events: %+v", again.Summary)
	}
	// Of a part of the day, with the files of the whole.
	part := w.reconcile(func(o *reconcile.Options) { o.Since = w.aws().Add(-5 * time.Minute); o.Until = w.aws().Add(time.Hour) })
	part.want(t, map[reconcile.Kind]int64{reconcile.KindBroker: 1})
	if part.Outside != 9 || part.Foreign != 3 {
		t.Errorf("part: %+v", part.Summary)
	}
}

// Each of these is found when it is added to an ordinary day, and nothing else
// is.
func TestAnomalies(t *testing.T) {
	thief := func(u *trailtest.Use) { u.Address, u.Agent = "198.51.100.9", trailtest.CLI }
	for _, tt := range []struct {
		name  string
		plant func(w *world, shared, own *session)
		want  map[reconcile.Kind]int64
		why   string
	}{
		{"a stolen key makes a session", func(w *world, _, _ *session) {
			c := w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: "boto3-session-1"})
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:GetObject", Principal: "arn:aws:sts::111122223333:assumed-role/Deploy/boto3-session-1", AccessKeyID: c.IssuedKeyID})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 2}, "never asked for"},
		{"a stolen key makes a session of another account's role", func(w *world, _, _ *session) {
			c := w.call(trailtest.Call{Action: "AssumeRole", RoleARN: auditRole, SessionName: "x"})
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:GetObject", Principal: "arn:aws:sts::444455556666:assumed-role/Audit/x", AccessKeyID: c.IssuedKeyID})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 3}, "never asked for"}, // both accounts tell of the first
		{"and goes on from there", func(w *world, _, _ *session) {
			c := w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: "x"})
			c = w.call(trailtest.Call{Action: "AssumeRole", Principal: "arn:aws:sts::111122223333:assumed-role/Deploy/x", AccessKeyID: c.IssuedKeyID, RoleARN: "arn:aws:iam::111122223333:role/Other", SessionName: "y"})
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:GetObject", Principal: "arn:aws:sts::111122223333:assumed-role/Other/y", AccessKeyID: c.IssuedKeyID})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 3}, "never asked for"},
		{"a stolen key takes the name of a session that is there", func(w *world, shared, _ *session) {
			w.pass(time.Minute)
			w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: shared.Name})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 1}, "never asked for"},
		{"the same within the seconds of its making", func(w *world, _, _ *session) {
			s := w.mint("deploy", deploy, "")
			w.pass(2 * time.Second)
			w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: s.Name})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 1, reconcile.KindBroker: 1}, "never asked for"},
		{"the same a second after its making", func(w *world, _, _ *session) {
			s := w.mint("deploy", deploy, "")
			w.pass(time.Second)
			w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: s.Name})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 1, reconcile.KindBroker: 1}, "never asked for"},
		{"a stolen key gets a session token while the broker is refused one, elsewhere", func(w *world, _, _ *session) {
			w.requestProof("deploy", deploy)
			w.trail.Address = "198.51.100.9"
			w.call(trailtest.Call{Action: "GetSessionToken"})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 1}, "never asked for"},
		{"or from the same place by another program", func(w *world, _, _ *session) {
			w.requestProof("deploy", deploy)
			w.call(trailtest.Call{Action: "GetSessionToken", UserAgent: trailtest.CLI})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 1}, "never asked for"},
		{"or another role's session", func(w *world, _, _ *session) {
			w.request("deploy", deploy, "")
			w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: "x"})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 1}, "never asked for"},
		{"a thief changes keys while the broker rotates one, by another program and elsewhere", func(w *world, _, _ *session) {
			w.record(broker.Event{Kind: broker.EventKeyRotating, Key: &broker.EventKey{Name: "alice", AccessKeyID: aliceKey, UserARN: alice}, Reason: "a new access key is asked for"})
			w.call(trailtest.Call{Action: "DeleteAccessKey", SubjectKeyID: "AKIAEXAMPLEALICE0002", UserAgent: trailtest.CLI})
			w.trail.Address = "198.51.100.9"
			w.call(trailtest.Call{Action: "DeleteAccessKey", SubjectKeyID: "AKIAEXAMPLEALICE0002"})
		}, map[reconcile.Kind]int64{reconcile.KindDirect: 2}, "only to rotate it"},
		{"a stolen key tries a role in vain", func(w *world, _, _ *session) {
			w.pass(time.Hour)
			w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: "x", Code: "AccessDenied"})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 1}, "AWS refused it"},
		{"a stolen key gets a session token", func(w *world, _, _ *session) {
			w.pass(time.Hour)
			c := w.call(trailtest.Call{Action: "GetSessionToken"})
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:ListBuckets", Principal: alice, AccessKeyID: c.IssuedKeyID})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 2}, "never asked for"},
		{"a stolen key is used as it is", func(w *world, _, _ *session) {
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:ListBuckets", Principal: alice, AccessKeyID: aliceKey})
		}, map[reconcile.Kind]int64{reconcile.KindDirect: 1}, "signed with the key alice (AKIAEXAMPLEALICE0001)"},
		{"a thief looks who he is", func(w *world, _, _ *session) {
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "sts:GetCallerIdentity", Principal: alice, AccessKeyID: aliceKey})
		}, map[reconcile.Kind]int64{reconcile.KindDirect: 1}, "under its own name alone"},
		{"a thief looks who he is under the broker's name", func(w *world, _, _ *session) {
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "sts:GetCallerIdentity", Principal: alice, AccessKeyID: aliceKey, Agent: "gatepass/1.0.0", Address: "198.51.100.9"})
		}, map[reconcile.Kind]int64{reconcile.KindDirect: 1}, "came from 198.51.100.9"},
		{"a thief makes a second key, under the broker's name", func(w *world, _, _ *session) {
			w.call(trailtest.Call{Action: "CreateAccessKey", IssuedKeyID: "AKIAEXAMPLEALICE0666"})
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:ListBuckets", Principal: alice, AccessKeyID: "AKIAEXAMPLEALICE0666"})
		}, map[reconcile.Kind]int64{reconcile.KindDirect: 1, reconcile.KindOtherKey: 1}, "only to rotate it"},
		{"a session of the user that nothing tells of", func(w *world, _, _ *session) {
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:ListBuckets", Principal: alice, AccessKeyID: "ASIAEXAMPLENOWHERE01"})
		}, map[reconcile.Kind]int64{reconcile.KindUntraced: 1}, "neither the log nor these files"},
		{"a session of the role that nothing tells of", func(w *world, _, _ *session) {
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:ListBuckets", Principal: "arn:aws:sts::111122223333:assumed-role/Deploy/x", AccessKeyID: "ASIAEXAMPLENOWHERE01"})
		}, map[reconcile.Kind]int64{reconcile.KindUntraced: 1}, "neither the log nor these files"},
		{"and goes on from there in secret", func(w *world, _, _ *session) {
			c := w.call(trailtest.Call{Action: "AssumeRole", Principal: "arn:aws:sts::111122223333:assumed-role/Deploy/x", AccessKeyID: "ASIAEXAMPLENOWHERE01", RoleARN: "arn:aws:iam::111122223333:role/Other", SessionName: "y"})
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:GetObject", Principal: "arn:aws:sts::111122223333:assumed-role/Other/y", AccessKeyID: c.IssuedKeyID})
		}, map[reconcile.Kind]int64{reconcile.KindUntraced: 1, reconcile.KindUnissued: 1}, "made, which is not explained"},
		{"a session by the name of one that is there", func(w *world, shared, _ *session) {
			w.use(shared, "s3:ListBuckets", func(u *trailtest.Use) { u.AccessKeyID = "ASIAEXAMPLENOWHERE01" })
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 1}, "an access key that the broker never got"},
		{"a session by the name of one, made at another time", func(w *world, shared, _ *session) {
			w.use(shared, "s3:ListBuckets", func(u *trailtest.Use) { u.AccessKeyID, u.Created = "", w.aws().Add(-20*time.Hour) })
		}, map[reconcile.Kind]int64{reconcile.KindUntraced: 1}, "at a time when the broker's of that name was none"},
		{"a session by the name of one, before it and after it", func(w *world, shared, _ *session) {
			for id, at := range map[string]time.Time{"1": w.aws().Add(-time.Hour), "2": w.aws().Add(2 * time.Hour)} {
				w.trail.Raw(at, "111122223333", map[string]any{
					"eventTime": at.UTC().Format(time.RFC3339), "eventSource": "s3.amazonaws.com", "eventName": "GetObject", "eventID": id,
					"userIdentity": map[string]any{"type": "AssumedRole", "arn": shared.arn()}, "sourceIPAddress": w.trail.Address,
				})
			}
		}, map[reconcile.Kind]int64{reconcile.KindUntraced: 2}, "at a time when the broker's of that name was none"},
		{"a session that is used before it was handed out", func(w *world, _, _ *session) {
			s := w.mint("deploy", deploy, "")
			w.pass(10 * time.Second)
			w.use(s, "s3:ListBuckets")
			w.pass(time.Minute)
			w.serve(s, "/usr/bin/aws", 7000, "")
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 1, reconcile.KindUnserved: 1}, "handed to nobody before then"},
		{"a session that nobody was handed", func(w *world, _, _ *session) {
			w.use(w.mint("deploy", deploy, ""), "s3:ListBuckets")
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 1, reconcile.KindUnserved: 1}, "handed to nobody"},
		{"a session that only whoami had", func(w *world, _, _ *session) {
			s := w.mint("deploy", deploy, "")
			w.whoami(s)
			w.use(s, "s3:ListBuckets")
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 1, reconcile.KindUnserved: 1}, "handed to nobody"},
		{"a source identity of the broker's, when it had no such session", func(w *world, _, _ *session) {
			sourced(w, "l-0000000003")
			w.pass(2 * time.Hour)
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:GetObject", Principal: "arn:aws:sts::444455556666:assumed-role/Far/x", AccessKeyID: "ASIAEXAMPLEFARAWAY01", Source: "alice"})
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 1, reconcile.KindUntraced: 1}, "has the source identity alice"},
		{"use after the lease's end", func(w *world, _, own *session) {
			w.use(own, "s3:ListBuckets")
		}, map[reconcile.Kind]int64{reconcile.KindEnded: 1}, "lease l-0000000001, which had session"},
		{"a session goes to another place", func(w *world, shared, _ *session) {
			w.use(shared, "s3:ListBuckets", thief)
		}, map[reconcile.Kind]int64{reconcile.KindAddress: 1}, "from 198.51.100.9"},
		{"a session goes to another system", func(w *world, shared, _ *session) {
			w.use(shared, "s3:ListBuckets", func(u *trailtest.Use) {
				u.Agent = "Boto3/1.34.0 md/Botocore#1.34.0 ua/2.0 os/macos#23.4 lang/python#3.12"
			})
		}, map[reconcile.Kind]int64{reconcile.KindAgent: 1}, "was used by macos"},
		{"an answer that is lost is used", func(w *world, _, _ *session) {
			s := w.request("deploy", deploy, "")
			c := w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: s.Name})
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:ListBuckets", Principal: s.arn(), AccessKeyID: c.IssuedKeyID})
		}, map[reconcile.Kind]int64{reconcile.KindUnanswered: 1, reconcile.KindUnserved: 1}, "never had it"},
		{"the way through a chain is used", func(w *world, _, _ *session) {
			hop := chain(w)
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:ListBuckets", Principal: "arn:aws:sts::111122223333:assumed-role/Deploy/x", AccessKeyID: hop})
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 3, reconcile.KindUnserved: 1}, "handed to nobody"},
		{"a session of an MFA proof is used", func(w *world, _, _ *session) {
			base := mfa(w)
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:ListBuckets", Principal: alice, AccessKeyID: base.AccessKeyID})
			c := w.call(trailtest.Call{Action: "AssumeRole", Principal: alice, AccessKeyID: base.AccessKeyID, RoleARN: deploy, SessionName: "x"})
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:GetObject", Principal: "arn:aws:sts::111122223333:assumed-role/Deploy/x", AccessKeyID: c.IssuedKeyID})
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 3, reconcile.KindDirect: 1, reconcile.KindUnissued: 2}, ""},
		{"a stolen key takes the name of a request that had no answer", func(w *world, _, _ *session) {
			s := w.request("deploy", deploy, "")
			w.pass(time.Hour)
			w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: s.Name})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 1}, "never asked for"},
		{"and in time, by another program and elsewhere", func(w *world, _, _ *session) {
			s := w.request("deploy", deploy, "")
			w.pass(time.Minute)
			w.trail.Address = "198.51.100.9"
			w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: s.Name, UserAgent: trailtest.CLI})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 1}, "never asked for"},
		{"and in vain", func(w *world, _, _ *session) {
			s := w.request("deploy", deploy, "")
			w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: s.Name, UserAgent: trailtest.CLI, Code: "AccessDenied"})
		}, map[reconcile.Kind]int64{reconcile.KindUnissued: 1}, "AWS refused it"},
		{"a federated session of the user that nothing tells of", func(w *world, _, _ *session) {
			for _, console := range []string{"", "true"} {
				w.trail.Raw(w.aws(), "111122223333", map[string]any{
					"eventTime": w.aws().UTC().Format(time.RFC3339), "eventSource": "s3.amazonaws.com", "eventName": "ListBuckets", "eventID": "f" + console,
					"sessionCredentialFromConsole": console, "sourceIPAddress": w.trail.Address, "userAgent": trailtest.CLI,
					"userIdentity": map[string]any{"type": "FederatedUser", "principalId": "111122223333:x", "arn": "arn:aws:sts::111122223333:federated-user/x",
						"accountId": "111122223333", "accessKeyId": "ASIAEXAMPLENOWHERE01",
						"sessionContext": map[string]any{"sessionIssuer": map[string]any{"type": "IAMUser", "principalId": "AIDAEXAMPLEALICE", "arn": alice}}},
				})
			}
		}, map[reconcile.Kind]int64{reconcile.KindUntraced: 2}, "neither the log nor these files"},
		{"another system, that was seen elsewhere alone", func(w *world, shared, own *session) {
			mac := func(u *trailtest.Use) { u.Agent = "Boto3/1.34.0 os/macos#23.4" }
			w.use(shared, "s3:ListBuckets", mac)
			s := w.mint("deploy", deploy, "")
			w.serve(s, "/usr/bin/aws", 7000, "")
			w.use(s, "s3:ListBuckets", thief, mac)
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 1, reconcile.KindAddress: 1, reconcile.KindAgent: 1}, "was used by macos"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			shared, own := day(w)
			w.pass(30 * time.Second)
			tt.plant(w, shared, own)
			r := w.reconcile()
			want := theDay()
			for k, n := range tt.want {
				want[k] += n
			}
			r.want(t, want)
			told := false
			for _, f := range r.found {
				told = told || !f.Explains && strings.Contains(f.Why, tt.why)
			}
			if !told || r.Unexplained == 0 {
				t.Errorf("nothing unexplained says %q", tt.why)
			}
		})
	}
}

// chain has the broker go through Deploy to Audit, and returns the access key of
// the session on the way.
func chain(w *world) string {
	s := w.request("audit", auditRole, "")
	hop := w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: "configured"})
	w.answered(s, w.call(trailtest.Call{Action: "AssumeRole", Principal: "arn:aws:sts::111122223333:assumed-role/Deploy/configured",
		AccessKeyID: hop.IssuedKeyID, RoleARN: auditRole, SessionName: s.Name}), broker.EventSessionIssued)
	return hop.IssuedKeyID
}

// mfa has the broker prove a code and get a session of Deploy with the proof.
func mfa(w *world) *session {
	base := w.requestProof("deploy", deploy)
	w.answered(base, w.call(trailtest.Call{Action: "GetSessionToken", MFASerial: "arn:aws:iam::111122223333:mfa/alice"}), broker.EventMFAVerified)
	s := w.request("deploy", deploy, "")
	w.answered(s, w.call(trailtest.Call{Action: "AssumeRole", Principal: alice, AccessKeyID: base.AccessKeyID, RoleARN: deploy, SessionName: s.Name}), broker.EventSessionIssued)
	w.call(trailtest.Call{Action: "ListMFADevices", Principal: alice, AccessKeyID: base.AccessKeyID})
	return base
}

// sourced has the broker get a session with the source identity alice, for a
// process.
func sourced(w *world, lease string) {
	s := w.request("deploy", deploy, lease)
	s.SourceIdentity = "alice"
	w.answered(s, w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: s.Name, SourceIdentity: "alice"}), broker.EventSessionIssued)
	w.serve(s, "/usr/bin/terraform", 7000, "")
}

// What looks odd and is in order.
func TestInOrder(t *testing.T) {
	for _, tt := range []struct {
		name  string
		plant func(w *world, shared, own *session)
		want  map[reconcile.Kind]int64
	}{
		{"an answer that is lost", func(w *world, _, _ *session) {
			s := w.request("deploy", deploy, "")
			w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: s.Name})
		}, map[reconcile.Kind]int64{reconcile.KindUnanswered: 1}},
		{"a first try whose answer is lost", func(w *world, _, _ *session) {
			s := w.request("deploy", deploy, "")
			w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: s.Name})
			w.pass(time.Second)
			w.answered(s, w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: s.Name}), broker.EventSessionIssued)
		}, map[reconcile.Kind]int64{reconcile.KindUnanswered: 1, reconcile.KindBroker: 1}},
		{"a chain", func(w *world, _, _ *session) { chain(w) }, map[reconcile.Kind]int64{reconcile.KindBroker: 3}},
		{"long chains, told in any order", func(w *world, _, _ *session) {
			const hops = "arn:aws:sts::111122223333:assumed-role/Deploy/hop"
			for range 5 {
				s := w.request("audit", auditRole, "")
				hop := w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: "hop"})
				for range 4 {
					hop = w.call(trailtest.Call{Action: "AssumeRole", Principal: hops, AccessKeyID: hop.IssuedKeyID, RoleARN: deploy, SessionName: "hop"})
				}
				w.answered(s, w.call(trailtest.Call{Action: "AssumeRole", Principal: hops, AccessKeyID: hop.IssuedKeyID, RoleARN: auditRole, SessionName: s.Name}), broker.EventSessionIssued)
			}
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 5 * 7}}, // the last of each in two accounts
		{"an answer that the trail leaves out", func(w *world, _, _ *session) {
			s := w.request("deploy", deploy, "")
			const request = "22222222-0000-4000-8000-000000000000"
			w.trail.Raw(w.aws(), "111122223333", map[string]any{
				"eventTime": w.aws().UTC().Format(time.RFC3339), "eventSource": "sts.amazonaws.com", "eventName": "AssumeRole", "eventID": "1", "requestID": request,
				"userIdentity": map[string]any{"type": "IAMUser", "arn": alice, "accessKeyId": aliceKey}, "sourceIPAddress": w.trail.Address,
			})
			w.answered(s, trailtest.Call{IssuedKeyID: "ASIAEXAMPLEOMITTED01", RequestID: request, Time: w.aws()}, broker.EventSessionIssued)
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 1}},
		{"a chain that AWS refuses at its end", func(w *world, _, _ *session) {
			s := w.request("audit", auditRole, "")
			hop := w.call(trailtest.Call{Action: "AssumeRole", RoleARN: deploy, SessionName: s.Name})
			w.call(trailtest.Call{Action: "AssumeRole", Principal: "arn:aws:sts::111122223333:assumed-role/Deploy/" + s.Name, AccessKeyID: hop.IssuedKeyID,
				RoleARN: "arn:aws:iam::111122223333:role/Other", SessionName: s.Name, Code: "AccessDenied"})
			e := w.event(broker.EventRequestDenied, s)
			e.Outcome, e.Error = broker.OutcomeDenied, &broker.EventError{Code: broker.CodeAWSDenied, Message: "no"}
			w.record(e)
		}, map[reconcile.Kind]int64{reconcile.KindUnanswered: 1, reconcile.KindBroker: 1}},
		{"an MFA proof", func(w *world, _, _ *session) { mfa(w) }, map[reconcile.Kind]int64{reconcile.KindBroker: 3}},
		{"an MFA proof that is served as it is", func(w *world, _, _ *session) {
			base := mfa(w)
			s := w.request("plain", "", "")
			s.AccessKeyID, s.STSRequestID, s.Expires, s.created = base.AccessKeyID, base.STSRequestID, base.Expires, base.created
			w.record(w.event(broker.EventSessionIssued, s))
			w.serve(s, "/usr/bin/aws", 7000, "")
			w.use(s, "s3:ListBuckets")
			w.call(trailtest.Call{Action: "ListMFADevices", Principal: alice, AccessKeyID: base.AccessKeyID})
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 4, reconcile.KindProcess: 1}},
		{"a wrong MFA code", func(w *world, _, _ *session) {
			w.requestProof("deploy", deploy)
			w.call(trailtest.Call{Action: "GetSessionToken", MFASerial: "arn:aws:iam::111122223333:mfa/alice", Code: "AccessDenied"})
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 1}},
		{"a rotation", func(w *world, _, _ *session) {
			const fresh = "AKIAEXAMPLEALICE0002"
			key := &broker.EventKey{Name: "alice", AccessKeyID: aliceKey, UserARN: alice}
			w.record(broker.Event{Kind: broker.EventKeyRotating, Key: key, Reason: "a new access key is asked for"})
			w.call(trailtest.Call{Action: "CreateAccessKey", IssuedKeyID: fresh})
			w.call(trailtest.Call{Action: "GetCallerIdentity", Principal: alice, AccessKeyID: fresh})
			w.record(broker.Event{Kind: broker.EventKeyRotating, Key: key, Reason: "the new access key " + fresh + ", which cannot be used, is deleted"})
			w.call(trailtest.Call{Action: "DeleteAccessKey", SubjectKeyID: fresh})
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 3}},
		{"a role that a process assumes itself", func(w *world, shared, _ *session) {
			c := w.call(trailtest.Call{Action: "AssumeRole", Principal: shared.arn(), AccessKeyID: shared.AccessKeyID, UserAgent: trailtest.CLI,
				RoleARN: "arn:aws:iam::111122223333:role/Other", SessionName: "terraform"})
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:ListBuckets", Principal: "arn:aws:sts::111122223333:assumed-role/Other/terraform", AccessKeyID: c.IssuedKeyID})
		}, map[reconcile.Kind]int64{reconcile.KindCandidates: 2}},
		{"a URL that was signed for others", func(w *world, shared, _ *session) {
			w.use(shared, "s3:GetObject", func(u *trailtest.Use) {
				u.Presigned, u.Address, u.Agent = true, "198.51.100.9", "Mozilla/5.0 (Macintosh)"
			})
		}, map[reconcile.Kind]int64{reconcile.KindCandidates: 1}},
		{"a session in the console", func(w *world, shared, _ *session) {
			w.use(shared, "ec2:DescribeInstances", func(u *trailtest.Use) {
				u.Console, u.AccessKeyID, u.Agent = true, "ASIAEXAMPLECONSOLE01", "Mozilla/5.0 (Windows NT 10.0)"
			})
		}, map[reconcile.Kind]int64{reconcile.KindCandidates: 1}},
		{"a stack that is still being made after the lease", func(w *world, _, own *session) {
			w.pass(3 * time.Hour)
			w.use(own, "ec2:RunInstances", func(u *trailtest.Use) {
				u.InvokedBy, u.AccessKeyID = "cloudformation.amazonaws.com", "ASIAEXAMPLEFORWARDED"
			})
		}, map[reconcile.Kind]int64{reconcile.KindProcess: 1}},
		{"a role that a process assumes where the trail does not reach", func(w *world, _, _ *session) {
			sourced(w, "l-0000000003")
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:GetObject", Principal: "arn:aws:sts::444455556666:assumed-role/Far/x", AccessKeyID: "ASIAEXAMPLEFARAWAY01", Source: "alice"})
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 1, reconcile.KindProcess: 1}},
		{"a role that a process assumes, of whose session the trail has nothing else", func(w *world, _, _ *session) {
			s := w.request("deploy", deploy, "l-0000000003")
			s.SourceIdentity = "alice"
			w.answered(s, trailtest.Call{IssuedKeyID: "ASIAEXAMPLE000000099", RequestID: "elsewhere", Time: w.aws()}, broker.EventSessionIssued)
			w.serve(s, "/usr/bin/terraform", 7000, "")
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:GetObject", Principal: "arn:aws:sts::444455556666:assumed-role/Far/x", AccessKeyID: "ASIAEXAMPLEFARAWAY01", Source: "alice"})
		}, map[reconcile.Kind]int64{reconcile.KindProcess: 1}},
		{"whoami", func(w *world, shared, _ *session) {
			w.whoami(shared)
			w.call(trailtest.Call{Action: "GetCallerIdentity", Principal: shared.arn(), AccessKeyID: shared.AccessKeyID})
			w.use(shared, "ec2:DescribeInstances") // not by whoami
		}, map[reconcile.Kind]int64{reconcile.KindProcess: 1, reconcile.KindCandidates: 1}},
		{"the console after the session", func(w *world, shared, _ *session) {
			w.pass(3 * time.Hour)
			w.use(shared, "ec2:DescribeInstances", func(u *trailtest.Use) {
				u.Console, u.AccessKeyID, u.Created = true, "ASIAEXAMPLECONSOLE01", w.aws().Add(-time.Hour)
			})
		}, map[reconcile.Kind]int64{reconcile.KindCandidates: 1}},
		{"an event without an access key", func(w *world, shared, _ *session) {
			w.use(shared, "ec2:DescribeInstances", func(u *trailtest.Use) { u.AccessKeyID = "" })
		}, map[reconcile.Kind]int64{reconcile.KindCandidates: 1}},
		{"a shared session outlives the lease that also had it", func(w *world, shared, _ *session) {
			s := *shared
			s.lease = "l-0000000001" // which has ended
			w.serve(&s, "/usr/bin/make", 8000, "")
			w.use(shared, "ec2:DescribeInstances")
		}, map[reconcile.Kind]int64{reconcile.KindCandidates: 1}},
		{"events that do not say whose they are", func(w *world, _, _ *session) {
			for _, key := range []string{aliceKey, "ASIAEXAMPLENOWHERE01"} {
				w.trail.Raw(w.aws(), "111122223333", map[string]any{
					"eventTime": w.aws().UTC().Format(time.RFC3339), "eventSource": "sts.amazonaws.com", "eventName": "GetCallerIdentity", "eventID": key,
					"userIdentity": map[string]any{"accessKeyId": key}, "userAgent": "gatepass/1.0.0", "sourceIPAddress": w.trail.Address,
				})
			}
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 1}},
		{"another role's session of the same name", func(w *world, shared, _ *session) {
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "s3:GetObject", Principal: "arn:aws:sts::111122223333:assumed-role/Other/" + shared.Name, AccessKeyID: "ASIAEXAMPLENOWHERE01"})
		}, nil},
		{"the user signs in to the console", func(w *world, _, _ *session) {
			w.trail.Use(trailtest.Use{Time: w.aws(), Call: "signin:ConsoleLogin", Principal: alice, Address: "198.51.100.9"})
		}, nil},
		{"an IPv6 address that changes", func(w *world, _, _ *session) {
			w.trail.Address = "2001:db8:1:2::1"
			s := w.mint("deploy", deploy, "")
			w.serve(s, "/usr/bin/aws", 7000, "")
			w.use(s, "s3:GetObject", func(u *trailtest.Use) { u.Address = "2001:db8:1:2:aaaa::7" })
		}, map[reconcile.Kind]int64{reconcile.KindBroker: 1, reconcile.KindProcess: 1}},
		{"an agent that names the lease", func(w *world, shared, _ *session) {
			s := *shared
			s.lease = "l-0000000002"
			w.serve(&s, "/usr/bin/make", 8000, "")
			w.use(shared, "ec2:DescribeInstances", func(u *trailtest.Use) { u.Agent = trailtest.CLI + " app/gatepass-l-0000000002" })
		}, map[reconcile.Kind]int64{reconcile.KindProcess: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			shared, own := day(w)
			w.pass(30 * time.Second)
			tt.plant(w, shared, own)
			r := w.reconcile()
			want := theDay()
			for k, n := range tt.want {
				want[k] += n
			}
			r.want(t, want)
			if r.Unexplained != 0 {
				t.Errorf("unexplained: %+v", r.Summary)
			}
		})
	}
}

// What the user vouches for is in order.
func TestVouched(t *testing.T) {
	w := newWorld(t)
	shared, _ := day(w)
	w.use(shared, "s3:ListBuckets", func(u *trailtest.Use) { u.Address = "198.51.100.9" })
	w.use(shared, "s3:ListBuckets", func(u *trailtest.Use) { u.Agent = "Boto3/1.34.0 os/macos#23.4" })
	w.reconcile().want(t, merged(theDay(), reconcile.KindAddress, 1, reconcile.KindAgent, 1))
	vouched := w.reconcile(func(o *reconcile.Options) {
		o.Addresses, o.Agents = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, []string{"boto3/*macos*"}
	})
	vouched.want(t, merged(theDay(), reconcile.KindCandidates, 2))
}

func merged(k map[reconcile.Kind]int64, more ...any) map[reconcile.Kind]int64 {
	k = maps.Clone(k)
	for i := 0; i < len(more); i += 2 {
		k[more[i].(reconcile.Kind)] += int64(more[i+1].(int))
	}
	return k
}

// A session whose making is missing says that files are.
func TestMissing(t *testing.T) {
	w := newWorld(t)
	day(w)
	s := w.request("deploy", deploy, "")
	s.AccessKeyID, s.STSRequestID, s.Expires = "ASIAEXAMPLEMISSING01", "11111111-0000-4000-8000-000000000000", w.now.Add(time.Hour)
	w.record(w.event(broker.EventSessionIssued, s))
	w.pass(time.Hour)
	w.trail.Use(trailtest.Use{Time: w.aws(), Call: "iam:ListUsers", Principal: mallory, AccessKeyID: "AKIAEXAMPLEMALLORY01"})
	if r := w.reconcile(); r.Missing != 1 || r.FirstMissing != s.ID || r.Unexplained != 0 {
		t.Errorf("%+v", r.Summary)
	}
}
