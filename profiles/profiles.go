// Package profiles reads the AWS config and credentials files and resolves a
// profile to its chain: the stored key that starts it and the roles that
// follow.
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
	Hops     []Hop         // in the order of the calls
	Region   string        // the profile's; "" for none
	Endpoint string        // STS endpoint of the profile; "" for AWS's own
	Duration time.Duration // of the GetSessionToken session, when there are no hops; 0 for the default
}

// A Hop is one AssumeRole. Zero fields are not sent.
type Hop struct {
	Profile        string // the profile that names the role
	RoleARN        string
	SessionName    string
	ExternalID     string
	MFASerial      string
	Duration       time.Duration
	SourceIdentity string
	Tags           []Tag
	TransitiveTags []string
}

// A Tag is a session tag.
type Tag struct{ Key, Value string }
