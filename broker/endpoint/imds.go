package endpoint

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gatepass/broker"
)

// The paths of IMDS that are served.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
const (
	pathToken    = "/latest/api/token"
	pathRoles    = "/latest/meta-data/iam/security-credentials/"
	pathInfo     = "/latest/meta-data/iam/info"
	pathRegion   = "/latest/meta-data/placement/region"
	pathIdentity = "/latest/dynamic/instance-identity/document"
)

// Headers of IMDS, as net/http spells them.
const (
	headerToken = "X-Aws-Ec2-Metadata-Token"
	headerTTL   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
)

// maxTTL is how many seconds a token may last.
const maxTTL = 21600

var (
	errNoToken  = broker.Errorf(broker.CodeDenied, "a token of this endpoint is needed, from PUT "+pathToken+": this is version 2 of the instance metadata service")
	errLifetime = broker.Errorf(broker.CodeUsage, "a token needs a lifetime of 1 to 21600 seconds in X-aws-ec2-metadata-token-ttl-seconds")
)

// imds answers as the instance metadata service does, in version 2.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
func (l *lease) imds(w http.ResponseWriter, r *http.Request, c *conn) {
	forToken := r.Method == "PUT" && r.RequestURI == pathToken
	if err := l.checkHead(r); err != nil {
		status := http.StatusForbidden
		if forToken { // after a 403, SDKs ask without a token
			status = http.StatusBadRequest
		}
		l.refuse(w, r, status, err)
		return
	}
	if forToken {
		l.imdsToken(w, r)
		return
	}
	if sent := r.Header[headerToken]; len(sent) != 1 || !l.checkIMDSToken(sent[0]) {
		l.refuse(w, r, http.StatusUnauthorized, errNoToken)
		return
	}
	l.route(w, r, c, l.imdsRoute(r.RequestURI))
}

func (l *lease) imdsRoute(path string) route {
	switch path {
	case pathToken:
		return route{method: "PUT"} // which imds has answered
	case pathRoles, strings.TrimSuffix(pathRoles, "/"):
		return route{"GET", (*lease).imdsRoles}
	case pathRoles + l.role:
		return route{"GET", (*lease).imdsCredentials}
	case pathInfo:
		return route{"GET", (*lease).imdsInfo}
	case pathIdentity:
		return route{"GET", (*lease).imdsIdentity}
	case pathRegion:
		if l.Region != "" {
			return route{"GET", (*lease).imdsRegion}
		}
	}
	return route{}
}

// imdsToken answers with a token. Every refusal is 400: after other statuses,
// SDKs ask without a token.
func (l *lease) imdsToken(w http.ResponseWriter, r *http.Request) {
	sent := r.Header[headerTTL]
	if len(sent) != 1 {
		l.refuse(w, r, http.StatusBadRequest, errLifetime)
		return
	}
	seconds, err := strconv.ParseUint(sent[0], 10, 64)
	if err != nil || seconds < 1 || seconds > maxTTL {
		l.refuse(w, r, http.StatusBadRequest, errLifetime)
		return
	}
	if r.ContentLength != 0 {
		l.refuse(w, r, http.StatusBadRequest, errBody)
		return
	}
	w.Header()[headerTTL] = []string{strconv.FormatUint(seconds, 10)}
	write(w, http.StatusOK, textType, l.newIMDSToken(time.Duration(seconds)*time.Second))
}

func (l *lease) imdsRoles(w http.ResponseWriter, _ *http.Request, _ *conn) {
	write(w, http.StatusOK, textType, []byte(l.role))
}

func (l *lease) imdsCredentials(w http.ResponseWriter, r *http.Request, c *conn) {
	now := l.server.cfg.Clock.Now()
	l.credentials(w, r, c, func(c broker.Credentials) []byte { return c.InstanceDocument(now) })
}

func (l *lease) imdsRegion(w http.ResponseWriter, _ *http.Request, _ *conn) {
	write(w, http.StatusOK, textType, []byte(l.Region))
}

func (l *lease) imdsInfo(w http.ResponseWriter, _ *http.Request, _ *conn) {
	l.imdsDocument(w, struct {
		Code, LastUpdated, InstanceProfileArn, InstanceProfileId string
	}{
		Code: "Success", LastUpdated: l.server.cfg.Clock.Now().UTC().Format(time.RFC3339),
		InstanceProfileArn: "arn:" + partition(l.Region) + ":iam::" + l.Account + ":instance-profile/" + l.role,
		InstanceProfileId:  l.Lease,
	})
}

func (l *lease) imdsIdentity(w http.ResponseWriter, _ *http.Request, _ *conn) {
	l.imdsDocument(w, struct {
		AccountID string `json:"accountId,omitempty"`
		Region    string `json:"region,omitempty"`
		Version   string `json:"version"`
	}{l.Account, l.Region, "2017-09-30"})
}

func (l *lease) imdsDocument(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil { // strings
		panic(err)
	}
	write(w, http.StatusOK, jsonType, append(b, '\n'))
}

// partition returns the part of AWS that a region is in.
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// roleName returns a name that stands in a path as it is: the characters that
// IAM allows in a role's, "-" for others.
func roleName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_+=,.@-", r) {
			return r
		}
		return '-'
	}, name)
	if strings.Trim(name, ".") == "" { // nothing, or a step of a path
		return "gatepass"
	}
	return name
}
