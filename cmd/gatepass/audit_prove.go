package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/audit"
)

const auditProveHelp = `gatepass audit prove writes a proof (a C2SP tlog-proof) that one entry is in the
audit log, as it was signed. Whoever has it and your public key, of
"gatepass audit key", checks it by "gatepass audit check-proof" without the log,
the daemon or you. It shows that entry whole, and of the others only how many
there are.

usage: gatepass audit prove [flags] SEQ

  -o, --output FILE
                  write it to FILE, not to standard output
  --key KEY|FILE  trust this public key, or the one in FILE, not the pinned one

example:
  gatepass audit prove 41 -o 41.tlog-proof
`

func auditProveCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "prove",
		UsageText: auditProveHelp,
		Flags:     []cli.Flag{&cli.StringFlag{Name: "output", Aliases: []string{"o"}}, &cli.StringFlag{Name: "key"}},
		Action:    c.auditProve,
	}
}

func (c *client) auditProve(ctx *cli.Context) error {
	seq, err := entryNumber(ctx)
	if err != nil {
		return err
	}
	file, err := outputFile(ctx)
	if err != nil {
		return err
	}
	paths, err := c.paths()
	if err != nil {
		return err
	}
	key, err := trustedKey(ctx, paths)
	if err != nil {
		return err
	}
	proof, err := audit.Prove(ctx.Context, paths.AuditDir, key, seq)
	if err != nil {
		return err
	}
	return c.writeTo(file, func(w io.Writer) error {
		_, err := w.Write(proof)
		return err
	})
}

const auditCheckProofHelp = `gatepass audit check-proof checks a proof that "gatepass audit prove" wrote, and
shows the entry that it proves. It needs the public key of whose log it is and
nothing else: no log, no daemon, no network.

usage: gatepass audit check-proof [flags] FILE

  --key KEY|FILE  trust this public key, or the one in FILE, not the one that
                  is pinned for your own log
  --json          print the entry alone, byte for byte

FILE may be - for standard input. It exits with 65 when the proof proves
nothing.

example:
  gatepass audit check-proof --key alice.pub 41.tlog-proof
`

func auditCheckProofCommand(c *client) *cli.Command {
	return &cli.Command{
		Name:      "check-proof",
		UsageText: auditCheckProofHelp,
		Flags:     []cli.Flag{&cli.StringFlag{Name: "key"}, &cli.BoolFlag{Name: "json"}},
		Action:    c.auditCheckProof,
	}
}

func (c *client) auditCheckProof(ctx *cli.Context) error {
	file, err := oneArgument(ctx, "the file of a proof")
	if err != nil {
		return err
	}
	paths := broker.Paths{}
	if !ctx.IsSet("key") { // else it needs no home
		if paths, err = c.paths(); err != nil {
			return err
		}
	}
	key, err := trustedKey(ctx, paths)
	if err != nil {
		return err
	}
	proof, err := c.readProof(file)
	if err != nil {
		return err
	}
	proven, err := audit.CheckProof(proof, key)
	if err != nil {
		return err
	}
	if ctx.Bool("json") {
		return c.write(append(proven.Raw, '\n'))
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "entry %d of the log %s, signed when it had %s:\n", proven.Seq, printable(proven.Log), count(proven.Size, "entry", "entries"))
	if err := json.Indent(&b, proven.Raw, "", "  "); err != nil {
		return broker.Errorf(broker.CodeInternal, "show entry %d: %w", proven.Seq, err)
	}
	b.WriteByte('\n')
	return c.write(b.Bytes())
}

func (c *client) readProof(file string) ([]byte, error) {
	in := c.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			code := broker.CodeConfig
			if errors.Is(err, fs.ErrNotExist) {
				code = broker.CodeNotFound
			}
			return nil, broker.Errorf(code, "read the proof: %w", err)
		}
		defer f.Close()
		in = f
	}
	proof, err := io.ReadAll(io.LimitReader(in, audit.MaxProof+1))
	if err != nil {
		return nil, broker.Errorf(broker.CodeConfig, "read the proof: %w", err)
	}
	return proof, nil
}
