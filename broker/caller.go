package broker

// A Caller is the process that asks, as the kernel tells it. Only UID and PID
// are facts to decide by; the rest is what the process says of itself, to be
// shown and recorded.
type Caller struct {
	UID     int    `json:"uid"`
	User    string `json:"user,omitempty"`
	PID     int    `json:"pid"`               // 0: in a PID namespace that we cannot see
	Program string `json:"program,omitempty"` // see [ProgramOf]
	Exe     string `json:"exe,omitempty"`     // path of the asking executable
	Command string `json:"command,omitempty"` // its command line as it is; the log masks secrets
	Cwd     string `json:"cwd,omitempty"`
	TTY     string `json:"tty,omitempty"` // "/dev/pts/3"
	Via     string `json:"via,omitempty"` // the surface: credential-process, export, exec, renew, end, container, imds, whoami, keys, daemon

	// Resolved says that Ancestors is complete: the walk reached the first
	// process, and each parent was older than its child.
	Resolved  bool      `json:"resolved"`
	Ancestors []Process `json:"ancestors,omitempty"` // nearest first

	Args    []string  `json:"-"` // argv as read, bounded; the source of Command
	Profile string    `json:"-"` // AWS_PROFILE of its environment, where a lease's endpoint could read it
	ID      ProcessID `json:"-"` // zero where the process cannot be seen
}

// A Process is one ancestor of a [Caller].
type Process struct {
	PID     int       `json:"pid"`
	Exe     string    `json:"exe,omitempty"`
	Command string    `json:"command,omitempty"`
	Args    []string  `json:"-"` // argv as read, bounded; the source of Command and of the program's name
	Cwd     string    `json:"-"` // of an interpreter whose script is named relative to it, else ""
	ID      ProcessID `json:"-"`
}
