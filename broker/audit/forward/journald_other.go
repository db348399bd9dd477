//go:build !linux

package forward

import "errors"

func newJournald() (sink, error) {
	return nil, errors.New("journald is on Linux alone")
}
