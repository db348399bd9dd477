package scope

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gatepass/broker"
)

// A watcher waits for the end of processes, and for scopes to become empty: one
// goroutine for all, which sleeps until the kernel wakes it.
type watcher struct {
	proc  proc
	epoll int             // its descriptor, file's own
	file  *os.File        // in the runtime's poller, so that no thread waits in epoll_wait
	raw   syscall.RawConn // of file
	done  chan struct{}   // closed when run has returned
	calls sync.WaitGroup  // of what was given to Watch

	scopeLook time.Duration // between looks at a scope

	mu      sync.Mutex // held to change what follows
	closed  bool
	last    uint64
	watches map[uint64]*watch
}

// A watch is one process's or one scope's, until its end or stop.
type watch struct {
	key     uint64
	id      broker.ProcessID
	fd      pidfd // or cgroup.events of a scope
	scope   bool
	ended   func(broker.Exit)
	late    *time.Timer // set while the process is a zombie whose status nobody tells yet, and for a scope
	stopped bool
}

func newWatcher(p proc) (*watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // has NewFile put it in the poller
	}
	if err != nil {
		return nil, fmt.Errorf("watch processes: %w", err)
	}
	w := &watcher{proc: p, scopeLook: scopeLook, epoll: fd, file: os.NewFile(uintptr(fd), "epoll"), done: make(chan struct{}), watches: make(map[uint64]*watch)}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		w.file.Close()
		return nil, fmt.Errorf("watch processes: %w", err)
	}
	go w.run()
	return w, nil
}

// close returns when no call is under way and none will begin.
func (w *watcher) close() {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return
	}
	w.closed = true
	for key := range w.watches {
		w.removeLocked(key)
	}
	w.mu.Unlock()
	w.file.Close()
	<-w.done
	w.calls.Wait()
}

// watch implements [broker.Processes].
func (w *watcher) watch(id broker.ProcessID, then func(broker.Exit)) (stop func(), err error) {
	fd, err := w.proc.openPidfd(id)
	if err != nil && !errors.Is(err, errEnded) {
		return nil, err
	}
	if stop, err = w.add(&watch{id: id, fd: fd, ended: then}, unix.EPOLLIN); err != nil {
		return nil, fmt.Errorf("watch process %d: %w", id.PID, err)
	}
	return stop, nil
}

// watchScope calls then when no process is in a scope, whose directory is dir.
func (w *watcher) watchScope(dir string, then func()) (stop func(), err error) {
	fd, err := open(dir + "/cgroup.events")
	if err != nil && !removed(err) {
		return nil, err
	}
	// The kernel reports what has not been read from fd yet: the present state,
	// then each change.
	x := &watch{fd: pidfd(fd), scope: true, ended: func(broker.Exit) { then() }}
	if stop, err = w.add(x, unix.EPOLLPRI); err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	w.lookAgain(x)
	return stop, nil
}

// lookAgain looks at a scope now and then. The kernel holds a change back that
// comes within 10 ms of another, and forgets it if the scope is removed
// meanwhile: the service manager may know of the last process's end without.
func (w *watcher) lookAgain(x *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watches[x.key] != x { // it is over already
		return
	}
	x.late = time.AfterFunc(w.scopeLook, func() {
		w.look(x.key, unix.EPOLLPRI)
		w.lookAgain(x)
	})
}

// add takes over a descriptor, which is -1 when what is to be waited for has
// come to pass.
func (w *watcher) add(x *watch, events uint32) (stop func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		if x.fd >= 0 {
			x.fd.close()
		}
		return nil, errors.New("nothing is watched any more")
	}
	w.last++
	key := w.last
	x.key = key
	w.watches[key] = x
	if x.fd < 0 {
		w.finishLocked(key, broker.Exit{})
	} else if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, int(x.fd), event(key, events)); err != nil {
		w.removeLocked(key)
		return nil, err
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		x.stopped = true
		w.removeLocked(key)
	}, nil
}

// event asks for events on behalf of the watch with key.
func event(key uint64, events uint32) *unix.EpollEvent {
	return &unix.EpollEvent{Events: events, Fd: int32(uint32(key)), Pad: int32(uint32(key >> 32))}
}

// run takes the kernel's events.
func (w *watcher) run() {
	defer close(w.done)
	var events [64]unix.EpollEvent
	for {
		var n int
		var waitErr error
		err := w.raw.Read(func(fd uintptr) bool {
			for {
				if n, waitErr = unix.EpollWait(int(fd), events[:], 0); waitErr != unix.EINTR {
					return n != 0
				}
			}
		})
		if err != nil || waitErr != nil {
			return // closed
		}
		for _, e := range events[:n] {
			w.look(uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32, e.Events)
		}
	}
}

// look is called when a watched process has ended (EPOLLIN) or been reaped
// (EPOLLHUP as well, from Linux 6.9), or in a watched scope something changed
// (EPOLLPRI). The watch may have been stopped since.
func (w *watcher) look(key uint64, events uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.watches[key]
	if x == nil {
		return
	}
	if x.scope {
		var b [256]byte
		n, err := unix.Pread(int(x.fd), b[:], 0) // and so the next change is reported
		if err == nil && isEmpty(b[:n]) || removed(err) {
			w.finishLocked(key, broker.Exit{})
		}
		return
	}
	exit, asked := x.fd.exit()
	if !exit.Known {
		exit = w.proc.exitOfZombie(x.id)
	}
	if !exit.Known && asked {
		exit, _ = x.fd.exit() // it was reaped between the two
	}
	if !exit.Known && asked && events&unix.EPOLLHUP == 0 {
		// A zombie that is not for us to read. Its parent will reap it in a
		// moment, most likely, and then the pidfd tells; EPOLLHUP, which need
		// not be asked for, comes with that.
		if x.late == nil && unix.EpollCtl(w.epoll, unix.EPOLL_CTL_MOD, int(x.fd), event(key, 0)) == nil {
			x.late = time.AfterFunc(reapWait, func() { w.finish(key) })
		}
		if x.late != nil {
			return
		}
	}
	w.finishLocked(key, exit)
}

// finish ends the watch of a process whose status is not known.
func (w *watcher) finish(key uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finishLocked(key, broker.Exit{})
}

func (w *watcher) finishLocked(key uint64, exit broker.Exit) {
	x := w.watches[key]
	if x == nil {
		return
	}
	w.removeLocked(key)
	w.calls.Go(func() {
		w.mu.Lock()
		stopped := x.stopped
		w.mu.Unlock()
		if !stopped {
			x.ended(exit)
		}
	})
}

// removeLocked forgets a watch.
func (w *watcher) removeLocked(key uint64) {
	x := w.watches[key]
	if x == nil {
		return
	}
	delete(w.watches, key)
	if x.late != nil {
		x.late.Stop()
	}
	if x.fd >= 0 {
		// To close it is not enough while a child that is being started has a
		// copy.
		unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, int(x.fd), nil)
		x.fd.close()
	}
}
