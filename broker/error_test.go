package broker_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"gatepass/broker"
)

func TestErrorKeepsCodeAndHintThroughWrapping(t *testing.T) {
	inner := broker.Errorf(broker.CodeKeychainLocked, "read key: %w", io.ErrUnexpectedEOF).WithHint("unlock it")
	outer := broker.AsError(fmt.Errorf("profile %q: %w", "ops", inner))
	if outer.Code != broker.CodeKeychainLocked || outer.Hint != "unlock it" || outer.Message != `profile "ops": read key: unexpected EOF` {
		t.Errorf("got %+v", outer)
	}
	if !errors.Is(outer, io.ErrUnexpectedEOF) {
		t.Error("the cause is lost")
	}
	if e := broker.AsError(io.EOF); e.Code != broker.CodeInternal {
		t.Errorf("an unknown error has code %s", e.Code)
	}
	if broker.AsError(nil) != nil || broker.CodeOf(nil) != "" {
		t.Error("nil is an error")
	}
}

// The exit statuses are a public contract.
func TestExitStatus(t *testing.T) {
	for code, want := range map[broker.Code]int{
		"usage": 64, "data": 65,
		"daemon_unreachable": 69, "aws_unreachable": 69, "keychain_missing": 69, "keychain_timeout": 69,
		"internal": 70, "log_unwritable": 74,
		"locked": 75, "keychain_locked": 75, "prompt_unavailable": 75, "prompt_timeout": 75, "throttled": 75,
		"denied": 77, "aws_denied": 77, "keychain_denied": 77, "cancelled": 77, "mfa_failed": 77,
		"not_found": 78, "config": 78, "something else": 70,
	} {
		if got := code.ExitStatus(); got != want {
			t.Errorf("%s: %d, want %d", code, got, want)
		}
	}
}
