// Package ststest is a stand-in for AWS: real HTTP, AWS's own wire format,
// and AWS's refusals. It lets anyone try gatepass, and tests run, without an
// AWS account. The program gatepass-sandbox serves it; tests use [NewServer]:
//
//	srv := ststest.NewServer(t, ststest.Example())
//	key := srv.Key("alice")
//	… a client with endpoint srv.URL, key.ID and key.Secret …
//	srv.Faults().Add(ststest.Fault{Action: "AssumeRole", Kind: ststest.Throttle, Count: 2})
//
// It speaks the query protocol (form in, XML out) of the Security Token
// Service, version 2011-06-15 (AssumeRole, GetSessionToken and
// GetCallerIdentity), and of Identity and Access Management, version
// 2010-05-08, what users do with their own keys and ask about themselves:
// CreateAccessKey, UpdateAccessKey, DeleteAccessKey, ListAccessKeys,
// GetAccessKeyLastUsed, GetUser, ListGroupsForUser and ListMFADevices, the
// listings in parts (MaxItems, Marker). Every request is judged as
// AWS judges it:
//
//   - Signature Version 4 is verified here from the specification, not with
//     AWS's SDK: the body's hash, the signed headers, the credential scope, and
//     a clock within five minutes
//     (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html);
//   - keys may be active, inactive or deleted, and a new one is not known at
//     once where [Config.NewKey] says so; session tokens are sealed, bound
//     to their access key, and expire;
//   - a role is assumed only as its trust policy says: principal, external id,
//     MFA and its age, session tags, source identity;
//   - an MFA code (RFC 6238, 30 s, one step of drift either way) is accepted
//     once;
//   - durations, names, tags and policies obey the limits of AWS's API model.
//
// The Sandbox keeps nothing on disk. Sessions outlive its restart, because their
// tokens carry all; that a code was used does not.
//
// What it does not have: policies attached to users and roles. Of STS a user
// may call everything, and trust policies alone decide; of IAM what [User]
// lists. Keys that were made are gone with the Sandbox. Session policies are checked for
// syntax and size and then forgotten.
//
// Answers are as terse as AWS's. Why a call was refused in truth ("the key is
// inactive", "no statement's external id matches") stands in [Call.Why], which
// never leaves by the API.
//
// The secrets in a [Config] guard nothing: keep real ones out of it.
package ststest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// maxBody is the largest request body, in bytes.
const maxBody = 128 << 10

// A Sandbox is a stand-in AWS. It is an [http.Handler] and safe for concurrent
// use.
type Sandbox struct {
	config   Config
	sealer   sealer
	services map[string]*service // by API version
	admin    http.Handler
	faults   Faults
	calls    callBook

	accounts map[string]*account // by id
	users    map[string]*user    // by ARN
	roles    map[string]*role    // by ARN

	mu    sync.Mutex            // guards keys' statuses and devices' used codes
	keys  map[string]*accessKey // by access key id
	codes map[string]*device    // by serial number
}

// New returns a Sandbox with the accounts of config. It fails where config
// contradicts itself or AWS's rules for names.
func New(config Config) (*Sandbox, error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	s := &Sandbox{config: config, services: map[string]*service{}}
	if err := s.index(); err != nil {
		return nil, err
	}
	s.sealer = newSealer(config)
	s.addService(s.sts())
	s.addService(s.iam())
	s.admin = s.adminHandler()
	return s, nil
}

// A service is one AWS API. Its file adds it to the Sandbox in New.
type service struct {
	name      string // in the credential scope
	version   string // the parameter Version
	namespace string // of the XML answers
	region    string // the only one to sign for; "" for any
	actions   map[string]action
}

// An action answers one authenticated call with the body of its …Result
// element, or refuses.
type action func(c *request) (result any, err *apiError)

func (s *Sandbox) addService(v *service) { s.services[v.version] = v }

// A request is one call on its way through the Sandbox.
type request struct {
	*Call
	caller *principal
	params params
	now    time.Time
}

// ServeHTTP answers one call to AWS, or one to the sandbox's own paths below
// /sandbox/ (see [Sandbox.Faults] and [Sandbox.Calls]).
func (s *Sandbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/sandbox/") {
		s.admin.ServeHTTP(w, r)
		return
	}
	agent := r.UserAgent()
	c := &Call{RequestID: newRequestID(), UserAgent: agent[:min(len(agent), 256)]}
	body, params, err := readParams(r)
	var svc *service
	var act action
	if err == nil {
		svc, act, err = s.route(params)
	}
	if act != nil {
		c.Action = params["Action"]
	}
	fault := s.faults.take(c.Action)
	c.Fault = fault.Kind
	c.Time = s.config.Now().Add(fault.Skew)
	if !wait(r.Context(), fault.Delay) {
		return // the client has gone
	}

	var a answer
	if instead, ok := fault.instead(c); ok {
		a = instead
	} else {
		var result any
		if err == nil {
			result, err = s.serve(svc, act, c, r, body, params)
		}
		a = newAnswer(svc, c, result, err)
		fault.mangle(svc, c, &a)
	}
	c.Status, c.Code, c.Why = a.status, a.code, a.why
	s.calls.add(*c) // before the client can know
	if s.config.Log != nil {
		s.config.Log(*c)
	}
	a.write(w, c)
}

// route finds what a call asks for. A refusal here precedes authentication, as
// at AWS.
func (s *Sandbox) route(p params) (*service, action, *apiError) {
	name, version := p["Action"], p["Version"]
	if name == "" {
		return nil, nil, refuse(http.StatusBadRequest, "MissingAction", "The request must contain the parameter Action.")
	}
	if svc := s.services[version]; svc != nil {
		if act := svc.actions[name]; act != nil {
			return svc, act, nil
		}
	}
	if version == "" {
		version = "NO_VERSION_SPECIFIED"
	}
	return nil, nil, refuse(http.StatusBadRequest, "InvalidAction",
		fmt.Sprintf("Could not find operation %s for version %s", name, version))
}

func (s *Sandbox) serve(svc *service, act action, c *Call, r *http.Request, body []byte, p params) (any, *apiError) {
	caller, err := s.authenticate(r, body, svc, c)
	if err != nil {
		return nil, err
	}
	c.Principal = caller.arn
	return act(&request{Call: c, caller: caller, params: p, now: c.Time})
}

// readParams reads the body, whole, and the parameters that it and the URL's
// query hold.
func readParams(r *http.Request) ([]byte, params, *apiError) {
	if r.Method != http.MethodPost && r.Method != http.MethodGet {
		return nil, nil, refuse(http.StatusMethodNotAllowed, "UnsupportedHttpVerb", "The HTTP verb specified is not supported.")
	}
	if r.URL.Path != "/" {
		return nil, nil, refuse(http.StatusNotFound, "UnknownOperationException", "There is no API at this path.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, nil, refuse(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "Request size is larger than allowed.")
	} else if err != nil {
		return nil, nil, refuse(http.StatusBadRequest, "RequestTimeout", "The request could not be read.")
	}
	p := params{}
	if err := p.parse(r.URL.RawQuery); err != nil {
		return nil, nil, err
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		if err := p.parse(string(body)); err != nil {
			return nil, nil, err
		}
	}
	return body, p, nil
}

// newRequestID returns a random UUID, version 4.
func newRequestID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
