package door

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"mime"
	"net/http"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"gatepass/broker"
	"gatepass/broker/wire"
	"gatepass/profiles"
)

func (s *Server) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				s.cfg.Logger.Error("panic while answering", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
				s.fail(w, broker.Errorf(broker.CodeInternal, "gatepassd failed on this request; its log says where"))
			}
		}()
		s.answer(w, r)
	})
}

// answer lets r in or refuses it, and writes the one or the other answer.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(connKey{}).(*conn)
	if c == nil || c.peerErr != nil {
		err := errors.New("no peer")
		if c != nil {
			err = c.peerErr
		}
		s.cfg.Logger.Warn("refused a connection", "error", err)
		s.refuse(w, http.StatusForbidden, broker.Errorf(broker.CodeDenied, "this daemon serves its own user alone"))
		return
	}
	if status, err := checkHead(r); err != nil {
		s.refuse(w, status, err)
		return
	}
	methods, ok := routes[r.RequestURI]
	if !ok {
		s.refuse(w, http.StatusNotFound, broker.Errorf(broker.CodeUsage, "gatepassd knows no %q", r.RequestURI))
		return
	}
	call, ok := methods[r.Method]
	if !ok {
		allowed := slices.Sorted(maps.Keys(methods))
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		s.refuse(w, http.StatusMethodNotAllowed, broker.Errorf(broker.CodeUsage, "%s takes %s, not %q", r.RequestURI, strings.Join(allowed, " and "), r.Method))
		return
	}
	body, status, err := readBody(r)
	defer clear(body) // it may hold a key
	if err != nil {
		s.refuse(w, status, err)
		return
	}
	caller, err := c.peer.caller()
	if err != nil {
		s.refuse(w, http.StatusForbidden, err)
		return
	}
	caller.User = s.user
	if r.URL.Path == wire.PathKeysRotate {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wire.RotatePatience)); err != nil {
			s.fail(w, broker.Errorf(broker.CodeInternal, "take the time for a rotation: %w", err))
			return
		}
	}
	out, err := call(s, &request{ctx: r.Context(), caller: caller, body: body, header: w.Header()})
	status = http.StatusOK
	if ask := (*broker.AskError)(nil); errors.As(err, &ask) {
		out, err, status = wire.Needed{Question: ask.Question}, nil, http.StatusAccepted
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	b, ok := out.(document)
	if !ok {
		if b, err = json.Marshal(out); err != nil {
			s.fail(w, broker.Errorf(broker.CodeInternal, "encode the answer: %w", err))
			return
		}
		b = append(b, '\n')
	}
	write(w, status, b)
	clear(b)
}

// checkHead refuses what no client of ours sends. The answer to all of it is
// the same whatever the path, so that nothing can be probed.
func checkHead(r *http.Request) (status int, err error) {
	for name := range r.Header {
		// What browsers add (also to requests that some page on the web made
		// them send) and what proxies do.
		switch {
		case name == "Origin", name == "Referer", name == "Forwarded", name == "Via",
			strings.HasPrefix(name, "Sec-"), strings.HasPrefix(name, "X-Forwarded"):
			return http.StatusForbidden, broker.Errorf(broker.CodeDenied, "requests with the header %s are not served: browsers and proxies send it", name)
		}
	}
	// A page on the web can make a browser resolve its name to this machine.
	// net/http moves Host out of the header.
	if r.Host != wire.Host && r.Host != "localhost" {
		return http.StatusForbidden, broker.Errorf(broker.CodeDenied, "requests for the host %q are not served, only for %q", r.Host, wire.Host)
	}
	if versions := r.Header[wire.VersionHeader]; len(versions) > 1 {
		return http.StatusBadRequest, broker.Errorf(broker.CodeUsage, "%s came %d times", wire.VersionHeader, len(versions))
	} else if len(versions) == 1 { // curl sends none
		// A client that does not fit may stop us, to start one that does.
		if err := wire.CheckVersion("gatepass", versions[0]); err != nil && r.URL.Path != wire.PathStop {
			return http.StatusBadRequest, err
		}
	}
	return 0, nil
}

// readBody reads and checks the body of r: JSON for a POST, nothing else. A
// refused body is not read to its end: its connection is closed.
func readBody(r *http.Request) (body []byte, status int, err error) {
	if r.Method != "POST" {
		if r.ContentLength != 0 {
			return nil, http.StatusBadRequest, broker.Errorf(broker.CodeUsage, "a %s has no body", r.Method)
		}
		return nil, 0, nil
	}
	if types := r.Header["Content-Type"]; len(types) > 0 {
		kind, _, err := mime.ParseMediaType(types[0])
		if err != nil || kind != "application/json" || len(types) > 1 {
			return nil, http.StatusUnsupportedMediaType, broker.Errorf(broker.CodeUsage, "the body must be application/json, not %q", types)
		}
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" {
		return nil, http.StatusUnsupportedMediaType, broker.Errorf(broker.CodeUsage, "the body is encoded (%q)", encoding)
	}
	// Chunks, with or without a length beside them, are what two parsers
	// read differently.
	if r.ContentLength < 0 {
		return nil, http.StatusLengthRequired, broker.Errorf(broker.CodeUsage, "the body must have a Content-Length")
	}
	if r.ContentLength > wire.MaxBody {
		return nil, http.StatusRequestEntityTooLarge, broker.Errorf(broker.CodeUsage, "the body has more than %d bytes", wire.MaxBody)
	}
	body = make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return body, http.StatusBadRequest, broker.Errorf(broker.CodeUsage, "the body did not arrive: %w", err)
	}
	if err := checkJSON(body); err != nil {
		return body, http.StatusBadRequest, broker.Errorf(broker.CodeUsage, "the body cannot be used: %w", err)
	}
	return body, 0, nil
}

// decode reads a body that checkJSON has passed. Its errors name the field
// and not what is in it.
func decode(body []byte, into any) error {
	err := json.Unmarshal(body, into)
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind):
		return broker.Errorf(broker.CodeUsage, "the field %q must be a %s", kind.Field, kind.Type)
	case err != nil:
		return broker.Errorf(broker.CodeUsage, "the body cannot be used")
	}
	return nil
}

// credentialsRequest reads the body of a request for a profile, which need not
// be named in it.
func credentialsRequest(r *request) (req broker.Request, via string, err error) {
	var in wire.CredentialsRequest
	if err := decode(r.body, &in); err != nil {
		return req, "", err
	}
	return credentialsRequestOf(in, r)
}

func credentialsRequestOf(in wire.CredentialsRequest, r *request) (req broker.Request, via string, err error) {
	if err := checkFiles(in.ConfigFile, in.CredentialsFile); err != nil {
		return req, "", err
	}
	if err := checkRegion(in.Region); err != nil {
		return req, "", err
	}
	if !isWord(in.Via) {
		return req, "", broker.Errorf(broker.CodeUsage, "via is %q", in.Via)
	}
	for name, seconds := range map[string]int{"duration_seconds": in.DurationSeconds, "min_left_seconds": in.MinLeftSeconds} {
		if seconds < 0 || seconds > math.MaxInt32 {
			return req, "", broker.Errorf(broker.CodeUsage, "%s is %d", name, seconds)
		}
	}
	how, err := reachable(in.Ask, r)
	if err != nil {
		return req, "", err
	}
	return broker.Request{
		Reachable: how,
		Code:      broker.NewSecret(in.MFACode),

		Profile:  in.Profile,
		Files:    profiles.Files{Config: in.ConfigFile, Credentials: in.CredentialsFile},
		Region:   in.Region,
		Reason:   in.Reason,
		Duration: time.Duration(in.DurationSeconds) * time.Second,
		MinLeft:  time.Duration(in.MinLeftSeconds) * time.Second,
	}, in.Via, nil
}

// vaultOf reads where aws-vault keeps its keys.
func vaultOf(in wire.AWSVaultRequest) (at broker.AWSVault, err error) {
	if in.Dir != "" {
		if err := checkPath("dir", in.Dir); err != nil {
			return at, err
		}
	}
	for name, value := range map[string]string{"backend": in.Backend, "collection": in.Collection, "keychain": in.Keychain, "prefix": in.Prefix} {
		if len(value) > 256 || strings.ContainsFunc(value, unicode.IsControl) {
			return at, broker.Errorf(broker.CodeUsage, "the %s of aws-vault is not plain text", name)
		}
	}
	if strings.ContainsAny(in.Keychain, `/\`) {
		return at, broker.Errorf(broker.CodeUsage, "the keychain of aws-vault is a name, not the path %q", in.Keychain)
	}
	return broker.AWSVault{Backend: in.Backend, Collection: in.Collection, Keychain: in.Keychain, Dir: in.Dir, Prefix: in.Prefix}, nil
}

// vaultKeyRequest reads the body of a request about one key of aws-vault.
func vaultKeyRequest(r *request) (in wire.AWSVaultKeyRequest, at broker.AWSVault, how broker.Reachable, err error) {
	if err := decode(r.body, &in); err != nil {
		return in, at, how, err
	}
	if err := checkRegion(in.Region); err != nil {
		return in, at, how, err
	}
	if how, err = reachable(in.Ask, r); err != nil {
		return in, at, how, err
	}
	at, err = vaultOf(in.AWSVaultRequest)
	at.Passphrase = broker.NewSecret(in.Passphrase)
	return in, at, how, err
}

// profilesRequest reads the body of a request about profiles.
func profilesRequest(body []byte) (in wire.ProfilesRequest, err error) {
	if err := decode(body, &in); err != nil {
		return in, err
	}
	return in, checkFiles(in.ConfigFile, in.CredentialsFile)
}

func checkFiles(config, credentials string) error {
	for name, path := range map[string]string{"config_file": config, "credentials_file": credentials} {
		if path != "" {
			if err := checkPath(name, path); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkPath(name, path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0) {
		return broker.Errorf(broker.CodeUsage, "%s must be an absolute path without detours, not %q", name, path)
	}
	return nil
}

// reachable reads how the user behind r can be asked. The variables go to
// programs that the daemon starts: those that a dialog needs and no other, and
// nothing in them that is not plain text.
func reachable(in *wire.Ask, r *request) (broker.Reachable, error) {
	if in == nil {
		return broker.Reachable{TTY: r.caller.TTY}, nil
	}
	if in.Mode != "" && !slices.Contains(broker.PromptModes, in.Mode) {
		return broker.Reachable{}, broker.Errorf(broker.CodeUsage, "%q is no way to ask: it is one of %s", in.Mode, strings.Join(broker.PromptModes, ", "))
	}
	if in.WaitedMillis < 0 || in.WaitedMillis > math.MaxInt32 {
		return broker.Reachable{}, broker.Errorf(broker.CodeUsage, "waited_ms is %d", in.WaitedMillis)
	}
	seen := make(map[string]bool)
	for _, v := range in.Env {
		name, value, _ := strings.Cut(v, "=")
		if !slices.Contains(wire.AskVariables[:], name) || seen[name] {
			return broker.Reachable{}, broker.Errorf(broker.CodeUsage, "the variable %q is not one that a dialog needs, or came twice", name)
		}
		seen[name] = true
		if len(value) > 1024 || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return broker.Reachable{}, broker.Errorf(broker.CodeUsage, "the variable %s is not plain text", name)
		}
	}
	return broker.Reachable{
		Known: true, Terminal: in.Terminal, Mode: in.Mode, TTY: r.caller.TTY, Env: in.Env,
		Waited: time.Duration(in.WaitedMillis) * time.Millisecond,
	}, nil
}

// checkRegion refuses what would say more than a region where it becomes part
// of a host's name.
func checkRegion(region string) error {
	if !isWord(region) {
		return broker.Errorf(broker.CodeUsage, "%q is not the name of a region", region)
	}
	return nil
}

// isWord reports whether s is at most 64 of a-z, 0-9 and "-".
func isWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(s) <= 64
}

// refuse answers a request that does not get in, and ends its connection.
func (s *Server) refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Connection", "close")
	writeError(w, status, broker.AsError(err))
}

// fail answers a request that failed inside.
func (s *Server) fail(w http.ResponseWriter, err error) {
	e := broker.AsError(err)
	if e.Code == broker.CodeInternal {
		s.cfg.Logger.Error("a request failed", "error", err)
	}
	writeError(w, statusOf(e.Code), e)
}

// statusOf returns the HTTP status that a code goes with, for curl's sake:
// clients of ours read the code.
func statusOf(code broker.Code) int {
	switch code {
	case broker.CodeUsage:
		return http.StatusBadRequest
	case broker.CodeNotFound:
		return http.StatusNotFound
	case broker.CodeConfig, broker.CodeData:
		return http.StatusUnprocessableEntity
	case broker.CodeDenied, broker.CodeAWSDenied, broker.CodeKeychainDenied, broker.CodeCancelled, broker.CodeMFAFailed:
		return http.StatusForbidden
	case broker.CodeLocked, broker.CodeKeychainLocked:
		return http.StatusLocked
	case broker.CodeThrottled:
		return http.StatusTooManyRequests
	case broker.CodeAWSUnreachable:
		return http.StatusBadGateway
	case broker.CodeKeychainTimeout, broker.CodePromptTimeout:
		return http.StatusGatewayTimeout
	case broker.CodeDaemonUnreachable, broker.CodeKeychainMissing, broker.CodeLogUnwritable, broker.CodePromptUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func writeError(w http.ResponseWriter, status int, e *broker.Error) {
	b, err := json.Marshal(e)
	if err != nil { // three strings
		panic(err)
	}
	write(w, status, append(b, '\n'))
}

// Header values that never change, so that they cost nothing.
var (
	jsonType = []string{"application/json"}
	noStore  = []string{"no-store"}
	version  = []string{strconv.Itoa(wire.Version)}
)

func write(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Cache-Control"] = noStore
	h[wire.VersionHeader] = version
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	w.Write(body)
}
