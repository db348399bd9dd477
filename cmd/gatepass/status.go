package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
)

const statusHelp = `gatepass status shows the daemon, the keychain, the audit log, the leases, the
sessions with the time they have left, and the last request that was refused:
some SDKs hide what a credential_process says. It never starts a daemon; where
none runs it says so and exits with 69.

usage: gatepass status [--json | --watch | --prompt]

  --watch         draw it again and again, until q
  --prompt        print the lease that the caller is in, as "ops 42m", or
                  nothing; for a shell's prompt

examples:
  gatepass status
  PS1='${GATEPASS_LEASE:+$(gatepass status --prompt) }\$ '
`

func statusCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "status",
		UsageText: statusHelp,
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json"}, &cli.BoolFlag{Name: "watch"}, &cli.BoolFlag{Name: "prompt"}},
		Action:    c.status,
	}
}

func (c *client) status(ctx *cli.Context) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	switch asJSON, watch, prompt := ctx.Bool("json"), ctx.Bool("watch"), ctx.Bool("prompt"); {
	case asJSON && (watch || prompt) || watch && prompt:
		return usageOf(ctx, "--json, --watch and --prompt exclude one another")
	case prompt:
		return c.statusPrompt(ctx.Context)
	case watch:
		return c.watch(ctx.Context)
	}
	st, err := c.daemonStatus(ctx)
	if err != nil {
		return err
	}
	if ctx.Bool("json") {
		return c.writeJSON(st)
	}
	width, _ := columns(c.stdout)
	return c.write(statusPage(st, time.Now(), c.palette(), width))
}

// daemonStatus asks the daemon that runs, and notes one of another version.
func (c *client) daemonStatus(ctx *cli.Context) (broker.Status, error) {
	var st broker.Status
	_, err := c.askNow(ctx.Context, func(ctx context.Context, d *wire.Client) (err error) {
		st, err = d.Status(ctx)
		return err
	})
	if errors.Is(err, wire.ErrNoDaemon) {
		return st, errNotRunning()
	}
	if err == nil && st.Daemon.Version != broker.Version() {
		say(c.stderr, fmt.Sprintf("the daemon is version %s, this program is %s\nto run the same: gatepass daemon restart", st.Daemon.Version, broker.Version()))
	}
	return st, err
}

func errNotRunning() error {
	return broker.Errorf(broker.CodeDaemonUnreachable, "the daemon is not running").
		WithHint("it starts with the first request, or by: gatepass daemon start")
}

// statusPage is st for a person at a terminal of 80 columns or, if it is
// wider, of width.
func statusPage(st broker.Status, now time.Time, p palette, width int) []byte {
	var b bytes.Buffer
	d := st.Daemon
	fmt.Fprintf(&b, "daemon    %s, pid %d, version %s\n", p.green("running for "+span(now.Sub(d.Started))), d.PID, printable(d.Version))
	fmt.Fprintf(&b, "socket    %s\n", printable(d.Socket))

	keychain := printable(st.Keychain.Backend) + ", "
	if st.Keychain.State == "ok" {
		keychain += p.green("ok")
	} else {
		keychain += p.red(printable(st.Keychain.State))
	}
	fmt.Fprintf(&b, "keychain  %s\n", keychain)
	for _, more := range []string{st.Keychain.Message, st.Keychain.Hint} {
		for line := range strings.Lines(more) {
			fmt.Fprintf(&b, "          %s\n", printable(strings.TrimSuffix(line, "\n")))
		}
	}

	log := count(st.Log.Entries, "entry", "entries")
	if behind := st.Log.Entries - st.Log.Signed; behind > 0 {
		log += fmt.Sprintf(", %d not signed yet", behind)
	}
	if at := st.Log.Anchored.Time; at.IsZero() {
		log += ", never anchored"
	} else {
		log += fmt.Sprintf(", last anchored %s ago", span(now.Sub(at)))
	}
	fmt.Fprintf(&b, "log       %s\n", log)
	if st.Log.Anchored.Error != "" {
		fmt.Fprintf(&b, "          %s\n", p.red("its checkpoints do not leave this machine: "+printable(st.Log.Anchored.Error)))
	}
	if st.Log.Error != "" {
		fmt.Fprintf(&b, "          %s\n", p.red("nothing is handed out: "+printable(st.Log.Error)))
	}
	for _, f := range st.Log.Forward {
		b.WriteString(forwardText(f, p))
	}

	for _, m := range st.Proofs {
		fmt.Fprintf(&b, "mfa       key %s for another %s, by %s\n", clip(printable(m.Key), 11), span(m.Expires.Sub(now)), clip(printable(m.Serial), 42))
	}

	if len(st.Leases) > 0 {
		b.WriteString("\n" + leasesText(st.Leases, now, p, max(width, 80)))
	}
	if len(st.Sessions) == 0 && len(st.Leases) > 0 {
		b.WriteString("\nsessions  none\n")
	} else if len(st.Sessions) == 0 {
		b.WriteString("sessions  none\n")
	} else {
		sessions := slices.SortedFunc(slices.Values(st.Sessions), func(x, y broker.SessionStatus) int {
			return strings.Compare(x.Profile, y.Profile)
		})
		b.WriteByte('\n')
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "PROFILE\tLEFT\tACCOUNT\tROLE\tKEY\tSERVED")
		for _, s := range sessions {
			role := "(no role)"
			if _, name, ok := strings.Cut(s.RoleARN, ":role/"); ok {
				role = name
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", clip(printable(s.Profile), 17), span(s.Expires.Sub(now)),
				printable(s.Account), clip(printable(role), 17), clip(printable(s.Key), 11), s.Served)
		}
		w.Flush()
	}
	if r := st.LastRefusal; r != nil {
		who := ""
		if r.Program != "" {
			who = " to " + printable(r.Program)
		}
		if r.Profile != "" {
			who += " for " + printable(r.Profile)
		}
		fmt.Fprintf(&b, "\nlast refusal, %s ago%s: %s\n", span(now.Sub(r.Time)), who, p.yellow(printable(string(r.Code))))
		for line := range strings.Lines(r.Message + "\n" + r.Hint) {
			if line = strings.TrimSuffix(line, "\n"); line != "" {
				fmt.Fprintf(&b, "  %s\n", printable(line))
			}
		}
	}
	return b.Bytes()
}

// forwardText says how far one of the log's destinations is.
func forwardText(f broker.ForwardStatus, p palette) string {
	state := p.green("up to date")
	if f.Lag > 0 {
		state = count(f.Lag, "entry", "entries") + " behind"
		if f.LagSeconds > 0 {
			state += ", for " + span(time.Duration(f.LagSeconds)*time.Second)
		}
	}
	if f.Rejected > 0 {
		state += ", " + p.yellow(fmt.Sprintf("%d rejected there", f.Rejected))
	}
	text := fmt.Sprintf("forward   %s, %s\n", printable(f.To), state)
	if f.Error != "" {
		text += fmt.Sprintf("          %s\n", p.yellow(printable(f.Error)))
	}
	return text
}

// span is a length of time as people say it: "42m", "2h13m", "3d4h".
func span(d time.Duration) string {
	d = max(0, d)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// clip shortens s to n columns, its end dropped for an ellipsis.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:max(0, n-1)]) + "…"
}
