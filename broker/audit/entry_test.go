package audit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"
	"unicode/utf8"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// TestNoSecrets walks all that an entry is made of.
func TestNoSecrets(t *testing.T) {
	if path := secretPath(reflect.TypeFor[broker.Event](), map[reflect.Type]bool{}); path != "" {
		t.Errorf("broker.Event%s is a Secret", path)
	}
	// The walk finds one where there is one.
	type holder struct {
		M map[string][]*struct{ K broker.Key }
	}
	if path := secretPath(reflect.TypeFor[holder](), map[reflect.Type]bool{}); path != ".M.K.SecretAccessKey" {
		t.Errorf("the walk found %q", path)
	}
}

func secretPath(t reflect.Type, seen map[reflect.Type]bool) string {
	if t == reflect.TypeFor[broker.Secret]() {
		return " "
	}
	if seen[t] {
		return ""
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map, reflect.Chan:
		if t.Kind() == reflect.Map {
			if p := secretPath(t.Key(), seen); p != "" {
				return p
			}
		}
		return secretPath(t.Elem(), seen)
	case reflect.Interface, reflect.Func:
		return " (" + t.Kind().String() + " can hold one)"
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return ""
		}
		for f := range t.Fields() {
			if p := secretPath(f.Type, seen); p != "" {
				return strings.TrimSpace("." + f.Name + p)
			}
		}
	}
	return ""
}

// logged writes one event and returns its line.
func logged(t *testing.T, e broker.Event, mode audit.CommandMode) []byte {
	t.Helper()
	dir := logDir(t)
	now := time.Date(2026, 11, 23, 10, 40, 10, 123456789, time.FixedZone("", 7200))
	l := open(t, audit.Options{Dir: dir, Command: mode, Now: func() time.Time { return now }})
	if err := l.Append(t.Context(), e, false); err != nil {
		t.Fatal(err)
	}
	shut(t, l)
	return bytes.TrimSuffix(segments(t, dir), []byte("\n"))
}

func TestEncoding(t *testing.T) {
	e := event(7)
	e.Groups = []string{"it", "ops"}
	e.Lease = "l-1"
	e.Reason = "release"
	e.Decision = "group it"
	e.Error = &broker.EventError{Code: broker.CodeDenied, Message: "no"}
	e.Session.SourceIdentity, e.Session.STSRequestID = "alice@example.com", "r"
	e.Key.UserARN = "arn:aws:iam::111122223333:user/alice"
	const want = `{"seq":0,"time":"2026-11-23T08:40:10.123456Z","event":"credentials.served","outcome":"ok","profile":"prod-admin",` +
		`"account":"111122223333","role_arn":"arn:aws:iam::111122223333:role/Admin",` +
		`"key":{"name":"work","access_key_id":"AKIAIOSFODNN7EXAMPLE","user_arn":"arn:aws:iam::111122223333:user/alice"},` +
		`"session":{"id":"s-7","access_key_id":"ASIAIOSFODNN7EXAMPLE","name":"alice-s7f3k2","source_identity":"alice@example.com","expires":"2026-11-23T12:00:00.000000Z","sts_request_id":"r"},` +
		`"lease":"l-1","caller":{"uid":1000,"user":"alice","pid":4242,"program":"terraform","exe":"/usr/local/bin/gatepass",` +
		`"command":"gatepass credential-process prod-admin","cwd":"/home/alice/infra","tty":"/dev/pts/3","via":"credential-process","resolved":true,` +
		`"ancestors":[{"pid":4241,"exe":"/usr/bin/terraform","command":"terraform apply -auto-approve"},{"pid":4000,"exe":"/usr/bin/zsh","command":"-zsh"}]},` +
		`"groups":["it","ops"],"reason":"release","decision":"group it","error":{"code":"denied","message":"no"}}`
	line := logged(t, e, "")
	if string(line) != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
	got, err := audit.ParseEntry(line)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Event, e) {
		t.Errorf("read back: %+v", got.Event)
	}
	// The smallest one.
	if got := string(logged(t, broker.Event{Kind: broker.EventDaemonStarted, Outcome: broker.OutcomeOK, Key: &broker.EventKey{}, Caller: &broker.Caller{}}, "")); !strings.HasSuffix(got, `"event":"daemon.started","outcome":"ok","key":{},"caller":{"uid":0,"pid":0,"resolved":false}}`) {
		t.Errorf("the smallest: %s", got)
	}
}

// TestEncodesLikeJSON compares names, order and omission with what
// encoding/json makes of the same event, so that a field added to the types
// cannot be forgotten here.
func TestEncodesLikeJSON(t *testing.T) {
	full := event(1)
	fill(reflect.ValueOf(&full).Elem())
	line := logged(t, full, "")
	got, err := audit.ParseEntry(line)
	if err != nil {
		t.Fatal(err)
	}
	want, err := json.Marshal(audit.Entry{Seq: got.Seq, Time: got.Time, Event: full})
	if err != nil {
		t.Fatal(err)
	}
	var w any
	var g any
	json.Unmarshal(want, &w)
	json.Unmarshal(bytes.ReplaceAll(line, []byte(".000000Z"), []byte("Z")), &g)
	if !reflect.DeepEqual(w, g) {
		t.Errorf("got  %s\nwant %s", line, want)
	}
	names := func(b []byte) (names []string) {
		dec := json.NewDecoder(bytes.NewReader(b))
		for {
			tok, err := dec.Token()
			if err != nil {
				return names
			}
			names = append(names, fmt.Sprintf("%T", tok))
			if s, ok := tok.(string); ok && !strings.Contains(s, "T") {
				names = append(names, s)
			}
		}
	}
	if !slices.Equal(names(line), names(want)) {
		t.Errorf("order:\ngot  %s\nwant %s", line, want)
	}
}

// A caller is written out once, and anew when anything of it is another.
func TestCallerChanges(t *testing.T) {
	dir := logDir(t)
	l := open(t, audit.Options{Dir: dir})
	var want []byte
	append := func(c broker.Caller) {
		t.Helper()
		e := event(1)
		e.Caller = &c
		for range 2 {
			if err := l.Append(t.Context(), e, false); err != nil {
				t.Fatal(err)
			}
			alone := logged(t, e, "")
			_, alone, _ = bytes.Cut(alone, []byte(`,"event"`))
			want = fmt.Appendf(want, "%s\n", alone)
		}
	}
	c := *event(1).Caller
	append(c)
	var change func(v reflect.Value)
	change = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				change(v.Field(i))
			}
		case reflect.Slice:
			if v.Len() > 0 {
				change(v.Index(v.Len() - 1))
			}
		case reflect.Bool:
			v.SetBool(!v.Bool())
			append(c)
			v.SetBool(!v.Bool())
			append(c)
		default:
			before := reflect.ValueOf(v.Interface())
			fill(v)
			append(c)
			v.Set(before)
			append(c)
		}
	}
	change(reflect.ValueOf(&c).Elem())
	long := *event(1).Caller
	long.Command = strings.Repeat("x", 2*audit.MaxString)
	append(long)
	shut(t, l)
	var got []byte
	for line := range bytes.Lines(segments(t, dir)) {
		_, line, _ = bytes.Cut(line, []byte(`,"event"`))
		got = fmt.Appendf(got, "%s", line)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// fill gives every field a value.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i))
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	}
}

// TestBounds fills an entry with as much as a hostile caller can.
func TestBounds(t *testing.T) {
	for _, filler := range []string{"a", "\x00", "\xff", "ä", "\U000e0041", `"`, "漢", " "} {
		long := strings.Repeat(filler, 2<<20/len(filler))
		e := event(1)
		e.Profile, e.Account, e.RoleARN, e.Lease, e.Reason, e.Decision = long, long, long, long, long, long
		e.Key = &broker.EventKey{Name: long, AccessKeyID: long, UserARN: long}
		e.Session = &broker.EventSession{ID: long, AccessKeyID: long, Name: long, SourceIdentity: long, Expires: time.Now(), STSRequestID: long}
		e.Error = &broker.EventError{Code: broker.Code(long), Message: long}
		c := e.Caller
		c.User, c.Program, c.Exe, c.Command, c.Cwd, c.TTY, c.Via = long, long, long, long, long, long, long
		c.UID, c.PID = -1<<63, -1<<63
		c.Ancestors = slices.Repeat([]broker.Process{{PID: -1 << 63, Exe: long, Command: long}}, 1000)
		e.Groups = slices.Repeat([]string{long}, 1000)
		line := logged(t, e, "")
		if len(line) > audit.MaxEntry {
			t.Errorf("%q: %d bytes", filler, len(line))
		}
		got, err := audit.ParseEntry(line)
		if err != nil {
			t.Fatalf("%q: %v", filler, err)
		}
		if len(got.Caller.Ancestors) != 16 || len(got.Groups) != 16 || !strings.HasSuffix(got.Profile, "…") {
			t.Errorf("%q: %d ancestors, %d groups", filler, len(got.Caller.Ancestors), len(got.Groups))
		}
		for _, field := range []string{"profile", "key.user_arn", "session.id", "caller.command", "caller.ancestors", "caller.ancestors.exe", "groups", "error.message"} {
			if !slices.Contains(got.Cut, field) {
				t.Errorf("%q: %s is not marked as cut: %v", filler, field, got.Cut)
			}
		}
	}
	// A command line alone gets its full kilobyte.
	e := event(1)
	e.Caller.Command = "x " + strings.Repeat("y", 5000)
	got, err := audit.ParseEntry(logged(t, e, ""))
	if err != nil || len(got.Caller.Command) != audit.MaxString || !slices.Equal(got.Cut, []string{"caller.command"}) {
		t.Errorf("%d bytes of command line, cut %v, %v", len(got.Caller.Command), got.Cut, err)
	}
}

// TestStrings holds each string against encoding/json and against what a
// terminal must not see.
func TestStrings(t *testing.T) {
	for r := range rune(0x110000) {
		s := string(r)
		b, cut := audit.AppendString(nil, s, audit.MaxString)
		var back string
		if err := json.Unmarshal(b, &back); err != nil || back != s || cut {
			t.Fatalf("%U: %s, %v", r, b, err)
		}
		// C0, DEL, C1, soft hyphen, bidi, zero width, separators, tags, BOM.
		bad := r < 0x20 || r >= 0x7f && r <= 0xa0 || r == 0xad || r == 0x61c || r >= 0x200b && r <= 0x200f ||
			r >= 0x2028 && r <= 0x202e || r >= 0x2060 && r <= 0x206f || r == 0xfeff || r >= 0xfff9 && r <= 0xfffb || r >= 0xe0000 && r <= 0xe007f
		if bad && strings.ContainsRune(string(b), r) {
			t.Errorf("%U stands for itself", r)
		}
	}
	if b, _ := audit.AppendString(nil, "a\xffb\xc3", 100); string(b) != `"a\ufffdb\ufffd"` {
		t.Errorf("invalid UTF-8: %s", b)
	}
	check := func(s string, limit uint8) bool {
		n := int(limit) + 3
		b, cut := audit.AppendString(nil, s, n)
		var back string
		err := json.Unmarshal(b, &back)
		clean := strings.ToValidUTF8(s, "\uFFFD")
		if !cut {
			return err == nil && len(b) <= n+2 && utf8.Valid(b)
		}
		prefix, ok := strings.CutSuffix(back, "…")
		return err == nil && len(b) <= n+2 && utf8.Valid(b) && ok && (strings.HasPrefix(clean, prefix) || strings.Contains(prefix, "\uFFFD"))
	}
	if err := quick.Check(check, nil); err != nil {
		t.Error(err)
	}
}

func TestClockSetBack(t *testing.T) {
	dir := logDir(t)
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	l := open(t, audit.Options{Dir: dir, Now: func() time.Time { now = now.Add(-time.Hour); return now }})
	put(t, l, 3, true)
	shut(t, l)
	var got []string
	for line := range audit.Entries(t.Context(), dir, audit.Query{}) {
		e, err := line.Entry()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(e.Seq, e.Time.Hour()))
	}
	if !slices.Equal(got, []string{"0 9", "1 8", "2 7"}) {
		t.Errorf("%v", got)
	}
}
