package keystore

import (
	"testing"

	"gatepass/broker"
)

// A lyingVault says yes to everything and keeps what it likes.
type lyingVault struct {
	kept   map[string][]byte
	keep   func([]byte) []byte
	unread error // of get
}

func (v *lyingVault) list() ([]string, error) {
	var items []string
	for item := range v.kept {
		items = append(items, item)
	}
	return items, nil
}

func (v *lyingVault) get(item string) ([]byte, error) {
	if v.unread != nil {
		return nil, v.unread
	}
	if data, ok := v.kept[item]; ok {
		return data, nil
	}
	return nil, errAbsent
}

func (v *lyingVault) put(item string, data []byte) error {
	if kept := v.keep(data); kept != nil {
		v.kept[item] = kept
	}
	return nil
}

func (v *lyingVault) remove(string) error { return nil }
func (v *lyingVault) probe() error        { return nil }

// What a keychain says is not believed: a write is read back, a removal looked
// after.
func TestVaultLies(t *testing.T) {
	for what, keep := range map[string]func([]byte) []byte{
		"forgets": func([]byte) []byte { return nil },
		"cuts":    func(b []byte) []byte { return b[:len(b)-1] },
		"is full": func([]byte) []byte { return []byte{} },
	} {
		for _, kind := range []string{kindKey, kindSecret} {
			r := request{Op: opPut, Kind: kind, Name: "ops", Key: testKey("ops").KeyInfo, value: []byte("secret")}
			h := &helper{req: &r}
			if _, err := h.do(&lyingVault{kept: map[string][]byte{}, keep: keep}, "wincred"); broker.CodeOf(err) != broker.CodeData {
				t.Errorf("a keychain that %s a %s: %v", what, kind, err)
			}
		}
	}
	r := request{Op: opRemove, Kind: kindKey, Name: "ops"}
	h := &helper{req: &r}
	v := &lyingVault{kept: map[string][]byte{"gatepass.key.ops": []byte("x")}}
	if _, err := h.do(v, "kwallet"); broker.CodeOf(err) != broker.CodeKeychainDenied {
		t.Errorf("a keychain that removes nothing: %v", err)
	}
	// What cannot be read is not absent: not to a removal, not to a list.
	v.unread = locked("kwallet", "it was closed meanwhile")
	for _, op := range []string{opGet, opRemove, opList} {
		r.Op = op
		if _, err := h.do(v, "kwallet"); broker.CodeOf(err) != broker.CodeKeychainLocked {
			t.Errorf("%s of a closed wallet: %v", op, err)
		}
	}
}

// The list has no secret of any key, nor any other item.
func TestListDropsSecrets(t *testing.T) {
	const mark = "S3CRETMARK"
	key, err := encodeKey(testKey("ops").KeyInfo, []byte(mark))
	if err != nil {
		t.Fatal(err)
	}
	other, err := encodeSecret("signing", []byte(mark))
	if err != nil {
		t.Fatal(err)
	}
	v := &lyingVault{kept: map[string][]byte{"gatepass.key.ops": key, "gatepass.secret.signing": other, "Chromium": []byte(mark)}}
	h := &helper{req: &request{Op: opList}}
	a, err := h.do(v, "file")
	if err != nil || len(a.Keys) != 1 || a.Keys[0] != testKey("ops").KeyInfo || len(a.value) != 0 {
		t.Errorf("listed %+v, %v", a, err)
	}
}
