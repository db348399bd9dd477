package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

func TestRenew(t *testing.T) {
	h := newHome(t)
	var asked []wire.RenewLeaseRequest
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathLeaseRenew: func(body []byte) (int, map[string]string, string) {
			var r wire.RenewLeaseRequest
			if err := json.Unmarshal(body, &r); err != nil {
				t.Error(err)
			}
			asked = append(asked, r)
			if r.Lease == "l-2" {
				return 404, nil, jsonOf(t, broker.Error{Code: broker.CodeNotFound, Message: "no lease l-2"})
			}
			if r.Lease == "l-3" && r.Ask == nil {
				return 202, nil, jsonOf(t, wire.Needed{})
			}
			return 200, nil, jsonOf(t, broker.LeaseStatus{ID: "l-1", Profiles: []string{"ops"}, Expires: at.Add(time.Hour)})
		},
	})
	if r := h.run("renew", "l-1"); r != (result{}) || asked[0].Lease != "l-1" {
		t.Errorf("%+v, asked %+v", r, asked)
	}
	h.env["GATEPASS_REASON"] = "from the environment"
	if r := h.run("renew", "l-1", "--json"); r.code != 0 || !strings.Contains(r.stdout, `"id": "l-1"`) || asked[1].Reason != "from the environment" {
		t.Errorf("--json: %+v", r)
	}
	if r := h.run("renew", "l-2"); r.code != 78 || r.stderr != "gatepass: no lease l-2\n" {
		t.Errorf("%+v", r)
	}
	// A code is asked for; inside, the lease is the caller's own.
	if r := h.run("renew", "l-3", "--mfa-code", "123456"); r.code != 0 || asked[4].Ask == nil || asked[4].MFACode != "123456" {
		t.Errorf("%+v, asked %+v", r, asked)
	}
	h.env["GATEPASS_LEASE"] = "l-7"
	if r := h.run("renew"); r.code != 0 || asked[5].Lease != "" {
		t.Errorf("%+v, asked %+v", r, asked[5])
	}
}

func TestEnd(t *testing.T) {
	h := newHome(t)
	var asked []string
	h.serve(map[string]func([]byte) (int, map[string]string, string){
		"POST " + wire.PathLeaseEnd: func(body []byte) (int, map[string]string, string) {
			asked = append(asked, string(body))
			return 200, nil, `{"ended":["l-1"]}`
		},
	})
	for i, c := range []struct{ args, want string }{
		{"end l-1 l-2", `{"leases":["l-1","l-2"]}`},
		{"end --all", `{"all":true}`},
		{"end l-1 --release", `{"leases":["l-1"],"release":true}`},
	} {
		if r := h.run(strings.Fields(c.args)...); r != (result{}) || asked[i] != c.want {
			t.Errorf("%s: %+v, asked %s", c.args, r, asked[i])
		}
	}
	h = newHome(t)
	h.env["GATEPASS_AUTOSTART"] = "0"
	if r := h.run("end", "--all"); r.code != 69 {
		t.Errorf("without a daemon: %+v", r)
	}
}
