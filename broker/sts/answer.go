package sts

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"gatepass/broker"
)

const (
	maxToken = 16 << 10 // bytes of a session token; AWS's had up to 4 KiB, and promises no limit
	// maxLife is the longest session that STS gives, with room for clocks.
	maxLife = 36*time.Hour + 15*time.Minute
)

// session checks the credentials in an answer. Its errors say what is wrong
// and quote nothing.
func (c *Client) session(in *types.Credentials, x *exchange) (broker.STSSession, error) {
	if in == nil {
		return broker.STSSession{}, errors.New("it holds no credentials")
	}
	s := broker.STSSession{
		Credentials: broker.Credentials{
			AccessKeyID:     aws.ToString(in.AccessKeyId),
			SecretAccessKey: broker.NewSecret(aws.ToString(in.SecretAccessKey)),
			SessionToken:    broker.NewSecret(aws.ToString(in.SessionToken)),
		},
		RequestID: x.requestID,
	}
	if !only(s.RequestID, 1, 128, isGraphic) {
		s.RequestID = ""
	}
	switch {
	case !only(s.Credentials.AccessKeyID, 16, 128, isWord):
		return broker.STSSession{}, errors.New("its access key id is missing or malformed")
	case !isSecret(s.Credentials.SecretAccessKey.RevealBytes(), 512):
		return broker.STSSession{}, errors.New("its secret access key is missing or malformed")
	case !isSecret(s.Credentials.SessionToken.RevealBytes(), maxToken):
		return broker.STSSession{}, errors.New("its session token is missing or malformed")
	case in.Expiration == nil:
		return broker.STSSession{}, errors.New("it does not say when the session expires")
	}
	// How long the session lasts is by AWS's clock: its Expiration less its
	// Date. When this machine's clock differs, that life is counted from now
	// here, or a session would be served after its end or thrown away early.
	s.Credentials.Expires = in.Expiration.UTC()
	life := s.Credentials.Expires.Sub(x.received)
	if x.dated {
		life -= x.offset
		if x.offset.Abs() > time.Minute {
			s.Credentials.Expires = x.received.Add(life).UTC().Truncate(time.Second)
		}
	}
	switch {
	case life <= 0:
		return broker.STSSession{}, fmt.Errorf("its session has expired already, %v ago", (-life).Round(time.Second))
	case life > maxLife:
		return broker.STSSession{}, errors.New("its session would last longer than the 36 hours that STS allows")
	}
	return s, nil
}

// checkIdentity checks an answer of GetCallerIdentity.
func checkIdentity(id broker.Identity) error {
	if !isAccount(id.Account) {
		return errors.New("its account is not 12 digits")
	}
	parts := strings.SplitN(id.ARN, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || !isPartition(parts[1]) || parts[2] != "iam" && parts[2] != "sts" ||
		parts[4] != id.Account || !only(id.ARN, 20, 2048, isGraphic) {
		return fmt.Errorf("its ARN %.300q is malformed or of another account", id.ARN)
	}
	if !only(id.UserID, 1, 256, isGraphic) {
		return errors.New("its user id is missing or malformed")
	}
	return nil
}

// isSecret reports whether b has the form of a secret: at least 16 printable
// ASCII bytes, no space among them, at most max.
func isSecret(b []byte, max int) bool {
	if len(b) < 16 || len(b) > max {
		return false
	}
	for _, c := range b {
		if !isGraphic(c) {
			return false
		}
	}
	return true
}
