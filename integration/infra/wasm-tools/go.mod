module github.com/spinkube/containerd-shim-spin-go/integration/infra/wasm-tools

go 1.26.6

tool go.bytecodealliance.org/internal/cmd/wasm-tools

require (
	github.com/tetratelabs/wazero v1.9.0 // indirect
	go.bytecodealliance.org v0.7.0 // indirect
)
