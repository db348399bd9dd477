package prompt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gatepass/broker"
	"gatepass/broker/prompt/program"
)

// The error codes of pinentry that mean something to us, the low 16 bits of
// what it prints: libgpg-error's GPG_ERR_CANCELED, GPG_ERR_FULLY_CANCELED and
// GPG_ERR_TIMEOUT.
const (
	gpgCanceled      = 99
	gpgFullyCanceled = 198
	gpgTimeout       = 62
)

// pinentry asks by pinentry, in a window or on the caller's terminal.
// https://www.gnupg.org/documentation/manuals/assuan/Client-requests.html
func (p *Prompter) pinentry(ctx context.Context, q broker.Question, how broker.Reachable) (broker.Secret, error) {
	if !hasDisplay(how.Env) && !(how.Terminal && how.TTY != "") {
		return broker.Secret{}, unavailable("pinentry has no display and no terminal")
	}
	path, err := p.cfg.Look("pinentry")
	if err != nil {
		return broker.Secret{}, unavailable("pinentry is not installed")
	}
	// A pinentry that has answered, or talks nonsense, is not waited for. Asked
	// to end, it gives back a terminal's screen, but not always its modes.
	running, end := context.WithCancel(ctx)
	cmd := exec.CommandContext(running, path)
	cmd.Env, cmd.Dir = p.env(how), "/"
	program.OwnGroup(cmd, syscall.SIGTERM)
	cmd.WaitDelay = time.Second
	defer keepTerminal(how.TTY)()
	in, err := cmd.StdinPipe()
	if err != nil {
		end()
		return broker.Secret{}, unavailable(err.Error())
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		end()
		return broker.Secret{}, unavailable(err.Error())
	}
	if err := cmd.Start(); err != nil {
		end()
		return broker.Secret{}, unavailable(err.Error())
	}
	defer cmd.Wait()
	defer end()
	a := assuan{w: in, r: bufio.NewReaderSize(out, program.MaxOutput)}
	code, err := a.ask(q, how)
	var refused *assuanError
	switch {
	case err == nil:
		return code, nil
	case ctx.Err() != nil:
		return broker.Secret{}, broker.Errorf(broker.CodePromptTimeout, "nobody answered pinentry")
	case errors.As(err, &refused) && (refused.code == gpgCanceled || refused.code == gpgFullyCanceled):
		return broker.Secret{}, broker.Errorf(broker.CodeCancelled, "cancelled in pinentry")
	case errors.As(err, &refused) && refused.code == gpgTimeout:
		return broker.Secret{}, broker.Errorf(broker.CodePromptTimeout, "nobody answered pinentry")
	}
	return broker.Secret{}, unavailable("pinentry: " + err.Error())
}

// An assuan is a conversation with pinentry.
type assuan struct {
	w io.Writer
	r *bufio.Reader
}

// An assuanError is an ERR line. Its text is libgpg-error's.
type assuanError struct{ code int }

func (e *assuanError) Error() string { return fmt.Sprintf("error %d", e.code) }

func (a assuan) ask(q broker.Question, how broker.Reachable) (broker.Secret, error) {
	if _, err := a.answer(); err != nil { // its greeting
		return broker.Secret{}, err
	}
	if how.TTY != "" {
		term := "dumb"
		for _, v := range how.Env {
			if t, ok := strings.CutPrefix(v, "TERM="); ok {
				term = t
			}
		}
		for _, option := range []string{"OPTION ttyname=" + how.TTY, "OPTION ttytype=" + term} {
			if _, err := a.say(option); err != nil {
				return broker.Secret{}, err
			}
		}
	}
	// Left alone, it gives up after a minute. One that does not know the
	// command has no such time.
	var refused *assuanError
	if _, err := a.say("SETTIMEOUT 0"); err != nil && !errors.As(err, &refused) {
		return broker.Secret{}, err
	}
	for _, command := range []string{
		"SETTITLE gatepass", "SETDESC " + escapeAssuan(text(q)), "SETPROMPT " + field(q),
	} {
		if _, err := a.say(command); err != nil {
			return broker.Secret{}, err
		}
	}
	return a.say("GETPIN")
}

// say sends a command and returns the data of its answer.
func (a assuan) say(command string) (broker.Secret, error) {
	if _, err := io.WriteString(a.w, command+"\n"); err != nil {
		return broker.Secret{}, err
	}
	return a.answer()
}

func (a assuan) answer() (data broker.Secret, err error) {
	for {
		b, err := a.r.ReadSlice('\n')
		if err != nil {
			return broker.Secret{}, err
		}
		line := bytes.TrimRight(b, "\r\n")
		kind, rest, _ := bytes.Cut(line, []byte(" "))
		switch string(kind) {
		case "OK":
			return data, nil
		case "D":
			data = broker.NewSecret(unescapeAssuan(rest))
			clear(b)
		case "S", "#":
		case "ERR":
			number, _, _ := strings.Cut(string(rest), " ")
			n, err := strconv.ParseUint(number, 10, 32)
			if err != nil {
				return broker.Secret{}, errors.New("it does not speak Assuan")
			}
			return broker.Secret{}, &assuanError{int(n & 0xffff)}
		default:
			return broker.Secret{}, errors.New("it does not speak Assuan")
		}
	}
}

func escapeAssuan(s string) string {
	return strings.NewReplacer("%", "%25", "\n", "%0A", "\r", "%0D").Replace(s)
}

// unescapeAssuan undoes it in place: any byte may be escaped.
func unescapeAssuan(b []byte) []byte {
	out := b[:0]
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == '%' && i+2 < len(b) {
			if n, err := strconv.ParseUint(string(b[i+1:i+3]), 16, 8); err == nil {
				c, i = byte(n), i+2
			}
		}
		out = append(out, c)
	}
	return out
}
