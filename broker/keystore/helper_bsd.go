//go:build unix && !linux && !darwin

package keystore

// parentProgram returns "": there is no way to tell that is the same on all
// of these systems.
func parentProgram(int) (string, error) { return "", nil }
