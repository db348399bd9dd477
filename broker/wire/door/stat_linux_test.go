package door

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

const statLine = `4242 (a) S 1 (b) S 17 4242 4242 34817 4242 4194304 100 0 0 0 1 2 3 4 20 0 5 0 987654 12345678 100 18446744073709551615 1 2 140720000000000 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 3 4 5 140720000000100 140720000000200 140720000000300 140720000000400 0` + "\n"

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte(statLine))
	want := stat{pid: 4242, ppid: 17, tty: 34817, start: 987654, image: layout{
		comm: [16]byte([]byte("a) S 1 (b\x00\x00\x00\x00\x00\x00\x00")), startStack: 140720000000000,
		argStart: 140720000000100, argEnd: 140720000000200, envEnd: 140720000000400,
	}}
	if err != nil || got != want {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	for state, ended := range map[string]bool{"Z": true, "X": true, "R": false, "D": false, "T": false} {
		alone := strings.Replace(strings.Replace(statLine, ") S 17", ") "+state+" 17", 1), " 20 0 5 0 ", " 20 0 1 0 ", 1)
		if s, err := parseStat([]byte(alone)); err != nil || s.ended != ended {
			t.Errorf("state %s: ended %v, %v", state, s.ended, err)
		}
		others := strings.Replace(statLine, ") S 17", ") "+state+" 17", 1)
		if s, err := parseStat([]byte(others)); err != nil || s.ended {
			t.Errorf("state %s with other threads: ended %v, %v", state, s.ended, err)
		}
	}
	for i := range len(statLine) - len(" 140720000000400 0\n") + 1 {
		if _, err := parseStat([]byte(statLine[:i])); !errors.Is(err, errStat) {
			t.Errorf("cut after %d bytes: %v", i, err)
		}
	}
	for _, field := range []string{"17", "987654", "140720000000100"} {
		for _, bad := range []string{"", "-1", "x", "99999999999999999999999"} {
			if _, err := parseStat([]byte(strings.Replace(statLine, " "+field+" ", " "+bad+" ", 1))); !errors.Is(err, errStat) {
				t.Errorf("%q for %s: %v", bad, field, err)
			}
		}
	}
	if s, err := parseStat([]byte(strings.Replace(statLine, " 34817 ", " -1072693248 ", 1))); err != nil || s.tty != 0 {
		t.Errorf("a terminal beyond all limits: %d, %v", s.tty, err)
	}
}

func TestParseOwnStat(t *testing.T) {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseStat(b)
	if err != nil || s.pid != os.Getpid() || s.ppid != os.Getppid() || s.start == 0 || s.ended || s.image.argStart == 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestTTYName(t *testing.T) {
	for dev, want := range map[uint32]string{
		0:              "",
		136<<8 | 3:     "/dev/pts/3",
		136<<8 | 0xff:  "/dev/pts/255",
		1<<20 | 136<<8: "/dev/pts/256",
		4<<8 | 1:       "/dev/tty1",
		4<<8 | 64:      "/dev/ttyS0",
		5<<8 | 1:       "/dev/char/5:1",
	} {
		if got := ttyName(dev); got != want {
			t.Errorf("ttyName(%#x) = %q, want %q", dev, got, want)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statLine))
	if b, err := os.ReadFile("/proc/self/stat"); err == nil {
		f.Add(b)
	}
	f.Add([]byte("1 ()) S 0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStat(b)
		if err != nil {
			return
		}
		// The program's name cannot shift the fields: whatever it is, the
		// numbers around it stay.
		rest := string(b[strings.LastIndexByte(string(b), ')'):])
		again, err := parseStat([]byte(strconv.Itoa(s.pid) + " (x) (y" + rest))
		again.image.comm = s.image.comm
		if err != nil || again != s {
			t.Errorf("%q is %+v, and by another name %+v, %v", b, s, again, err)
		}
	})
}

func TestSplitArgs(t *testing.T) {
	for _, tt := range []struct {
		in   string
		cut  bool
		want string
	}{
		{"", false, ""},
		{"a\x00b c\x00", false, "a|b c"},
		{"a\x00\x00b\x00", false, "a||b"},
		{"sshd: alice@pts/0", false, "sshd: alice@pts/0"},
		{"a\x00b\x00half", true, "a|b"},
		{"half", true, "half"},
		{"\xff\x1b[31m\x00", false, "\xff\x1b[31m"},
	} {
		if got := strings.Join(splitArgs([]byte(tt.in), tt.cut), "|"); got != tt.want {
			t.Errorf("splitArgs(%q, %v) = %q, want %q", tt.in, tt.cut, got, tt.want)
		}
	}
}
