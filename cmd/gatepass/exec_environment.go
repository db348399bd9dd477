package main

import (
	"runtime"
	"slices"
	"strings"
	"time"

	"gatepass/broker"
	"gatepass/broker/wire"
)

// leaseEnvironment returns the environment of a lease's command: environ, in
// its order, without what is a credential or leads an SDK to another one, then
// what leads to the lease's. It depends on nothing else.
func leaseEnvironment(environ []string, l wire.StartLeaseResponse) ([]string, error) {
	had := map[string]string{}
	var env []string
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		if runtime.GOOS == "windows" {
			name = strings.ToUpper(name)
		}
		if _, twice := had[name]; !twice { // getenv(3) returns the first
			had[name] = value
		}
		if !staysOutside(name, value) {
			env = append(env, v)
		}
	}
	inside := []string{
		"GATEPASS_LEASE=" + l.Lease,
		"GATEPASS_PROFILE=" + l.Profile,
		"AWS_CONFIG_FILE=" + l.ConfigFile,
		"AWS_SHARED_CREDENTIALS_FILE=" + l.CredentialsFile,
	}
	if !l.Renewable {
		inside = append(inside, "GATEPASS_EXPIRES="+l.Expires.UTC().Format(time.RFC3339))
	}
	if had["AWS_SDK_UA_APP_ID"] == "" || ownAppID(had["AWS_SDK_UA_APP_ID"]) {
		inside = append(inside, "AWS_SDK_UA_APP_ID="+appID+l.Lease)
	}
	region := l.Region
	switch l.Serve {
	case "container":
		inside = append(inside,
			"AWS_CONTAINER_CREDENTIALS_FULL_URI="+l.Endpoint,
			"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE="+l.TokenFile)
	case "imds":
		inside = append(inside,
			"AWS_EC2_METADATA_SERVICE_ENDPOINT="+l.Endpoint,
			"AWS_EC2_METADATA_V1_DISABLED=true")
	case "env":
		s, err := parseDocument(l.Credentials)
		if err != nil {
			return nil, err
		}
		s.region, region = region, ""
		values, err := s.values()
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			inside = append(inside, v[0]+"="+v[1])
		}
	default:
		return nil, broker.Errorf(broker.CodeInternal, "gatepassd serves the lease by %q, which this program does not know", l.Serve).
			WithHint("gatepass daemon restart, with gatepass and gatepassd of the same version")
	}
	if region != "" {
		inside = append(inside, "AWS_REGION="+region, "AWS_DEFAULT_REGION="+region)
	}
	if l.Serve != "imds" {
		// On a machine of AWS's, its own role is not the lease's.
		inside = append(inside, "AWS_EC2_METADATA_DISABLED=true")
	}
	if l.Endpoint != "" {
		env = slices.DeleteFunc(env, func(v string) bool {
			name, _, _ := strings.Cut(v, "=")
			return name == "NO_PROXY" || name == "no_proxy" || runtime.GOOS == "windows" && strings.EqualFold(name, "NO_PROXY")
		})
		inside = append(inside, noProxy(had)...)
	}
	return append(env, inside...), nil
}

// appID begins the application's id that SDKs put into User-Agent, and so into
// CloudTrail. They take 50 characters, too few for ours beside another one:
// who has set an id counts on it, and it stays.
const appID = "gatepass-"

func ownAppID(id string) bool { return strings.HasPrefix(id, appID+"l-") }

// noProxy returns both spellings of the variable that lists what is reached
// without a proxy, this machine added. Where there was one of them, programs
// that prefer the other one must not lose it.
func noProxy(had map[string]string) []string {
	if runtime.GOOS == "windows" {
		return []string{"NO_PROXY=" + withLoopback(had["NO_PROXY"])}
	}
	var both []string
	for _, name := range [][2]string{{"NO_PROXY", "no_proxy"}, {"no_proxy", "NO_PROXY"}} {
		list, ok := had[name[0]]
		if !ok {
			list = had[name[1]]
		}
		both = append(both, name[0]+"="+withLoopback(list))
	}
	return both
}

// withLoopback adds this machine to a list of hosts.
func withLoopback(list string) string {
	var hosts []string
	for host := range strings.SplitSeq(list, ",") {
		if host = strings.TrimSpace(host); host != "" {
			hosts = append(hosts, host)
		}
	}
	for _, host := range []string{"127.0.0.1", "localhost", "::1"} {
		if !slices.Contains(hosts, host) && !slices.Contains(hosts, "*") {
			hosts = append(hosts, host)
		}
	}
	return strings.Join(hosts, ",")
}

// staysOutside reports whether a variable is kept from a lease: credentials,
// what names a profile, a role or a place that gives some, and what another
// lease was told.
func staysOutside(name, value string) bool {
	switch name {
	case "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
		"AWS_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SECURITY_TOKEN", // their old names
		"AMAZON_ACCESS_KEY_ID", "AMAZON_SECRET_ACCESS_KEY", "AMAZON_SESSION_TOKEN",
		"EC2_ACCESS_KEY", "EC2_SECRET_KEY", "EC2_SECURITY_TOKEN",
		"AWS_CREDENTIAL_EXPIRATION", "AWS_SESSION_EXPIRATION", "AWS_ACCOUNT_ID", "AWS_CREDENTIAL_SCOPE",
		"AWS_PROFILE", "AWS_DEFAULT_PROFILE",
		"AWS_REGION", "AWS_DEFAULT_REGION",
		"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
		"AWS_CREDENTIAL_FILE", "AWS_CREDENTIAL_PROFILES_FILE", "BOTO_CONFIG", "BOTO_PATH",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
		"AWS_IMDS_USE_IPV6",
		// What direnv and mise have changed: with the values before, and theirs
		// (compressed). Without it they look at their files anew inside.
		"DIRENV_DIFF", "DIRENV_DIR", "DIRENV_FILE", "DIRENV_WATCHES", "__MISE_DIFF", "__MISE_SESSION",
		"GATEPASS_FILE_PASSPHRASE", "GATEPASS_LEASE", "GATEPASS_PROFILE", "GATEPASS_EXPIRES":
		return true
	case "AWS_SDK_UA_APP_ID":
		return value == "" || ownAppID(value) // of the lease around this one
	}
	for _, prefix := range [...]string{
		"AWS_CONTAINER_", "AWS_EC2_METADATA_", "AWS_METADATA_SERVICE_", "AWS_BEARER_TOKEN_", "AWS_LOGIN_",
		"AWS_SSO_", "AWS_VAULT", "AWSUME_", "GRANTED_", "SAML2AWS_", // other tools' passphrases, and what they think is served
	} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
