// Program containerd-shim-spin-v2 is the containerd shim that runs Spin apps.
package main

import "github.com/spinkube/containerd-shim-spin-go/pkg/shim"

func main() { shim.Main("io.containerd.spin.v2") }
