package profiles

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// adoptable is a config with a profile that is about to be adopted.
func adoptable(t *testing.T) *Editor {
	t.Helper()
	e := edited(t, "[profile a]\nrole_arn = arn:aws:iam::111122223333:role/A\ngatepass_key = k\n", "")
	if err := onlyError(e.Adopt(program, "a")); err != nil {
		t.Fatal(err)
	}
	return e
}

// Mode and owner stay, whatever the umask says.
func TestSaveKeepsModeAndOwner(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, mode := range []os.FileMode{0o600, 0o640, 0o644, 0o664, 0o666, 0o606} {
		e := adoptable(t)
		if err := os.Chmod(e.files.Config, mode); err != nil {
			t.Fatal(err)
		}
		uid, gid := os.Getuid(), os.Getgid()
		if uid == 0 {
			uid, gid = 12345, 23456
		} else {
			t.Log("only root can give a file to somebody else")
		}
		if err := os.Chown(e.files.Config, uid, gid); err != nil {
			t.Fatal(err)
		}
		if err := e.Save(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(e.files.Config)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != uid || int(st.Gid) != gid || info.Mode().Perm() != mode {
			t.Errorf("%d:%d %v, was %d:%d %v", st.Uid, st.Gid, info.Mode(), uid, gid, mode)
		}
		if data, _ := os.ReadFile(e.files.Config); !bytes.Contains(data, []byte("credential-process a")) {
			t.Errorf("%s", data)
		}
	}
}

// A file that its owner's tools would not write, or that a new one would not
// wholly replace, is left alone.
func TestSaveRefuses(t *testing.T) {
	chmod := func(t *testing.T, path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, want string
		nobody     bool // needs a user who is not root
		prepare    func(t *testing.T, path string)
	}{
		{"a read-only file", "it is read-only", false, func(t *testing.T, path string) { chmod(t, path, 0o444) }},
		{"a hard link", "it has another name (a hard link)", false, func(t *testing.T, path string) {
			if err := os.Link(path, filepath.Join(t.TempDir(), "dotfile")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a read-only directory", "permission denied", true, func(t *testing.T, path string) {
			chmod(t, filepath.Dir(path), 0o555)
			t.Cleanup(func() { os.Chmod(filepath.Dir(path), 0o755) })
		}},
		{"somebody else's file", "operation not permitted", true, func(t *testing.T, path string) {
			if err := os.Chown(path, 12345, 12345); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := adoptable(t)
			dir := filepath.Dir(e.files.Config)
			save := e.Save
			if tt.nobody {
				if os.Getuid() != 0 {
					t.Skip("only root can become another user, and own nothing as one")
				}
				for _, path := range []string{dir, e.files.Config} {
					if err := os.Chown(path, nobody, nobody); err != nil {
						t.Fatal(err)
					}
				}
				chmod(t, filepath.Dir(dir), 0o755)
				save = func() error { return asNobody(e.Save) }
			}
			tt.prepare(t, e.files.Config)
			err := save()
			if err == nil || !strings.Contains(err.Error(), "cannot be written, and is as it was: "+tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if data, err := os.ReadFile(e.files.Config); err != nil || bytes.Contains(data, []byte("gatepass ")) {
				t.Errorf("%s, %v", data, err)
			}
			if files, _ := os.ReadDir(dir); len(files) != 2 {
				t.Errorf("left behind: %v", files)
			}
		})
	}
}

const nobody = 65534

// asNobody runs f without root's rights to files. The thread that had none is
// not used again.
func asNobody(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := syscall.Setfsgid(nobody)
		if err == nil {
			err = syscall.Setfsuid(nobody)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}
