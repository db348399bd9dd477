// Package prompt asks the user for an MFA code or a passphrase by a program
// that the daemon starts: pinentry (by the Assuan protocol), zenity, kdialog,
// or AppleScript's dialog; and it runs a profile's mfa_process.
//
// Where there is no such program, or no display or terminal for it, Ask says
// so ([broker.CodePromptUnavailable]) and the broker tries the next way. The
// programs get an environment of their own: what the daemon has for finding
// programs, and what the caller says of its display; never a credential.
package prompt

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"gatepass/broker"
	"gatepass/broker/prompt/program"
)

// Config is what a [Prompter] works with.
type Config struct {
	// Env is where programs find their own: PATH, HOME and the like.
	Env []string
	// Desktop are the variables by which notifications find the desktop.
	Desktop []string
	// Look finds a program by name; nil is [exec.LookPath].
	Look func(name string) (string, error)
}

// A Prompter starts dialogs. It implements [broker.Prompter].
type Prompter struct{ cfg Config }

var _ broker.Prompter = (*Prompter)(nil)

// New returns a Prompter.
func New(cfg Config) *Prompter {
	if cfg.Look == nil {
		cfg.Look = exec.LookPath
	}
	return &Prompter{cfg: cfg}
}

// processTime is how long mfa_process may take.
const processTime = 30 * time.Second

// Run runs an mfa_process by the shell, as aws-vault does, and returns the
// first word of what it prints. The shell waits for a line before it becomes
// the one of the command.
func (p *Prompter) Run(ctx context.Context, command string, begin func(pid int) error) (broker.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, processTime)
	defer cancel()
	shell, line := program.Shell(`read -r line && exec /bin/sh -c "$1"`, "sh", command), "\n"
	if runtime.GOOS == "windows" {
		shell, line = program.Shell(command), ""
	}
	var refused error
	out, status, err := program.RunBegun(ctx, shell, p.cfg.Env, func(pid int, stdin io.Writer) {
		if refused = begin(pid); refused == nil {
			io.WriteString(stdin, line) // a shell that has ended says so by its status
		}
	})
	defer clear(out)
	switch {
	case refused != nil:
		return broker.Secret{}, refused
	case ctx.Err() != nil:
		return broker.Secret{}, broker.Errorf(broker.CodePromptTimeout, "it printed no code within %s", processTime)
	case err != nil:
		return broker.Secret{}, broker.Errorf(broker.CodePromptUnavailable, "it cannot be run: %w", err)
	case status != 0:
		return broker.Secret{}, broker.Errorf(broker.CodePromptUnavailable, "it ended with status %d", status).
			WithHint("run it by hand to see why: %s", command)
	}
	return broker.NewSecret(bytes.TrimSpace(out)), nil
}

// Ask asks by pinentry or by a desktop's dialog, as mode says; for a new
// passphrase until the same was typed twice.
func (p *Prompter) Ask(ctx context.Context, q broker.Question, mode string, how broker.Reachable) (broker.Secret, error) {
	for {
		first, err := p.ask(ctx, q, mode, how)
		if err != nil || first.IsZero() || q.Want == broker.WantPassphrase { // an empty one the broker refuses
			return first, err
		}
		if q.Want == broker.WantCode {
			return broker.NewSecret(bytes.TrimSpace(first.RevealBytes())), nil
		}
		again := q
		again.Want = wantAgain
		second, err := p.ask(ctx, again, mode, how)
		if err != nil {
			first.Clear()
			return broker.Secret{}, err
		}
		same := second.Equal(first)
		second.Clear()
		if same {
			return first, nil
		}
		first.Clear()
		q.Reason = "the two passphrases differ"
	}
}

// wantAgain is what a second dialog asks for.
const wantAgain = "new_passphrase_again"

func (p *Prompter) ask(ctx context.Context, q broker.Question, mode string, how broker.Reachable) (broker.Secret, error) {
	if mode == broker.PromptPinentry {
		return p.pinentry(ctx, q, how)
	}
	if runtime.GOOS == "darwin" {
		return p.dialog(ctx, osascript(q), how)
	}
	if !hasDisplay(how.Env) {
		return broker.Secret{}, unavailable("there is no display")
	}
	answer, err := p.dialog(ctx, zenity(q), how)
	if broker.CodeOf(err) == broker.CodePromptUnavailable {
		answer, err = p.dialog(ctx, kdialog(q), how)
	}
	return answer, err
}

// A dialog is a program that prints what was typed.
type dialog struct {
	name      string
	args, env []string
	cancelled int    // its status when the user cancelled
	prefix    string // of what was typed, in its output
}

// zenity ends with 1 for a cancel, and so does GTK where the display cannot be
// reached, but for these variables.
func zenity(q broker.Question) dialog {
	d := dialog{
		name: "zenity", args: []string{"--entry", "--title=gatepass", "--text=" + escapeZenity(text(q))},
		env: []string{"ZENITY_CANCEL=101", "ZENITY_ESC=101"}, cancelled: 101,
	}
	if unseen(q) {
		d.args = append(d.args, "--hide-text")
	}
	return d
}

func kdialog(q broker.Question) dialog {
	d := dialog{name: "kdialog", args: []string{"--title", "gatepass"}, cancelled: 1}
	if unseen(q) {
		d.args = append(d.args, "--password", escapeHTML(text(q)))
	} else {
		d.args = append(d.args, "--inputbox", escapeKDialog(text(q)))
	}
	return d
}

// osascript ends with 1 for every error.
func osascript(q broker.Question) dialog {
	script := appleScript
	if unseen(q) {
		script = strings.Replace(script, `default answer ""`, `default answer "" with hidden answer`, 1)
	}
	return dialog{name: "osascript", args: []string{"-e", script, text(q)}, prefix: "="}
}

// appleScript shows its argument; the text is no part of the script.
const appleScript = `on run argv
try
display dialog (item 1 of argv) default answer "" with title "gatepass"
return "=" & text returned of result
on error number -128
return "cancelled"
end try
end run`

// dialog runs d and returns the line that was typed.
func (p *Prompter) dialog(ctx context.Context, d dialog, how broker.Reachable) (broker.Secret, error) {
	path, err := p.cfg.Look(d.name)
	if err != nil {
		return broker.Secret{}, unavailable(d.name + " is not installed")
	}
	out, status, err := program.Run(ctx, append([]string{path}, d.args...), append(p.env(how), d.env...), nil)
	defer clear(out)
	typed, ok := bytes.CutPrefix(out, []byte(d.prefix))
	switch {
	case ctx.Err() != nil:
		return broker.Secret{}, broker.Errorf(broker.CodePromptTimeout, "nobody answered the dialog")
	case err != nil:
		return broker.Secret{}, unavailable(err.Error())
	case status == d.cancelled && (status != 0 || !ok):
		return broker.Secret{}, broker.Errorf(broker.CodeCancelled, "cancelled in the dialog")
	case status != 0:
		return broker.Secret{}, unavailable(fmt.Sprintf("%s ended with status %d", d.name, status))
	}
	return broker.NewSecret(bytes.TrimRight(typed, "\r\n")), nil
}

// env is the daemon's for finding programs, with the caller's display.
func (p *Prompter) env(how broker.Reachable) []string {
	return append(append([]string(nil), p.cfg.Env...), how.Env...)
}

func hasDisplay(env []string) bool {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		return true
	}
	for _, v := range env {
		if name, value, _ := strings.Cut(v, "="); value != "" && (name == "DISPLAY" || name == "WAYLAND_DISPLAY") {
			return true
		}
	}
	return false
}

func unavailable(why string) error {
	return broker.Errorf(broker.CodePromptUnavailable, "no dialog can be shown: %s", why)
}
