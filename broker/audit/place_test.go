package audit_test

import (
	"os"
	"path/filepath"
	"testing"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// What is written into a log that was moved or removed is lost to whoever
// looks for it, so it counts as not written; and all is well once the log is
// back.
func TestAppendToALogThatIsGone(t *testing.T) {
	for _, durable := range []bool{true, false} {
		for name, away := range map[string]func(dir, elsewhere string) error{
			"directory moved": func(dir, elsewhere string) error { return os.Rename(dir, elsewhere) },
			"replaced by an empty one": func(dir, elsewhere string) error {
				if err := os.Rename(dir, elsewhere); err != nil {
					return err
				}
				return os.Mkdir(dir, 0o700)
			},
			"replaced by a copy": func(dir, elsewhere string) error {
				if err := os.Rename(dir, elsewhere); err != nil {
					return err
				}
				return os.CopyFS(dir, os.DirFS(elsewhere))
			},
		} {
			t.Run(name, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "audit")
				elsewhere := dir + ".away"
				l, err := audit.Open(t.Context(), audit.Options{Dir: dir})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close(t.Context())
				event := broker.Event{Kind: broker.EventCredentialsServed, Outcome: broker.OutcomeOK}
				if err := l.Append(t.Context(), event, durable); err != nil {
					t.Fatal(err)
				}
				if err := away(dir, elsewhere); err != nil {
					t.Fatal(err)
				}
				if err := l.Append(t.Context(), event, durable); broker.CodeOf(err) != broker.CodeLogUnwritable {
					t.Errorf("durable %v: got %v", durable, err)
				}
				if l.Status().Error == "" {
					t.Error("the status shows a healthy log")
				}
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(elsewhere, dir); err != nil {
					t.Fatal(err)
				}
				if err := l.Append(t.Context(), event, durable); err != nil {
					t.Errorf("put back: %v", err)
				}
				if got := l.Status(); got.Entries != 2 || got.Error != "" {
					t.Errorf("put back: %+v", got)
				}
			})
		}
	}
}
