package sts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"gatepass/broker"
)

var _ broker.IAM = (*Client)(nil)

// AccessKeys lists a user's access keys, inactive ones included.
func (c *Client) AccessKeys(ctx context.Context, creds broker.Credentials, userARN string) ([]broker.AccessKey, error) {
	k, user, err := c.iamCall("ListAccessKeys", "list the access keys", creds, userARN)
	if err != nil {
		return nil, err
	}
	return list(k, func(marker *string) (p part[broker.AccessKey], err error) {
		out, x, err := doIAM(ctx, c, k, c.iam.ListAccessKeys, &awsiam.ListAccessKeysInput{UserName: user, Marker: marker})
		if err != nil {
			return p, err
		}
		for _, m := range out.AccessKeyMetadata {
			id := aws.ToString(m.AccessKeyId)
			if broker.CheckAccessKeyID(id) != nil || m.CreateDate == nil {
				return p, k.nonsense(x, errors.New("it lists what is no access key"))
			}
			p.of = append(p.of, broker.AccessKey{ID: id, Active: m.Status == types.StatusTypeActive, Created: m.CreateDate.UTC()})
		}
		p.more, p.next, p.x = out.IsTruncated, out.Marker, x
		return p, nil
	})
}

// CreateAccessKey makes an access key. It is sent at most once: after an error
// that is no refusal there may be a key whose secret nobody has.
func (c *Client) CreateAccessKey(ctx context.Context, creds broker.Credentials, userARN string) (broker.Credentials, error) {
	k, user, err := c.iamCall("CreateAccessKey", "create an access key", creds, userARN)
	if err != nil {
		return broker.Credentials{}, err
	}
	k.once = true
	out, x, err := doIAM(ctx, c, k, c.iam.CreateAccessKey, &awsiam.CreateAccessKeyInput{UserName: user})
	if err != nil {
		return broker.Credentials{}, err
	}
	if out.AccessKey == nil {
		return broker.Credentials{}, k.nonsense(x, errors.New("it holds no key"))
	}
	made := broker.NewKey{
		Name: "new", AccessKeyID: aws.ToString(out.AccessKey.AccessKeyId),
		SecretAccessKey: broker.NewSecret(aws.ToString(out.AccessKey.SecretAccessKey)),
	}
	if made.Check() != nil {
		return broker.Credentials{}, k.nonsense(x, errors.New("the key in it is malformed"))
	}
	return broker.Credentials{AccessKeyID: made.AccessKeyID, SecretAccessKey: made.SecretAccessKey, AccountID: creds.AccountID}, nil
}

// SetAccessKeyStatus makes a key active or inactive.
func (c *Client) SetAccessKeyStatus(ctx context.Context, creds broker.Credentials, userARN, accessKeyID string, active bool) error {
	doing, status := "deactivate the access key ", types.StatusTypeInactive
	if active {
		doing, status = "activate the access key ", types.StatusTypeActive
	}
	k, user, err := c.iamCall("UpdateAccessKey", doing+accessKeyID, creds, userARN)
	if err != nil {
		return err
	}
	_, _, err = doIAM(ctx, c, k, c.iam.UpdateAccessKey, &awsiam.UpdateAccessKeyInput{UserName: user, AccessKeyId: &accessKeyID, Status: status})
	return err
}

// DeleteAccessKey deletes a key, for good.
func (c *Client) DeleteAccessKey(ctx context.Context, creds broker.Credentials, userARN, accessKeyID string) error {
	k, user, err := c.iamCall("DeleteAccessKey", "delete the access key "+accessKeyID, creds, userARN)
	if err != nil {
		return err
	}
	_, _, err = doIAM(ctx, c, k, c.iam.DeleteAccessKey, &awsiam.DeleteAccessKeyInput{UserName: user, AccessKeyId: &accessKeyID})
	return err
}

// AccessKeyUsed tells when a key was last used, the zero time for never.
func (c *Client) AccessKeyUsed(ctx context.Context, creds broker.Credentials, userARN, accessKeyID string) (time.Time, error) {
	k, _, err := c.iamCall("GetAccessKeyLastUsed", "ask when the access key "+accessKeyID+" was used", creds, userARN)
	if err != nil {
		return time.Time{}, err
	}
	out, x, err := doIAM(ctx, c, k, c.iam.GetAccessKeyLastUsed, &awsiam.GetAccessKeyLastUsedInput{AccessKeyId: &accessKeyID})
	if err != nil {
		return time.Time{}, err
	}
	if out.AccessKeyLastUsed == nil {
		return time.Time{}, k.nonsense(x, errors.New("it does not say when"))
	}
	return aws.ToTime(out.AccessKeyLastUsed.LastUsedDate), nil
}

// Groups lists the names of the groups that a user is in.
func (c *Client) Groups(ctx context.Context, creds broker.Credentials, userARN, endpoint string) ([]string, error) {
	k, user, err := c.iamCall("ListGroupsForUser", "list the user's groups", creds, userARN)
	if err == nil {
		err = k.redirect(endpoint)
	}
	if err != nil {
		return nil, err
	}
	return list(k, func(marker *string) (p part[string], err error) {
		out, x, err := doIAM(ctx, c, k, c.iam.ListGroupsForUser, &awsiam.ListGroupsForUserInput{UserName: user, Marker: marker})
		if err != nil {
			return p, err
		}
		for _, g := range out.Groups {
			name := aws.ToString(g.GroupName)
			if !only(name, 1, 128, isNameByte) {
				return p, k.nonsense(x, errors.New("it lists what is no group"))
			}
			p.of = append(p.of, name)
		}
		p.more, p.next, p.x = out.IsTruncated, out.Marker, x
		return p, nil
	})
}

// MFADevices lists a user's MFA devices, security keys included.
func (c *Client) MFADevices(ctx context.Context, creds broker.Credentials, userARN, endpoint string) ([]broker.MFADevice, error) {
	k, user, err := c.iamCall("ListMFADevices", "list the user's MFA devices", creds, userARN)
	if err == nil {
		err = k.redirect(endpoint)
	}
	if err != nil {
		return nil, err
	}
	return list(k, func(marker *string) (p part[broker.MFADevice], err error) {
		out, x, err := doIAM(ctx, c, k, c.iam.ListMFADevices, &awsiam.ListMFADevicesInput{UserName: user, Marker: marker})
		if err != nil {
			return p, err
		}
		for _, d := range out.MFADevices {
			serial := aws.ToString(d.SerialNumber)
			if !isSerial(serial) || d.EnableDate == nil {
				return p, k.nonsense(x, errors.New("it lists what is no MFA device"))
			}
			p.of = append(p.of, broker.MFADevice{Serial: serial, Enabled: d.EnableDate.UTC()})
		}
		p.more, p.next, p.x = out.IsTruncated, out.Marker, x
		return p, nil
	})
}

// maxParts bounds a listing. IAM may give a part with less in it than there
// is room for, and users have at most ten of anything that is listed here.
const maxParts = 16

// A part is what one answer holds of a listing.
type part[V any] struct {
	of   []V
	more bool
	next *string // the marker of the part after it
	x    *exchange
}

// list asks for a whole listing: ask gets the marker of the part to ask for,
// nil for the first.
func list[V any](k *call, ask func(marker *string) (part[V], error)) ([]V, error) {
	var all []V
	var marker *string
	for n := 1; ; n++ {
		p, err := ask(marker)
		if err != nil {
			return nil, err
		}
		all = append(all, p.of...)
		switch {
		case !p.more:
			return all, nil
		case aws.ToString(p.next) == "" || marker != nil && *p.next == *marker:
			return nil, k.nonsense(p.x, errors.New("it is not all, and does not say where the rest is"))
		case n == maxParts:
			return nil, k.nonsense(p.x, errors.New("the listing does not come to an end"))
		}
		marker = p.next
	}
}

// redirect makes k go to the endpoint that a profile names, "" for none.
func (k *call) redirect(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	if err := checkEndpoint(endpoint); err != nil {
		return broker.Errorf(broker.CodeConfig, "%s: endpoint_url: %w", k.doing, err)
	}
	k.endpoint = endpoint
	return nil
}

// iamCall prepares a call about a user. IAM has one endpoint in a partition,
// and one region that its calls are signed for.
func (c *Client) iamCall(op, doing string, creds broker.Credentials, userARN string) (*call, *string, error) {
	k := &call{op: op, doing: doing, creds: creds, iam: true}
	fail := func(err error) (*call, *string, error) {
		return nil, nil, broker.AsError(fmt.Errorf("%s: %w", doing, err))
	}
	parts := strings.SplitN(userARN, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iam" || !strings.HasPrefix(parts[5], "user/") {
		return fail(broker.Errorf(broker.CodeConfig, "%.200q is not the ARN of an IAM user", userARN))
	}
	for _, row := range partitions {
		if row.name == parts[1] {
			k.place = place{region: row.region, endpoint: c.iamEndpoint}
		}
	}
	if k.region == "" {
		return fail(broker.Errorf(broker.CodeConfig, "partition %.32q is not one that gatepass knows", parts[1]))
	}
	name := parts[5][strings.LastIndexByte(parts[5], '/')+1:]
	if !only(name, 1, 64, isNameByte) {
		return fail(broker.Errorf(broker.CodeConfig, "%.200q does not name an IAM user", userARN))
	}
	if err := k.check(); err != nil {
		return fail(err)
	}
	return k, &name, nil
}

// doIAM is do for IAM.
func doIAM[In, Out any](ctx context.Context, c *Client, k *call,
	op func(context.Context, *In, ...func(*awsiam.Options)) (*Out, error), in *In,
) (*Out, *exchange, error) {
	options := func(o *awsiam.Options) {
		o.Region = k.region
		o.BaseEndpoint = optional(k.endpoint)
		o.Credentials = aws.CredentialsProviderFunc(k.reveal)
	}
	return attempt(ctx, c, k, func(ctx context.Context) (*Out, error) { return op(ctx, in, options) })
}
