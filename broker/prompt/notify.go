package prompt

import (
	"context"
	"html"
	"runtime"
	"strings"
	"time"

	"gatepass/broker"
	"gatepass/broker/prompt/program"
)

var _ broker.Notifier = (*Prompter)(nil)

// notifyTime is how long a notification may take to be shown.
const notifyTime = 5 * time.Second

// Notify shows text as a notification of the desktop that the daemon was
// started in, or where there is none as a line on the terminal tty.
func (p *Prompter) Notify(ctx context.Context, text, tty string) {
	ctx, cancel := context.WithTimeout(ctx, notifyTime)
	defer cancel()
	if p.notification(ctx, text) {
		return
	}
	writeLine(tty, "gatepass: "+plain(text))
}

// notification reports whether a desktop has taken text.
func (p *Prompter) notification(ctx context.Context, text string) bool {
	args := []string{"notify-send", "--app-name=gatepass", "--", "gatepass", html.EscapeString(plain(text))}
	switch {
	case runtime.GOOS == "darwin":
		args = []string{"osascript", "-e", appleNotification, plain(text)}
	case !hasDisplay(p.cfg.Desktop):
		return false
	}
	path, err := p.cfg.Look(args[0])
	if err != nil {
		return false
	}
	args[0] = path
	out, status, err := program.Run(ctx, args, append(append([]string(nil), p.cfg.Env...), p.cfg.Desktop...), nil)
	clear(out)
	return err == nil && status == 0
}

// appleNotification shows its argument; the text is no part of the script.
const appleNotification = `on run argv
display notification (item 1 of argv) with title "gatepass"
end run`

// Desktop returns the variables of environ by which a desktop is found.
func Desktop(environ []string) []string {
	var env []string
	for _, v := range environ {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "XDG_CURRENT_DESKTOP", "DBUS_SESSION_BUS_ADDRESS":
			env = append(env, v)
		}
	}
	return env
}
