package http

import (
	"syscall"
	"time"
)

const (
	// maxHeadSize bounds a request's head: eight times what servers commonly take, since Spin takes more than they do.
	// It is what a client can make the server hold for each of its connections.
	maxHeadSize = 128 << 10
	// maxURILength is the longest request target; Spin's. A longer one in a head that is not too large gets 414.
	maxURILength = 65534
	// defaultMaxRequests is how many requests an app's components may work on at once: as many as Spin has instances.
	defaultMaxRequests = 1000
	// defaultMaxConnections is some times defaultMaxRequests, since most connections wait for their next request.
	defaultMaxConnections = 4096
	// connectionShare is the part of the process's open files that may be connections: a request may well open
	// another file, which is a connection of its own or one of the app's files.
	connectionShare = 2
	// maxDrainSize is how much of a body that nobody read is read to keep the connection: as much as net/http does.
	maxDrainSize = 256 << 10
	// acceptBackoff and maxAcceptBackoff bound the time between attempts to accept while there are no files left.
	acceptBackoff    = 5 * time.Millisecond
	maxAcceptBackoff = time.Second
	// leftoverWait is how long a draining server waits for one more connection in the kernel's queue at its end.
	leftoverWait = 5 * time.Millisecond
	// sendChunk is how much is written to a client at a time, so that a slow one is told from one that reads no more.
	sendChunk = 64 << 10
	// maxKeptHead is how large a buffer an idle connection keeps for the next head.
	maxKeptHead = 4 << 10
)

// timeouts are how long clients may keep the server waiting.
type timeouts struct {
	// header bounds the time from the first byte of a head to its end.
	header time.Duration
	// idle is how long a connection waits for its next request.
	idle time.Duration
	// body bounds the time without a byte of a body that a component waits for. It ends with the head of the
	// response: from then on, a silent client may be one that converses.
	body time.Duration
	// send bounds the time in which a client takes no sendChunk of a response.
	send time.Duration
	// drain bounds the reading of a body that nobody read.
	drain time.Duration
	// lastWords bounds how long a connection that the server has closed goes on discarding what its client sends, so
	// that the client is not cut off before it has read the response; and lastWord how long it waits for each.
	lastWords, lastWord time.Duration
	// retire is how long a connection on which nothing has arrived yet may still bring a request, when it is wanted
	// for another or the server drains; and for how long a draining server takes connections from the kernel's queue, and
	// again at most to empty it.
	retire time.Duration
	// welcome is retire for new connections while the server does not drain: their clients have no others to try.
	welcome time.Duration
}

// defaultTimeouts are those of common servers, nginx before all. retire is a round trip around the world.
var defaultTimeouts = timeouts{
	header:    10 * time.Second,
	idle:      2 * time.Minute,
	body:      time.Minute,
	send:      time.Minute,
	drain:     5 * time.Second,
	lastWords: 30 * time.Second,
	lastWord:  2 * time.Second,
	retire:    250 * time.Millisecond,
	welcome:   time.Second,
}

// connectionLimit is how many connections a process with this limit of open files can have.
func connectionLimit() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return defaultMaxConnections
	}
	return int(max(1, min(files.Cur/connectionShare, defaultMaxConnections)))
}
