package door

import (
	"encoding/json"
	"path/filepath"

	"gatepass/broker"
	"gatepass/broker/wire"
)

func (s *Server) beginLease(r *request) (any, error) {
	var in wire.StartLeaseRequest
	if err := decode(r.body, &in); err != nil {
		return nil, err
	}
	req, via, err := credentialsRequestOf(in.CredentialsRequest, r)
	if err != nil {
		return nil, err
	}
	if r.caller.Via = via; via == "" {
		r.caller.Via = "exec"
	}
	grant, err := s.cfg.Broker.Begin(r.ctx, r.caller, broker.LeaseRequest{
		Request: req, With: in.With, Serve: in.Serve, Program: in.Program,
		Command: in.Command,
	})
	if err != nil {
		return nil, err
	}
	out := wire.StartLeaseResponse{
		Lease: grant.ID, Profile: grant.Profiles[0], Serve: grant.Serve, Region: grant.Region,
		ConfigFile: filepath.Join(grant.Room, wire.RoomConfig), CredentialsFile: filepath.Join(grant.Room, wire.RoomCredentials),
		Expires: grant.Expires, Renewable: grant.Renewable,
	}
	switch grant.Serve {
	case "container":
		out.Endpoint, out.TokenFile = wire.EndpointURL(grant.Port), filepath.Join(grant.Room, wire.RoomToken)
	case "imds":
		out.Endpoint = wire.EndpointURL(grant.Port)
	case "env":
		out.Credentials = json.RawMessage(grant.Credentials.Document())
	}
	return out, nil
}

func (s *Server) ownLease(r *request) (any, error) {
	l, ok := s.cfg.Broker.OwnLease(r.caller)
	if !ok {
		return document{}, nil
	}
	text, err := wire.OwnLease{Profile: l.Profiles[0], State: l.State, Expires: l.Expires}.AppendText(nil)
	return document(text), err
}

func (s *Server) renewLease(r *request) (any, error) {
	var in wire.RenewLeaseRequest
	if err := decode(r.body, &in); err != nil {
		return nil, err
	}
	how, err := reachable(in.Ask, r)
	if err != nil {
		return nil, err
	}
	r.caller.Via = "renew"
	return s.cfg.Broker.Renew(r.ctx, r.caller, in.Lease, broker.Request{Reachable: how, Code: broker.NewSecret(in.MFACode), Reason: in.Reason})
}

func (s *Server) endLeases(r *request) (any, error) {
	var in wire.EndLeasesRequest
	if err := decode(r.body, &in); err != nil {
		return nil, err
	}
	r.caller.Via = "end"
	ended, err := s.cfg.Broker.End(r.ctx, r.caller, broker.EndRequest{Leases: in.Leases, All: in.All, Release: in.Release})
	if err != nil {
		return nil, err
	}
	return wire.EndLeasesResponse{Ended: ended}, nil
}
