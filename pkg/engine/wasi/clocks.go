package wasi

import (
	"math"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// putDatetime puts a datetime; what was before 1970 is 1970.
func putDatetime(c *engine.Call, t time.Time) {
	if t.Unix() < 0 {
		t = time.Unix(0, 0)
	}
	c.PutU64(uint64(t.Unix()))
	c.PutU32(uint32(t.Nanosecond()))
}

func wallClockNow(c *engine.Call) error {
	putDatetime(c, time.Now())
	return nil
}

// wallClockResolution is a nanosecond, as Linux has it.
func wallClockResolution(c *engine.Call) error {
	putDatetime(c, time.Unix(0, 1))
	return nil
}

// now returns the time of the monotonic clock.
func (h *Host) now() time.Duration { return time.Since(h.start) }

func (h *Host) monotonicNow(c *engine.Call) error {
	c.PutU64(uint64(h.now()))
	return nil
}

func monotonicResolution(c *engine.Call) error {
	c.PutU64(1)
	return nil
}

func (h *Host) subscribeInstant(c *engine.Call) error {
	c.PutOwn(timer{h, duration(c.U64())})
	return nil
}

func (h *Host) subscribeDuration(c *engine.Call) error {
	now, d := h.now(), duration(c.U64())
	c.PutOwn(timer{h, now + min(d, math.MaxInt64-now)})
	return nil
}

// duration returns ns nanoseconds; no guest sees the end of the greatest duration, of 292 years.
func duration(ns uint64) time.Duration { return time.Duration(min(ns, math.MaxInt64)) }

// timer is ready from the instant at on. It holds a timer of the runtime only while it is watched.
type timer struct {
	host *Host
	at   time.Duration
}

// Ready says whether the instant is over.
func (t timer) Ready() bool { return t.host.now() >= t.at }

// Watch calls wake at the instant.
func (t timer) Watch(wake func()) (stop func()) {
	timer := time.AfterFunc(t.at-t.host.now(), wake)
	return func() { timer.Stop() }
}
