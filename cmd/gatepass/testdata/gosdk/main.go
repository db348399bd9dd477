// Command gosdk is a client in the tests, with the SDK for Go. It asks STS who
// it is, with credentials from the credential_process that its argument is,
// else from wherever the SDK finds them. "gosdk key [PROFILE]" prints which
// access key the SDK finds, and asks nobody.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func main() {
	log.SetFlags(0)
	ctx := context.Background()
	if len(os.Args) > 1 && os.Args[1] == "key" {
		creds, err := found(ctx, os.Args[2:]...).Retrieve(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(creds.AccessKeyID, creds.Source)
		return
	}
	options := sts.Options{Region: "eu-west-1", BaseEndpoint: aws.String(os.Getenv("SANDBOX"))}
	if len(os.Args) > 1 {
		options.Credentials = aws.NewCredentialsCache(processcreds.NewProvider(os.Args[1]))
	} else {
		options.Credentials = found(ctx)
	}
	id, err := sts.New(options).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*id.Arn)
}

// found is what the SDK finds by itself.
func found(ctx context.Context, profile ...string) aws.CredentialsProvider {
	var options []func(*config.LoadOptions) error
	if len(profile) > 0 {
		options = append(options, config.WithSharedConfigProfile(profile[0]))
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		log.Fatal(err)
	}
	return c.Credentials
}
