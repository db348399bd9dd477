// Package scopetest runs a systemd user manager for tests that need a real
// one: of leases' scopes, and of programs that make them.
//
// As root it starts one, on machines that systemd did not boot too: in a mount
// namespace where the files say that it did, in a control group of its own,
// with a bus that the manager starts, and with no units but those it needs. It
// takes systemd, dbus-daemon, mount and setpriv (Debian: systemd, dbus-daemon,
// mount, util-linux) and a cgroup2 file system that can be written to. Other
// users get the manager of their own session.
package scopetest
