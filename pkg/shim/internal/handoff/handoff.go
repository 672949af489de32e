// Package handoff is what the processes of the shim tell each other: the daemon and prepare (protocol.go), the daemon and the
// worker (worker.go). All of them are the same binary, so that nothing here has versions.
//
// What comes from prepare or a worker is hostile to the daemon: both handle foreign code. Messages are bounded in size and number,
// and what they say is checked.
package handoff
