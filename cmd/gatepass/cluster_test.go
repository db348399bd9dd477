//go:build unix

package main

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// kubeconfig is a cluster at a URL, by its certificate, and a user whose token
// a command prints.
// https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
const kubeconfig = `apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster: {server: %q, certificate-authority-data: %s}
contexts:
- name: lab
  context: {cluster: lab, user: lab}
current-context: lab
users:
- name: lab
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: %q
      args: %s
      interactiveMode: IfAvailable
`

// startCluster starts what stands in for an EKS cluster's API server: it lets
// in whose token is one of "aws eks get-token" by a session that the sandbox
// has issued, and says whose that is.
func startCluster(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: cluster CMD...")
	}
	sandbox := ts.Getenv("SANDBOX")
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := tokenOf(sandbox, r.Header.Get("Authorization"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		io.WriteString(w, who)
	}))
	ts.Defer(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	words, err := json.Marshal(args[1:])
	ts.Check(err)
	path := ts.MkAbs("kubeconfig")
	ts.Check(os.WriteFile(path, fmt.Appendf(nil, kubeconfig, server.URL, base64.StdEncoding.EncodeToString(ca), args[0], words), 0o600))
	ts.Setenv("KUBECONFIG", path)
}

// tokenOf returns the role session that a bearer token is of: after its
// prefix it is the URL of a signed call of GetCallerIdentity.
func tokenOf(sandbox, authorization string) (string, error) {
	encoded, ok := strings.CutPrefix(authorization, "Bearer k8s-aws-v1.")
	if !ok {
		return "", fmt.Errorf("no token of EKS")
	}
	call, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(string(call))
	if err != nil || !strings.HasPrefix(string(call), sandbox+"/?") {
		return "", fmt.Errorf("a call of another service: %v", err)
	}
	id, _, _ := strings.Cut(u.Query().Get("X-Amz-Credential"), "/")
	resp, err := http.Get(sandbox + "/sandbox/calls")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var made struct {
		Calls []struct {
			Issued  string `json:"issued_access_key_id"`
			Role    string `json:"role_arn"`
			Session string `json:"session_name"`
		} `json:"calls"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil {
		return "", err
	}
	for _, c := range made.Calls {
		if c.Issued != "" && c.Issued == id {
			return strings.Replace(c.Role, ":role/", ":assumed-role/", 1) + "/" + c.Session, nil
		}
	}
	return "", fmt.Errorf("nobody has the key %s", id)
}
