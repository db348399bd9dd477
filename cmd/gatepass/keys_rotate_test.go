package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

const otherID = "AKIAI44QH8DHBEXAMPLE"

// serveRotate answers keys rotate with answer, and returns what was asked.
func (h *home) serveRotate(answer func(wire.RotateKeyRequest) (int, string)) *[]wire.RotateKeyRequest {
	var got []wire.RotateKeyRequest
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathKeysRotate: func(body []byte) (int, map[string]string, string) {
			var r wire.RotateKeyRequest
			if err := json.Unmarshal(body, &r); err != nil {
				h.t.Error(err)
			}
			got = append(got, r)
			status, text := answer(r)
			return status, nil, text
		},
		"POST " + wire.PathPromptReply: func([]byte) (int, map[string]string, string) { return 200, nil, "{}" },
	})
	return &got
}

func TestKeysRotate(t *testing.T) {
	until := time.Date(2026, 11, 25, 9, 30, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		flags []string
		env   map[string]string
		want  wire.RotateKeyRequest
	}{
		"plain":    {},
		"keep":     {flags: []string{"--keep-old", "24h"}, want: wire.RotateKeyRequest{KeepSeconds: 86400}},
		"seconds":  {flags: []string{"--keep-old=3600"}, want: wire.RotateKeyRequest{KeepSeconds: 3600}},
		"30 days":  {flags: []string{"--keep-old", "30d"}, want: wire.RotateKeyRequest{KeepSeconds: 30 * 86400}},
		"finish":   {flags: []string{"--finish"}, want: wire.RotateKeyRequest{Finish: true}},
		"variable": {env: map[string]string{"AWS_DEFAULT_REGION": "cn-north-1", "AWS_CONFIG_FILE": "/etc/aws"}, want: wire.RotateKeyRequest{Region: "cn-north-1", ConfigFile: "/etc/aws"}},
		"region": {flags: []string{"--region", "eu-west-1"}, env: map[string]string{"AWS_REGION": "cn-north-1"},
			want: wire.RotateKeyRequest{Region: "eu-west-1"}},
		"mfa": {flags: []string{"--mfa-serial", "arn:aws:iam::111122223333:mfa/alice", "--mfa-code", "123456"},
			want: wire.RotateKeyRequest{MFASerial: "arn:aws:iam::111122223333:mfa/alice", MFACode: "123456"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			done := broker.Rotated{KeyInfo: broker.KeyInfo{Name: "work", AccessKeyID: otherID}, Old: testID, OldUntil: until}
			got := h.serveRotate(func(wire.RotateKeyRequest) (int, string) { return 200, jsonOf(t, done) })
			for k, v := range c.env {
				h.env[k] = v
			}
			c.want.Name = "work"
			if r := h.run(append([]string{"keys", "rotate", "work"}, c.flags...)...); r != (result{}) || len(*got) != 1 || (*got)[0] != c.want {
				t.Errorf("%+v, asked %+v", r, *got)
			}
			r := h.run(append([]string{"keys", "rotate", "work", "--json"}, c.flags...)...)
			var back broker.Rotated
			if err := json.Unmarshal([]byte(r.stdout), &back); err != nil || r.stderr != "" || back != done {
				t.Errorf("--json: %+v, %v", r, err)
			}
		})
	}
}

func TestKeysRotateRefuses(t *testing.T) {
	for line, says := range map[string]string{
		"":                             "the name of a key is missing",
		"a b":                          "one argument",
		"work --keep-old=-5":           "not a length of time",
		"work --keep-old=-1h":          "not a length of time",
		"work --keep-old soon":         "not a length of time",
		"work --keep-old 0":            "not a length of time",
		"work --keep-old=":             "--keep-old is empty",
		"work --keep-old 31d":          "more than 30 days",
		"work --keep-old 720h1s":       "more than 30 days",
		"work --keep-old 99999999999h": "not a length of time",
		"work --keep-old 1h --finish":  "exclude each other",
		"work --prompt smoke":          "no way to ask",
		"work --duration 1h":           "no flag --duration",
	} {
		h := newHome(t)
		got := h.serveRotate(func(wire.RotateKeyRequest) (int, string) { return 200, "{}" })
		r := h.run(append([]string{"keys", "rotate"}, strings.Fields(line)...)...)
		if r.code != 64 || r.stdout != "" || !strings.Contains(r.stderr, says) || len(*got) != 0 {
			t.Errorf("%q: %+v, asked %d", line, r, len(*got))
		}
	}
}

// A code that the user's policy wants is asked for on the terminal, and is
// never part of the request that is made again.
func TestKeysRotateAsks(t *testing.T) {
	h := newHome(t)
	h.answers = []string{"123456"}
	question := broker.Question{ID: "q-1", Want: broker.WantCode, Profile: "work", Key: "work", Serial: "arn:aws:iam::111122223333:mfa/alice"}
	asked := 0
	got := h.serveRotate(func(r wire.RotateKeyRequest) (int, string) {
		switch asked++; asked {
		case 1:
			return 202, jsonOf(t, wire.Needed{})
		case 2:
			return 202, jsonOf(t, wire.Needed{Question: question})
		}
		return 200, jsonOf(t, broker.Rotated{})
	})
	r := h.run("keys", "rotate", "work", "--keep-old", "1h")
	if r != (result{}) || len(*got) != 3 || len(h.asked) != 1 || !strings.Contains(h.asked[0], question.Serial) {
		t.Fatalf("%+v, asked %+v, %q", r, *got, h.asked)
	}
	for i, q := range *got {
		if (q.Ask != nil && q.Ask.Terminal) != (i > 0) || q.KeepSeconds != 3600 || q.MFACode != "" {
			t.Errorf("request %d: %+v", i, q)
		}
	}
}

func TestRotatedLine(t *testing.T) {
	r := broker.Rotated{KeyInfo: broker.KeyInfo{Name: "work", AccessKeyID: otherID}, Old: testID}
	if got := rotatedLine(r); got != "the key work is now "+otherID+"\nthe old one, "+testID+", is deleted" {
		t.Error(got)
	}
	r.OldUntil = time.Date(2026, 11, 25, 9, 30, 0, 0, time.UTC)
	if got := rotatedLine(r); got != "the key work is now "+otherID+"\nthe old one, "+testID+", lives until 25 November 09:30" {
		t.Error(got)
	}
}

// Age counts from when AWS made the key, else from its rotation, else from when
// it was stored; what is not finished is said with the way on.
func TestKeysTable(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	key := func(name string, added time.Time, note broker.KeyNote) broker.KeyState {
		return broker.KeyState{KeyInfo: broker.KeyInfo{Name: name, AccessKeyID: testID, UserARN: "arn:aws:iam::111122223333:user/team/alice", Added: added}, KeyNote: note}
	}
	keys := []broker.KeyState{
		key("ninety", ago(90*day), broker.KeyNote{LastUsed: ago(90 * day)}),
		key("old", ago(90*day+time.Second), broker.KeyNote{LastUsed: ago(5 * time.Hour)}),
		key("rotated", ago(200*day), broker.KeyNote{Rotated: ago(3 * day), LastUsed: ago(time.Minute)}),
		key("broken", ago(200*day), broker.KeyNote{Rotation: &broker.Rotation{Step: broker.StepProve, Started: ago(time.Hour), New: otherID}}),
		key("kept", ago(time.Hour), broker.KeyNote{Rotated: ago(time.Hour), Rotation: &broker.Rotation{Step: broker.StepKept, Old: otherID, Until: now.Add(23 * time.Hour)}}),
		key("future", now.Add(time.Hour), broker.KeyNote{LastUsed: now.Add(time.Hour)}),
		key("made", ago(time.Hour), broker.KeyNote{Created: ago(95 * day)}),
	}
	table, advice := keysTable(keys, now, 80)
	want := `NAME     ACCESS KEY ID         AGE    ROTATED     USED   USER
ninety   AKIAIOSFODNN7EXAMPLE  90 d   never       90 d   team/alice@111122223333
old      AKIAIOSFODNN7EXAMPLE  90 d!  never       5 h    team/alice@111122223333
rotated  AKIAIOSFODNN7EXAMPLE  3 d    2026-11-21  <1 h   team/alice@111122223333
broken   AKIAIOSFODNN7EXAMPLE  200 d  unfinished  never  team/alice@111122223333
kept     AKIAIOSFODNN7EXAMPLE  0 d    2026-11-24  never  team/alice@111122223333
future   AKIAIOSFODNN7EXAMPLE  0 d    never       <1 h   team/alice@111122223333
made     AKIAIOSFODNN7EXAMPLE  95 d!  never       never  team/alice@111122223333
`
	if string(table) != want {
		t.Errorf("got\n%s\nwant\n%s", table, want)
	}
	for line := range strings.Lines(string(table)) {
		if len(line) > 81 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	long := key("a-name-of-sixteen", now, broker.KeyNote{})
	long.UserARN = "arn:aws:iam::111122223333:user/somebody.with.a.name@example.com"
	if narrow, _ := keysTable([]broker.KeyState{long}, now, 80); !strings.HasSuffix(string(narrow), "  somebody.with.a.na…\n") {
		t.Errorf("at 80 columns: %s", narrow)
	}
	if wide, _ := keysTable([]broker.KeyState{long}, now, 0); !strings.HasSuffix(string(wide), "example.com@111122223333\n") {
		t.Errorf("in a pipe: %s", wide)
	}
	wantAdvice := `old: the key is 90 days old
to replace it: gatepass keys rotate old
broken: a rotation is unfinished since 24 Nov 11:00
to go on: gatepass keys rotate broken
kept: old key AKIAI44QH8DHBEXAMPLE lives until 25 Nov 11:00
to end it now: gatepass keys rotate kept --finish
made: the key is 95 days old
to replace it: gatepass keys rotate made`
	if got := strings.Join(advice, "\n"); got != wantAdvice {
		t.Errorf("got\n%s\nwant\n%s", got, wantAdvice)
	}
	// A program sees the same.
	var shown []string
	for _, k := range listedKeys(keys, now).Keys {
		shown = append(shown, fmt.Sprint(k.Name, " ", k.AgeDays, " ", k.Old))
	}
	if got := strings.Join(shown, ", "); got != "ninety 90 false, old 90 true, rotated 3 false, broken 200 true, kept 0 false, future 0 false, made 95 true" {
		t.Error(got)
	}
}

// Who removes a key in the middle of a rotation is told what stays at AWS.
func TestKeysRemoveUnfinished(t *testing.T) {
	for says, rot := range map[string]*broker.Rotation{
		"the new key, " + otherID + ", stays at AWS":          {Step: broker.StepProve, Old: testID, New: otherID},
		"the new key, if AWS has made one, stays at AWS":      {Step: broker.StepCreate, Old: testID},
		"its old key, " + otherID + ", stays at AWS as it is": {Step: broker.StepKept, Old: otherID, New: testID},
	} {
		h := newHome(t)
		h.answers = []string{"n"}
		h.serve(map[string]func([]byte) (int, map[string]string, string){
			"POST " + wire.PathKeysList: func([]byte) (int, map[string]string, string) {
				return 200, nil, jsonOf(t, wire.KeysResponse{Keys: []broker.KeyState{{
					KeyInfo: broker.KeyInfo{Name: "work", AccessKeyID: testID}, KeyNote: broker.KeyNote{Rotation: rot},
				}}})
			},
		})
		if r := h.run("keys", "remove", "work"); r.code != 77 || !strings.Contains(r.stderr, says) || len(h.asked) != 1 {
			t.Errorf("%s: %+v", says, r)
		}
	}
}
