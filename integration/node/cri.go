package node

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CRI is what a kubelet says to containerd.
type CRI struct {
	cri.RuntimeServiceClient
	Images cri.ImageServiceClient
	conn   *grpc.ClientConn
}

// CRI connects to containerd's CRI.
func (n *Node) CRI() (*CRI, error) {
	conn, err := grpc.NewClient("unix://"+n.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &CRI{cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn), conn}, nil
}

// Close ends the connection.
func (c *CRI) Close() error { return c.conn.Close() }

// Pod is the configuration of a pod of this node with that name, to be completed.
func (n *Node) Pod(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: n.Namespace + "-" + name},
		Hostname:     name,
		LogDirectory: n.Dir + "/logs/" + name,
		DnsConfig:    &cri.DNSConfig{Servers: []string{"127.0.0.1"}},
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    n.CgroupParent(),
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{}},
		},
	}
}

// RunPod runs a pod's sandbox under a runtime of containerd's configuration, and returns its id.
func (c *CRI) RunPod(ctx context.Context, runtime string, pod *cri.PodSandboxConfig) (string, error) {
	r, err := c.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: pod, RuntimeHandler: runtime})
	if err != nil {
		return "", err
	}
	return r.PodSandboxId, nil
}

// Run pulls the image of a container if it is not there, creates the container in a pod and starts it. The id is that of the created
// container even if it did not start.
func (c *CRI) Run(ctx context.Context, podID string, pod *cri.PodSandboxConfig, container *cri.ContainerConfig) (string, error) {
	status, err := c.Images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: container.Image})
	if err != nil {
		return "", fmt.Errorf("look for image: %w", err)
	}
	if status.Image == nil {
		if _, err := c.Images.PullImage(ctx, &cri.PullImageRequest{Image: container.Image, SandboxConfig: pod}); err != nil {
			return "", fmt.Errorf("pull: %w", err)
		}
	}
	r, err := c.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: podID, Config: container, SandboxConfig: pod})
	if err != nil {
		return "", fmt.Errorf("create: %w", err)
	}
	if _, err := c.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: r.ContainerId}); err != nil {
		return r.ContainerId, fmt.Errorf("start: %w", err)
	}
	return r.ContainerId, nil
}

// RemoveWithin stops a container, killing it after some seconds, and removes it.
func (c *CRI) RemoveWithin(ctx context.Context, id string, seconds int64) error {
	if _, err := c.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id, Timeout: seconds}); err != nil {
		return fmt.Errorf("stop container: %w", err)
	}
	if _, err := c.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id}); err != nil {
		return fmt.Errorf("remove container: %w", err)
	}
	return nil
}

// RemovePod stops a pod with all of its containers, and removes it.
func (c *CRI) RemovePod(ctx context.Context, id string) error {
	if _, err := c.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("stop pod: %w", err)
	}
	if _, err := c.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("remove pod: %w", err)
	}
	return nil
}

func (n *Node) removePods(ctx context.Context) error {
	c, err := n.CRI()
	if err != nil {
		return err
	}
	defer c.Close()
	pods, err := c.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	var errs []error
	for _, p := range pods.Items {
		errs = append(errs, c.RemovePod(ctx, p.Id))
	}
	return errors.Join(errs...)
}
