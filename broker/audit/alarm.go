package audit

import (
	"sync/atomic"
	"time"

	"gatepass/broker"
)

// alarmRest is the least time between two calls of Alarm, so that a disk which
// comes and goes does not fill a screen.
const alarmRest = 10 * time.Second

// alarming tells somebody when entries cannot be written, and when they can
// again.
type alarming struct {
	why  atomic.Pointer[broker.Error] // of the last Append, nil when it went well
	wake chan struct{}                // one place
	done chan struct{}
}

// note takes what Append returned. It is on the way of every entry.
func (a *alarming) note(err error) {
	if err == nil && a.why.Load() == nil {
		return
	}
	var why *broker.Error
	if err != nil {
		if broker.CodeOf(err) != broker.CodeLogUnwritable {
			return // its caller went away
		}
		why = broker.AsError(err)
	}
	a.why.Store(why)
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// startAlarm begins to call Options.Alarm, until Close.
func (l *Log) startAlarm() {
	if l.opts.Alarm == nil {
		close(l.alarm.done)
		return
	}
	go func() {
		defer close(l.alarm.done)
		told := false
		for {
			select {
			case <-l.alarm.wake:
			case <-l.ctx.Done():
				return
			}
			why := l.alarm.why.Load()
			if (why != nil) == told {
				continue
			}
			told = why != nil
			if told {
				l.opts.Alarm(l.ctx, why)
			} else {
				l.opts.Alarm(l.ctx, nil)
			}
			if rest(l.ctx, alarmRest) != nil {
				return
			}
		}
	}()
}
