package sts

import (
	"strings"

	"gatepass/broker"
)

// A RoleARN is the parsed name of a role:
//
//	arn:PARTITION:iam::ACCOUNT:role/PATH/NAME
//
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
type RoleARN struct {
	Partition string // "aws", "aws-cn", …
	Account   string // 12 digits
	Path      string // "/", or with a slash at both ends
	Name      string
}

// ParseRoleARN parses s strictly: ASCII only, nothing trimmed or unescaped.
// An s that names no role is an error with [broker.CodeConfig].
func ParseRoleARN(s string) (RoleARN, error) {
	malformed := func(why string) (RoleARN, error) {
		return RoleARN{}, broker.Errorf(broker.CodeConfig, "%.200q is not a role's ARN: %s", s, why).
			WithHint("a role's ARN looks like arn:aws:iam::111122223333:role/NAME")
	}
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" {
		return malformed("it is not arn:PARTITION:iam::ACCOUNT:role/NAME")
	}
	if !isPartition(parts[1]) {
		return malformed("its partition is not aws or aws-…")
	}
	if parts[2] != "iam" || parts[3] != "" {
		return malformed("it is not a global name of iam")
	}
	if !isAccount(parts[4]) {
		return malformed("its account is not 12 digits")
	}
	rest, ok := strings.CutPrefix(parts[5], "role")
	if !ok || !strings.HasPrefix(rest, "/") {
		return malformed("it does not name a role")
	}
	slash := strings.LastIndexByte(rest, '/')
	path, name := rest[:slash+1], rest[slash+1:]
	if !only(path, 1, 512, isGraphic) {
		return malformed("its path is longer than 512 characters or not printable ASCII")
	}
	if !only(name, 1, 64, isNameByte) {
		return malformed("its role name is not 1 to 64 of A-Z a-z 0-9 _+=,.@-")
	}
	return RoleARN{Partition: parts[1], Account: parts[4], Path: path, Name: name}, nil
}

// String returns the ARN that was parsed.
func (r RoleARN) String() string {
	return "arn:" + r.Partition + ":iam::" + r.Account + ":role" + r.Path + r.Name
}

// assumed reports whether arn is what STS calls session of the role r: its
// path is left out, and IAM tells role names apart without regard to case.
func (r RoleARN) assumed(arn, session string) bool {
	rest, ok := strings.CutPrefix(arn, "arn:"+r.Partition+":sts::"+r.Account+":assumed-role/")
	if !ok {
		return false
	}
	name, s, ok := strings.Cut(rest, "/")
	return ok && strings.EqualFold(name, r.Name) && s == session
}

func isPartition(s string) bool {
	return s == "aws" || strings.HasPrefix(s, "aws-") && only(s, 5, 32, func(c byte) bool {
		return c >= 'a' && c <= 'z' || c == '-'
	})
}

func isAccount(s string) bool { return only(s, 12, 12, isDigit) }

// only reports whether s has min to max bytes, all of them in set.
func only(s string, min, max int, set func(byte) bool) bool {
	if len(s) < min || len(s) > max {
		return false
	}
	for i := range len(s) {
		if !set(s[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isWord(c byte) bool {
	return isDigit(c) || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '_'
}
func isGraphic(c byte) bool { return c > ' ' && c < 0x7f }

// isNameByte is the set [\w+=,.@-] of IAM's and STS's names.
func isNameByte(c byte) bool { return isWord(c) || strings.IndexByte("+=,.@-", c) >= 0 }

// isSerial reports whether s can name an MFA device: by its ARN, or by the
// number of a piece of hardware.
func isSerial(s string) bool {
	return only(s, 9, 256, func(c byte) bool { return isNameByte(c) || c == '/' || c == ':' })
}
