// Package profiles reads the AWS config and credentials files and resolves a
// profile to its chain: the stored key that starts it and the roles that
// follow.
//
// # Files
//
// The files mean what they mean to the AWS CLI: what Python's
// configparser.RawConfigParser and botocore's configloader make of them. A
// profile is "[default]", "[profile NAME]" with NAME quoted as for a shell, or
// any section of the credentials file, whose keys win over the config file's
// of the same name. A duplicate section or key, a line that is neither key nor
// section, or a nested block without "=" spoils the whole file. Comments stand
// on lines of their own. "[DEFAULT]" gives its keys to every section.
//
// It is stricter, or more open, than botocore where that would guess:
//
//   - a file that exists and cannot be read is an error, not an empty file, and
//     so are directories, devices (but for /dev/null), relative paths, files
//     over 16 MiB and files with a NUL;
//   - files are UTF-8 on every platform, not in the locale's encoding;
//   - keys that only differ in Σ, σ and ς are not seen as duplicates where
//     Python's final-sigma rule would see them, or the other way round;
//   - a value that AWS would refuse (durations, names, ARNs) is an error here.
//
// # Chains
//
// A role is written with the standard keys (role_arn, source_profile,
// mfa_serial, mfa_process, external_id, role_session_name, duration_seconds) or
// with their twins (gatepass_role_arn, …, gatepass_duration, which may be
// "3600" or "1h"); where both are there they must agree. Without a standard
// form: gatepass_source_identity; gatepass_session_tags, "k=v,k2=v2", where
// the first "=" ends the key and blanks around keys and values are dropped;
// gatepass_transitive_tags, "k,k2"; and gatepass_serve.
//
// The hops are the roles met by following source_profile, the last one first.
// A profile that is reached so and has plaintext keys starts the chain there,
// its own role left out, as in botocore. The key is the first gatepass_key on
// that way, seen from the profile asked for; without one, it is the key named
// like the profile where the way ends. A gatepass_key does not shorten the
// chain: the roles of source_profile are still assumed.
//
// include_profile works as in aws-vault: the keys that make a role or a chain,
// and region, are looked for in the profile that it names where a profile does
// not set them, and so on from there. SDKs do not follow it, so a profile that
// needs it works in them once it is adopted.
//
// Chains that begin elsewhere (credential_source, SSO, web identities, other
// programs) are refused unless a gatepass_key says which key to use instead.
package profiles

import "time"

// Files names the files to read, as absolute paths. The zero value of a path
// means that there is no such file.
type Files struct {
	Config      string
	Credentials string
	// Trusted lets keys that redirect (endpoint_url) or run programs count.
	Trusted bool
}

// A Chain is what a profile means: a stored key, then one AssumeRole per hop.
// Without hops it means a GetSessionToken session of the key.
type Chain struct {
	Profile  string        // its name as asked for
	Key      string        // name of the stored key that starts the chain
	Way      []string      // the profiles from the one asked for to where the chain begins; shared, not to be changed
	KeyFrom  KeyFrom       // why it is that key
	Hops     []Hop         // in the order of the calls
	Region   string        // the profile's; "" for none
	Endpoint string        // STS endpoint of the profile; "" for AWS's own
	Duration time.Duration // of the GetSessionToken session, when there are no hops; 0 for the default

	// STSRegion is where to call STS: Region, else that of [default]; "" for
	// the partition's default.
	STSRegion string
	// IAMEndpoint is the profile's endpoint of IAM, not checked to be one; ""
	// for AWS's own.
	IAMEndpoint string
	// MFASerial and MFAProcess belong to the key itself: they come from a
	// profile without a role, the one asked for or one it leads to.
	MFASerial  string
	MFAProcess string // a command line; "" unless the files are trusted
	Serve      string // gatepass_serve: "container", "env" or "imds"; "" for the configuration's
	Adopted    bool   // the profile's credential_process is gatepass
	// Notes say what stands in the files and does not count, one a line, in
	// the form of a [ConfigError].
	Notes []string
}

// KeyFrom says why a chain starts with its key, for whoever must explain that
// the key is not stored.
type KeyFrom struct {
	Profile  string // the profile that decided
	Explicit bool   // by its gatepass_key; else the key is named like the profile
	File     string
	Line     int // of gatepass_key, else of the profile's section
}

// SourceIdentity returns the source identity that the chain's session has, ""
// for none: one that was set stays in the roles that are assumed with it.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_control-access_monitor.html
func (c *Chain) SourceIdentity() string {
	for i := range c.Hops {
		if s := c.Hops[i].SourceIdentity; s != "" {
			return s
		}
	}
	return ""
}

// A Hop is one AssumeRole. Zero fields are not sent.
type Hop struct {
	Profile        string // the profile that names the role
	RoleARN        string
	SessionName    string
	ExternalID     string
	MFASerial      string
	MFAProcess     string // a command line; "" unless the files are trusted
	Duration       time.Duration
	SourceIdentity string
	Tags           []Tag
	TransitiveTags []string
}

// A Tag is a session tag.
type Tag struct{ Key, Value string }
