package wire

import (
	"reflect"
	"strings"
	"testing"

	"gatepass/broker"
)

// No answer but a credentials document, which is written by hand, can hold a
// secret: their types have no place for one.
func TestAnswersHoldNoSecret(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var walk func(t *testing.T, at reflect.Type, path string)
	walk = func(t *testing.T, at reflect.Type, path string) {
		switch at.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			if at.Elem().Kind() == reflect.Uint8 {
				t.Errorf("%s holds bytes", path)
			}
			walk(t, at.Elem(), path+"[]")
			return
		case reflect.Interface:
			if at.NumMethod() == 0 {
				t.Errorf("%s holds anything", path)
			}
			return
		case reflect.Struct:
		default:
			return
		}
		if at == reflect.TypeFor[broker.Secret]() {
			t.Errorf("%s is a secret", path)
		}
		if seen[at] || at.PkgPath() == "time" {
			return
		}
		seen[at] = true
		for i := range at.NumField() {
			f := at.Field(i)
			name := strings.ToLower(f.Name + " " + f.Tag.Get("json"))
			for _, word := range []string{"secret", "passphrase", "password", "token"} {
				if strings.Contains(name, word) {
					t.Errorf("%s.%s is called like a secret", path, f.Name)
				}
			}
			if f.IsExported() || f.Anonymous {
				walk(t, f.Type, path+"."+f.Name)
			}
		}
	}
	for _, v := range []any{
		KeysResponse{}, broker.KeyInfo{}, broker.Rotated{}, AWSVaultResponse{}, broker.ImportedKey{}, broker.Status{}, broker.Identity{},
		broker.ProfileList{}, broker.ProfileDetail{}, Needed{}, StopResponse{}, broker.Error{},
	} {
		walk(t, reflect.TypeOf(v), reflect.TypeOf(v).Name())
	}
	if len(seen) < 12 {
		t.Errorf("walked %d types only", len(seen))
	}
}
