package door

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestCheckJSON(t *testing.T) {
	for _, b := range []string{
		`{}`, ` { } `, `{"a":{}}`, `{"a":[],"b":[1]}`, `{"a_1":"x","b":-0.5E+3,"c":[true,false,null]}`,
		`{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é"}`, `{"a":0}`, `{"a":{"a":{"a":1}}}`, `{"":1}`, "{\"a\":\"\u2028\"}",
		`{"a":` + strings.Repeat("[", 7) + strings.Repeat("]", 7) + `}`,
	} {
		if err := checkJSON([]byte(b)); err != nil {
			t.Errorf("%s: %v", b, err)
		}
		if !json.Valid([]byte(b)) {
			t.Errorf("%s: encoding/json does not take it", b)
		}
	}
	for _, b := range []string{
		"", " ", "null", "1", `"a"`, "[]", "{", "}", `{"a"}`, `{"a":}`, `{"a":1,}`, `{,"a":1}`, `{"a":1 "b":2}`, `{a:1}`, `{'a':1}`,
		`{"a":1}{`, "{}\x00", `{"a":01}`, `{"a":+1}`, `{"a":.5}`, `{"a":1.}`, `{"a":1e}`, `{"a":-}`, `{"a":tru}`, `{"a":nul`, `{"a":NaN}`,
		`{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":[1}`, `{"a":"` + "\n" + `"}`, `{"a":"\x41"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"\`,
		`{"a":"\udc00\ud800"}`, `{"a":"\ud800x"}`, `{"a":"\ud800\n"}`, `{"a":"\ud800\u0041"}`, `{"a":"\ud800\`, `{"a":"\ud800\u`,
		`{"a":1,"a":1}`, `{"A":1}`, `{"á":1}`, `{"a b":1}`, `{"a\u0062":1}`, `{"` + "\u212a" + `ey":1}`, `{"a":{"b":1,"b":2}}`, "{\"a\":\"\xc3\"}", "\ufeff{}",
		`{"a":` + strings.Repeat("[", 8) + strings.Repeat("]", 8) + `}`, `{"a`, `{"a":"b`, `{"a":"\u00`, "{} //",
	} {
		if err := checkJSON([]byte(b)); err == nil {
			t.Errorf("%q is taken", b)
		}
	}
	many := `{"a":1`
	for _, c := range "bcdefghijkl" {
		for _, d := range "0123456789" {
			many += `,"` + string(c) + string(d) + `":1`
		}
	}
	if err := checkJSON([]byte(many + "}")); err == nil {
		t.Error("110 fields are taken")
	}
}

// Errors about a body go to a log and to whoever asked: a value may be a key.
func TestCheckJSONQuotesNoValue(t *testing.T) {
	whole := []byte(`{"name":"work","secret_access_key":"wJalrXUtnFEMI","more":["\ud83d\ude00",-1.5e3,true]}`)
	for i := range whole {
		for _, c := range []byte{0, '"', '\\', 0xff, '{', 'A'} {
			b := bytes.Clone(whole)
			b[i] = c
			if err := checkJSON(b); err != nil && strings.Contains(err.Error(), "wJal") {
				t.Errorf("%s: %v", b, err)
			}
		}
		if err := checkJSON(whole[:i]); err == nil {
			t.Errorf("%s is taken", whole[:i])
		}
	}
}

// What is taken, encoding/json reads, and finds no field twice.
func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{`{"profile":"ops","n":[1,{"a":"\ud83d\ude00"}]}`, `{"a":1,"a":2}`, `{"a":-0.1e+9}`, `[`, ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkJSON(b) != nil {
			return
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(b, &fields); err != nil {
			t.Fatalf("%q is taken, and is no JSON object: %v", b, err)
		}
		// Written anew, it says the same: nothing was replaced or dropped.
		var value, again any
		if err := json.Unmarshal(b, &value); err != nil {
			if strings.Contains(err.Error(), "number") { // 1e999
				return
			}
			t.Fatal(err)
		}
		out, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkJSON(out); err != nil {
			t.Fatalf("%q became %q: %v", b, out, err)
		}
		json.Unmarshal(out, &again)
	})
}
