package broker

import (
	"cmp"
	"errors"
	"fmt"
)

// A Code says what kind of failure an [Error] is. Codes cross the wire and
// stand in the audit log; the set is closed, and each one maps to one exit
// status of the gatepass command.
type Code string

// The codes, grouped by the exit status they lead to (sysexits.h).
const (
	CodeUsage Code = "usage" // 64: the request itself makes no sense

	CodeData Code = "data" // 65: a log, proof or document that does not verify or parse

	CodeDaemonUnreachable Code = "daemon_unreachable" // 69
	CodeAWSUnreachable    Code = "aws_unreachable"    // 69: network, DNS, TLS, or AWS answering 5xx
	CodeKeychainMissing   Code = "keychain_missing"   // 69: no keychain service to talk to
	CodeKeychainTimeout   Code = "keychain_timeout"   // 69: the keychain did not answer in time

	CodeInternal Code = "internal" // 70: a bug

	CodeLogUnwritable Code = "log_unwritable" // 74: no entry, no credentials; no journal, no rotation

	CodeLocked            Code = "locked"             // 75: the broker is locked
	CodeKeychainLocked    Code = "keychain_locked"    // 75
	CodePromptUnavailable Code = "prompt_unavailable" // 75: a question, and nobody to ask
	CodePromptTimeout     Code = "prompt_timeout"     // 75
	CodeThrottled         Code = "throttled"          // 75: AWS asks us to slow down

	CodeDenied         Code = "denied"          // 77: by a rule of gatepass
	CodeAWSDenied      Code = "aws_denied"      // 77: by AWS
	CodeKeychainDenied Code = "keychain_denied" // 77: by the keychain or its user
	CodeCancelled      Code = "cancelled"       // 77: by the user
	CodeMFAFailed      Code = "mfa_failed"      // 77

	CodeNotFound Code = "not_found" // 78: no such profile or key
	CodeConfig   Code = "config"    // 78: a configuration that cannot be used
)

// Known reports whether c is one of the closed set.
func (c Code) Known() bool { return c.exitStatus() != 0 }

// ExitStatus returns the status with which the gatepass command ends on c,
// from sysexits.h; 70 for a code that is not in the set.
func (c Code) ExitStatus() int { return cmp.Or(c.exitStatus(), CodeInternal.exitStatus()) }

// exitStatus is a switch, not a map: a map would be filled at every start of
// the client.
func (c Code) exitStatus() int {
	switch c {
	case CodeUsage:
		return 64
	case CodeData:
		return 65
	case CodeDaemonUnreachable, CodeAWSUnreachable, CodeKeychainMissing, CodeKeychainTimeout:
		return 69
	case CodeInternal:
		return 70
	case CodeLogUnwritable:
		return 74
	case CodeLocked, CodeKeychainLocked, CodePromptUnavailable, CodePromptTimeout, CodeThrottled:
		return 75
	case CodeDenied, CodeAWSDenied, CodeKeychainDenied, CodeCancelled, CodeMFAFailed:
		return 77
	case CodeNotFound, CodeConfig:
		return 78
	}
	return 0
}

// denial reports whether c is a refusal; the other codes are failures.
func (c Code) denial() bool { return c == CodeLocked || c.exitStatus() == 77 }

// An Error is a failure as its user will read it. Message says what was being
// done and why it failed, in lower case and without a full stop; Hint, where
// there is one, is the next thing to do. Neither ever holds a secret.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`

	err error
}

// Errorf returns an Error with the given code. Its message is formatted as by
// [fmt.Errorf], and %w is unwrapped by [errors.Is] and [errors.As].
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), err: errors.Unwrap(err)}
}

// WithHint returns a copy of e with the next step to take.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.err }

// AsError returns the Error in err's chain, with the text that was wrapped
// around it, or wraps err as [CodeInternal]. It returns nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if !errors.As(err, &e) {
		return &Error{Code: CodeInternal, Message: err.Error(), err: err}
	}
	if e.Message == err.Error() {
		return e
	}
	return &Error{Code: e.Code, Message: err.Error(), Hint: e.Hint, err: err}
}

// CodeOf returns the code of the Error in err's chain, [CodeInternal] where
// there is none, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return AsError(err).Code
}
