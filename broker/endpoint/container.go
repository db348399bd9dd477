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
	if len(sent) != 1 || subtle.ConstantTimeCompare([]byte(sent[0]), l.token) != 1 {
		l.refuse(w, http.StatusUnauthorized, errToken)
		return
	}
	if err := l.checkHead(r); err != nil {
		l.refuse(w, http.StatusForbidden, err)
		return
	}
	var a answer
	if r.RequestURI == "/" {
		a = answer{"GET", (*lease).containerCredentials}
	}
	l.answer(w, r, c, a)
}

var errToken = broker.Errorf(broker.CodeDenied, "the Authorization header is not the token in the file that AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names")

func (l *lease) containerCredentials(w http.ResponseWriter, r *http.Request, c *conn) {
	l.credentials(w, r, c, broker.Credentials.ContainerDocument)
}
