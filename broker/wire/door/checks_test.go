package door

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
	"gatepass/profiles"
)

const good = `{"profile":"ops"}`

// post writes a request as bytes: host and headers, each with its CRLF, and
// the body.
func post(path, headers, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s", path, headers, len(body), body)
}

const host = "Host: gatepass\r\n"

// Each row is something that no client of ours sends. None may reach the
// gate, and all but the malformed get an error that a client understands.
func TestRefusals(t *testing.T) {
	h := serve(t, nil)
	credentials := func(headers, body string) string { return post(wire.PathCredentials, headers, body) }
	for _, tt := range []struct {
		name, request, status string
		code                  broker.Code // "" when net/http refuses by itself
		says                  string
	}{
		{"origin", credentials(host+"Origin: https://evil.example\r\n", good), "403", "denied", "Origin"},
		{"empty origin", credentials(host+"Origin:\r\n", good), "403", "denied", "Origin"},
		{"origin in another case", credentials(host+"oRIGIN: null\r\n", good), "403", "denied", "Origin"},
		{"referer", credentials(host+"Referer: http://gatepass/\r\n", good), "403", "denied", "Referer"},
		{"sec-fetch-site", credentials(host+"Sec-Fetch-Site: none\r\n", good), "403", "denied", "Sec-Fetch-Site"},
		{"sec-fetch-mode", credentials(host+"sec-fetch-mode: cors\r\n", good), "403", "denied", "Sec-Fetch-Mode"},
		{"x-forwarded-for", credentials(host+"X-Forwarded-For: 127.0.0.1\r\n", good), "403", "denied", "X-Forwarded-For"},
		{"x-forwarded-host", credentials(host+"X-Forwarded-Host: gatepass\r\n", good), "403", "denied", "X-Forwarded-Host"},
		{"forwarded", credentials(host+"Forwarded: for=127.0.0.1\r\n", good), "403", "denied", "Forwarded"},
		{"via", credentials(host+"Via: 1.1 proxy\r\n", good), "403", "denied", "Via"},
		{"status by a browser", "GET /v1/status HTTP/1.1\r\n" + host + "Origin: x\r\nConnection: close\r\n\r\n", "403", "denied", "Origin"},

		{"foreign host", credentials("Host: evil.example\r\n", good), "403", "denied", "evil.example"},
		{"host with a port", credentials("Host: gatepass:80\r\n", good), "403", "denied", "gatepass:80"},
		{"host by address", credentials("Host: 127.0.0.1\r\n", good), "403", "denied", "127.0.0.1"},
		{"host in upper case", credentials("Host: GATEPASS\r\n", good), "403", "denied", "GATEPASS"},
		{"empty host", credentials("Host:\r\n", good), "403", "denied", ""},
		{"no host", credentials("", good), "400", "", ""},
		{"no host, as HTTP/1.0 may", "GET /v1/status HTTP/1.0\r\n\r\n", "403", "denied", ""},
		{"two hosts", credentials(host+"Host: evil.example\r\n", good), "400", "", ""},
		{"host in the target", post("http://evil.example/v1/credentials", host, good), "403", "denied", "evil.example"},
		{"our host in the target", post("http://gatepass/v1/credentials", host, good), "404", "usage", ""},

		{"another path", post("/v1/secrets", host, good), "404", "usage", "/v1/secrets"},
		{"no path", post("/", host, good), "404", "usage", ""},
		{"asterisk", "OPTIONS * HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", "404", "usage", ""},
		{"dots", post("/v1/../v1/credentials", host, good), "404", "usage", ""},
		{"two slashes", post("//v1/credentials", host, good), "404", "usage", ""},
		{"slash at the end", post("/v1/credentials/", host, good), "404", "usage", ""},
		{"escaped", post("/v1/%63redentials", host, good), "404", "usage", ""},
		{"query", post("/v1/credentials?profile=admin", host, good), "404", "usage", ""},
		{"upper case", post("/V1/credentials", host, good), "404", "usage", ""},
		{"get", "GET /v1/credentials HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", "405", "usage", "POST"},
		{"options", "OPTIONS /v1/credentials HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", "405", "usage", "POST"},
		{"head", "HEAD /v1/status HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", "405", "", ""},
		{"post in lower case", strings.Replace(credentials(host, good), "POST", "post", 1), "405", "usage", "POST"},
		{"post to status", post("/v1/status", host, "{}"), "405", "usage", "GET"},
		{"status with a body", "GET /v1/status HTTP/1.1\r\n" + host + "Content-Length: 2\r\nConnection: close\r\n\r\n{}", "400", "usage", "no body"},

		{"form", credentials(host+"Content-Type: application/x-www-form-urlencoded\r\n", good), "415", "usage", "application/json"},
		{"text", credentials(host+"Content-Type: text/plain\r\n", good), "415", "usage", "application/json"},
		{"two types", credentials(host+"Content-Type: application/json\r\nContent-Type: text/plain\r\n", good), "415", "usage", "application/json"},
		{"no type to parse", credentials(host+"Content-Type: ;\r\n", good), "415", "usage", ""},
		{"compressed", credentials(host+"Content-Encoding: gzip\r\n", good), "415", "usage", "gzip"},
		{"two lengths", credentials(host+"Content-Length: 1\r\n", good), "400", "", ""},
		{"length and chunks", credentials(host+"Transfer-Encoding: chunked\r\n", "11\r\n"+good+"\r\n0\r\n\r\n"), "411", "usage", "Content-Length"},
		{"chunks", "POST /v1/credentials HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n11\r\n" + good + "\r\n0\r\n\r\n", "411", "usage", "Content-Length"},

		{"repeated field", credentials(host, `{"profile":"ops","profile":"admin"}`), "400", "usage", "twice"},
		{"field in another case", credentials(host, `{"profile":"ops","Profile":"admin"}`), "400", "usage", "a-z"},
		{"field only in another case", credentials(host, `{"PROFILE":"admin"}`), "400", "usage", "a-z"},
		{"field that folds", credentials(host, `{"profile":"ops","configuration_fi`+"\u017f"+`e":1}`), "400", "usage", "a-z"},
		{"escaped field", credentials(host, `{"profile":"ops","\u0070rofile":"admin"}`), "400", "usage", "a-z"},
		{"repeated deep down", credentials(host, `{"profile":"ops","later":[{"a":1,"a":2}]}`), "400", "usage", "twice"},
		{"two objects", credentials(host, good+good), "400", "usage", "follows"},
		{"garbage after", credentials(host, good+"x"), "400", "usage", "follows"},
		{"deep", credentials(host, `{"later":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+`}`), "400", "usage", "nested"},
		{"no UTF-8", credentials(host, "{\"profile\":\"\xff\"}"), "400", "usage", "UTF-8"},
		{"half a character", credentials(host, `{"profile":"\ud800"}`), "400", "usage", "half"},
		{"no object", credentials(host, `["ops"]`), "400", "usage", "object"},
		{"no JSON", credentials(host, `{"profile":`), "400", "usage", "not JSON"},
		{"nothing", credentials(host, ""), "400", "usage", "object"},
		{"wrong kind", credentials(host, `{"profile":7}`), "400", "usage", "profile"},
		{"large number", credentials(host, `{"profile":"ops","duration_seconds":1e99}`), "400", "usage", "duration_seconds"},

		{"relative config", credentials(host, `{"profile":"ops","config_file":"config"}`), "400", "usage", "config_file"},
		{"config with dots", credentials(host, `{"profile":"ops","config_file":"/a/../b"}`), "400", "usage", "config_file"},
		{"config with a NUL", credentials(host, `{"profile":"ops","config_file":"/a\u0000"}`), "400", "usage", "config_file"},
		{"relative credentials", credentials(host, `{"profile":"ops","credentials_file":"~/c"}`), "400", "usage", "credentials_file"},
		{"relative config of profiles", post(wire.PathProfiles, host, `{"config_file":"config"}`), "400", "usage", "config_file"},
		{"credentials of profiles with dots", post(wire.PathProfileShow, host, `{"profile":"ops","credentials_file":"/a/./b"}`), "400", "usage", "credentials_file"},
		{"no profile to show", post(wire.PathProfileShow, host, `{}`), "400", "usage", "no profile"},
		{"one profile to list", post(wire.PathProfiles, host, good), "400", "usage", "all profiles"},
		{"a host for a region", credentials(host, `{"profile":"ops","region":"evil.example/"}`), "400", "usage", "region"},
		{"a host for a new key's region", post(wire.PathKeys, host, `{"name":"a","region":"x.evil.example"}`), "400", "usage", "region"},
		{"a relative store", post(wire.PathAWSVault, host, `{"backend":"file","dir":"keys"}`), "400", "usage", "dir"},
		{"a store with dots", post(wire.PathAWSVaultImport, host, `{"backend":"file","dir":"/a/../b","name":"work"}`), "400", "usage", "dir"},
		{"a key to remove from a store with dots", post(wire.PathAWSVaultRemove, host, `{"backend":"pass","dir":"/a/.","name":"work"}`), "400", "usage", "dir"},
		{"a store's prefix with a NUL", post(wire.PathAWSVault, host, `{"backend":"pass","dir":"/a","prefix":"a\u0000"}`), "400", "usage", "prefix"},
		{"a long collection", post(wire.PathAWSVault, host, `{"backend":"secret-service","collection":"`+strings.Repeat("a", 257)+`"}`), "400", "usage", "collection"},
		{"a path for a keychain", post(wire.PathAWSVaultImport, host, `{"backend":"keychain","keychain":"/tmp/mine","name":"work"}`), "400", "usage", "keychain"},
		{"a host for an imported key's region", post(wire.PathAWSVaultImport, host, `{"backend":"file","dir":"/a","name":"work","region":"x.evil.example"}`), "400", "usage", "region"},
		{"another kind of passphrase", post(wire.PathAWSVaultImport, host, `{"backend":"file","dir":"/a","name":"work","passphrase":["secret"]}`), "400", "usage", "passphrase"},
		{"a listing by browser", post(wire.PathAWSVault, host+"Origin: null\r\n", `{"backend":"file","dir":"/a"}`), "403", "denied", "Origin"},
		{"get of aws-vault", "GET /v1/aws-vault HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", "405", "usage", "POST"},
		{"text for a surface", credentials(host, `{"profile":"ops","via":"a b"}`), "400", "usage", "via"},
		{"negative duration", credentials(host, `{"profile":"ops","duration_seconds":-1}`), "400", "usage", "duration_seconds"},
		{"endless min left", credentials(host, `{"profile":"ops","min_left_seconds":9999999999}`), "400", "usage", "min_left_seconds"},

		{"version far ahead", credentials(host+"Gatepass-Protocol: 3\r\n", good), "400", "daemon_unreachable", "version 3"},
		{"no version", credentials(host+"Gatepass-Protocol: one\r\n", good), "400", "daemon_unreachable", "one"},
		{"two versions", credentials(host+"Gatepass-Protocol: 1\r\nGatepass-Protocol: 1\r\n", good), "400", "usage", "2 times"},

		{"header too long", credentials(host+"X-Long: "+strings.Repeat("x", maxHeader+8<<10)+"\r\n", good), "431", "", ""},
		{"no HTTP", "hello\r\n\r\n", "400", "", ""},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "403", "denied", ""},
		{"HTTP/3", "GET /v1/status HTTP/3.0\r\nHost: gatepass\r\n\r\n", "505", "", ""},
		{"TLS", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", "400", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answer := h.raw(t, tt.request)
			if n := h.broker.calls(); n > 0 {
				h.broker.asked = nil
				t.Fatalf("the gate was asked %d times; the answer: %s", n, answer)
			}
			head, body, _ := strings.Cut(answer, "\r\n\r\n")
			if !strings.HasPrefix(strings.TrimPrefix(head, "HTTP/1."), "1 "+tt.status+" ") && !strings.HasPrefix(head, "HTTP/1.0 "+tt.status) {
				t.Fatalf("status %q, want %s: %s", strings.SplitN(head, "\r\n", 2)[0], tt.status, body)
			}
			if tt.code == "" {
				return
			}
			var e broker.Error
			if err := json.Unmarshal([]byte(body), &e); err != nil || e.Code != tt.code || !strings.Contains(e.Message, tt.says) {
				t.Errorf("answer %s, want code %s with %q", body, tt.code, tt.says)
			}
			for _, want := range []string{"Connection: close", "Cache-Control: no-store", "Gatepass-Protocol: 1", "Content-Length: "} {
				if !strings.Contains(head, want) {
					t.Errorf("no %s in %s", want, head)
				}
			}
		})
	}
}

// A body that is refused for its size is not waited for, and the connection
// does not live on.
func TestBodyTooLarge(t *testing.T) {
	h := serve(t, nil)
	padded := func(n int) string { return `{"profile":"ops","reason":"` + strings.Repeat("x", n-29) + `"}` }
	if n := len(padded(wire.MaxBody)); n != wire.MaxBody {
		t.Fatal(n)
	}
	announced := "POST /v1/credentials HTTP/1.1\r\nHost: gatepass\r\nContent-Length: 1000000\r\n\r\n"
	for name, request := range map[string]string{
		"announced":            announced,
		"one byte":             post("/v1/credentials", host, padded(wire.MaxBody+1)),
		"a million":            post("/v1/credentials", host, padded(1e6)),
		"announced to a proxy": strings.Replace(announced, "\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n", 1),
	} {
		if answer := h.raw(t, request); !strings.HasPrefix(answer, "HTTP/1.1 413 ") || !strings.Contains(answer, "Connection: close") {
			t.Errorf("%s: %.300s", name, answer)
		}
	}
	if n := h.broker.calls(); n > 0 {
		t.Errorf("the gate was asked %d times", n)
	}
	if answer := h.raw(t, post("/v1/credentials", host, padded(wire.MaxBody))); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Errorf("the largest body that fits: %.300s", answer)
	}
}

// What is let in, by our own client and by curl's ways.
func TestAnswers(t *testing.T) {
	h := serve(t, nil)
	ctx := t.Context()
	c := &wire.Client{Socket: h.socket}
	document, about, err := c.Credentials(ctx, wire.CredentialsRequest{
		Profile: "ops", Via: "export", Region: "eu-west-1", Reason: "a \"reason\"\n", ConfigFile: "/a/config", CredentialsFile: "/a/credentials",
		DurationSeconds: 900, MinLeftSeconds: 60, MFACode: "123456",
		Ask: &wire.Ask{Terminal: true, Mode: "tty", Env: []string{"DISPLAY=:0"}, WaitedMillis: 1500},
	})
	g := grant()
	if want := string(g.Credentials.Document()); err != nil || string(document) != want || about != (wire.Header{Region: g.Region, Session: g.SessionID}) {
		t.Errorf("Credentials = %s, %+v, %v", document, about, err)
	}
	want := broker.Request{
		Profile: "ops", Files: profiles.Files{Config: "/a/config", Credentials: "/a/credentials"}, Region: "eu-west-1",
		Reason: "a \"reason\"\n", Duration: 15 * time.Minute, MinLeft: time.Minute,
	}
	caller := h.broker.callers[0]
	want.Reachable = broker.Reachable{Known: true, Terminal: true, Mode: "tty", TTY: caller.TTY, Env: []string{"DISPLAY=:0"}, Waited: 1500 * time.Millisecond}
	want.Code = broker.NewSecret("123456")
	if !reflect.DeepEqual(h.broker.asked[0], want) || caller.Via != "export" || caller.PID != os.Getpid() && caller.PID != 0 || caller.User == "" {
		t.Errorf("asked %+v by %+v", h.broker.asked[0], caller)
	}
	if id, err := c.WhoAmI(ctx, wire.CredentialsRequest{}); err != nil || id.Account != "111122223333" || !slices.Equal(id.Groups, []string{"developers"}) {
		t.Errorf("WhoAmI = %+v, %v", id, err)
	}
	if caller, asked := h.broker.callers[1], h.broker.asked[1].(broker.Request); caller.Via != "whoami" || asked.Profile != "" {
		t.Errorf("whoami via %q, of profile %q", caller.Via, asked.Profile)
	}
	if s, err := c.Status(ctx); err != nil || s.Daemon.Version != "test" {
		t.Errorf("Status = %+v, %v", s, err)
	}
	var keys wire.KeysResponse
	if err := c.Call(ctx, "POST", wire.PathKeysList, wire.ListKeysRequest{Ask: &wire.Ask{Mode: "tty"}}, &keys); err != nil || keys.Keys == nil {
		t.Errorf("keys %+v, %v", keys, err)
	}
	if how, ok := h.broker.asked[3].(broker.Reachable); !ok || !how.Known || how.Mode != "tty" || h.broker.callers[3].Via != "keys" {
		t.Errorf("listed for %+v", h.broker.asked[3])
	}
	var info broker.KeyInfo
	in := wire.AddKeyRequest{Name: "work", AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: secret, Region: "us-east-1", NoVerify: true, Ask: &wire.Ask{Terminal: true}}
	if err := c.Call(ctx, "POST", wire.PathKeys, in, &info); err != nil || info.Name != "work" {
		t.Errorf("add %+v, %v", info, err)
	}
	k, ok := h.broker.asked[4].(broker.NewKey)
	if !ok || k.SecretAccessKey.Reveal() != secret || !k.NoVerify || k.AllowRoot || k.Region != "us-east-1" || !k.Reachable.Terminal {
		t.Errorf("added %+v", h.broker.asked[4])
	}
	err = c.Call(ctx, "POST", wire.PathKeysRemove, wire.RemoveKeyRequest{Name: "nokey"}, nil)
	var e *broker.Error
	if !errors.As(err, &e) || e.Code != broker.CodeNotFound || e.Message != `there is no key "nokey"` || e.Hint != "gatepass keys list" {
		t.Errorf("remove: %#v", err)
	}
	store := wire.AWSVaultRequest{Backend: "file", Dir: "/a/keys"}
	at := broker.AWSVault{Backend: "file", Dir: "/a/keys"}
	n := h.broker.calls()
	var vault wire.AWSVaultResponse
	if err := c.Call(ctx, "POST", wire.PathAWSVault, store, &vault); err != nil || vault.Names == nil {
		t.Errorf("aws-vault: %+v, %v", vault, err)
	}
	one := wire.AWSVaultKeyRequest{AWSVaultRequest: store, Passphrase: secret, Name: "work", Region: "us-east-1", Ask: &wire.Ask{Mode: "tty"}}
	var imported broker.ImportedKey
	if err := c.Call(ctx, "POST", wire.PathAWSVaultImport, one, &imported); err != nil || imported.Name != "work" || !imported.Already {
		t.Errorf("import: %+v, %v", imported, err)
	}
	if err := c.Call(ctx, "POST", wire.PathAWSVaultRemove, one, nil); err != nil {
		t.Errorf("remove what was imported: %v", err)
	}
	open := at
	open.Passphrase = broker.NewSecret(secret)
	how := h.broker.asked[3] // asked on the same terminal
	if got, want := h.broker.asked[n:], []any{at, []any{open, "work", "us-east-1", how}, []any{open, "work", how}}; len(got) != 3 ||
		!reflect.DeepEqual(got[1:], want[1:]) || !got[0].(broker.AWSVault).Passphrase.IsZero() || got[0].(broker.AWSVault).Dir != at.Dir {
		t.Errorf("asked %+v, want %+v", got, want)
	}
	if by := h.broker.callers[n+1]; by.Via != "keys" {
		t.Errorf("imported via %q", by.Via)
	}
	if s, err := c.Glance(ctx); err != nil || s.Daemon.Version != "test" || h.broker.asked[len(h.broker.asked)-1] != "glance" {
		t.Errorf("Glance = %+v, %v", s, err)
	}
	var stopped wire.StopResponse
	if err := c.Call(ctx, "POST", wire.PathStop, struct{}{}, &stopped); err != nil || stopped.PID != os.Getpid() {
		t.Errorf("stop: %+v, %v", stopped, err)
	}
	if by := <-h.stops; by.Via != "daemon" {
		t.Errorf("stopped by %+v", by)
	}

	for name, request := range map[string]string{
		"curl -d with a type":      post("/v1/credentials", host+"User-Agent: curl/8.5.0\r\nAccept: */*\r\nContent-Type: application/json\r\n", good),
		"localhost":                post("/v1/credentials", "Host: localhost\r\n", good),
		"with a charset":           post("/v1/credentials", host+"Content-Type: application/json; charset=utf-8\r\n", good),
		"of the next version":      post("/v1/credentials", host+"Gatepass-Protocol: 2\r\n", `{"profile":"ops","new_field":{"deep":[1.5e3,true,null,"\u00e9"]}}`),
		"of the version before":    post("/v1/credentials", host+"Gatepass-Protocol: 0\r\n", good),
		"of HTTP/1.0 with a host":  strings.Replace(post("/v1/credentials", host, good), "HTTP/1.1", "HTTP/1.0", 1),
		"with white space":         post("/v1/credentials", host, " {\r\n\t\"profile\" : \"ops\" } \n"),
		"with an emoji as escapes": post("/v1/credentials", host, `{"profile":"\ud83d\ude00"}`),
	} {
		answer := h.raw(t, request)
		for _, want := range []string{" 200 OK\r\n", "\r\nContent-Length: ", "\r\nCache-Control: no-store\r\n", "\r\nContent-Type: application/json\r\n", "\r\nGatepass-Protocol: 1\r\n", `"AccessKeyId"`} {
			if !strings.Contains(answer, want) {
				t.Errorf("%s: no %q in %s", name, want, answer)
			}
		}
	}
	if log := h.log.String(); strings.Contains(log, secret) {
		t.Errorf("the secret is in the log: %s", log)
	}
}

// A client that does not fit may stop this daemon, to start one that does.
func TestStopAcrossVersions(t *testing.T) {
	h := serve(t, nil)
	if answer := h.raw(t, post("/v1/daemon/stop", host+"Gatepass-Protocol: 9\r\n", "{}")); !strings.Contains(answer, " 200 OK\r\n") {
		t.Errorf("got %s", answer)
	}
	<-h.stops
}

// Every code reaches the client, and an error without one is internal.
func TestErrors(t *testing.T) {
	h := serve(t, nil)
	c := &wire.Client{Socket: h.socket}
	for _, code := range []broker.Code{
		broker.CodeUsage, broker.CodeData, broker.CodeDaemonUnreachable, broker.CodeAWSUnreachable, broker.CodeKeychainMissing, broker.CodeKeychainTimeout,
		broker.CodeInternal, broker.CodeLogUnwritable, broker.CodeLocked, broker.CodeKeychainLocked, broker.CodePromptUnavailable,
		broker.CodePromptTimeout, broker.CodeThrottled, broker.CodeDenied, broker.CodeAWSDenied, broker.CodeKeychainDenied,
		broker.CodeCancelled, broker.CodeMFAFailed, broker.CodeNotFound, broker.CodeConfig,
	} {
		h.broker.credentials = func(context.Context, broker.Caller, broker.Request) (broker.Grant, error) {
			return grant(), fmt.Errorf("wrapped: %w", broker.Errorf(code, "why").WithHint("next"))
		}
		document, _, err := c.Credentials(t.Context(), wire.CredentialsRequest{Profile: "ops"})
		var e *broker.Error
		if document != nil || !errors.As(err, &e) || e.Code != code || e.Message != "wrapped: why" || e.Hint != "next" {
			t.Errorf("%s: %s, %#v", code, document, err)
		}
	}
	h.broker.credentials = func(context.Context, broker.Caller, broker.Request) (broker.Grant, error) {
		return grant(), io.ErrUnexpectedEOF
	}
	if _, _, err := c.Credentials(t.Context(), wire.CredentialsRequest{Profile: "ops"}); broker.CodeOf(err) != broker.CodeInternal {
		t.Errorf("%#v", err)
	}
	h.broker.credentials = func(context.Context, broker.Caller, broker.Request) (broker.Grant, error) {
		panic("boom " + "in the gate")
	}
	_, _, err := c.Credentials(t.Context(), wire.CredentialsRequest{Profile: "ops", Reason: "confidential"})
	if broker.CodeOf(err) != broker.CodeInternal || strings.Contains(err.Error(), "boom") {
		t.Errorf("%#v", err)
	}
	if log := h.log.String(); !strings.Contains(log, "boom in the gate") || !strings.Contains(log, "checks_test.go") || strings.Contains(log, "confidential") {
		t.Errorf("log: %s", log)
	}
}

func TestTimeouts(t *testing.T) {
	s := New(Config{Logger: slog.New(slog.DiscardHandler)})
	if h := s.http; h.ReadTimeout != readTimeout || h.IdleTimeout != idleTimeout || h.WriteTimeout != writeTimeout || h.WriteTimeout < time.Minute {
		t.Errorf("read %s, idle %s, write %s", h.ReadTimeout, h.IdleTimeout, h.WriteTimeout)
	}
}

// A client that says nothing, or too slowly, loses its connection; one that
// waits for an answer does not.
func TestSlowClients(t *testing.T) {
	for name, says := range map[string]string{
		"nothing":       "",
		"half a line":   "POST /v1/cred",
		"half a header": "POST /v1/credentials HTTP/1.1\r\nHost: gatepass\r\nX-",
		"half a body":   "POST /v1/credentials HTTP/1.1\r\nHost: gatepass\r\nContent-Length: 100\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, func(s *Server) { s.http.ReadTimeout = 50 * time.Millisecond })
			c, err := net.Dial("unix", h.socket)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, says)
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			answer, err := io.ReadAll(c)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the connection is still open")
			}
			if strings.Contains(string(answer), " 200 ") || h.broker.calls() > 0 {
				t.Errorf("answered: %s", answer)
			}
		})
	}
	t.Run("idle", func(t *testing.T) {
		h := serve(t, func(s *Server) { s.http.IdleTimeout = 50 * time.Millisecond })
		c, err := net.Dial("unix", h.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: gatepass\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("the connection is still open: %v", err)
		}
	})
	t.Run("waiting for an answer", func(t *testing.T) {
		h := serve(t, func(s *Server) { s.http.ReadTimeout = 50 * time.Millisecond })
		h.broker.credentials = func(ctx context.Context, _ broker.Caller, _ broker.Request) (broker.Grant, error) {
			select {
			case <-ctx.Done():
				return broker.Grant{}, ctx.Err()
			case <-time.After(500 * time.Millisecond): // ten times the time to read
				return grant(), nil
			}
		}
		if _, _, err := (&wire.Client{Socket: h.socket}).Credentials(t.Context(), wire.CredentialsRequest{Profile: "ops"}); err != nil {
			t.Error(err)
		}
	})
	t.Run("waiting for a rotation", func(t *testing.T) {
		h := serve(t, func(s *Server) { s.http.WriteTimeout = time.Nanosecond })
		c := &wire.Client{Socket: h.socket}
		if _, err := c.Status(t.Context()); err == nil {
			t.Error("answered after the time to write")
		}
		if err := c.Call(t.Context(), "POST", wire.PathKeysRotate, wire.RotateKeyRequest{Name: "work"}, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("hanging up", func(t *testing.T) {
		h := serve(t, nil)
		entered, left := make(chan struct{}), make(chan error, 1)
		h.broker.credentials = func(ctx context.Context, _ broker.Caller, _ broker.Request) (broker.Grant, error) {
			close(entered)
			<-ctx.Done()
			left <- ctx.Err()
			return broker.Grant{}, ctx.Err()
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-entered; cancel() }()
		_, _, err := (&wire.Client{Socket: h.socket}).Credentials(ctx, wire.CredentialsRequest{Profile: "ops"})
		if broker.CodeOf(err) != broker.CodeCancelled || !errors.Is(err, context.Canceled) {
			t.Errorf("the client: %v", err)
		}
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the gate: %v", err)
		}
	})
}

// A thousand clients at once are all served, though not all are let in at
// once.
func TestThousandClients(t *testing.T) {
	const clients = 1000
	h := serve(t, nil)
	errs := make(chan error, clients)
	for range clients {
		go func() {
			_, _, err := (&wire.Client{Socket: h.socket}).Credentials(t.Context(), wire.CredentialsRequest{Profile: "ops"})
			errs <- err
		}()
	}
	for range clients {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}

// No more than maxConns connections are open; the next gets in when one goes.
func TestConnectionsAreCapped(t *testing.T) {
	h := serve(t, nil)
	conns := make([]net.Conn, maxConns)
	for i := range conns {
		c, err := net.Dial("unix", h.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: gatepass\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		conns[i] = c
	}
	waiting, err := net.Dial("unix", h.socket) // queued, not refused
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	io.WriteString(waiting, "GET /v1/status HTTP/1.1\r\nHost: gatepass\r\n\r\n")
	answered := make(chan error, 1)
	go func() {
		_, err := http.ReadResponse(bufio.NewReader(waiting), nil)
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("connection %d was let in (%v)", maxConns+1, err)
	case <-time.After(100 * time.Millisecond):
	}
	conns[7].Close()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// Shutdown lets what is under way end, closes what is idle or silent, and
// lets nobody in.
func TestShutdown(t *testing.T) {
	h := serve(t, nil)
	entered, release := make(chan struct{}), make(chan struct{})
	h.broker.credentials = func(context.Context, broker.Caller, broker.Request) (broker.Grant, error) {
		close(entered)
		<-release
		return grant(), nil
	}
	dial := func(says string) net.Conn {
		c, err := net.Dial("unix", h.socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		io.WriteString(c, says)
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	silent := dial("")
	silent.SetReadDeadline(time.Now().Add(4 * time.Second)) // net/http itself waits for 5 s
	idle := dial("GET /v1/status HTTP/1.1\r\nHost: gatepass\r\n\r\n")
	idleReader := bufio.NewReader(idle)
	if _, err := http.ReadResponse(idleReader, nil); err != nil {
		t.Fatal(err)
	}
	underWay := dial(post("/v1/credentials", host, good))
	<-entered
	done := make(chan error, 1)
	go func() { done <- h.Shutdown(context.Background()) }()
	for name, r := range map[string]io.Reader{"silent": silent, "idle": idleReader} {
		if _, err := io.ReadAll(r); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the %s connection is still open", name)
		}
	}
	if err := (&wire.Client{Socket: h.socket}).Call(t.Context(), "GET", wire.PathStatus, nil, nil); !errors.Is(err, wire.ErrNoDaemon) {
		t.Errorf("after Shutdown began: %v", err)
	}
	select {
	case err := <-done:
		t.Fatalf("Shutdown did not wait (%v)", err)
	default:
	}
	close(release)
	if answer, _ := io.ReadAll(underWay); !strings.Contains(string(answer), secret) {
		t.Errorf("the request under way got %s", answer)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What is not done when the time for it ends is cut off.
func TestShutdownDoesNotWaitForEver(t *testing.T) {
	h := serve(t, nil)
	entered := make(chan struct{})
	h.broker.credentials = func(ctx context.Context, _ broker.Caller, _ broker.Request) (broker.Grant, error) {
		close(entered)
		<-ctx.Done()
		return broker.Grant{}, ctx.Err()
	}
	failed := make(chan error, 1)
	go func() {
		_, _, err := (&wire.Client{Socket: h.socket}).Credentials(t.Context(), wire.CredentialsRequest{Profile: "ops"})
		failed <- err
	}()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
}

// A question goes to the client as an answer that is no failure, and comes
// back by routes of its own.
func TestQuestions(t *testing.T) {
	h := serve(t, nil)
	question := broker.Question{ID: "ABC", Profile: "ops", Program: "terraform", Key: "alice", Serial: "arn:aws:iam::111122223333:mfa/alice", Attempt: 1}
	h.broker.credentials = func(context.Context, broker.Caller, broker.Request) (broker.Grant, error) {
		return broker.Grant{}, &broker.AskError{Question: question}
	}
	c := &wire.Client{Socket: h.socket}
	_, _, err := c.Credentials(t.Context(), wire.CredentialsRequest{Profile: "ops"})
	if ask, ok := errors.AsType[*broker.AskError](err); !ok || ask.Question != question {
		t.Errorf("got %v", err)
	}
	for path, in := range map[string]any{
		wire.PathPromptBeat:  wire.PromptBeatRequest{ID: "ABC"},
		wire.PathPromptReply: wire.PromptReplyRequest{ID: "ABC", Answer: "123456"},
	} {
		if err := c.Call(t.Context(), "POST", path, in, nil); err != nil {
			t.Error(err)
		}
	}
	if err := c.Call(t.Context(), "POST", wire.PathPromptReply, wire.PromptReplyRequest{ID: "ABC", Why: "internal"}, nil); broker.CodeOf(err) != broker.CodeUsage {
		t.Errorf("why is taken from no list: %v", err)
	}
	for name, ask := range map[string]*wire.Ask{
		"mode":     {Mode: "carrier-pigeon"},
		"variable": {Env: []string{"LD_PRELOAD=/tmp/x.so"}},
		"twice":    {Env: []string{"DISPLAY=:0", "DISPLAY=:1"}},
		"control":  {Env: []string{"DISPLAY=:0\n"}},
		"long":     {Env: []string{"DISPLAY=" + strings.Repeat("x", 1025)}},
		"waited":   {WaitedMillis: -1},
	} {
		_, _, err := c.Credentials(t.Context(), wire.CredentialsRequest{Profile: "ops", Ask: ask})
		if broker.CodeOf(err) != broker.CodeUsage {
			t.Errorf("%s: %v", name, err)
		}
		vault := wire.AWSVaultRequest{Backend: "file", Dir: "/a/keys"}
		for path, in := range map[string]any{
			wire.PathKeys: wire.AddKeyRequest{Name: "work", Ask: ask}, wire.PathKeysList: wire.ListKeysRequest{Ask: ask},
			wire.PathKeysRemove: wire.RemoveKeyRequest{Name: "work", Ask: ask}, wire.PathKeysRotate: wire.RotateKeyRequest{Name: "work", Ask: ask},
			wire.PathAWSVaultImport: wire.AWSVaultKeyRequest{AWSVaultRequest: vault, Name: "work", Ask: ask}, wire.PathAWSVaultRemove: wire.AWSVaultKeyRequest{AWSVaultRequest: vault, Name: "work", Ask: ask},
			wire.PathLeases: wire.StartLeaseRequest{CredentialsRequest: wire.CredentialsRequest{Profile: "ops", Ask: ask}}, wire.PathLeaseRenew: wire.RenewLeaseRequest{Ask: ask},
		} {
			if err := c.Call(t.Context(), "POST", path, in, nil); broker.CodeOf(err) != broker.CodeUsage {
				t.Errorf("%s: %s: %v", path, name, err)
			}
		}
	}
}
