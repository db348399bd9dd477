package keystore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"gatepass/broker"
)

// HelperMain is the main of a helper: it serves one request of the Store that
// started it and returns the exit status. It refuses with 64 to serve anything
// but its parent's socket, so that no other program can use gatepassd's own
// standing with the keychain, and with 70 to run where it cannot be made
// undumpable.
func HelperMain() int { return helperMain(nil) }

// helperMain lets a test stop at the steps of a write.
func helperMain(step func(string)) int {
	if err := harden(); err != nil {
		fmt.Fprintf(os.Stderr, "gatepassd: keychain helper: become undumpable: %v\n", err)
		return 70
	}
	if err := checkParent(); err != nil {
		fmt.Fprintf(os.Stderr, "gatepassd: %s is started by gatepassd alone: %v\n", HelperArg, err)
		return 64
	}
	if err := serve(os.Stdin, os.Stdout, step); err != nil {
		fmt.Fprintf(os.Stderr, "gatepassd: keychain helper: %v\n", err)
		return 70
	}
	return 0
}

// serve reads one request and answers it.
func serve(in io.Reader, out io.Writer, step func(string)) error {
	if err := writeMessage(out, answer{State: stateReady}, nil); err != nil {
		return err
	}
	var req request
	if err := readMessage(in, &req, &req.passphrase, &req.value); err != nil {
		return err
	}
	// The store says nothing more; what comes next is its end.
	go func() {
		io.Copy(io.Discard, in)
		endGroup()
	}()
	h := &helper{req: &req, step: step, out: out}
	a := h.answer()
	a.State = stateDone
	err := writeMessage(out, a, a.value)
	clear(a.value)
	req.clear()
	return err
}

// A helper serves one request.
type helper struct {
	req  *request
	step func(string) // nil but in tests
	out  io.Writer
}

// reach reports that a write has come to a step.
func (h *helper) reach(step string) {
	if h.step != nil {
		h.step(step)
	}
}

// prompt tells the store that a dialog may be open from now on.
func (h *helper) prompt(locked bool) {
	writeMessage(h.out, answer{State: statePrompt, Locked: locked}, nil)
}

// mayPrompt reports whether there is a desktop to show a dialog on, and the
// request is one that may ask.
func (h *helper) mayPrompt() bool {
	return h.req.Op != opProbe && (os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "")
}

// answer does what is asked. A panic in the libraries below becomes an error;
// its value is not shown, as it may hold anything.
func (h *helper) answer() (a answer) {
	defer func() {
		if p := recover(); p != nil {
			a = answer{Error: broker.Errorf(broker.CodeInternal, "the keychain (%s) confused its library, which crashed (%T)", h.req.Backend, p)}
		}
	}()
	v, backend, err := h.open()
	if err == nil {
		a, err = h.do(v, backend)
	}
	if err != nil {
		clear(a.value)
		return answer{Error: broker.AsError(err)}
	}
	a.Backend = backend
	return a
}

// A vault is one opened keychain. Its errors are *broker.Errors, but for
// errAbsent, which get returns only when the keychain said so.
type vault interface {
	list() ([]string, error) // item names, ours and others'
	get(item string) ([]byte, error)
	put(item string, data []byte) error
	remove(item string) error
	probe() error // whether it can be read, without any dialog
}

var errAbsent = errors.New("no such item in the keychain")

func (h *helper) do(v vault, backend string) (answer, error) {
	r := h.req
	switch {
	case r.Kind == kindAWSVault:
		return h.doAWSVault(v, backend)
	case r.Op == opProbe:
		return answer{}, v.probe()
	case r.Op == opList:
		return h.list(v)
	case r.Op == opUnlock:
		v, ok := v.(interface{ unlock() (answer, error) })
		if !ok {
			return answer{}, broker.Errorf(broker.CodeInternal, "the keychain (%s) has no passphrase", backend)
		}
		return v.unlock()
	}
	if r.Kind != kindKey && r.Kind != kindSecret || !validName(r.Name) {
		return answer{}, broker.Errorf(broker.CodeInternal, "keychain helper was asked for no proper item")
	}
	item := itemName(r.Kind, r.Name)
	switch r.Op {
	case opGet:
		data, err := v.get(item)
		if err == errAbsent {
			return answer{}, notFound(backend, r.Kind, r.Name)
		} else if err != nil {
			return answer{}, err
		}
		if r.Kind == kindSecret {
			value, err := decodeSecret(r.Name, data)
			return answer{value: value}, err
		}
		info, secret, err := decodeKey(r.Name, data)
		return answer{Key: info, value: secret}, err

	case opPut:
		var data []byte
		var err error
		if r.Kind == kindSecret {
			data, err = encodeSecret(r.Name, r.value)
		} else if r.Key.Name != r.Name {
			err = broker.Errorf(broker.CodeInternal, "keychain helper was given two names")
		} else {
			data, err = encodeKey(r.Key, r.value)
		}
		if err != nil {
			return answer{}, err
		}
		if err := v.put(item, data); err != nil {
			return answer{}, err
		}
		// Keychains cut, refuse and forget without an error.
		kept, err := v.get(item)
		if err != nil && err != errAbsent {
			return answer{}, err
		}
		if !broker.NewSecret(kept).Equal(broker.NewSecret(data)) {
			return answer{}, broker.Errorf(broker.CodeData, "the keychain (%s) took the %s %q but does not give it back as it was", backend, r.Kind, r.Name)
		}
		return answer{}, nil

	case opRemove:
		// A damaged item is removed like any other; one that cannot be read
		// is not, as it may not be what it seems.
		if _, err := v.get(item); err == errAbsent {
			return answer{}, notFound(backend, r.Kind, r.Name)
		} else if err != nil && broker.CodeOf(err) != broker.CodeData {
			return answer{}, err
		}
		if err := v.remove(item); err != nil {
			return answer{}, err
		}
		if _, err := v.get(item); err != errAbsent {
			if err == nil {
				err = broker.Errorf(broker.CodeKeychainDenied, "the keychain (%s) did not remove the %s %q", backend, r.Kind, r.Name)
			}
			return answer{}, err
		}
		return answer{}, nil
	}
	return answer{}, broker.Errorf(broker.CodeInternal, "keychain helper does not know the operation %.20q", r.Op)
}

// list reads every key and returns them without their secrets.
func (h *helper) list(v vault) (a answer, err error) {
	items, err := v.list()
	if err != nil {
		return a, err
	}
	slices.Sort(items)
	for _, item := range slices.Compact(items) {
		name, ok := nameOf(kindKey, item)
		if !ok {
			continue
		}
		data, err := v.get(item)
		if err == errAbsent {
			continue // removed since
		}
		info := broker.KeyInfo{Name: name}
		if err == nil {
			var secret []byte
			info, secret, err = decodeKey(name, data)
			clear(secret)
			clear(data)
		}
		if broker.CodeOf(err) == broker.CodeData {
			info = broker.KeyInfo{Name: name}
			a.Damaged = append(a.Damaged, name)
		} else if err != nil {
			return answer{}, err
		}
		a.Keys = append(a.Keys, info)
	}
	slices.SortFunc(a.Keys, func(x, y broker.KeyInfo) int { return strings.Compare(x.Name, y.Name) })
	return a, nil
}
