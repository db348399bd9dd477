package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestLogFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "gatepassd.log")
	l, err := openLogFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.max = 100
	for i := range 50 {
		line := bytes.Repeat([]byte{'a' + byte(i%26)}, 29)
		if _, err := l.Write(append(line, '\n')); err != nil {
			t.Fatal(err)
		}
	}
	var total int64
	for _, name := range []string{path, path + ".1"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() == 0 || info.Size() > l.max || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %d bytes, mode %v", name, info.Size(), info.Mode())
		}
		total += info.Size()
	}
	if data, _ := os.ReadFile(path); !bytes.HasSuffix(data, append(bytes.Repeat([]byte{'a' + 49%26}, 29), '\n')) {
		t.Errorf("the last line is not the last: %q", data)
	}
	if names, _ := filepath.Glob(path + "*"); len(names) != 2 {
		t.Errorf("files: %v", names)
	}
}
