package ststest

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// A Call is the record of one request to the API. It holds no secret: no
// signature, token, code or external id.
type Call struct {
	Time            time.Time         `json:"time"`      // by AWS's clock
	Action          string            `json:"action"`    // "" when it is none that the sandbox has
	Principal       string            `json:"principal"` // ARN of the caller, once authenticated
	AccessKeyID     string            `json:"access_key_id"`
	UserAgent       string            `json:"user_agent,omitempty"` // the first 256 bytes
	RoleARN         string            `json:"role_arn,omitempty"`
	SessionName     string            `json:"session_name,omitempty"`
	SourceIdentity  string            `json:"source_identity,omitempty"`
	DurationSeconds int               `json:"duration_seconds,omitempty"` // what was granted, else asked for
	MFASerial       string            `json:"mfa_serial,omitempty"`
	Tags            map[string]string `json:"tags,omitempty"`
	TransitiveTags  []string          `json:"transitive_tags,omitempty"`
	PolicyARNs      []string          `json:"policy_arns,omitempty"`
	RequestID       string            `json:"request_id"`
	IssuedKeyID     string            `json:"issued_access_key_id,omitempty"`  // of the session or key that was made
	SubjectKeyID    string            `json:"subject_access_key_id,omitempty"` // that an IAM call is about
	Fault           FaultKind         `json:"fault,omitempty"`
	Status          int               `json:"status"`         // 0: dropped
	Code            string            `json:"code,omitempty"` // AWS's error code
	Why             string            `json:"why,omitempty"`  // the reason that AWS does not tell
}

// keptCalls is how many calls are remembered at least; counts go on for ever.
const keptCalls = 10_000

type callBook struct {
	mu     sync.Mutex
	counts map[string]int
	calls  []Call
}

func (b *callBook) add(c Call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.counts == nil {
		b.counts = map[string]int{}
	}
	b.counts[c.Action]++
	if len(b.calls) == 2*keptCalls {
		b.calls = slices.Delete(b.calls, 0, keptCalls)
	}
	b.calls = append(b.calls, c)
}

func (b *callBook) snapshot() (map[string]int, []Call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.counts), slices.Clone(b.calls)
}

// Calls returns the calls so far, faulted and refused ones included, oldest
// first; of very many, the last 10,000 or more. A call is in it before its
// answer is sent. Over HTTP, from this machine only, GET /sandbox/calls
// returns {"counts":{action:n},"calls":[…]}, and DELETE forgets them.
func (s *Sandbox) Calls() []Call {
	_, calls := s.calls.snapshot()
	return calls
}

// Count returns how often an action was called; "" stands for what is no
// action of the sandbox.
func (s *Sandbox) Count(action string) int {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	return s.calls.counts[action]
}

// ForgetCalls empties the record.
func (s *Sandbox) ForgetCalls() {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	s.calls.counts, s.calls.calls = nil, nil
}
