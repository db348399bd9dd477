package main

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
)

// outputFile is the file that --output names, "" for standard output.
func outputFile(ctx *cli.Context) (string, error) {
	file := ctx.String("output")
	if ctx.IsSet("output") && file == "" {
		return "", usageOf(ctx, "the name after --output is empty")
	}
	return file, nil
}

// writeTo gives write a place for its output: standard output, or the file
// path. A file is replaced (0600) only once all of it is on disk, so that
// whoever reads it finds the old one or the new one, and after an error the
// old one stays.
func (c *client) writeTo(path string, write func(io.Writer) error) error {
	if path == "" {
		out := bufio.NewWriterSize(c.stdout, 64<<10)
		if err := write(out); err != nil {
			out.Flush()
			return err
		}
		if err := out.Flush(); err != nil {
			return notWritten(err)
		}
		return nil
	}
	failed := func(err error) error {
		if at, ok := errors.AsType[*fs.PathError](err); ok { // which names another file
			err = at.Err
		}
		return broker.Errorf(broker.CodeConfig, "write %s: %w", path, err)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return failed(errors.New("it is not a regular file"))
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed(err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return failed(err)
	}
	defer os.Remove(tmp.Name()) // where it is renamed, there is nothing left
	defer tmp.Close()
	out := bufio.NewWriterSize(tmp, 64<<10)
	if err := write(out); err != nil {
		return err
	}
	if err := errors.Join(out.Flush(), tmp.Sync(), tmp.Close()); err != nil {
		return failed(err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return failed(err)
	}
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		dir.Sync() // where directories can be
		dir.Close()
	}
	return nil
}
