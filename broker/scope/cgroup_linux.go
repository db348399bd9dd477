package scope

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// errOutside is why nobody can say which scope a process is in: its control
// group lies outside of the cgroup namespace that this daemon is in.
var errOutside = errors.New("its control group cannot be seen from here")

// groupOf returns the control group (of version 2) that a process is in, as a
// path from the hierarchy's root; "" where there is no hierarchy.
func (p proc) groupOf(pid int) (string, error) {
	var b [512]byte
	list, err := readFile(p.path(pid, "cgroup"), b[:])
	if err != nil {
		return "", fmt.Errorf("look at process %d: %w", pid, ended(err))
	}
	group, err := parseGroup(list)
	if err != nil {
		return "", fmt.Errorf("process %d: %w", pid, err)
	}
	return group, nil
}

// parseGroup reads /proc/PID/cgroup; see cgroups(7). The kernel allows no
// newline in a name.
func parseGroup(list []byte) (string, error) {
	for len(list) > 0 {
		var line []byte
		line, list, _ = bytes.Cut(list, []byte("\n"))
		group, ok := bytes.CutPrefix(line, []byte("0::"))
		if !ok {
			continue // a hierarchy of version 1
		}
		switch {
		case bytes.HasSuffix(group, []byte(" (deleted)")):
			return "", errEnded // only a zombie can be in one that is removed
		case len(group) == 0 || group[0] != '/', string(group) == "/..", bytes.HasPrefix(group, []byte("/../")):
			return "", errOutside
		}
		return string(group), nil
	}
	return "", nil
}

// A hierarchy is where the control groups of version 2 are to be seen.
type hierarchy struct {
	dir  string // of the mount; "" where there is none
	root string // the group that is mounted there, mostly "/"
}

// findHierarchy reads /proc/self/mountinfo; see proc_pid_mountinfo(5). Of
// several mounts it takes one that shows the most.
func findHierarchy(mountinfo string) (h hierarchy) {
	for line := range strings.Lines(mountinfo) {
		mount, filesystem, ok := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		if !ok || len(fields) < 6 || !strings.HasPrefix(filesystem, "cgroup2 ") {
			continue
		}
		root, dir := unescape(fields[3]), unescape(fields[4])
		if !strings.HasPrefix(root+"/", "/../") && (h.dir == "" || len(root) < len(h.root)) {
			h = hierarchy{dir: dir, root: root}
		}
	}
	return h
}

// unescape puts back what the kernel writes in octal.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

// path returns the directory of a control group.
func (h hierarchy) path(group string) (string, error) {
	below, ok := strings.CutPrefix(group, strings.TrimSuffix(h.root, "/"))
	if h.dir == "" || !ok || below != "" && below[0] != '/' {
		return "", fmt.Errorf("the control group %s is not mounted", group)
	}
	return h.dir + below, nil
}

// has reports whether a control group is the one with that number.
func (h hierarchy) has(group string, number uint64) bool {
	dir, err := h.path(group)
	if err != nil {
		return false
	}
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Ino == number
}

// scopeDir returns the directory of a scope. It may have been stored, so it is
// looked at before anything is killed by it.
func (h hierarchy) scopeDir(scope string) (string, error) {
	if path.Clean(scope) != scope || scopeIn(scope) != scope || !isUnit(path.Base(scope)) {
		return "", fmt.Errorf("%q is no scope of a lease", scope)
	}
	return h.path(scope)
}

// isEmpty reports whether a cgroup.events says that no process is in its group,
// or in one below.
func isEmpty(events []byte) bool {
	return bytes.Contains(append([]byte("\n"), events...), []byte("\npopulated 0\n"))
}

// removed reports whether err says that a control group is there no more.
func removed(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// members lists the processes in a control group and in those below, up to max
// of them; a 0 is one in a PID namespace that we cannot see. It fails where
// somebody has made more groups than anybody needs.
func members(top string, max int) (pids []int, err error) {
	buf := make([]byte, 4096)
	dirs := []string{top}
	for seen := 0; len(dirs) > 0 && len(pids) < max; seen++ {
		if seen == maxBelow {
			return nil, fmt.Errorf("there are more than %d control groups in %s", maxBelow, top)
		}
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		list, err := readFile(dir+"/cgroup.procs", buf)
		switch {
		case removed(err):
			continue
		case errors.Is(err, unix.EOPNOTSUPP): // a threaded group: its processes are listed further up
		case err != nil:
			return nil, err
		}
		for line := range bytes.Lines(list) {
			pid, ok := number[int](bytes.TrimSuffix(line, []byte("\n")))
			if !ok {
				return nil, fmt.Errorf("%s/cgroup.procs lists %q", dir, line)
			}
			pids = append(pids, pid)
		}
		d, err := os.Open(dir)
		if removed(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries, err := d.ReadDir(-1)
		d.Close()
		if err != nil && !removed(err) {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() {
				dirs = append(dirs, dir+"/"+e.Name())
			}
		}
	}
	return pids[:min(len(pids), max)], nil
}

// asked remembers the processes that asked lately, and the control groups that
// they were in, where the kernel tells the number of a process's group
// (PIDFD_GET_INFO, Linux 6.13). Of the next question of a process, one system
// call tells its scope and another that it lives.
type asked struct {
	mu     sync.Mutex
	kept   map[broker.ProcessID]pidfd
	oldest []broker.ProcessID // in kept
	groups map[uint64]string  // a number, which no later group will have: the scope
}

func newAsked() *asked {
	return &asked{kept: make(map[broker.ProcessID]pidfd), groups: make(map[uint64]string)}
}

// scope answers if it can.
func (a *asked) scope(id broker.ProcessID) (scope string, ok bool) {
	a.mu.Lock() // also against the descriptor's closing
	defer a.mu.Unlock()
	fd, ok := a.kept[id]
	if !ok {
		return "", false
	}
	if scope, ok = a.scopeLocked(fd); !ok {
		a.dropLocked(id)
	}
	return scope, ok
}

// scopeLocked answers for a process that lives and is in a group that is known.
func (a *asked) scopeLocked(fd pidfd) (scope string, ok bool) {
	number, ok := fd.group()
	if ok {
		scope, ok = a.groups[number]
	}
	return scope, ok && fd.running()
}

// keep takes over the pidfd of a process, and answers for it if it can.
func (a *asked) keep(id broker.ProcessID, fd pidfd) (scope string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	scope, ok = a.scopeLocked(fd)
	if _, there := a.kept[id]; there || !ok {
		fd.close()
		return scope, ok
	}
	if len(a.oldest) == maxKept {
		a.dropLocked(a.oldest[0])
	}
	a.kept[id] = fd
	a.oldest = append(a.oldest, id)
	return scope, true
}

// learn notes which scope a group is, or is in.
func (a *asked) learn(number uint64, scope string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.groups) == maxGroups {
		clear(a.groups)
	}
	a.groups[number] = scope
}

func (a *asked) dropLocked(id broker.ProcessID) {
	a.kept[id].close()
	delete(a.kept, id)
	a.oldest = slices.DeleteFunc(a.oldest, func(other broker.ProcessID) bool { return other == id })
}

func (a *asked) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.oldest) > 0 {
		a.dropLocked(a.oldest[0])
	}
}

// ScopeOf implements [broker.Processes]. It fails, too, when the kernel shows
// a control group that lies outside of what can be seen from here.
func (t *Trees) ScopeOf(id broker.ProcessID) (string, error) {
	scope, ok := t.asked.scope(id)
	if !ok {
		var err error
		if scope, err = t.scopeOf(id); err != nil {
			return "", err
		}
	}
	if scope != "" && t.isLate(path.Base(scope)) {
		return "", nil
	}
	return scope, nil
}

// scopeOf asks the kernel about a process that nothing is kept of.
func (t *Trees) scopeOf(id broker.ProcessID) (string, error) {
	if !t.tellsGroup {
		group, err := t.groupOf(id)
		return scopeIn(group), err
	}
	fd, err := t.proc.openPidfd(id)
	if err != nil {
		return "", err
	}
	number, ok := fd.group()
	if scope, ok := t.asked.keep(id, fd); ok {
		return scope, nil
	}
	// The group is not known yet, or the process has ended.
	group, err := t.groupOf(id)
	if err != nil {
		return "", err
	}
	scope := scopeIn(group)
	if ok && t.hierarchy.has(group, number) {
		t.asked.learn(number, scope)
	}
	return scope, nil
}

// groupOf reads a process's control group. It is its own if it has its number
// afterwards, as it had from its start.
func (t *Trees) groupOf(id broker.ProcessID) (string, error) {
	group, err := t.proc.groupOf(id.PID)
	if err == nil {
		err = t.proc.alive(id)
	}
	if err != nil {
		return "", err
	}
	return group, nil
}
