package ststest

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const totpStep = 30 // seconds

// TOTP returns the six digits that a virtual MFA device shows at that time
// (RFC 6238: HMAC-SHA-1, 30-second steps). It panics if seed is not base32;
// case, spaces and padding do not matter.
func TOTP(seed string, at time.Time) string {
	key, err := decodeSeed(seed)
	if err != nil {
		panic(err)
	}
	return hotp(key, at.Unix()/totpStep)
}

var errSeed = errors.New("an MFA seed is base32")

func decodeSeed(seed string) ([]byte, error) {
	seed = strings.TrimRight(strings.ToUpper(strings.ReplaceAll(seed, " ", "")), "=")
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(seed)
	if err != nil || len(key) == 0 {
		return nil, errSeed
	}
	return key, nil
}

// hotp is RFC 4226 with six digits.
func hotp(key []byte, counter int64) string {
	var msg [8]byte
	binary.BigEndian.PutUint64(msg[:], uint64(counter))
	h := hmac.New(sha1.New, key)
	h.Write(msg[:])
	sum := h.Sum(nil)
	off := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(sum[off:])&0x7fffffff)%1_000_000)
}

// A device is a virtual MFA device and the steps whose codes were used.
type device struct {
	owner *user
	seed  []byte
	used  []int64 // guarded by Sandbox.mu; at most the three steps that count now
}

// AWS's texts, their double and trailing spaces included.
const (
	msgMFAHalf = "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code. "
	msgMFACode = "MultiFactorAuthentication failed with invalid MFA one time pass code. "
	msgMFADev  = "MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA serial number is valid and associated with this user. "
)

// checkMFA uses up the code in a request, if there is one. It returns when the
// caller last proved MFA: now, or when the session began; zero means never.
func (s *Sandbox) checkMFA(c *request) (time.Time, *apiError) {
	serial, code := c.params["SerialNumber"], c.params["TokenCode"]
	if serial == "" && code == "" {
		if ses := c.caller.session; ses != nil && ses.MFA != 0 {
			return time.Unix(ses.MFA, 0), nil
		}
		return time.Time{}, nil
	}
	if serial == "" || code == "" {
		return time.Time{}, accessDenied(msgMFAHalf)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.codes[serial]
	if d == nil {
		return time.Time{}, accessDenied(msgMFADev).because("there is no such device")
	}
	if d.owner != c.caller.user {
		return time.Time{}, accessDenied(msgMFADev).because("the device is not the caller's")
	}
	if why := d.useLocked(code, c.now); why != "" {
		return time.Time{}, accessDenied(msgMFACode).because(why)
	}
	return c.now, nil
}

// useLocked accepts a code of the current step or of the ones beside it, once.
// It returns why it does not.
func (d *device) useLocked(code string, now time.Time) (why string) {
	step := now.Unix() / totpStep
	var recent []int64
	for _, u := range d.used {
		if u >= step-1 && u <= step+1 {
			recent = append(recent, u)
		}
	}
	d.used = recent
	why = "the code is wrong"
	for _, t := range []int64{step, step - 1, step + 1} {
		if !hmac.Equal([]byte(hotp(d.seed, t)), []byte(code)) {
			continue
		}
		why = "the code was used before"
		if !slices.Contains(recent, t) {
			d.used = append(recent, t)
			return ""
		}
	}
	return why
}

func accessDenied(message string) *apiError {
	return refuse(http.StatusForbidden, "AccessDenied", message)
}
