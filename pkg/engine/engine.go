package engine

// Engine is the process's runtime for components. It is safe for concurrent use.
type Engine struct{}
