package broker_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatepass/broker"
)

// A client comes back in its own time: whenever that is, it is asked.
func TestWhoComesBackIsAsked(t *testing.T) {
	start := time.Now()
	clock := broker.Clock{
		Now: time.Now, Boot: func() time.Duration { return time.Since(start) },
		AfterFunc: func(d time.Duration, f func()) func() {
			timer := time.AfterFunc(d, f)
			return func() { timer.Stop() }
		},
	}
	for n := range 100_000 {
		if !broker.ComesBack(clock) {
			t.Fatalf("the %dth is not found", n)
		}
	}
}

// A client that comes back when its asking has just given it up is asked again.
func TestWhoComesBackLateIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var p *person
		p = w.person(7, "mfa", func(broker.Question) (string, broker.Code) {
			return []string{"12", "123456"}[len(p.asked)-1], ""
		})
		var once sync.Once
		back, done := make(chan struct{}), make(chan error)
		w.stopping = func(d time.Duration) {
			if d > 5*time.Second && d < 10*time.Second { // nobody came
				once.Do(func() {
					close(back)
					synctest.Wait()
				})
			}
		}
		go func() {
			for {
				_, err := w.Credentials(t.Context(), p.caller, p.req)
				var ask *broker.AskError
				if !errors.As(err, &ask) {
					done <- err
					return
				}
				w.answers(t.Context(), p, ask.Question)
				if len(p.asked) == 1 {
					<-back
				}
			}
		}()
		if err := <-done; err != nil || len(p.asked) != 2 {
			t.Errorf("%v, asked %d times", err, len(p.asked))
		}
	})
}
