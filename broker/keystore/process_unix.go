//go:build unix

package keystore

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// A process is a running helper. It leads a session of its own, so that it
// has no terminal to ask on and all that it starts can be ended with it.
type process struct {
	pipe   *os.File // our end of the socket pair that is its stdin and stdout
	cmd    *exec.Cmd
	stderr tail
}

// start runs program as a helper. The calling goroutine must stay locked to
// its thread until wait returns.
func start(program string, env []string) (*process, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	p := &process{pipe: ours, cmd: exec.Command(program, HelperArg)}
	p.cmd.Args[0] = "gatepassd"
	p.cmd.Dir = "/"
	p.cmd.Env = append([]string{}, env...) // nil would mean ours
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirs, theirs, &p.stderr
	p.cmd.SysProcAttr = childAttr()
	p.cmd.WaitDelay = 100 * time.Millisecond // for what it started and still holds stderr
	if err := p.cmd.Start(); err != nil {
		ours.Close()
		return nil, err
	}
	return p, nil
}

func socketpair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	// Only our end: then Close ends a Read that waits on it.
	syscall.SetNonblock(fds[0], true)
	return os.NewFile(uintptr(fds[0]), "helper"), os.NewFile(uintptr(fds[1]), "helper"), nil
}

// kill ends the helper and all that it started. It must not be called after
// wait, when its number may be another's.
func (p *process) kill() { syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

// wait waits for the helper's end and says how it was.
func (p *process) wait() string {
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err == nil || errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) {
		return p.cmd.ProcessState.String()
	}
	return err.Error()
}

// words returns what the helper said on stderr, once it is gone.
func (p *process) words() string { return p.stderr.line() }

func thisProgram() (string, error) {
	if runtime.GOOS == "linux" {
		// In the child, before it becomes something else, this is still our
		// own file, also where its name now leads to a newer one.
		return "/proc/self/exe", nil
	}
	return os.Executable()
}

// keepDescriptors marks what this process has inherited so that no helper
// inherits it in turn. Go marks what it opens itself.
func keepDescriptors() {
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}
