module github.com/spinkube/containerd-shim-spin-go/integration

go 1.26.6
