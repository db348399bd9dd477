package endpoint

import (
	"fmt"
	"os"
	"testing"
)

// helpers are what a copy of the test binary does as another process, by the
// value of ENDPOINT_TEST_HELPER.
var helpers = map[string]func(){}

func TestMain(m *testing.M) {
	if name := os.Getenv("ENDPOINT_TEST_HELPER"); name != "" {
		helper, ok := helpers[name]
		if !ok {
			fmt.Fprintf(os.Stderr, "no helper %q\n", name)
			os.Exit(2)
		}
		helper()
		os.Exit(0)
	}
	os.Exit(m.Run())
}
