package engine

import (
	"context"
)

// Instance is one isolated world of a component: its memories, tables and handles, and the host's state
// of it. An Instance serves one request and is used by one goroutine at a time.
type Instance struct {
	// Context is the request's: its cancellation ends blocking host calls.
	context.Context

	slots []any
}

// ExportFunc is a function that a linked component exports, found once and called on many instances. It
// is safe for concurrent use.
type ExportFunc struct{}

// InstancePre is a component linked with a host: everything is resolved, and [InstancePre.Instantiate]
// only has to follow the plan. It is safe for concurrent use.
type InstancePre struct{}
