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
			answered := asks(t.Context(), p, d, question, dialog.mode)
			d.Type(d.First(), "123456", "Return")
			if code, err := answered(); err != nil || code.Reveal() != "123456" {
				t.Errorf("typed: %q, %v", code.Reveal(), err)
			}

			d.Gone()
			answered = asks(t.Context(), p, d, question, dialog.mode)
			d.Type(d.First(), "123456", "Escape")
			if code, err := answered(); broker.CodeOf(err) != broker.CodeCancelled || !code.IsZero() {
				t.Errorf("Escape: %q, %v", code.Reveal(), err)
			}

			d.Gone()
			ctx, cancel := context.WithCancel(t.Context())
			answered = asks(ctx, p, d, question, dialog.mode)
			d.First()
			cancel()
			if _, err := answered(); broker.CodeOf(err) != broker.CodePromptTimeout {
				t.Errorf("its question is over: %v", err)
			}
			d.Gone()
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
	texts := func(profile string) broker.Question {
		return broker.Question{Profile: profile, Program: long, Serial: question.Serial, Reason: "AWS refused " + long}
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
			_, plain := size(texts("plain"))
			for _, profile := range []string{`a\nb\nc`, "<b>a</b><br/>b", "<br>&lt;", "100%0A%n", "a\u2028b\u2028c", "<!doctype html>"} {
				width, height := size(texts(profile))
				if height != plain {
					t.Errorf("with the profile %q the dialog is %d high, else %d", profile, height, plain)
				}
				if width > 1000 || height > 700 {
					t.Errorf("the dialog has %d by %d", width, height)
				}
			}
		})
	}
}
