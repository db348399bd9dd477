package report

import (
	"bufio"
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"gatepass/broker/audit"
)

// A row is an entry in the table.
type row struct {
	Seq     int64
	Time    time.Time
	PID     int
	Event   string
	Outcome string
	Profile string
	Role    string
	Key     string
	Program string
	Session string
	Access  string // the session's access key id
	Lease   string
	Why     string
}

// rowOf is what the table has of an entry.
func rowOf(e *audit.Entry) row {
	r := row{Seq: e.Seq, Time: e.Time, Event: string(e.Kind), Outcome: e.Outcome, Profile: e.Profile, Role: e.RoleARN, Lease: e.Lease, Why: e.Reason}
	if _, name, ok := strings.Cut(e.RoleARN, ":role/"); ok {
		r.Role = name + " in " + e.Account
	}
	if e.Key != nil {
		r.Key = strings.TrimSpace(e.Key.Name + " " + e.Key.AccessKeyID)
	}
	if e.Caller != nil {
		asker := e.Caller.Asker()
		r.Program, r.PID = e.Caller.Program, asker.PID
	}
	if e.Session != nil {
		r.Session, r.Access = e.Session.ID, e.Session.AccessKeyID
	}
	if e.Error != nil {
		message := string(e.Error.Code) + ": " + e.Error.Message
		if r.Why != "" {
			message = r.Why + "; " + message
		}
		r.Why = message
	}
	return r
}

// texts are the row's strings, in the order in which they are embedded.
func (r *row) texts() [10]string {
	return [...]string{r.Event, r.Outcome, r.Profile, r.Role, r.Key, r.Program, r.Session, r.Access, r.Lease, r.Why}
}

// writeRows writes an element with the newest entries as JSON, the newest
// first, and returns the first of them. It is not by html/template, which
// would need all of it at once. The JSON is
//
//	{"rows": [seq, milliseconds, pid, text, …], "texts": ["", …]}
//
// where rows are one after the other, each as long as texts() and three, and a
// text is its place in texts: most of them come again and again.
func writeRows(ctx context.Context, w *bufio.Writer, opts Options) (newest []row, err error) {
	places, texts := map[string]int{"": 0}, []string{""}
	var b []byte
	w.WriteString(`<script type="application/json" id="data">{"rows":[`)
	q := audit.Query{To: opts.To, Since: opts.Since, Until: opts.Until, Last: opts.Rows, Reverse: true, Decode: true}
	n := 0
	err = entries(ctx, opts.LogDir, q, func(e *audit.Entry) error {
		r := rowOf(e)
		if len(newest) < staticRows {
			newest = append(newest, r)
		}
		b = b[:0]
		if n > 0 {
			b = append(b, ",\n"...)
		}
		n++
		b = strconv.AppendInt(b, r.Seq, 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, r.Time.UnixMilli(), 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, int64(r.PID), 10)
		for _, text := range r.texts() {
			place, known := places[text]
			if !known {
				place = len(texts)
				places[text] = place
				texts = append(texts, text)
			}
			b = append(b, ',')
			b = strconv.AppendInt(b, int64(place), 10)
		}
		_, err := w.Write(b)
		return err
	})
	if err != nil {
		return nil, err
	}
	w.WriteString("],\n\"texts\":[")
	for i, text := range texts {
		if i > 0 {
			w.WriteString(",\n")
		}
		quoted, err := json.Marshal(text) // which escapes <, >, &, U+2028 and U+2029
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(quoted); err != nil {
			return nil, err
		}
	}
	_, err = w.WriteString("]}</script>\n")
	return newest, err
}
