package endpoint

import (
	"crypto/subtle"
	"net/http"

	"gatepass/broker"
)

// container answers as a container's credentials endpoint does.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
func (l *lease) container(w http.ResponseWriter, r *http.Request, c *conn) {
	sent := r.Header["Authorization"]
	if len(sent) == 0 {
		l.refuse(w, r, http.StatusUnauthorized, errNoHeader)
		return
	}
	if len(sent) != 1 || subtle.ConstantTimeCompare([]byte(sent[0]), l.token) != 1 {
		l.refuse(w, r, http.StatusUnauthorized, errToken)
		return
	}
	if err := l.checkHead(r); err != nil {
		l.refuse(w, r, http.StatusForbidden, err)
		return
	}
	var to route
	if r.RequestURI == "/" {
		to = route{"GET", (*lease).containerCredentials}
	}
	l.route(w, r, c, to)
}

// Version 2.9 of the AWS CLI and the SDKs for Go of the same age send nothing.
var errNoHeader = broker.Errorf(broker.CodeDenied, "no Authorization header came: SDKs from before 2024 do not know AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").
	WithHint("update this one, or start the lease with gatepass exec --imds")

var errToken = broker.Errorf(broker.CodeDenied, "the Authorization header is not the token in the file that AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names")

func (l *lease) containerCredentials(w http.ResponseWriter, r *http.Request, c *conn) {
	l.credentials(w, r, c, broker.Credentials.ContainerDocument)
}
