package main

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		"plain text":              "plain text",
		"Grüße, 世界":               "Grüße, 世界",
		"a\x1b[31mb":              `a\x1b[31mb`,
		"tab\tnl\ncr\rnul\x00":    `tab\x09nl\x0acr\x0dnul\x00`,
		"del\x7f":                 `del\x7f`,
		"c1\u009bm":               `c1\u009bm`,
		"bidi\u202e\u2066\u200f":  `bidi\u202e\u2066\u200f`,
		"line\u2028sep":           `line\u2028sep`,
		"bad\xff\xfeutf8":         `bad\xff\xfeutf8`,
		"tag\U000e0041":           `tag\U000e0041`,
		"real replacement \ufffd": "real replacement \ufffd",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[31m\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := printable(s)
		if !utf8.ValidString(got) || printable(got) != got {
			t.Errorf("printable(%q) = %q", s, got)
		}
		if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 }) {
			t.Errorf("printable(%q) = %q holds a control character", s, got)
		}
	})
}

func TestPalette(t *testing.T) {
	if got := palette(false).red("x"); got != "x" {
		t.Errorf("without colours: %q", got)
	}
	if got := palette(true).red("x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("with colours: %q", got)
	}
}
