package keystore

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"gatepass/broker"
)

// What the store and its helper say to each other. The helper speaks first:
// "ready", once it is undumpable and knows its parent, so that no secret is
// ever sent to one that is not. The store answers with its one request. Where
// a person may now be looking at a dialog, the helper says "prompt". It ends
// with "done".
//
// A message is a JSON object and then its secrets, raw, each of the parts
// after its length as four bytes, big-endian. So no secret passes through the
// JSON package, which keeps buffers.

// A request is what one helper is asked to do.
type request struct {
	Op      string         `json:"op"`
	Backend string         `json:"backend"` // "auto" or one of Backends
	Kind    string         `json:"kind,omitempty"`
	Name    string         `json:"name,omitempty"`
	Key     broker.KeyInfo `json:"key,omitzero"` // of a put

	FileDir    string `json:"file_dir,omitempty"`
	PassDir    string `json:"pass_dir,omitempty"`
	PassPrefix string `json:"pass_prefix,omitempty"`
	Collection string `json:"collection,omitempty"` // of aws-vault, in the Secret Service
	Keychain   string `json:"keychain,omitempty"`   // of aws-vault, on macOS
	Bus        string `json:"bus,omitempty"`        // session bus for the programs that the helper starts

	value      []byte // of a put, and what is expected of a key of aws-vault that is removed
	passphrase []byte // of the file backend
}

// The operations.
const (
	opList   = "list" // of keys, without their secrets
	opGet    = "get"
	opPut    = "put"
	opRemove = "remove"
	opProbe  = "probe"
	opUnlock = "unlock" // tries the passphrase of the file backend, which may be none
)

func (r *request) writes() bool { return r.Op == opPut || r.Op == opRemove }

func (r *request) clear() {
	clear(r.value)
	clear(r.passphrase)
}

// An answer is what a helper says.
type answer struct {
	State   string           `json:"state"`
	Locked  bool             `json:"locked,omitempty"`  // with statePrompt: the dialog is to unlock
	Backend string           `json:"backend,omitempty"` // the one that was opened
	Error   *broker.Error    `json:"error,omitempty"`
	Key     broker.KeyInfo   `json:"key,omitzero"`
	Keys    []broker.KeyInfo `json:"keys,omitempty"`
	Damaged []string         `json:"damaged,omitempty"` // names in Keys whose items do not parse
	Names   []string         `json:"names,omitempty"`   // of aws-vault's keys
	New     bool             `json:"new,omitempty"`     // of an unlock: nothing is stored yet
	Opens   bool             `json:"opens,omitempty"`   // of an unlock: the passphrase is the right one

	value []byte
}

// The states of an answer.
const (
	stateReady  = "ready"
	statePrompt = "prompt"
	stateDone   = "done"
)

// Bounds of a message's parts, in bytes.
const (
	maxHeader = 1 << 20
	maxPart   = maxItem
)

// writeMessage sends header and secrets with one write.
func writeMessage(w io.Writer, header any, secrets ...[]byte) error {
	js, err := json.Marshal(header)
	if err != nil {
		return err
	}
	if len(js) > maxHeader {
		return errors.New("message too long")
	}
	n := 4 + len(js)
	for _, s := range secrets {
		if len(s) > maxPart {
			return errors.New("secret too long")
		}
		n += 4 + len(s)
	}
	b := make([]byte, 0, n) // grown, it would leave a copy behind
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(js))), js...)
	for _, s := range secrets {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	_, err = w.Write(b)
	clear(b)
	return err
}

// readMessage reads what writeMessage wrote, with as many secrets.
func readMessage(r io.Reader, header any, secrets ...*[]byte) error {
	js, err := readPart(r, maxHeader)
	if err != nil {
		return err
	}
	for i, s := range secrets {
		if *s, err = readPart(r, maxPart); err != nil {
			for _, s := range secrets[:i] {
				clear(*s)
				*s = nil
			}
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	if err := json.Unmarshal(js, header); err != nil {
		for _, s := range secrets {
			clear(*s)
			*s = nil
		}
		return errors.New("message is not JSON")
	}
	return nil
}

func readPart(r io.Reader, limit uint32) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > limit {
		return nil, fmt.Errorf("message of %d bytes where %d are allowed", n, limit)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		clear(b)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}
