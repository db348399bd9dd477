package door

import (
	"context"
	"errors"
)

// watch cannot: kqueue watches open files, and a socket's cannot be opened.
func watch(ctx context.Context, path string) (func() bool, error) { return nil, errors.ErrUnsupported }
