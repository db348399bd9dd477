package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// watchEvery is how often a page that is watched is made anew.
const watchEvery = 2 * time.Second

// A look is what the daemon said, or why it did not.
type look struct {
	status broker.Status
	err    error
}

// watch shows the status until q or ^C.
func (c *client) watch(ctx context.Context) error {
	out, ok := c.stdout.(*os.File)
	if !ok || !isTerminal(out) {
		return broker.Errorf(broker.CodeUsage, "--watch draws on a terminal, and standard output is none").
			WithHint("for programs: gatepass status --json")
	}
	if c.getenv("TERM") == "dumb" {
		return broker.Errorf(broker.CodeUsage, "--watch draws on the terminal, and this one cannot be drawn on (TERM=dumb)")
	}
	now := c.lookAt(ctx)
	if now.err != nil {
		return now.err
	}
	s, err := openScreen(out)
	if err != nil {
		return broker.Errorf(broker.CodePromptUnavailable, "take the terminal: %w", err)
	}
	defer s.close()
	looks := make(chan look, 1) // of one goroutine at a time, which ends with its answer or the process
	ticks := time.NewTicker(watchEvery)
	defer ticks.Stop()
	looking := false
	for {
		s.measure()
		if err := s.draw(c.frame(now, time.Now(), s.width, s.height)); err != nil {
			return broker.Errorf(broker.CodeInternal, "write to the terminal: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case now = <-looks:
			looking = false
		case <-ticks.C:
			if !looking { // a daemon that hangs is asked once
				looking = true
				go func() { looks <- c.lookAt(ctx) }()
			}
		case key, open := <-s.keys:
			const ctrlC, ctrlD = 3, 4
			if !open || key == 'q' || key == 'Q' || key == ctrlC || key == ctrlD {
				return nil
			}
		case sig := <-s.signals:
			if sig == os.Interrupt {
				return nil
			}
			if err := s.handle(sig); err != nil {
				return err
			}
		}
	}
}

func (c *client) lookAt(ctx context.Context) (l look) {
	_, err := c.askNow(ctx, func(ctx context.Context, d *wire.Client) (err error) {
		l.status, err = d.Glance(ctx)
		return err
	})
	if l.err = err; errors.Is(err, wire.ErrNoDaemon) {
		l.err = errNotRunning()
	}
	return l
}

// frame is what is on a screen, a line a string.
func (c *client) frame(l look, now time.Time, width, height int) []string {
	p := palette(c.getenv("NO_COLOR") == "")
	lines := []string{p.dim(now.Local().Format("15:04:05") + "  gatepass status; q leaves"), ""}
	if l.err != nil {
		e := broker.AsError(l.err)
		for line := range strings.Lines(e.Message + "\n" + e.Hint) {
			lines = append(lines, p.red(printable(strings.TrimSuffix(line, "\n"))))
		}
	} else {
		page := strings.TrimSuffix(string(statusPage(l.status, now, p, width)), "\n")
		lines = append(lines, strings.Split(page, "\n")...)
	}
	if height < 1 {
		return nil
	}
	if len(lines) > height {
		lines = append(lines[:height-1], "…")
	}
	for i := range lines {
		lines[i] = clipColoured(lines[i], width)
	}
	return lines
}

// clipColoured is clip for a line with colours, which take no room.
func clipColoured(s string, n int) string {
	room, at, coloured := n, 0, false
	for at < len(s) {
		if strings.HasPrefix(s[at:], "\x1b[") {
			if end := strings.IndexByte(s[at:], 'm'); end > 0 {
				at += end + 1
				coloured = true
				continue
			}
		}
		_, size := utf8.DecodeRuneInString(s[at:])
		if room == 1 && utf8.RuneCountInString(withoutColours(s[at:])) > 1 {
			s = s[:at] + "…"
			if coloured {
				s += "\x1b[0m"
			}
			return s
		}
		room--
		at += size
	}
	return s
}

func withoutColours(s string) string {
	for {
		from := strings.Index(s, "\x1b[")
		if from < 0 {
			return s
		}
		end := strings.IndexByte(s[from:], 'm')
		if end < 0 {
			return s
		}
		s = s[:from] + s[from+end+1:]
	}
}

// The words of a terminal (ECMA-48 and xterm's): the alternate screen leaves
// what was there before as it was, and what is drawn between beginFrame and
// endFrame is shown at once.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	beginFrame  = "\x1b[?2026h\x1b[H"
	endOfLine   = "\x1b[K"
	endFrame    = "\x1b[J\x1b[?2026l"
)

// A screen is a terminal that one page is shown on again and again.
type screen struct {
	out           *os.File
	width, height int
	keys          <-chan byte // what is typed; closed when there is no more
	signals       chan os.Signal
	terminal      terminalState

	drawn string
}

// draw shows lines in place of those that were there. Nothing is cleared
// first, and all goes in one write, so that nothing flickers.
func (s *screen) draw(lines []string) error {
	frame := beginFrame + strings.Join(lines, endOfLine+"\r\n") + endOfLine + endFrame
	if frame == s.drawn {
		return nil
	}
	_, err := s.out.WriteString(frame)
	s.drawn = frame
	return err
}
