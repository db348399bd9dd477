package keystore

import (
	"encoding/json"
	"time"

	"gatepass/broker"
)

// itemVersion is the version of the items that this program writes and the
// highest that it reads.
const itemVersion = 1

// Bounds of what is stored, in bytes.
const (
	maxKeyField = 2048     // of an access key id, a secret access key or an ARN
	maxSecret   = 16 << 10 // of a secret that is not a key
	maxItem     = 64 << 10 // of an item as the keychain holds it
)

// A keyItem is a long-term key as the keychain holds it, in JSON. The name is
// in it so that an item copied or renamed to another name is not taken for
// that key.
type keyItem struct {
	Version     int       `json:"version"`
	Name        string    `json:"name"`
	AccessKeyID string    `json:"access_key_id"`
	Secret      string    `json:"secret"`
	UserARN     string    `json:"user_arn,omitempty"`
	Added       time.Time `json:"added"`
}

// A secretItem is anything else that is kept, in JSON, the value in base64.
type secretItem struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	Value   []byte `json:"value"`
}

// encodeKey returns the item of the key. It refuses with CodeData what would
// not come back as it went in.
func encodeKey(info broker.KeyInfo, secret []byte) ([]byte, error) {
	if !printable([]byte(info.AccessKeyID)) || !printable(secret) || (info.UserARN != "" && !printable([]byte(info.UserARN))) {
		return nil, broker.Errorf(broker.CodeData,
			"the key %q holds what no AWS key does: id, secret and ARN are printable ASCII of at most %d characters", info.Name, maxKeyField)
	}
	return json.Marshal(keyItem{itemVersion, info.Name, info.AccessKeyID, string(secret), info.UserARN, info.Added.UTC()})
}

func printable(s []byte) bool {
	for _, c := range s {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return 0 < len(s) && len(s) <= maxKeyField
}

// decodeKey reads the item of the key of that name. Its errors are CodeData
// and hold nothing of the item, which may be all secret.
func decodeKey(name string, data []byte) (broker.KeyInfo, []byte, error) {
	var it keyItem
	if err := json.Unmarshal(data, &it); err != nil {
		return broker.KeyInfo{}, nil, damaged(kindKey, name, "it is not the JSON that gatepass writes")
	}
	if err := checkItem(kindKey, name, it.Version, it.Name); err != nil {
		return broker.KeyInfo{}, nil, err
	}
	secret := []byte(it.Secret)
	if !printable([]byte(it.AccessKeyID)) || !printable(secret) || (it.UserARN != "" && !printable([]byte(it.UserARN))) {
		return broker.KeyInfo{}, nil, damaged(kindKey, name, "a field is empty or malformed")
	}
	return broker.KeyInfo{Name: name, AccessKeyID: it.AccessKeyID, UserARN: it.UserARN, Added: it.Added}, secret, nil
}

func encodeSecret(name string, value []byte) ([]byte, error) {
	return json.Marshal(secretItem{itemVersion, name, value})
}

// decodeSecret is decodeKey for other secrets.
func decodeSecret(name string, data []byte) ([]byte, error) {
	var it secretItem
	if err := json.Unmarshal(data, &it); err != nil {
		return nil, damaged(kindSecret, name, "it is not the JSON that gatepass writes")
	}
	if err := checkItem(kindSecret, name, it.Version, it.Name); err != nil {
		return nil, err
	}
	if len(it.Value) == 0 || len(it.Value) > maxSecret {
		return nil, damaged(kindSecret, name, "it is empty or too long")
	}
	return it.Value, nil
}

func checkItem(kind, name string, version int, holds string) error {
	switch {
	case version > itemVersion:
		return broker.Errorf(broker.CodeData, "the stored %s %q was written by a newer gatepass (item version %d)", kind, name, version).
			WithHint("update gatepass")
	case version < 1:
		return damaged(kind, name, "it has no version")
	case holds != name:
		return damaged(kind, name, "it belongs to another name")
	}
	return nil
}

func damaged(kind, name, why string) *broker.Error {
	e := broker.Errorf(broker.CodeData, "the stored %s %q is damaged: %s", kind, name, why)
	if kind == kindKey {
		return e.WithHint("remove it and add it again: gatepass keys remove %s", name)
	}
	return e
}
