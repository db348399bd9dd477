package sts_test

import (
	"strings"
	"testing"

	"gatepass/broker"
	"gatepass/broker/sts"
)

func TestParseRoleARN(t *testing.T) {
	for in, want := range map[string]sts.RoleARN{
		"arn:aws:iam::111122223333:role/Deploy":          {"aws", "111122223333", "/", "Deploy"},
		"arn:aws:iam::111122223333:role/a/b/Deploy":      {"aws", "111122223333", "/a/b/", "Deploy"},
		"arn:aws-cn:iam::111122223333:role/x+=,.@-_1":    {"aws-cn", "111122223333", "/", "x+=,.@-_1"},
		"arn:aws-us-gov:iam::000000000001:role/p:q/Role": {"aws-us-gov", "000000000001", "/p:q/", "Role"},
	} {
		got, err := sts.ParseRoleARN(in)
		if err != nil || got != want || got.String() != in {
			t.Errorf("ParseRoleARN(%q) = %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", "Deploy", "arn", "arn:aws:iam::111122223333:role/",
		"arn:aws:iam::111122223333:role",
		"arn:aws:iam::111122223333:roleDeploy",
		"arn:aws:iam::111122223333:roles/Deploy",
		"arn:aws:iam::111122223333:user/alice",
		"arn:aws:iam::111122223333:root",
		"arn:aws:sts::111122223333:assumed-role/Deploy/s",
		"arn:aws:iam:eu-west-1:111122223333:role/Deploy",
		"arn:aws:iam::11112222333:role/Deploy",
		"arn:aws:iam::11112222333x:role/Deploy",
		"arn:aws:iam::１１１１２２２２３３３３:role/Deploy",
		"arn::iam::111122223333:role/Deploy",
		"arn:AWS:iam::111122223333:role/Deploy",
		"arn:aws-:iam::111122223333:role/Deploy" + "\n",
		"arn:gcp:iam::111122223333:role/Deploy",
		" arn:aws:iam::111122223333:role/Deploy",
		"arn:aws:iam::111122223333:role/Deploy ",
		"arn:aws:iam::111122223333:role/De ploy",
		"arn:aws:iam::111122223333:role/Deplöy",
		"arn:aws:iam::111122223333:role/a b/Deploy",
		"arn:aws:iam::111122223333:role/a\x00/Deploy",
		"arn:aws:iam::111122223333:role/Deploy;$(id)",
		"arn:aws:iam::111122223333:role/" + strings.Repeat("x", 65),
		"arn:aws:iam::111122223333:role/" + strings.Repeat("x", 512) + "/Deploy",
		"arn:aws:iam::111122223333:role/" + strings.Repeat("x", 10<<20),
	} {
		got, err := sts.ParseRoleARN(in)
		if broker.CodeOf(err) != broker.CodeConfig || got != (sts.RoleARN{}) {
			t.Errorf("ParseRoleARN(%.80q) = %+v, %v", in, got, err)
			continue
		}
		if msg := err.Error(); len(msg) > 1200 || strings.ContainsAny(msg, "\x00\n") {
			t.Errorf("message of %d bytes: %.200q", len(msg), msg)
		}
	}
}

func FuzzParseRoleARN(f *testing.F) {
	f.Add("arn:aws:iam::111122223333:role/a/b/Deploy")
	f.Add("arn:aws-us-gov:iam::111122223333:role/x")
	f.Add("arn:aws:iam::111122223333:role/é")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := sts.ParseRoleARN(s)
		if err != nil {
			if broker.CodeOf(err) != broker.CodeConfig {
				t.Fatalf("%v", err)
			}
			return
		}
		if r.String() != s {
			t.Fatalf("%q became %q", s, r)
		}
		for i := range len(s) {
			if s[i] <= ' ' || s[i] >= 0x7f {
				t.Fatalf("%q was accepted", s)
			}
		}
	})
}
