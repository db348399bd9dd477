package broker

import "strings"

// CheckKeyName refuses what cannot be the name of a stored key.
func CheckKeyName(name string) error {
	ok := name != "" && len(name) <= 64 && isWord(name[0])
	for i := range len(name) {
		ok = ok && (isWord(name[i]) || strings.IndexByte(".@+=,-", name[i]) >= 0)
	}
	if !ok {
		return Errorf(CodeUsage, "%q cannot be the name of a key", name).
			WithHint("use up to 64 letters, digits and _.@+=,- and begin with a letter, a digit or _")
	}
	return nil
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// CheckAccessKeyID refuses what is not the id of a long-term access key: AKIA
// and capital letters and digits, 16 to 128 in all. Its error quotes nothing,
// for the secret may have been pasted into the wrong field.
// https://docs.aws.amazon.com/IAM/latest/APIReference/API_AccessKey.html
func CheckAccessKeyID(id string) error {
	if strings.HasPrefix(id, "ASIA") {
		return Errorf(CodeUsage, "that is a temporary access key id; gatepass keeps long-term keys and makes the temporary ones itself").
			WithHint("give the access key of an IAM user: its id begins with AKIA")
	}
	ok := strings.HasPrefix(id, "AKIA") && len(id) >= 16 && len(id) <= 128
	for i := range len(id) {
		ok = ok && ('0' <= id[i] && id[i] <= '9' || 'A' <= id[i] && id[i] <= 'Z')
	}
	if !ok {
		return Errorf(CodeUsage, "that is not an access key id").
			WithHint("the id of an IAM user's access key begins with AKIA and has 20 capital letters and digits")
	}
	return nil
}

// Check refuses what cannot be a long-term key before anything is done with
// it. Its errors never quote the secret.
func (k NewKey) Check() error {
	if err := CheckKeyName(k.Name); err != nil {
		return err
	}
	if err := CheckAccessKeyID(k.AccessKeyID); err != nil {
		return err
	}
	secret := k.SecretAccessKey.RevealBytes()
	if len(secret) < 16 || len(secret) > 256 {
		return Errorf(CodeUsage, "that is not a secret access key: it has %d characters, and AWS's have 40", len(secret))
	}
	for _, c := range secret {
		if c <= ' ' || c >= 0x7f {
			return Errorf(CodeUsage, "that is not a secret access key: it has characters that AWS's never have")
		}
	}
	return nil
}
