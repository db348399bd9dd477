package prompt

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gatepass/broker"
	"gatepass/broker/prompt/prompttest"
)

// dialogs are the real programs, by the way to ask.
var dialogs = []struct{ program, mode string }{
	{"pinentry-gtk-2", broker.PromptPinentry},
	{"zenity", broker.PromptDesktop},
	{"kdialog", broker.PromptDesktop},
}

// only returns a Prompter that finds one real program.
func only(t *testing.T, program, mode string) *Prompter {
	t.Helper()
	prompttest.Need(t, program)
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{
		// dconf and the like are not to look for the user's.
		Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GSETTINGS_BACKEND=memory", "NO_AT_BRIDGE=1"},
		Look: func(name string) (string, error) {
			if name == filepath.Base(program) || name == mode {
				return path, nil
			}
			return "", exec.ErrNotFound
		},
	})
}

// asks puts q to the user at d and returns what came of it.
func asks(ctx context.Context, p *Prompter, d *prompttest.Display, q broker.Question, mode string) func() (broker.Secret, error) {
	type answer struct {
		code broker.Secret
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		code, err := p.Ask(ctx, q, mode, broker.Reachable{Known: true, Env: []string{"DISPLAY=" + d.Name}})
		got <- answer{code, err}
	}()
	return func() (broker.Secret, error) { a := <-got; return a.code, a.err }
}

func TestDesktop(t *testing.T) {
	for _, dialog := range dialogs {
		t.Run(dialog.program, func(t *testing.T) {
			p := only(t, dialog.program, dialog.mode)
			d := prompttest.New(t)
			for want, typed := range map[string]string{broker.WantCode: "123456", broker.WantPassphrase: " correct% horse "} {
				q := question
				q.Want, q.Keychain = want, "file"
				answered := asks(t.Context(), p, d, q, dialog.mode)
				d.Type(d.First(), typed, "Return")
				if answer, err := answered(); err != nil || answer.Reveal() != typed {
					t.Errorf("typed: %q, %v", answer.Reveal(), err)
				}

				d.Gone()
				answered = asks(t.Context(), p, d, q, dialog.mode)
				d.Type(d.First(), typed, "Escape")
				if answer, err := answered(); broker.CodeOf(err) != broker.CodeCancelled || !answer.IsZero() {
					t.Errorf("Escape: %q, %v", answer.Reveal(), err)
				}
				d.Gone()
			}

			ctx, cancel := context.WithCancel(t.Context())
			answered := asks(ctx, p, d, question, dialog.mode)
			d.First()
			cancel()
			if _, err := answered(); broker.CodeOf(err) != broker.CodePromptTimeout {
				t.Errorf("its question is over: %v", err)
			}
			d.Gone()
		})
	}
}

// A new passphrase is typed until it was the same twice.
func TestDesktopNewPassphrase(t *testing.T) {
	for _, dialog := range dialogs {
		t.Run(dialog.program, func(t *testing.T) {
			p := only(t, dialog.program, dialog.mode)
			d := prompttest.New(t)
			q := broker.Question{Want: broker.WantNewPassphrase, Keychain: "file", Program: "zsh"}
			answered := asks(t.Context(), p, d, q, dialog.mode)
			var window prompttest.Window
			for _, typed := range []string{"correct horse", "correct hors", "correct horse", "correct horse"} {
				window = d.Dialog(window)
				d.Type(window, typed, "Return")
			}
			if answer, err := answered(); err != nil || answer.Reveal() != "correct horse" {
				t.Errorf("typed: %q, %v", answer.Reveal(), err)
			}
			d.Gone()
			answered = asks(t.Context(), p, d, q, dialog.mode)
			window = d.First()
			d.Type(window, "correct horse", "Return")
			d.Type(d.Dialog(window), "correct horse", "Escape")
			if answer, err := answered(); broker.CodeOf(err) != broker.CodeCancelled || !answer.IsZero() {
				t.Errorf("Escape: %q, %v", answer.Reveal(), err)
			}
		})
	}
}

// A display that cannot be reached is no user who cancels.
func TestDesktopUnreachable(t *testing.T) {
	for _, dialog := range dialogs {
		t.Run(dialog.program, func(t *testing.T) {
			p := only(t, dialog.program, dialog.mode)
			gone := &prompttest.Display{Name: ":63000"}
			if _, err := asks(t.Context(), p, gone, question, dialog.mode)(); broker.CodeOf(err) != broker.CodePromptUnavailable {
				t.Error(err)
			}
		})
	}
}

// What others chose is shown as it is: it takes as many lines as any other
// text, and the window fits the screen.
func TestDesktopText(t *testing.T) {
	long := "/home/alice/infrastructure/"
	for range 10 {
		long += "modules-of-modules/"
	}
	texts := func(want, profile string) broker.Question {
		return broker.Question{Want: want, Profile: profile, Program: long, Serial: question.Serial, Reason: "AWS refused " + long}
	}
	for _, dialog := range dialogs {
		t.Run(dialog.program, func(t *testing.T) {
			p := only(t, dialog.program, dialog.mode)
			d := prompttest.New(t)
			size := func(q broker.Question) (int, int) {
				answered := asks(t.Context(), p, d, q, dialog.mode)
				window := d.First()
				width, height := d.Size(window)
				d.Type(window, "", "Escape")
				answered()
				d.Gone()
				return width, height
			}
			for _, want := range []string{broker.WantCode, broker.WantPassphrase} {
				_, plain := size(texts(want, "plain"))
				for _, profile := range []string{`a\nb%0Ac<br>d` + "\u2028e", "<!doctype html><p>&lt;"} {
					width, height := size(texts(want, profile))
					if height != plain {
						t.Errorf("%s: with the profile %q the dialog is %d high, else %d", want, profile, height, plain)
					}
					if width > 1000 || height > 700 {
						t.Errorf("the dialog has %d by %d", width, height)
					}
				}
			}
		})
	}
}
