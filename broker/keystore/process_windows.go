package keystore

import (
	"io"
	"os"
	"os/exec"
	"time"
)

// A process is a running helper.
type process struct {
	pipe   pipes
	cmd    *exec.Cmd
	stderr tail
}

// pipes are our ends of a helper's stdin and stdout.
type pipes struct {
	io.Reader
	io.Writer
	close func()
}

func (p pipes) Close() error {
	p.close()
	return nil
}

// start runs program as a helper.
func start(program string, env []string) (*process, error) {
	p := &process{cmd: exec.Command(program, HelperArg)}
	p.cmd.Env = append([]string{}, env...) // nil would mean ours
	p.cmd.Stderr = &p.stderr
	p.cmd.WaitDelay = 100 * time.Millisecond
	w, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	r, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.pipe = pipes{r, w, func() { w.Close(); r.Close() }}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

// kill ends the helper. Windows' keychain starts nothing.
func (p *process) kill() { p.cmd.Process.Kill() }

// wait waits for the helper's end and says how it was.
func (p *process) wait() string {
	if err := p.cmd.Wait(); err != nil {
		return err.Error()
	}
	return p.cmd.ProcessState.String()
}

// words returns what the helper said on stderr, once it is gone.
func (p *process) words() string { return p.stderr.line() }

func thisProgram() (string, error) { return os.Executable() }

// keepDescriptors does nothing: Go lets a child inherit what it names alone.
func keepDescriptors() {}
