package ststest

import (
	"strings"
	"testing"
)

func TestExample(t *testing.T) {
	c := Example()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"alice", "bob", "carol", "mallory", "root"} {
		k := c.Key(user)
		if len(k.ID) != 20 || len(k.Secret) != 40 || !strings.Contains(k.Secret, "EXAMPLE") {
			t.Errorf("%s's key is %q, %q", user, k.ID, k.Secret)
		}
	}
	for _, arn := range []string{DeployARN, OperatorARN, AdminARN, TaggedARN, AuditARN, ReadOnlyARN} {
		if s.roles[arn] == nil {
			t.Errorf("no %s", arn)
		}
	}
	if s.users[AliceARN] == nil || c.Device("alice").Serial != AliceDevice {
		t.Error("alice or her device is missing")
	}
	if c.Key("nobody") != (Key{}) || c.Device("bob") != (Device{}) || s.Code("bob") != "" || len(s.Code("alice")) != 6 {
		t.Error("what is not there is found")
	}
}

func TestConfigErrors(t *testing.T) {
	for _, tt := range []struct{ name, toml, want string }{
		{"unknown key", "[[account]]\nid = \"111122223333\"\ncolour = 1\n", "f.toml:3: unknown key account.colour"},
		{"wrong type", "[[account]]\n[[account.role]]\nmax_session_duration = \"1h\"\n", "f.toml:3:"},
		{"syntax", "[[account]]\nid = \n", "f.toml:2:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseConfig("f.toml", []byte(tt.toml))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want …%s…", err, tt.want)
			}
		})
	}

	for _, tt := range []struct {
		want string
		edit func(*Config)
	}{
		{"new_key is of + and -", func(c *Config) { c.NewKey = "x" }},
		{"new_key_delay is not negative", func(c *Config) { c.NewKeyDelay = -1 }},
		{`user "alice": "s3:*" is not an action of IAM`, func(c *Config) { c.Accounts[0].Users[0].RequiresMFA = []string{"s3:*"} }},
		{`group "a b": not a name`, func(c *Config) { c.Accounts[0].Users[0].Groups = []string{"a b"} }},
		{`group "DEVELOPERS": declared twice`, func(c *Config) { c.Accounts[0].Users[0].Groups = []string{"developers", "DEVELOPERS"} }},
		{"more than 10 groups", func(c *Config) { c.Accounts[0].Users[0].Groups = strings.Split("abcdefghijk", "") }},
		{"page_size is negative", func(c *Config) { c.PageSize = -1 }},
		{"session_seconds is negative", func(c *Config) { c.SessionSeconds = -1 }},
		{`region "mars"`, func(c *Config) { c.Region = "mars" }},
		{"12 digits", func(c *Config) { c.Accounts[0].ID = "1" }},
		{`account "111122223333": declared twice`, func(c *Config) { c.Accounts[1].ID = "111122223333" }},
		{"partition", func(c *Config) { c.Accounts[0].Partition = "gcp" }},
		{`user "a b": not a name`, func(c *Config) { c.Accounts[0].Users[0].Name = "a b" }},
		{`user "alice": path "x"`, func(c *Config) { c.Accounts[0].Users[0].Path = "x" }},
		{`user "alice": declared twice`, func(c *Config) { c.Accounts[0].Users[1].Name = "alice" }},
		{"more than two access keys", func(c *Config) { u := &c.Accounts[0].Users[0]; u.Keys = append(u.Keys, u.Keys[0], u.Keys[0]) }},
		{`key "AKIA": an access key id`, func(c *Config) { c.Accounts[0].Users[0].Keys[0].ID = "AKIA" }},
		{"root user: key", func(c *Config) { c.Accounts[0].RootKeys[0].ID = "ASIAEXAMPLEROOT00001" }},
		{"no secret", func(c *Config) { c.Accounts[0].Users[0].Keys[0].Secret = "" }},
		{`status "lost"`, func(c *Config) { c.Accounts[0].Users[0].Keys[0].Status = "lost" }},
		{`key "AKIAEXAMPLEROOT00001": declared twice`, func(c *Config) { c.Accounts[0].Users[0].Keys[0].ID = "AKIAEXAMPLEROOT00001" }},
		{"the seed is not base32", func(c *Config) { c.Accounts[0].Users[0].MFA[0].Seed = "1" }},
		{"the seed is not base32", func(c *Config) { c.Accounts[0].Users[0].MFA[0].Seed = "" }},
		{"not a serial number", func(c *Config) { c.Accounts[0].Users[0].MFA[0].Serial = "a b c d e f" }},
		{`mfa "` + AliceDevice + `": declared twice`, func(c *Config) { u := &c.Accounts[0].Users[0]; u.MFA = append(u.MFA, u.MFA[0]) }},
		{`role "a b": not a name`, func(c *Config) { c.Accounts[0].Roles[0].Name = "a b" }},
		{`role "Deploy": declared twice`, func(c *Config) { c.Accounts[0].Roles[1].Name = "Deploy" }},
		{"3600 to 43200", func(c *Config) { c.Accounts[0].Roles[0].MaxSessionDuration = 3599 }},
		{"3600 to 43200", func(c *Config) { c.Accounts[0].Roles[0].MaxSessionDuration = 43201 }},
		{"nobody may assume it", func(c *Config) { c.Accounts[0].Roles[0].Trust = nil }},
		{"no principals", func(c *Config) { c.Accounts[0].Roles[0].Trust[0].Principals = nil }},
		{`"alice" is not a principal`, func(c *Config) { c.Accounts[0].Roles[0].Trust[0].Principals = []string{"alice"} }},
		{`action "iam:*"`, func(c *Config) { c.Accounts[0].Roles[0].Trust[0].Actions = []string{"iam:*"} }},
		{"external_id", func(c *Config) { c.Accounts[0].Roles[0].Trust[0].ExternalID = "a b" }},
		{"session_name", func(c *Config) { c.Accounts[0].Roles[0].Trust[0].SessionName = "a/b" }},
		{"source_identity", func(c *Config) { c.Accounts[0].Roles[0].Trust[0].SourceIdentity = "x" }},
		{"mfa_age", func(c *Config) { c.Accounts[0].Roles[0].Trust[0].MFAAge = -1 }},
	} {
		t.Run(tt.want, func(t *testing.T) {
			c := Example()
			tt.edit(&c)
			if _, err := New(c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want …%s…", err, tt.want)
			}
		})
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("[[account]]\nid=1"))
	f.Add([]byte("[[account]]\nid='111122223333'\n[[account.user]]\nname='a'\n[[account.user.mfa]]\nseed='A'"))
	f.Add([]byte("[[account]]\nid='111122223333'\n[[account.role]]\nname='a'\n[[account.role.trust]]\nprincipals=['*']"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseConfig("f", data); err == nil {
			New(c) // may refuse, must not panic
		}
	})
}
