package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"gatepass/broker"
	"gatepass/broker/endpoint"
	"gatepass/broker/wire"
	"gatepass/profiles"
)

// A leaseBook is the file of the leases that stand. The daemon alone writes it.
type leaseBook struct{ path string }

// maxLeases limits what is read: a lease has some thousand bytes.
const maxLeases = 16 << 20

type leasesFile struct {
	Leases []broker.Lease `json:"leases"`
}

func (b leaseBook) Leases() ([]broker.Lease, error) {
	var in leasesFile
	if err := loadJSON(b.path, maxLeases, &in); err != nil {
		return nil, broker.Errorf(broker.CodeData, "%s cannot be read: %w", b.path, err).
			WithHint("end what runs in leases (gatepass exec), and move it away")
	}
	return in.Leases, nil
}

func (b leaseBook) SaveLeases(all []broker.Lease) error {
	if err := saveJSON(b.path, leasesFile{Leases: all}); err != nil {
		return broker.Errorf(broker.CodeLogUnwritable, "write down the leases: %w", err).
			WithHint("%s must be writable, and its disk have room; until then no lease begins", filepath.Dir(b.path))
	}
	return nil
}

// rooms are the directories of leases, beside the socket.
type rooms struct{ dir string }

// Open writes the sealed config, from the files as they are now, and an empty
// credentials file.
func (r rooms) Open(l *broker.Lease, program string) (string, error) {
	config, err := profiles.Seal(l.Files, profiles.Sealing{Lease: l.ID, Admitted: l.Profiles, Program: program, Endpoint: l.Serve != "env"})
	if err != nil {
		return "", broker.ProfileError(err)
	}
	dir := filepath.Join(r.dir, l.ID)
	if err = os.MkdirAll(r.dir, 0o700); err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err == nil {
		if err = furnish(dir, map[string][]byte{wire.RoomConfig: config, wire.RoomCredentials: nil}); err != nil {
			r.Close(dir) // nothing of another's: it was made just now
		}
	}
	if err != nil {
		return "", broker.Errorf(broker.CodeConfig, "make the files of a lease: %w", err).
			WithHint("%s must be writable, and its disk have room", r.dir)
	}
	return dir, nil
}

// furnish writes new files into a directory.
func furnish(dir string, files map[string][]byte) error {
	for name, text := range files {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(text)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Close removes the files that belong there and no others, wherever the lease
// says that they are.
func (r rooms) Close(dir string) error {
	var errs []error
	for _, name := range []string{wire.RoomConfig, wire.RoomCredentials, wire.RoomToken, ""} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// endpoints serve leases at their own ports.
type endpoints struct{ *endpoint.Server }

func (e endpoints) Open(l *broker.Lease) (port int, err error) {
	return e.Server.Open(endpoint.Endpoint{
		Lease: l.ID, Kind: l.Serve, Port: l.Port, TokenFile: filepath.Join(l.Room, wire.RoomToken), Root: l.Root,
		Role: l.Profiles[0], Region: l.Region,
	})
}
