package ststest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// adminHandler serves the sandbox's own paths.
func (s *Sandbox) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sandbox/fault", func(w http.ResponseWriter, r *http.Request) {
		var j faultJSON
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
		dec.DisallowUnknownFields()
		err := dec.Decode(&j)
		if err == nil {
			if _, more := dec.Token(); more != io.EOF {
				err = fmt.Errorf("more than one value")
			}
		}
		var f Fault
		if err == nil {
			f, err = j.fault()
		}
		if err != nil {
			writeText(w, http.StatusBadRequest, "not a fault: "+err.Error()+"\n")
			return
		}
		s.faults.Add(f)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /sandbox/fault", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, struct {
			Faults []Fault `json:"faults"`
		}{append([]Fault{}, s.faults.List()...)})
	})
	mux.HandleFunc("DELETE /sandbox/fault", func(w http.ResponseWriter, r *http.Request) {
		s.faults.Clear()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /sandbox/calls", func(w http.ResponseWriter, r *http.Request) {
		counts, calls := s.calls.snapshot()
		if counts == nil {
			counts, calls = map[string]int{}, []Call{}
		}
		writeJSON(w, struct {
			Counts map[string]int `json:"counts"`
			Calls  []Call         `json:"calls"`
		}{counts, calls})
	})
	mux.HandleFunc("DELETE /sandbox/calls", func(w http.ResponseWriter, r *http.Request) {
		s.ForgetCalls()
		w.WriteHeader(http.StatusNoContent)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why := foreign(r); why != "" {
			writeText(w, http.StatusForbidden, why+"\n")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// foreign says why a request is not from a program on this machine: it came
// from another one, or a web page made a browser send it.
func foreign(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return "only for this machine"
	}
	for _, name := range []string{"Origin", "Referer", "Sec-Fetch-Site"} {
		if r.Header.Get(name) != "" {
			return "not for browsers"
		}
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if !strings.EqualFold(host, "localhost") && (err != nil || !ip.IsLoopback()) {
		return "not for this host name"
	}
	return ""
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v)
}
