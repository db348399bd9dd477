// Command gosdk asks STS who it is, with the SDK for Go and credentials from
// the credential_process that its argument is. It is a client in the tests.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func main() {
	client := sts.New(sts.Options{
		Region:       "eu-west-1",
		BaseEndpoint: aws.String(os.Getenv("SANDBOX")),
		Credentials:  aws.NewCredentialsCache(processcreds.NewProvider(os.Args[1])),
	})
	id, err := client.GetCallerIdentity(context.Background(), &sts.GetCallerIdentityInput{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*id.Arn)
}
