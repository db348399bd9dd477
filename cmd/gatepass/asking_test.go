package main

import (
	"context"
	"encoding/json"
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
			q := broker.Question{Profile: "ops", Serial: "mfa/alice"}
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
