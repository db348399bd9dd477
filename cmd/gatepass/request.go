package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// request asks for a profile with what the caller's environment says of it:
// the files and region that an SDK would use here, and the reason.
func (c *client) request(profile, via string) (wire.CredentialsRequest, error) {
	r := wire.CredentialsRequest{Profile: profile, Via: via}
	if !utf8.ValidString(profile) {
		return r, broker.Errorf(broker.CodeUsage, "the profile's name %q is not valid UTF-8", profile)
	}
	for _, f := range []struct {
		name string
		path *string
	}{
		{"AWS_CONFIG_FILE", &r.ConfigFile},
		{"AWS_SHARED_CREDENTIALS_FILE", &r.CredentialsFile},
	} {
		path, err := c.awsPath(f.name)
		if err != nil {
			return r, err
		}
		*f.path = path
	}
	if r.Region = c.getenv("AWS_REGION"); r.Region == "" {
		r.Region = c.getenv("AWS_DEFAULT_REGION")
	}
	r.Reason = c.getenv("GATEPASS_REASON")
	return r, nil
}

// requestFlags are the flags of every command that asks for a session.
func requestFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "region"},
		&cli.StringFlag{Name: "reason"},
		&cli.StringFlag{Name: "duration"},
		&cli.StringFlag{Name: "min-left"},
		&cli.StringFlag{Name: "mfa-code"},
		&cli.StringFlag{Name: "prompt"},
	}
}

// applyFlags lets the flags of requestFlags win over the environment.
func applyFlags(ctx *cli.Context, r *wire.CredentialsRequest) (err error) {
	if region := ctx.String("region"); region != "" {
		r.Region = region
	}
	if reason := ctx.String("reason"); reason != "" {
		r.Reason = reason
	}
	r.MFACode = ctx.String("mfa-code")
	if mode := ctx.String("prompt"); mode != "" {
		if !slices.Contains(broker.PromptModes, mode) {
			return broker.Errorf(broker.CodeUsage, "--prompt %q is no way to ask", mode).
				WithHint("it is one of %s", strings.Join(broker.PromptModes, ", "))
		}
		r.Ask = &wire.Ask{Mode: mode}
	}
	if r.DurationSeconds, err = seconds("duration", ctx.String("duration")); err != nil {
		return err
	}
	r.MinLeftSeconds, err = seconds("min-left", ctx.String("min-left"))
	return err
}

// awsPath returns the file that a variable names, absolute, as the AWS CLI
// reads it: variables are expanded, then a leading "~"; an unset variable in
// it stays as it is written. It returns "" when the variable is not set.
// https://github.com/boto/botocore/blob/develop/botocore/configloader.py (raw_config_parse)
func (c *client) awsPath(name string) (string, error) {
	value := c.getenv(name)
	if value == "" {
		return "", nil
	}
	if !utf8.ValidString(value) {
		return "", broker.Errorf(broker.CodeConfig, "the path in %s is not valid UTF-8: %q", name, value)
	}
	path := expandVars(value, c.getenv)
	if path == "~" || strings.HasPrefix(path, "~/") || strings.HasPrefix(path, `~\`) && os.PathSeparator == '\\' {
		home, err := c.home()
		if err != nil {
			return "", err
		}
		path = home + path[1:]
	} else if strings.HasPrefix(path, "~") {
		return "", broker.Errorf(broker.CodeConfig, "%s=%q names another user's home", name, value).
			WithHint("write the path in full")
	}
	if filepath.IsAbs(path) {
		if c.leftBehind(path) {
			return "", nil
		}
		return filepath.Clean(path), nil
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", broker.Errorf(broker.CodeConfig, "%s=%q is relative, and the working directory cannot be read: %w", name, value, err)
	}
	return filepath.Join(wd, path), nil
}

// leftBehind reports whether a file was of the lease that this process has
// outlived: an editor's server, say, whose terminals still have the variables
// of the lease that it was started in. The files are gone with the lease.
func (c *client) leftBehind(path string) bool {
	room := filepath.Dir(path)
	if !c.inside() || filepath.Base(room) != c.getenv("GATEPASS_LEASE") {
		return false
	}
	_, err := os.Lstat(room)
	return errors.Is(err, fs.ErrNotExist)
}

// expandVars replaces $NAME and ${NAME} as Python's os.path.expandvars does:
// what is not set stays.
func expandVars(s string, getenv func(string) string) string {
	var b strings.Builder
	for {
		at := strings.IndexByte(s, '$')
		if at < 0 {
			break
		}
		b.WriteString(s[:at])
		s = s[at:]
		name, whole := "", 1
		if strings.HasPrefix(s, "${") {
			if end := strings.IndexByte(s, '}'); end > 0 {
				name, whole = s[2:end], end+1
			}
		} else {
			for whole < len(s) && isWord(s[whole]) {
				whole++
			}
			name = s[1:whole]
		}
		if value := getenv(name); name != "" && value != "" {
			b.WriteString(value)
		} else {
			b.WriteString(s[:whole])
		}
		s = s[whole:]
	}
	b.WriteString(s)
	return b.String()
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// home is the user's home directory.
func (c *client) home() (string, error) {
	name := "HOME"
	if os.PathSeparator == '\\' {
		name = "USERPROFILE"
	}
	if h := c.getenv(name); h != "" {
		return h, nil
	}
	return "", broker.Errorf(broker.CodeConfig, "%s is not set, so your files cannot be found", name)
}

// parseDuration reads a length of time as people give it: "3600" (seconds),
// "90m", "1h30m", "2d".
func parseDuration(s string) (time.Duration, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 0 || n > 1<<31-1 {
			return 0, false
		}
		return time.Duration(n) * time.Second, true
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return 0, false
		}
		return time.Duration(n) * 24 * time.Hour, true
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0
}

// seconds reads a flag's length of time in whole seconds.
func seconds(flag, value string) (int, error) {
	if value == "" {
		return 0, nil
	}
	d, ok := parseDuration(value)
	if !ok || d < time.Second {
		return 0, broker.Errorf(broker.CodeUsage, "--%s %q is not a length of time", flag, value).
			WithHint("write it as 3600, 90m or 1h")
	}
	return int(d / time.Second), nil
}
