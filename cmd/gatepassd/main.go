// Command gatepassd is gatepass's daemon, one per OS user: the only program
// that touches the keychain, AWS's STS and the audit log. The gatepass client
// starts it when it is needed.
//
// Whoever starts it may pass a descriptor, named by GATEPASS_READY_FD, on
// which it writes one line and closes it: "ok" once it serves, or finds that
// another daemon does, else a JSON broker.Error.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"gatepass/broker"
	"gatepass/broker/audit"
	"gatepass/broker/keystore"
	"gatepass/broker/wire"
)

const usage = `usage: gatepassd [--foreground | --check]

The daemon behind gatepass. The client starts it when it is needed:

    gatepass daemon start

--foreground   write diagnostics to standard error; Ctrl-C stops it
--check        say what is wrong with the configuration, and end
--version      print the version

Diagnostics: gatepassd.log in ~/.local/state/gatepass (XDG_STATE_HOME)
Configuration: ~/.config/gatepass/gatepass.toml (GATEPASS_CONFIG)
`

// passphraseVariable opens the file keychain, for which the daemon asks where
// it is not set; see README.md.
const passphraseVariable = "GATEPASS_FILE_PASSPHRASE"

func main() {
	if len(os.Args) == 2 && os.Args[1] == keystore.HelperArg {
		os.Exit(keystore.HelperMain())
	}
	os.Exit(daemon(os.Args[1:]))
}

func daemon(args []string) (status int) {
	foreground, checkOnly := false, false
	for _, arg := range args {
		switch arg {
		case "--check", "-check":
			checkOnly = true
		case "--foreground", "-foreground":
			foreground = true
		case "--version", "-version":
			fmt.Println("gatepassd " + broker.Version())
			return 0
		case "--help", "-help", "-h":
			fmt.Print(usage)
			return 0
		default:
			fmt.Fprintf(os.Stderr, "gatepassd: unknown argument %q\n%s", arg, usage)
			return broker.CodeUsage.ExitStatus()
		}
	}
	paceHeap()

	ready := takeReadyPipe()
	err := wire.RefuseBelow(wire.LeaseAbove(os.Getpid())) // while our own environment can be read
	if err == nil {
		err = harden()
	}
	switch {
	case err != nil:
	case checkOnly:
		err = check()
	default:
		err = run(context.Background(), foreground, func() { ready.tell(nil) })
	}
	if other, ok := errors.AsType[*audit.ErrLocked](err); ok { // which is good enough for the starter
		fmt.Fprintf(os.Stderr, "gatepassd: %v\n", other)
		err = nil
	}
	ready.tell(err)
	if err == nil {
		return 0
	}
	e := broker.AsError(err)
	fmt.Fprintf(os.Stderr, "gatepassd: %s\n", e.Message)
	if e.Hint != "" {
		fmt.Fprintf(os.Stderr, "gatepassd: %s\n", e.Hint)
	}
	return e.Code.ExitStatus()
}
