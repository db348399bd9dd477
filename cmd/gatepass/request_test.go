package main

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
)

// A path means what it means to botocore, which expands it with Python's
// os.path.expandvars and expanduser.
func TestPathsAgainstPython(t *testing.T) {
	// The program itself: in the PATH there may be a shim that needs its HOME.
	python, err := exec.Command("python3", "-c", "import sys\nsys.stdout.write(sys.executable)").Output()
	if err != nil {
		if os.Getenv("GATEPASS_REAL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Chdir(t.TempDir())
	h := newHome(t)
	h.env["A"], h.env["TILDE"], h.env["DOLLAR"], h.env["A_1"] = "/srv", "~", "$A", "/one"
	pieces := []string{"/", "~", "$A", "${A}", "$TILDE", "$DOLLAR", "${NOWHERE}", "$A_1", "$", "${", "}", "x", ".", " ", "ü"}
	rnd := rand.New(rand.NewPCG(5, 6))
	var values []string
	for range 500 {
		v := []string{"/", "~/", "$A/", "$TILDE/", "", "~"}[rnd.IntN(6)]
		for range rnd.IntN(5) {
			v += pieces[rnd.IntN(len(pieces))]
		}
		if v != "" {
			values = append(values, v)
		}
	}
	cmd := exec.Command(string(python), "-X", "utf8", "-c", "import json, os, sys\njson.dump([os.path.abspath(os.path.expanduser(os.path.expandvars(v))) for v in json.load(sys.stdin)], sys.stdout)")
	cmd.Stdin = strings.NewReader(jsonOf(t, values))
	for name, value := range h.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var theirs []string
	if err := json.Unmarshal(out, &theirs); err != nil || len(theirs) != len(values) {
		t.Fatalf("%s: %v", out, err)
	}
	compared := 0
	for i, value := range values {
		h.env["AWS_CONFIG_FILE"] = value
		r, err := h.command(nil, nil).request("ops", "export")
		if err != nil { // another user's home
			continue
		}
		compared++
		if want := strings.Replace(theirs[i], "//", "/", 1); r.ConfigFile != want { // POSIX leaves two slashes at the start to the system
			t.Errorf("AWS_CONFIG_FILE=%q is %q, to botocore %q", value, r.ConfigFile, theirs[i])
		}
	}
	if compared < 200 {
		t.Errorf("only %d paths compared", compared)
	}
}

func TestRequestCarriesTheEnvironment(t *testing.T) {
	t.Chdir(t.TempDir())
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	h := newHome(t)
	userHome := h.env["HOME"]
	h.env["SOMEWHERE"] = "/srv"
	for value, want := range map[string]string{
		"":                        "",
		"/etc/aws/config":         "/etc/aws/config",
		"/etc/aws/../x":           "/etc/x",
		"project/config":          filepath.Join(wd, "project/config"),
		"~/aws":                   userHome + "/aws",
		"~":                       userHome,
		"$SOMEWHERE/config":       "/srv/config",
		"${SOMEWHERE}/config":     "/srv/config",
		"/a/$NOWHERE/b":           "/a/$NOWHERE/b",
		"/a/${NOWHERE}/b":         "/a/${NOWHERE}/b",
		"/a/${SOMEWHERE":          "/a/${SOMEWHERE",
		"/a/$/b":                  "/a/$/b",
		"/x~/y":                   "/x~/y",
		"/a/$SOMEWHERE$SOMEWHERE": "/a/srv/srv",
	} {
		h.env["AWS_CONFIG_FILE"], h.env["AWS_SHARED_CREDENTIALS_FILE"] = value, value
		r, err := h.command(nil, nil).request("ops", "export")
		if err != nil || r.ConfigFile != want || r.CredentialsFile != want {
			t.Errorf("AWS_CONFIG_FILE=%q: %q, %q, %v; want %q", value, r.ConfigFile, r.CredentialsFile, err, want)
		}
	}
	for _, value := range []string{"~bob/aws", "/a/\xff"} {
		h.env["AWS_CONFIG_FILE"] = value
		if _, err := h.command(nil, nil).request("ops", "export"); broker.CodeOf(err) != broker.CodeConfig {
			t.Errorf("AWS_CONFIG_FILE=%q: %v", value, err)
		}
	}
	delete(h.env, "AWS_CONFIG_FILE")
	if _, err := h.command(nil, nil).request("o\xffps", "export"); broker.CodeOf(err) != broker.CodeUsage {
		t.Errorf("a name that is not UTF-8: %v", err)
	}
	h.env["AWS_SHARED_CREDENTIALS_FILE"] = "~/aws"
	delete(h.env, "HOME")
	if _, err := h.command(nil, nil).request("ops", "export"); broker.CodeOf(err) != broker.CodeConfig || !strings.Contains(err.Error(), "HOME") {
		t.Errorf("no home: %v", err)
	}
}

func TestRegionAndReason(t *testing.T) {
	h := newHome(t)
	got := h.serveDocument("")
	h.env["AWS_DEFAULT_REGION"] = "us-east-1"
	h.run("credential-process", "ops")
	h.env["AWS_REGION"] = "eu-west-1"
	h.env["GATEPASS_REASON"] = "ticket"
	h.run("credential-process", "ops")
	h.run("credential-process", "ops", "--region", "eu-north-1", "--reason", "other")
	r := got()
	if len(r) != 3 || r[0].Region != "us-east-1" || r[0].Reason != "" || r[1].Region != "eu-west-1" || r[1].Reason != "ticket" ||
		r[2].Region != "eu-north-1" || r[2].Reason != "other" {
		t.Errorf("%+v", r)
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"3600": time.Hour, "90m": 90 * time.Minute, "1h30m": 90 * time.Minute, "2d": 48 * time.Hour, "0": 0, "45s": 45 * time.Second,
	} {
		if got, ok := parseDuration(in); !ok || got != want {
			t.Errorf("%q: %v, %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "soon", "-1", "-1h", "1x", "d", "9999999999", "1e3", "99999999d"} {
		if got, ok := parseDuration(in); ok {
			t.Errorf("%q: %v", in, got)
		}
	}
}

// The files of a lease that is over are as if they were not named; those that
// are there, and all others, are.
func TestFilesOfALeaseThatIsOver(t *testing.T) {
	h := newHome(t)
	dir := t.TempDir()
	gone, there := filepath.Join(dir, "l-1", "config"), filepath.Join(dir, "l-2", "config")
	if err := os.Mkdir(filepath.Dir(there), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ lease, file, want string }{
		{"l-1", gone, ""},
		{"l-2", gone, gone},
		{"", gone, gone},
		{"l-2", there, there},
	} {
		h.env["GATEPASS_LEASE"], h.env["AWS_CONFIG_FILE"] = c.lease, c.file
		if r, err := h.command(nil, nil).request("ops", "export"); err != nil || r.ConfigFile != c.want {
			t.Errorf("GATEPASS_LEASE=%s: %q, %v; want %q", c.lease, r.ConfigFile, err, c.want)
		}
	}
}
