package audit

import "time"

// alarmRest is the least time between two calls of Alarm, so that a disk which
// comes and goes does not fill a screen.
const alarmRest = 10 * time.Second

// alarming tells somebody when entries cannot be written, and when they can
// again.
type alarming struct {
	wake chan struct{} // one place
	done chan struct{}
}

// failLocked takes why entries cannot be written, nil when they can.
func (l *Log) failLocked(why error) {
	news := (why != nil) != (l.failure != nil)
	l.failure = why
	if !news {
		return
	}
	select {
	case l.alarm.wake <- struct{}{}:
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
			l.mu.Lock()
			why := l.failure
			l.mu.Unlock()
			if (why != nil) == told {
				continue
			}
			told = why != nil
			l.opts.Alarm(l.ctx, why)
			if rest(l.ctx, alarmRest) != nil {
				return
			}
		}
	}()
}
