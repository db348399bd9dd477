package keystore

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"gatepass/broker"
)

func TestMessage(t *testing.T) {
	var b bytes.Buffer
	in := request{Op: opPut, Backend: "file", Kind: kindKey, Name: "ops", Key: testKey("ops").KeyInfo}
	if err := writeMessage(&b, in, []byte("pass phrase"), nil); err != nil {
		t.Fatal(err)
	}
	wire := b.Bytes()
	var out request
	if err := readMessage(iotest.OneByteReader(bytes.NewReader(wire)), &out, &out.passphrase, &out.value); err != nil {
		t.Fatal(err)
	}
	if out.Op != in.Op || out.Key != in.Key || string(out.passphrase) != "pass phrase" || len(out.value) != 0 {
		t.Errorf("came back as %+v", out)
	}
	// Cut anywhere, it is an error, and no secret is left behind.
	for n := range wire {
		out := request{}
		err := readMessage(bytes.NewReader(wire[:n]), &out, &out.passphrase, &out.value)
		if err == nil || (n > 0 && err != io.ErrUnexpectedEOF) || out.passphrase != nil || out.value != nil {
			t.Fatalf("cut at %d: %v, %+v", n, err, out)
		}
	}
}

// No secret may be a field that JSON sees.
func TestSecretsAreNotInHeader(t *testing.T) {
	for _, v := range []any{
		request{passphrase: []byte("hidden"), value: []byte("hidden")},
		answer{value: []byte("hidden")},
	} {
		js, err := json.Marshal(v)
		if err != nil || bytes.Contains(js, []byte("hidden")) || bytes.Contains(js, []byte("aGlkZGVu")) {
			t.Errorf("%T in JSON is %s, %v", v, js, err)
		}
	}
}

func TestMessageTooLong(t *testing.T) {
	if err := writeMessage(io.Discard, answer{}, make([]byte, maxPart+1)); err == nil {
		t.Error("an endless secret was sent")
	}
	if err := writeMessage(io.Discard, answer{Backend: strings.Repeat("x", maxHeader)}, nil); err == nil {
		t.Error("an endless header was sent")
	}
}

func FuzzReadMessage(f *testing.F) {
	var b bytes.Buffer
	writeMessage(&b, answer{State: stateDone, Key: testKey("ops").KeyInfo}, []byte("secret"))
	f.Add(b.Bytes())
	f.Add([]byte("\x00\x00\x00\x02{}\x00\x00\x00\x00"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var a answer
		if err := readMessage(bytes.NewReader(data), &a, &a.value); err != nil {
			if a.value != nil {
				t.Error("a failed read leaves a secret")
			}
			return
		}
		var b bytes.Buffer
		if err := writeMessage(&b, a, a.value); err != nil {
			t.Fatal(err)
		}
		var again answer
		if err := readMessage(&b, &again, &again.value); err != nil || !bytes.Equal(again.value, a.value) {
			t.Fatalf("%+v does not survive: %v", a, err)
		}
	})
}

func FuzzItemName(f *testing.F) {
	for _, s := range []string{"ops", "Ops", "a.b", "~ops", "gatepass.key.ops"} {
		f.Add(s, "gatepass.key."+s)
	}
	f.Fuzz(func(t *testing.T, name, item string) {
		if validName(name) {
			s := itemName(kindKey, name)
			got, ok := nameOf(kindKey, s)
			if !ok || got != name {
				t.Errorf("%q becomes %q becomes %q", name, s, got)
			}
			if s != strings.ToLower(s) {
				t.Errorf("%q is not the same to a system that ignores case", s)
			}
			if _, ok := nameOf(kindSecret, s); ok {
				t.Errorf("%q is a secret too", s)
			}
		}
		if got, ok := nameOf(kindKey, item); ok && itemName(kindKey, got) != item {
			t.Errorf("%q is taken for %q", item, itemName(kindKey, got))
		}
	})
}

func FuzzDecodeKey(f *testing.F) {
	k := testKey("ops")
	item, _ := encodeKey(k.KeyInfo, k.SecretAccessKey.RevealBytes())
	f.Add(item)
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"name":"ops","access_key_id":"a","secret":"b","added":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, secret, err := decodeKey("ops", data)
		if err != nil {
			if broker.CodeOf(err) != broker.CodeData || secret != nil {
				t.Errorf("code %q, secret %q", broker.CodeOf(err), secret)
			}
			return
		}
		again, err := encodeKey(info, secret)
		if err != nil {
			t.Fatalf("read and not writable: %v", err)
		}
		info2, secret2, err := decodeKey("ops", again)
		if err != nil || !info2.Added.Equal(info.Added) || info2.AccessKeyID != info.AccessKeyID || !bytes.Equal(secret, secret2) {
			t.Errorf("%+v does not survive: %+v, %v", info, info2, err)
		}
	})
}

// Each byte of an item that changes either leaves the key as it is or is
// noticed, and never gives the key of another name.
func TestFlippedItem(t *testing.T) {
	k := testKey("ops")
	item, err := encodeKey(k.KeyInfo, k.SecretAccessKey.RevealBytes())
	if err != nil {
		t.Fatal(err)
	}
	for i := range item {
		bad := bytes.Clone(item)
		bad[i] ^= 0x20
		info, _, err := decodeKey("ops", bad)
		if err == nil && info.Name != "ops" {
			t.Errorf("byte %d: gives %+v", i, info)
		} else if err != nil && broker.CodeOf(err) != broker.CodeData {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	for _, other := range []string{"Ops", "op", "ops2"} {
		if _, _, err := decodeKey(other, item); broker.CodeOf(err) != broker.CodeData {
			t.Errorf("the item of ops is taken for %s: %v", other, err)
		}
	}
	_, _, err = decodeKey("ops", bytes.Replace(item, []byte(`"version":1`), []byte(`"version":2`), 1))
	wantCode(t, err, broker.CodeData)
}
