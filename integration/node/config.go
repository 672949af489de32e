package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"

	"github.com/spinkube/containerd-shim-spin-go/integration/infra"
	"golang.org/x/sys/unix"
)

// PodBridge is the interface that connects the pods and the node, and podSubnet where it leads. They are there only in the network
// namespace that the tests run in (see Isolate).
const (
	PodBridge = "spin0"
	podSubnet = "10.88.7.0/24"
)

// configuration is containerd's. Version 4 is of containerd 2.4, version 3 of 2.0 to 2.3, version 2 of 1.7, which is used without CRI.
const configuration = `version = {{.Version}}
root = '{{.Dir}}/root'
state = '{{.Dir}}/state'
{{if not .CRI -}}
disabled_plugins = ['io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime', 'io.containerd.grpc.v1.cri']
{{end -}}
[debug]
  level = '{{if .Trace}}debug{{else}}info{{end}}'
{{if lt .Version 4 -}}
[grpc]
  address = '{{.Address}}'
[ttrpc]
  address = '{{.Address}}.ttrpc'
{{else -}}
[plugins.'io.containerd.server.v1.grpc']
  address = '{{.Address}}'
[plugins.'io.containerd.server.v1.ttrpc']
  address = '{{.Address}}.ttrpc'
[plugins.'io.containerd.shim.v1.manager']
  socket_dir = '{{.Dir}}/s'
{{end -}}
[plugins.'io.containerd.internal.v1.opt']
  path = '{{.Dir}}/opt'
[plugins.'io.containerd.nri.v1.nri']
  disable = true
{{if .CRI -}}
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{{.Pause}}'
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = '{{.Dir}}/certs.d'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = {{.RestrictOOM}}
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    {{if lt .Version 4}}bin_dir = '{{.CNI}}'{{else}}bin_dirs = ['{{.CNI}}']{{end}}
    conf_dir = '{{.Dir}}/cni'
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = 'spin'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.spin]
      runtime_type = '{{.Runtime}}'
{{.Runtimes}}
{{end}}`

// network is the pods' network, for CNI.
const network = `{"cniVersion": "1.0.0", "name": "spin", "plugins": [
  {"type": "bridge", "bridge": "%s", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "%s/ipam", "ranges": [[{"subnet": "%s"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
`

func (n *Node) configure(ctx context.Context) error {
	values := struct {
		Config
		Dir, Address, Runtime, CNI string
		Version                    int
		RestrictOOM                bool
	}{
		Config: n.cfg, Dir: n.Dir, Address: n.Address, Runtime: Runtime,
		Version:     map[infra.Release]int{infra.Containerd24: 4, infra.Containerd22: 3, infra.Containerd17: 2}[n.cfg.Release],
		RestrictOOM: !capable(unix.CAP_SYS_RESOURCE),
	}
	if n.cfg.CRI {
		if err := n.cfg.Cache.Iptables(ctx); err != nil {
			return err
		}
		var err error
		if values.CNI, err = n.cfg.Cache.CNI(ctx); err != nil {
			return err
		}
		if err := n.write("cni/10-spin.conflist", fmt.Sprintf(network, PodBridge, n.Dir, podSubnet)); err != nil {
			return err
		}
		hosts := fmt.Sprintf("server = 'http://%[1]s'\n[host.'http://%[1]s']\n  capabilities = ['pull', 'resolve']\n", n.cfg.Registry)
		if err := n.write("certs.d/"+n.cfg.Registry+"/hosts.toml", hosts); err != nil {
			return err
		}
	}
	var text strings.Builder
	if err := template.Must(template.New("containerd.toml").Parse(configuration)).Execute(&text, values); err != nil {
		return err
	}
	return n.write("containerd.toml", text.String())
}

func (n *Node) write(name, text string) error {
	name = filepath.Join(n.Dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(text), 0o644)
}

// capable reports whether this process has a capability: without CAP_SYS_RESOURCE runc cannot give a pod the negative
// oom_score_adj that CRI asks for.
func capable(capability uint) bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && set>>capability&1 == 1
		}
	}
	return false
}
