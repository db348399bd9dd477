package keystore

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/99designs/keyring"

	"gatepass/broker"
)

// aws-vault keeps its keys by way of the same library. This is where, as its
// cli/global.go says, unless its flags and variables say otherwise:
//
//	keychain        the keychain "aws-vault", service "aws-vault"
//	wincred         generic credentials "aws-vault:aws-vault:ITEM"
//	secret-service  the collection "awsvault", attribute profile=ITEM
//	kwallet         the wallet "aws-vault", folder "aws-vault"
//	pass            the whole password store, or what is below a prefix
//	file            ~/.awsvault/keys, a JWE a file, its name percent-encoded
//
// It can be told to use keyctl, and then keeps nothing: it names no scope, and
// keyring refuses that. An item is named like its profile and holds the SDK's
// credentials as JSON, now and in all former versions (vault/credentialkeyring.go):
//
//	{"AccessKeyID":"AKIA…","SecretAccessKey":"…","SessionToken":"","Source":"",…}
//
// Its sessions and tokens lie beside them under names of other forms.
// https://github.com/99designs/aws-vault and https://github.com/ByteNess/aws-vault

var _ broker.AWSVaultStore = (*Store)(nil)

// AWSVaultKeys returns the names of the keys in aws-vault's store, and reads
// none of them. [broker.CodeNotFound] says that there is no such store.
func (s *Store) AWSVaultKeys(ctx context.Context, at broker.AWSVault) ([]string, error) {
	req, err := awsVaultRequest(opList, at)
	if err != nil {
		return nil, err
	}
	a, err := s.run(ctx, req)
	return a.Names, err
}

// AWSVaultKey returns one key of aws-vault's store with its secret, for one
// use: the caller clears it.
func (s *Store) AWSVaultKey(ctx context.Context, at broker.AWSVault, name string) (broker.Key, error) {
	req, err := awsVaultRequest(opGet, at)
	if err != nil {
		return broker.Key{}, err
	}
	req.Name = name
	a, err := s.run(ctx, req)
	if err != nil {
		return broker.Key{}, err
	}
	defer clear(a.value)
	if a.Key.Name != name || len(a.value) == 0 {
		return broker.Key{}, errNonsense
	}
	return broker.Key{KeyInfo: a.Key, SecretAccessKey: broker.NewSecret(a.value)}, nil
}

// RemoveAWSVaultKey removes a key from aws-vault's store if it is there as it
// is given, which the helper looks at last before it does so.
func (s *Store) RemoveAWSVaultKey(ctx context.Context, at broker.AWSVault, key broker.Key) error {
	req, err := awsVaultRequest(opRemove, at)
	if err != nil {
		return err
	}
	req.Name, req.Key = key.Name, key.KeyInfo
	req.value = slices.Clone(key.SecretAccessKey.RevealBytes())
	_, err = s.run(ctx, req)
	return err
}

// awsVaultRequest refuses with CodeConfig what is not a store of aws-vault's
// that this platform has.
func awsVaultRequest(op string, at broker.AWSVault) (*request, error) {
	r := &request{Op: op, Kind: kindAWSVault, Backend: at.Backend, Collection: at.Collection, Keychain: at.Keychain}
	bad := func(format string, args ...any) (*request, error) {
		return nil, broker.Errorf(broker.CodeConfig, format, args...)
	}
	switch at.Backend {
	case "file":
		r.FileDir = at.Dir
		r.passphrase = slices.Clone(at.Passphrase.RevealBytes())
	case "pass":
		r.PassDir, r.PassPrefix = at.Dir, at.Prefix
	case "secret-service", "kwallet", "keychain", "wincred":
	default:
		return nil, broker.Errorf(broker.CodeConfig, "%.40q is not a store that gatepass reads", at.Backend).
			WithHint("move a key by hand: aws-vault exec --no-session NAME -- gatepass keys add NAME --env")
	}
	switch {
	case !slices.Contains(Backends(runtime.GOOS), at.Backend):
		return bad("there is no keychain %q on %s", at.Backend, runtime.GOOS)
	case (at.Backend == "file" || at.Backend == "pass") && !filepath.IsAbs(at.Dir):
		return bad("the directory of aws-vault's store (%s) is not an absolute path: %q", at.Backend, at.Dir)
	case at.Prefix != "" && !filepath.IsLocal(at.Prefix):
		return bad("the prefix of aws-vault's store (pass) leads out of it: %q", at.Prefix)
	case at.Backend == "secret-service" && at.Collection == "", at.Backend == "keychain" && at.Keychain == "":
		return bad("aws-vault's store (%s) has no name", at.Backend)
	}
	return r, nil
}

// openAWSVault opens aws-vault's store in the given backend.
func (h *helper) openAWSVault(backend string) (v vault, err error) {
	switch backend {
	case "file":
		v, err = h.openAWSVaultFile()
	case "pass":
		v, err = h.openAWSVaultPass()
	case "secret-service":
		v, err = h.openAWSVaultSecretService()
	case "kwallet":
		v, err = h.openAWSVaultKWallet()
	case "keychain":
		v, err = h.openKeychainOf(keyring.Config{ServiceName: "aws-vault", KeychainName: h.req.Keychain})
	case "wincred":
		v, err = h.openWinCredOf("aws-vault")
	default:
		err = missing(backend, "aws-vault has no store there")
	}
	if e := (*broker.Error)(nil); errors.As(err, &e) && e.Code == broker.CodeKeychainMissing {
		err = e.WithHint("log in to the desktop where aws-vault works; if it keeps its keys elsewhere, say where: AWS_VAULT_BACKEND")
	}
	return v, err
}

// noAWSVault says that aws-vault has no store there, which is no failure.
func noAWSVault(format string, args ...any) *broker.Error {
	return broker.Errorf(broker.CodeNotFound, format, args...)
}

// doAWSVault lists, reads or removes keys of aws-vault. What it is not shown
// by the listing it does not touch, whatever name it was given.
func (h *helper) doAWSVault(v vault, backend string) (answer, error) {
	r := h.req
	items, err := v.list()
	if err != nil {
		return answer{}, err
	}
	slices.Sort(items)
	items = slices.DeleteFunc(slices.Compact(items), func(item string) bool { return !isAWSVaultKey(item) })
	if r.Op == opList {
		return answer{Names: items}, nil
	}
	absent := broker.Errorf(broker.CodeNotFound, "aws-vault's store (%s) has no key %.80q", backend, r.Name)
	if !slices.Contains(items, r.Name) {
		return answer{}, absent
	}
	data, err := v.get(r.Name)
	if err == errAbsent {
		return answer{}, absent
	} else if err != nil {
		return answer{}, err
	}
	info, secret, err := decodeAWSVaultKey(r.Name, data)
	clear(data)
	if err != nil {
		return answer{}, err
	}
	switch r.Op {
	case opGet:
		return answer{Key: info, value: secret}, nil
	case opRemove:
		defer clear(secret)
		if info.AccessKeyID != r.Key.AccessKeyID || !broker.NewSecret(secret).Equal(broker.NewSecret(r.value)) {
			return answer{}, broker.Errorf(broker.CodeDenied, "aws-vault's store (%s) has another key %q than the one that is stored here", backend, r.Name)
		}
		if err := v.remove(r.Name); err != nil {
			return answer{}, err
		}
		if kept, err := v.get(r.Name); err != errAbsent {
			clear(kept)
			if err == nil {
				err = denied(backend, "it did not remove aws-vault's key "+r.Name)
			}
			return answer{}, err
		}
		return answer{}, nil
	}
	return answer{}, broker.Errorf(broker.CodeInternal, "keychain helper does not know the operation %.20q of aws-vault's keys", r.Op)
}

// The names of what is not a key (vault/sessionkeyring.go and
// vault/oidctokenkeyring.go): sessions, now and formerly, and tokens.
var (
	awsVaultSession     = regexp.MustCompile(`^[^,]+,([^,]+),([^,]*),[0-9]+$`)
	awsVaultOldSessions = []*regexp.Regexp{
		regexp.MustCompile(`^session,[^,]+,[^,]*,[0-9]{2,}$`),
		regexp.MustCompile(`^session:[^ ]+:[^ ]*:[^:]+$`),
		regexp.MustCompile(`^.+? session \(\d+\)$`),
	}
)

// isAWSVaultKey reports whether an item of aws-vault's is a key.
func isAWSVaultKey(item string) bool {
	if item == "" || strings.HasPrefix(item, "oidc:") {
		return false
	}
	if m := awsVaultSession.FindStringSubmatch(item); m != nil {
		_, profile := base64.RawURLEncoding.DecodeString(m[1])
		_, serial := base64.RawURLEncoding.DecodeString(m[2])
		if profile == nil && serial == nil {
			return false
		}
	}
	return !slices.ContainsFunc(awsVaultOldSessions, func(r *regexp.Regexp) bool { return r.MatchString(item) })
}

// decodeAWSVaultKey reads an item of aws-vault's. Its errors are CodeData and
// hold nothing of the item.
func decodeAWSVaultKey(name string, data []byte) (broker.KeyInfo, []byte, error) {
	fail := func(why string) (broker.KeyInfo, []byte, error) {
		return broker.KeyInfo{}, nil, broker.Errorf(broker.CodeData, "the item %.80q is not a key of aws-vault: %s", name, why)
	}
	var it struct {
		AccessKeyID, SecretAccessKey, SessionToken string
		CanExpire                                  bool
	}
	if json.Unmarshal(data, &it) != nil {
		return fail("it is not the JSON that aws-vault writes")
	}
	secret := []byte(it.SecretAccessKey)
	switch {
	case it.SessionToken != "" || it.CanExpire:
		return fail("it is a temporary session, which ends by itself")
	case !printable([]byte(it.AccessKeyID)) || !printable(secret):
		return fail("a field is empty or malformed")
	}
	return broker.KeyInfo{Name: name, AccessKeyID: it.AccessKeyID}, secret, nil
}

// An awsVaultFile is aws-vault's directory of files. Nothing in it is ours to
// write.
type awsVaultFile struct{ *fileVault }

func (h *helper) openAWSVaultFile() (vault, error) {
	dir, passphrase := h.req.FileDir, string(h.req.passphrase)
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, noAWSVault("%s is not there", dir)
	case err != nil:
		return nil, denied("file", err.Error())
	case !st.IsDir():
		return nil, broker.Errorf(broker.CodeConfig, "aws-vault's store %s is not a directory", dir)
	}
	ring, err := openRing("file", keyring.Config{
		FileDir:          dir,
		FilePasswordFunc: func(string) (string, error) { return passphrase, nil },
	})
	return awsVaultFile{&fileVault{ringVault: ring, h: h, dir: dir}}, err
}

// How keyring names the file of an item, and back.
var (
	fileOf = strings.NewReplacer("%", "%25", "/", "%2F").Replace
	itemOf = strings.NewReplacer("%25", "%", "%2F", "/").Replace
)

func (v awsVaultFile) list() ([]string, error) {
	files, err := os.ReadDir(v.dir)
	if err != nil {
		return nil, denied("file", err.Error())
	}
	var items []string
	for _, f := range files {
		// What a desktop or an editor left is no key, nor is a file of another
		// name than its item's, which aws-vault cannot read.
		if item := itemOf(f.Name()); f.Type().IsRegular() && f.Name()[0] != '.' && fileOf(item) == f.Name() {
			items = append(items, item)
		}
	}
	return items, nil
}

func (v awsVaultFile) get(item string) ([]byte, error) {
	if err := v.readable(fileOf(item)); err != nil {
		return nil, err
	}
	data, err := v.open(v.ringVault, item)
	// The hints are for our own store.
	if e := (*broker.Error)(nil); errors.As(err, &e) && e.Hint != "" {
		if e.Code == broker.CodeData {
			return nil, broker.Errorf(broker.CodeData, "the item %.80q is damaged", item)
		}
		return nil, e.WithHint("give the passphrase that aws-vault asks for, in AWS_VAULT_FILE_PASSPHRASE or when you are asked")
	}
	return data, err
}

func (v awsVaultFile) remove(item string) error { return v.fileVault.remove(fileOf(item)) }
