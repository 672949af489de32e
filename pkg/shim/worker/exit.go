package worker

// The exit codes of a worker. A worker that is killed has 128 and the signal's number: 137 after SIGKILL, which the kernel sends too
// when the container is out of memory (containerd then also reports the event TaskOOM).
const (
	// exitDone says that a signal asked for the end, and everything accepted was answered.
	exitDone = 0
	// exitStart says that the app could not be started; the reason was reported.
	exitStart = 1
	// 2 is Go's own: the worker panicked, and wrote why to its log.

	// exitServe says that a trigger ended by itself, such as one whose listener failed; the log says why.
	exitServe = 3
)
