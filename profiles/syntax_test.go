package profiles

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// Files that are refused whole, with the line that spoils them, and without
// a word of what may be a secret.
func TestRefusedFiles(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"no section", "# a\n\nx = hunter2\n", `:3: a section such as "[default]" must come before the first key`},
		{"duplicate section", "[profile a]\n[b]\n\n[profile a]\n", `:4: section "[profile a]" is already on line 1`},
		{"duplicate key", "[a]\nregion = hunter2\nx = 1\nREGION = 3\n", `:4: region: is already on line 2`},
		{"duplicate key of ours", "[a]\ngatepass_key = hunter2\ngatepass_key = 3\n", `:3: gatepass_key: is already on line 2`},
		{"duplicate key that may be a secret", "[a]\nhunter2/x = 1\nhunter2/x = 1\n", `:3: a key: is already on line 2`},
		{"duplicate among many", "[a]\n" + manyKeys(5000) + "k3 = x\n", `:5002: a key: is already on line 5`},
		{"duplicate in DEFAULT", "[DEFAULT]\nregion = 1\n[a]\n[DEFAULT]\nregion = 1\n", `:5: region: is already on line 2`},
		{"no delimiter", "[a]\naws_secret_access_key = x\nhunter2\n", `:3: this line is neither`},
		{"no closing bracket", "[a\n", `:1: a section such as`},
		{"no closing bracket, later", "[b]\n[a\n", `:2: this line is neither`},
		{"nothing between the brackets", "[b]\n[]\n", `:2: this line is neither`},
		{"no key", "[a]\n = hunter2\n", `:2: there is no key before the "="`},
		{"a block that is none", "[a]\ns3 =\n  hunter2\n", `:2: a key: the value begins on the next line`},
		{"an inherited block that is none", "[DEFAULT]\nsts =\n  hunter2\n[a]\n", `:2: sts: the value begins on the next line`},
		{"BOM", "\ufeff[a]\n", `:1: the file starts with a byte order mark`},
		{"UTF-16", "\xff\xfe[\x00a\x00]\x00", `:1: the file is UTF-16`},
		{"UTF-16 of the other kind", "\xfe\xff\x00[\x00a\x00]", `:1: the file is UTF-16`},
		{"NUL", "[a]\n\r\nx = hunter2\x00\n", `:3: the file holds a NUL byte`},
		{"NUL at the end", "[a]\n\x00", `:2: the file holds a NUL byte`},
		{"not UTF-8", "[a]\rx = 1\r\ny = hunter2 \xe9\n", `:3: the line is not valid UTF-8`},
		{"half a character at the end", "[a]\nx = \xe2\x82", `:2: the line is not valid UTF-8`},
	} {
		files := Files{Config: filepath.Join(t.TempDir(), "config")}
		put(t, files.Config, tt.text)
		for _, files := range []Files{files, {Credentials: files.Config}} {
			r := NewReader()
			_, err := r.Resolve(files, "a")
			var ce *ConfigError
			if !errors.As(err, &ce) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), files.Config+files.Credentials+":") {
				t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
			} else if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v: the value is none of the reader's business", tt.name, err)
			}
			if _, again := r.Names(files); again == nil || again.Error() != err.Error() {
				t.Errorf("%s: at first %v, then %v", tt.name, err, again)
			}
		}
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("k" + itoa(i) + " = x\n")
	}
	return b.String()
}

// 10 MB of every shape are read, in time that grows with the size alone.
func TestLargeFiles(t *testing.T) {
	const size = 10 << 20
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	head, tail := "[profile a]\nx = 1", "\n[profile p]\ngatepass_key = k\n"
	for _, tt := range []struct{ name, text string }{
		{"one long line", head + fill("v") + tail},
		{"one long comment", head + "\n#" + fill("v") + tail},
		{"comments", head + fill("\n# comment") + tail},
		{"blank lines", head + fill("\n") + tail},
		{"blank lines of CR", head + fill("\r") + tail},
		{"one long value", head + fill("\n  v") + tail},
		{"one long block", head + "\nregion =" + fill("\n  v=w") + tail},
		{"one long block for nobody", head + "\nx2 =" + fill("\n  v=w") + tail},
		{"white space", head + fill(" ") + tail},
		{"wide white space", head + fill("\u2003") + tail},
		{"brackets", head + "\n[" + fill("[") + "]" + tail},
		{"a long name", head + "\n[profile " + fill("\\a'") + "']" + tail},
		{"profiles", manyProfiles(55000) + tail},
		{"keys", head + "\n" + manyKeys(700000) + tail},
		{"keys in DEFAULT", "[DEFAULT]\n" + strings.ReplaceAll(manyKeys(200000), "k", "gatepass_") + manySections(200000) + "\n[profile p]\ngatepass_key = k\ngatepass_0 = x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := Files{Config: filepath.Join(t.TempDir(), "config")}
			put(t, files.Config, tt.text)
			c, err := NewReader().Resolve(files, "p")
			if strings.Contains(tt.name, "DEFAULT") {
				if err == nil || !strings.Contains(err.Error(), `"gatepass_0": there is no such key`) {
					t.Errorf("%+v, %v", c, err)
				}
				return
			}
			if err != nil || c.Key != "k" {
				t.Errorf("%+v, %.500v", c, err)
			}
		})
	}
}

func manySections(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("[s" + itoa(i) + "]\n")
	}
	return b.String()
}

// The offsets cut a file into its parts, so that an editor can take one out
// and leave the others alone.
func TestPositions(t *testing.T) {
	text := "# top\r\n[profile a]\r\nx = one\r\n  two\r\n # between\r\n  three\r\n\r\n# about y\r\ny: 1\n\n[b] # b\n\tz =\n"
	s, err := parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, sec := range s.sections {
		got = append(got, sec.name+"|"+text[sec.start:sec.end])
		for _, e := range s.entries[sec.first:sec.last] {
			got = append(got, e.key+"|"+text[e.start:e.end]+"|"+text[e.value:e.end]+"|"+valueOf([]byte(text), &e))
		}
	}
	want := []string{
		"profile a|[profile a]\r\nx = one\r\n  two\r\n # between\r\n  three\r\n\r\n# about y\r\ny: 1\n\n",
		"x|x = one\r\n  two\r\n # between\r\n  three\r\n| one\r\n  two\r\n # between\r\n  three\r\n|one\ntwo\nthree",
		"y|y: 1\n| 1\n|1",
		"b|[b] # b\n\tz =\n",
		"z|\tz =\n|\n|",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func FuzzParse(f *testing.F) {
	files, err := os.ReadDir(corpus)
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(corpus, file.Name()))
		if err != nil {
			f.Fatal(err)
		}
		if len(data) < 4096 { // or minimizing takes for ever
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		s, err := parse(data)
		again, errAgain := parse(data)
		if !reflect.DeepEqual(s, again) || !reflect.DeepEqual(err, errAgain) {
			t.Fatal("two readings differ")
		}
		lines := 1 + bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r"))
		if err != nil {
			if err.Line < 1 || err.Line > lines || s != nil {
				t.Fatalf("%v, of %d lines", err, lines)
			}
		} else {
			checkPositions(t, data, s, lines)
		}
		for _, credentials := range []bool{false, true} {
			files := Files{Trusted: true}
			config, creds := data, []byte(nil)
			if credentials {
				config, creds = creds, config
			}
			set, serr := newProfileSet(files, config, creds, keep)
			if serr != nil {
				continue
			}
			if err != nil {
				t.Fatalf("%v does not parse, but means something", err)
			}
			r := newResolver(files, set)
			for _, name := range set.names {
				c, err := r.resolve(name)
				if (c == nil) == (err == nil) {
					t.Fatalf("resolve(%q) = %v, %v", name, c, err)
				}
				if c != nil && (checkName(c.Key) != "" || c.Profile != name) {
					t.Fatalf("resolve(%q) = %+v", name, c)
				}
				if err != nil && strings.ContainsAny(err.Error(), "\n\r\x1b\x00") {
					t.Fatalf("resolve(%q): %q", name, err)
				}
			}
		}
		if !bytes.Equal(data, before) {
			t.Fatal("the data was changed")
		}
	})
}

// checkPositions asks that sections and entries follow one another within
// data, and that each begins with what it is.
func checkPositions(t *testing.T, data []byte, s *syntax, lines int) {
	t.Helper()
	off, entries := 0, 0
	for i, sec := range s.sections {
		if sec.start < off || sec.end < sec.start || sec.end > len(data) || sec.line < 1 || sec.line > lines || sec.first != entries || sec.last < sec.first {
			t.Fatalf("section %d: %+v", i, sec)
		}
		if i > 0 && sec.start != s.sections[i-1].end {
			t.Fatalf("there is a gap before section %d", i)
		}
		if head := trim(data[sec.start:sec.end]); !bytes.HasPrefix(head, []byte("["+sec.name+"]")) {
			t.Fatalf("section %q begins %q", sec.name, head)
		}
		off = sec.start
		for j, e := range s.entries[sec.first:sec.last] {
			if e.start <= off || e.value <= e.start || e.end < e.value || e.end > sec.end || e.line <= sec.line || e.line > lines {
				t.Fatalf("entry %d of %+v: %+v", j, sec, e)
			}
			key, _, _ := bytes.Cut(bytes.Replace(data[e.start:e.value], []byte(":"), []byte("="), 1), []byte("="))
			if foldKey(trim(key)) != e.key {
				t.Fatalf("key %q stands where %q is", e.key, data[e.start:e.value])
			}
			off = e.end - 1
		}
		off, entries = sec.end, sec.last
	}
	if n := len(s.sections); n > 0 && s.sections[n-1].end != len(data) || entries != len(s.entries) {
		t.Fatal("there is something after the last section")
	}
}

func FuzzTags(f *testing.F) {
	for _, s := range []string{"k=v,k2=v2", "a=", "=", ",", "a=b=c", " a = b ", "aws:x=y", "ключ=знач", "a=\xff", strings.Repeat("\xa7", 130) + "="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tags, err := parseTags(s)
		if err != nil {
			return
		}
		var parts []string
		for _, tag := range tags {
			parts = append(parts, tag.Key+"="+tag.Value)
		}
		again, err := parseTags(strings.Join(parts, ","))
		if err != nil || !reflect.DeepEqual(tags, again) {
			t.Errorf("%q: %v, then %v, %v", s, tags, again, err)
		}
	})
}
