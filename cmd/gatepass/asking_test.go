package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// However often a credential-process asks, it ends before SDKs give up.
func TestAskingTakesItsTime(t *testing.T) {
	h := newHome(t)
	var began time.Time
	var waited []int
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathCredentials: func(body []byte) (int, map[string]string, string) {
			if began.IsZero() {
				began = time.Now()
			}
			var r wire.CredentialsRequest
			if err := json.Unmarshal(body, &r); err != nil {
				t.Error(err)
			}
			q := broker.Question{Want: broker.WantCode, Profile: "ops", Serial: "mfa/alice"}
			if r.Ask != nil {
				q.ID = "ABC"
				waited = append(waited, r.Ask.WaitedMillis)
			}
			if len(waited) > 3 {
				return 200, nil, document
			}
			return 202, nil, jsonOf(t, wire.Needed{Question: q})
		},
		"POST " + wire.PathPromptReply: func([]byte) (int, map[string]string, string) { return 200, nil, "{}" },
	})
	c := h.command(nil, nil)
	var out strings.Builder
	c.stdout = &out
	c.canAsk = func(bool) bool { return true }
	c.terminal = func(ctx context.Context, _ string, _ echo) (string, error) {
		end, ok := ctx.Deadline()
		if !ok || end.Sub(began) >= 45*time.Second {
			t.Errorf("it asks until %s after it began", end.Sub(began))
		}
		for began := time.Now(); time.Since(began) < 2*time.Millisecond; { // a fast typist
		}
		return "123456", nil
	}
	if err := c.run(t.Context(), []string{"credential-process", "ops"}); err != nil || out.String() != document {
		t.Fatal(err)
	}
	if len(waited) != 4 || waited[1] <= waited[0] || waited[3] <= waited[2] {
		t.Errorf("says that it waited %v ms", waited)
	}
}

// A passphrase is typed unseen; a new one twice, until it was the same; and
// what cannot be sent as it was typed is not sent.
func TestAskingForAPassphrase(t *testing.T) {
	const old, fresh, again = "gatepass: for zsh: passphrase of the file keychain (not shown): false",
		"gatepass: for zsh: new passphrase (not shown): false", "gatepass: the same once more (not shown): false"
	const news = "gatepass: the file keychain is new: choose the passphrase that opens it;\ngatepass: without it nobody can read, or recover, what is kept there\n"
	for name, c := range map[string]struct {
		want    string
		answers []string
		asked   []string
		reply   wire.PromptReplyRequest
	}{
		"old":            {broker.WantPassphrase, []string{" pass phrase "}, []string{old}, wire.PromptReplyRequest{Answer: " pass phrase "}},
		"empty":          {broker.WantPassphrase, []string{""}, []string{old}, wire.PromptReplyRequest{}},
		"Latin-1":        {broker.WantPassphrase, []string{"\xfc", "ü"}, []string{old, "gatepass: that is not UTF-8, as which passphrases are kept\n" + old}, wire.PromptReplyRequest{Answer: "ü"}},
		"new":            {broker.WantNewPassphrase, []string{"x", "x"}, []string{news + fresh, again}, wire.PromptReplyRequest{Answer: "x"}},
		"differ":         {broker.WantNewPassphrase, []string{"x", "y", "x", "x"}, []string{news + fresh, again, "gatepass: the two passphrases differ\n" + fresh, again}, wire.PromptReplyRequest{Answer: "x"}},
		"new, empty":     {broker.WantNewPassphrase, []string{""}, []string{news + fresh}, wire.PromptReplyRequest{}},
		"not understood": {"fingerprint", []string{"x"}, nil, wire.PromptReplyRequest{Why: broker.CodePromptUnavailable}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			h.answers = c.answers
			var replies []wire.PromptReplyRequest
			lists := 0
			h.serve(map[string]func([]byte) (int, map[string]string, string){
				"POST " + wire.PathKeysList: func(body []byte) (int, map[string]string, string) {
					q := broker.Question{Want: c.want, Keychain: "file", Program: "zsh"}
					switch lists++; lists {
					case 1:
						return 202, nil, jsonOf(t, wire.Needed{Question: q})
					case 2:
						q.ID = "ABC"
						return 202, nil, jsonOf(t, wire.Needed{Question: q})
					}
					return 200, nil, `{"keys":[]}`
				},
				"POST " + wire.PathPromptReply: func(body []byte) (int, map[string]string, string) {
					var r wire.PromptReplyRequest
					if err := json.Unmarshal(body, &r); err != nil {
						t.Error(err)
					}
					replies = append(replies, r)
					return 200, nil, "{}"
				},
			})
			if r := h.run("keys", "list", "--json"); r.code != 0 || lists != 3 {
				t.Errorf("%+v after %d requests", r, lists)
			}
			c.reply.ID = "ABC"
			if !slices.Equal(h.asked, c.asked) || len(replies) != 1 || replies[0] != c.reply {
				t.Errorf("asked %q, replied %+v", h.asked, replies)
			}
		})
	}
}
