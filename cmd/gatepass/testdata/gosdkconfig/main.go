// Command gosdkconfig asks STS who it is, with the SDK for Go and whatever that
// makes of AWS_PROFILE and the AWS config. It is a client in the tests, and a
// module of its own: gatepass itself needs nothing of what the SDK reads
// configuration with.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func main() {
	cfg, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	id, err := sts.NewFromConfig(cfg).GetCallerIdentity(context.Background(), &sts.GetCallerIdentityInput{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*id.Arn)
}
