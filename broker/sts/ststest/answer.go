package ststest

import (
	"encoding/xml"
	"io"
	"net/http"
	"strconv"
)

// An apiError is a refusal in AWS's words.
type apiError struct {
	status        int
	code, message string
	why           string // the truth, for the sandbox's own log
}

func refuse(status int, code, message string) *apiError {
	return &apiError{status: status, code: code, message: message}
}

func (e *apiError) because(why string) *apiError {
	e.why = why
	return e
}

// An answer is an HTTP response, ready to be sent.
type answer struct {
	status      int
	contentType string
	body        []byte
	code, why   string // for the record

	drop     bool // close the connection instead
	truncate bool // close it halfway through the body
}

// okEnvelope and errorEnvelope are the two shapes of an answer in the query
// protocol.
type okEnvelope struct {
	XMLName   xml.Name
	Namespace string `xml:"xmlns,attr"`
	Result    any
	RequestID string `xml:"ResponseMetadata>RequestId"`
}

type errorEnvelope struct {
	XMLName   xml.Name `xml:"ErrorResponse"`
	Namespace string   `xml:"xmlns,attr,omitempty"`
	Error     struct {
		Type    string
		Code    string
		Message string
	}
	RequestID string `xml:"RequestId"`
}

func newAnswer(svc *service, c *Call, result any, err *apiError) answer {
	namespace := stsNamespace // also for refusals that come before the API is known
	if svc != nil {
		namespace = svc.namespace
	}
	if err == nil {
		return xmlAnswer(http.StatusOK, okEnvelope{
			XMLName: xml.Name{Local: c.Action + "Response"}, Namespace: namespace,
			Result: result, RequestID: c.RequestID,
		})
	}
	e := errorEnvelope{Namespace: namespace, RequestID: c.RequestID}
	e.Error.Type, e.Error.Code, e.Error.Message = "Sender", err.code, err.message
	if err.status >= 500 {
		e.Error.Type = "Receiver"
	}
	a := xmlAnswer(err.status, e)
	a.code, a.why = err.code, err.why
	return a
}

func xmlAnswer(status int, v any) answer {
	body, err := xml.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // our own types
	}
	return answer{status: status, contentType: "text/xml", body: append(body, '\n')}
}

// write sends the answer. Like net/http's own handlers it panics with
// [http.ErrAbortHandler] to break the connection.
func (a answer) write(w http.ResponseWriter, c *Call) {
	if a.drop {
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	h.Set("X-Amzn-Requestid", c.RequestID)
	h.Set("Content-Type", a.contentType)
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	h.Set("Date", c.Time.UTC().Format(http.TimeFormat)) // SDKs correct their clocks by it
	w.WriteHeader(a.status)
	if a.truncate {
		w.Write(a.body[:len(a.body)/2])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	w.Write(a.body)
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, text)
}
