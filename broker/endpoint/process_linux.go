package endpoint

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// Bounds of one search.
const (
	maxProcesses   = 4096
	maxDescriptors = 1 << 16
	maxSearch      = 50 * time.Millisecond
	maxEnviron     = 1 << 20
	maxVariable    = 1 << 10 // bytes of a variable's value; the rest is cut off
)

// A holder is a process that has a socket, and as which descriptor.
type holder struct{ pid, fd int }

// holds reports whether h has the socket.
func (k *kernel) holds(h holder, s socket) bool {
	link, err := os.Readlink(k.proc + "/" + strconv.Itoa(h.pid) + "/fd/" + strconv.Itoa(h.fd))
	return err == nil && link == s.link()
}

// link is what a descriptor of the socket points to.
func (s socket) link() string { return "socket:[" + strconv.FormatUint(uint64(s), 10) + "]" }

// search returns who has the socket: one of likely, of root's tree, or where
// wide is set of all processes that can be read. Of a parent and its child it
// is the parent, which the child has it from. It gives up at the bounds above.
func (k *kernel) search(s socket, root int, likely []int, wide bool) (holder, bool) {
	look := &search{kernel: k, link: []byte(s.link()), seen: make(map[int]bool), until: time.Now().Add(maxSearch)}
	for _, pid := range likely {
		if h, ok := look.in(pid); ok {
			return h, true
		}
	}
	if h, ok := look.below(root); ok {
		return h, true
	}
	if !wide {
		return holder{}, false
	}
	for _, pid := range slices.Backward(numbers(k.proc, maxProcesses*8)) { // the youngest first
		if h, ok := look.in(pid); ok {
			return h, true
		}
	}
	return holder{}, false
}

// A search is one under way, with what it has spent.
type search struct {
	kernel *kernel
	link   []byte
	seen   map[int]bool // looked at
	until  time.Time

	descriptors int
}

func (s *search) spent() bool {
	return len(s.seen) >= maxProcesses || s.descriptors >= maxDescriptors || time.Now().After(s.until)
}

// below looks in a process and all below it, level by level.
func (s *search) below(root int) (holder, bool) {
	listed := map[int]bool{root: true}
	for queue := []int{root}; len(queue) > 0 && !s.spent(); queue = queue[1:] {
		if h, ok := s.in(queue[0]); ok {
			return h, true
		}
		for _, child := range s.children(queue[0]) {
			if !listed[child] {
				listed[child] = true
				queue = append(queue, child)
			}
		}
	}
	return holder{}, false
}

// children lists the children of all threads of a process. Kernels without
// CONFIG_PROC_CHILDREN have no such file, and the list is empty.
func (s *search) children(pid int) (children []int) {
	tasks := s.kernel.proc + "/" + strconv.Itoa(pid) + "/task"
	for _, tid := range numbers(tasks, maxProcesses) {
		b, err := os.ReadFile(tasks + "/" + strconv.Itoa(tid) + "/children")
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(b)) {
			if child, err := strconv.Atoi(field); err == nil {
				children = append(children, child)
			}
		}
		if len(children) > maxProcesses || s.spent() {
			break
		}
	}
	return children
}

// in looks through the descriptors of a process. Those of another user's
// process cannot be read, and those of one that does not let itself be dumped.
func (s *search) in(pid int) (holder, bool) {
	if s.seen[pid] || s.spent() {
		return holder{}, false
	}
	s.seen[pid] = true
	path := s.kernel.proc + "/" + strconv.Itoa(pid) + "/fd"
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return holder{}, false
	}
	defer unix.Close(dir)
	var link [64]byte
	for _, fd := range numbers(path, maxDescriptors-s.descriptors) {
		if s.descriptors++; s.descriptors%256 == 0 && s.spent() {
			break
		}
		n, err := unix.Readlinkat(dir, strconv.Itoa(fd), link[:])
		if err == nil && bytes.Equal(link[:n], s.link) {
			return holder{pid, fd}, true
		}
	}
	return holder{}, false
}

// numbers lists at most limit entries of a directory whose names are numbers.
func numbers(dir string, limit int) []int {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(limit) // as far as they could be read
	list := make([]int, 0, len(names))
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil && n >= 0 {
			list = append(list, n)
		}
	}
	return list
}

// variable returns a variable of the environment that a process was started
// with, "" where there is none or it cannot be read.
func (k *kernel) variable(pid int, name string) string {
	f, err := os.Open(k.proc + "/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxEnviron))
	defer clear(b) // there may be secrets in it
	if err != nil {
		return ""
	}
	for v := range bytes.SplitSeq(b, []byte{0}) {
		if value, ok := bytes.CutPrefix(v, []byte(name+"=")); ok { // getenv(3) returns the first
			return string(value[:min(len(value), maxVariable)])
		}
	}
	return ""
}

// runs reports whether a process still is the one that had its number when it
// started.
func (k *kernel) runs(id broker.ProcessID) bool {
	b, err := os.ReadFile(k.proc + "/" + strconv.Itoa(id.PID) + "/stat")
	if err != nil {
		return false
	}
	// The name of the program, in parentheses, may hold anything.
	after := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const start = 22 - 3 // fields are numbered from 1, and after begins with the third
	return len(after) > start && string(after[start]) == strconv.FormatUint(id.Start, 10)
}
