package main

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"gatepass/broker"
	"gatepass/broker/audit"
)

// csvHeader names the cells of csvRow.
var csvHeader = strings.Fields(`seq time event outcome profile account role_arn
	key_name key_access_key_id key_user_arn
	session_id session_access_key_id session_name session_source_identity session_expires session_sts_request_id lease
	caller_uid caller_user caller_pid caller_program caller_exe caller_command caller_cwd caller_tty caller_via caller_resolved caller_ancestors
	groups reason decision error_code error_message cut`)

func csvRow(e audit.Entry) []string {
	key := *cmp.Or(e.Key, &broker.EventKey{})
	session := *cmp.Or(e.Session, &broker.EventSession{})
	failure := *cmp.Or(e.Error, &broker.EventError{})
	caller := make([]string, 11)
	if c := e.Caller; c != nil {
		var above []string
		for _, p := range c.Ancestors {
			above = append(above, fmt.Sprintf("%s[%d]", p.Exe, p.PID))
		}
		caller = []string{strconv.Itoa(c.UID), c.User, strconv.Itoa(c.PID), c.Program, c.Exe, c.Command, c.Cwd, c.TTY, c.Via,
			strconv.FormatBool(c.Resolved), strings.Join(above, " ")}
	}
	row := []string{strconv.FormatInt(e.Seq, 10), csvTime(e.Time), string(e.Kind), e.Outcome, e.Profile, e.Account, e.RoleARN,
		key.Name, key.AccessKeyID, key.UserARN,
		session.ID, session.AccessKeyID, session.Name, session.SourceIdentity, csvTime(session.Expires), session.STSRequestID, e.Lease}
	row = append(row, caller...)
	return append(row, strings.Join(e.Groups, " "), e.Reason, e.Decision, string(failure.Code), failure.Message, strings.Join(e.Cut, " "))
}

// csvTime is t as a spreadsheet understands it, in UTC.
func csvTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000Z")
}

// harmless is a cell that no spreadsheet takes for a formula: entries hold
// what callers say of themselves. Some divide lines at semicolons, and a quoted
// cell at its newlines then.
// https://owasp.org/www-community/attacks/CSV_Injection
func harmless(cell string) string {
	if !strings.ContainsAny(cell, "=+-@\t\r") {
		return cell
	}
	var b strings.Builder
	begins := true // a formula would be one here
	for i, r := range cell {
		if begins && strings.ContainsRune("=+-@", r) || i == 0 && (r == '\t' || r == '\r') {
			b.WriteByte('\'')
		}
		b.WriteRune(r)
		begins = strings.ContainsRune(";\t\r\n", r) || begins && strings.ContainsRune(`"' `, r)
	}
	return b.String()
}

// A csvExporter writes a table as RFC 4180 has it.
type csvExporter struct{ w *csv.Writer }

func newCSVExporter(w io.Writer) exporter {
	x := csvExporter{csv.NewWriter(w)}
	x.w.UseCRLF = true
	return x
}

func (x csvExporter) begin() error { return x.w.Write(csvHeader) }

func (x csvExporter) entry(line audit.Line) error {
	e, err := line.Entry()
	if err != nil {
		return err
	}
	row := csvRow(e)
	for i := range row {
		row[i] = harmless(row[i])
	}
	return x.w.Write(row)
}

func (x csvExporter) end() error {
	x.w.Flush()
	return x.w.Error()
}
