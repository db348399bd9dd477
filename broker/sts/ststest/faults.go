package ststest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A FaultKind says how a call goes wrong.
type FaultKind string

// The kinds. Truncate and Incomplete do what was asked before they spoil the
// answer, so that a session exists and a code is used up; the others keep the
// call from happening.
const (
	Slow       FaultKind = ""           // only Delay and Skew
	Throttle   FaultKind = "throttle"   // 400 Throttling, "Rate exceeded"
	Fail       FaultKind = "fail"       // Status, Code and Message; by default 500 InternalFailure
	Drop       FaultKind = "drop"       // the connection closes without an answer
	Truncate   FaultKind = "truncate"   // the connection closes halfway through the answer
	Garbage    FaultKind = "garbage"    // 200 and XML that is none
	HTML       FaultKind = "html"       // 200 and a web page, as a captive portal sends
	Empty      FaultKind = "empty"      // 200 and no body
	Incomplete FaultKind = "incomplete" // 200 and well-formed XML without the result
)

var faultKinds = []FaultKind{Slow, Throttle, Fail, Drop, Truncate, Garbage, HTML, Empty, Incomplete}

// A Fault makes calls go wrong.
type Fault struct {
	Action string // of which action; "" means any call
	Kind   FaultKind
	Count  int           // how many calls it meets; 0 means all until it is cleared
	Delay  time.Duration // before the answer
	Skew   time.Duration // how far AWS's clock is ahead of [Config.Now]

	// For Fail.
	Status  int // 400 to 599
	Code    string
	Message string
}

type faultJSON struct {
	Action  string    `json:"action,omitempty"`
	Kind    FaultKind `json:"kind,omitempty"`
	Count   int       `json:"count,omitempty"`
	Delay   string    `json:"delay,omitempty"`
	Skew    string    `json:"skew,omitempty"`
	Status  int       `json:"status,omitempty"`
	Code    string    `json:"code,omitempty"`
	Message string    `json:"message,omitempty"`
}

// MarshalJSON writes durations as "1m30s".
func (f Fault) MarshalJSON() ([]byte, error) {
	j := faultJSON{Action: f.Action, Kind: f.Kind, Count: f.Count, Status: f.Status, Code: f.Code, Message: f.Message}
	if f.Delay != 0 {
		j.Delay = f.Delay.String()
	}
	if f.Skew != 0 {
		j.Skew = f.Skew.String()
	}
	return json.Marshal(j)
}

func (j faultJSON) fault() (Fault, error) {
	f := Fault{Action: j.Action, Kind: j.Kind, Count: j.Count, Status: j.Status, Code: j.Code, Message: j.Message}
	for _, d := range []struct {
		name, text string
		into       *time.Duration
	}{{"delay", j.Delay, &f.Delay}, {"skew", j.Skew, &f.Skew}} {
		if d.text == "" {
			continue
		}
		v, err := time.ParseDuration(d.text)
		if err != nil {
			return f, fmt.Errorf("%s: %q is not a duration such as 1m30s", d.name, d.text)
		}
		*d.into = v
	}
	return f, f.check()
}

func (f Fault) check() error {
	switch {
	case !slices.Contains(faultKinds, f.Kind):
		return fmt.Errorf("kind %q is none of throttle, fail, drop, truncate, garbage, html, empty, incomplete", f.Kind)
	case f.Kind == Slow && f.Delay == 0 && f.Skew == 0:
		return errors.New("the fault does nothing: give it a kind, a delay or a skew")
	case f.Count < 0:
		return errors.New("count is negative")
	case f.Delay < 0:
		return errors.New("delay is negative")
	case f.Kind != Fail && (f.Status != 0 || f.Code != "" || f.Message != ""):
		return errors.New("status, code and message go with kind \"fail\"")
	case f.Status != 0 && (f.Status < 400 || f.Status > 599):
		return fmt.Errorf("status %d is not 400 to 599", f.Status)
	}
	return nil
}

// Faults are the ones in force. The zero value has none.
type Faults struct {
	mu   sync.Mutex
	list []Fault
}

// Faults returns the Sandbox's faults. The same are reached over HTTP, from
// this machine only: POST a fault to /sandbox/fault, as in
//
//	curl -d '{"action":"AssumeRole","kind":"throttle","count":2}' http://127.0.0.1:PORT/sandbox/fault
//
// with the fields action, kind, count, delay, skew, status, code and message;
// GET lists them, DELETE clears them.
func (s *Sandbox) Faults() *Faults { return &s.faults }

// Add puts a fault in force. Where several fit a call, the oldest one that is
// not used up meets it, alone. It panics on a fault that makes no sense.
func (fs *Faults) Add(f Fault) {
	if err := f.check(); err != nil {
		panic("ststest: " + err.Error())
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.list = append(fs.list, f)
}

// Clear removes all faults.
func (fs *Faults) Clear() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.list = nil
}

// List returns the faults in force, with the counts that are left.
func (fs *Faults) List() []Fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return slices.Clone(fs.list)
}

// take returns the fault that meets a call, and counts it.
func (fs *Faults) take(action string) Fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for i, f := range fs.list {
		if f.Action != "" && f.Action != action {
			continue
		}
		switch f.Count {
		case 0:
		case 1:
			fs.list = slices.Delete(fs.list, i, i+1)
		default:
			fs.list[i].Count--
		}
		return f
	}
	return Fault{}
}

// instead returns the answer that takes the place of the call's own.
func (f Fault) instead(c *Call) (answer, bool) {
	switch f.Kind {
	case Throttle:
		return newAnswer(nil, c, nil, refuse(http.StatusBadRequest, "Throttling", "Rate exceeded")), true
	case Fail:
		e := &apiError{status: f.Status, code: f.Code, message: f.Message}
		if e.status == 0 {
			e.status = http.StatusInternalServerError
		}
		if e.code == "" && e.status == http.StatusServiceUnavailable {
			e.code = "ServiceUnavailable"
		} else if e.code == "" {
			e.code = "InternalFailure"
		}
		if e.message == "" {
			e.message = "The request processing has failed because of an unknown error, exception or failure."
		}
		return newAnswer(nil, c, nil, e), true
	case Drop:
		return answer{drop: true}, true
	case Garbage:
		return answer{status: http.StatusOK, contentType: "text/xml", body: []byte("<AssumeRoleResponse><<Credentials>\x00&nbsp;")}, true
	case HTML:
		return answer{status: http.StatusOK, contentType: "text/html", body: []byte("<!DOCTYPE html><html><head><title>Hotel Wi-Fi</title></head><body><p>Please log in.<br></body></html>\n")}, true
	case Empty:
		return answer{status: http.StatusOK, contentType: "text/xml"}, true
	}
	return answer{}, false
}

// mangle spoils the answer to a call that was done.
func (f Fault) mangle(svc *service, c *Call, a *answer) {
	switch {
	case f.Kind == Truncate:
		a.truncate = true
	case f.Kind == Incomplete && a.status == http.StatusOK:
		*a = newAnswer(svc, c, nil, nil)
	}
}

// wait reports whether d passed before ctx was done.
func wait(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
