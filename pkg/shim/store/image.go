package store

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/containerd/v2/core/content"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/leases"
	leasesproxy "github.com/containerd/containerd/v2/core/leases/proxy"
	"github.com/containerd/containerd/v2/pkg/dialer"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// leaseTime is when a lease ends that nobody could delete: longer than preparing takes.
const leaseTime = time.Hour

// ContainerImage is the image of a container, which containerd keeps until Close.
type ContainerImage struct {
	// Image is nil if the container has no image.
	Image *Image

	conn   *grpc.ClientConn
	leases leases.Manager
	lease  leases.Lease
}

// OpenImage finds the image of a container by containerd's API at address, a path of a socket, and holds a lease on it. The
// namespace is that of ctx.
func OpenImage(ctx context.Context, address, containerID string) (*ContainerImage, error) {
	namespace, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	ctx = namespaces.WithNamespace(ctx, namespace)
	conn, err := grpc.NewClient(dialer.DialAddress(address), grpc.WithContextDialer(dialer.ContextDialer),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", address, err)
	}
	i := &ContainerImage{conn: conn}
	if err := i.open(ctx, containerID); err != nil {
		_ = i.Close(ctx)
		return nil, fmt.Errorf("find image of container %s: %w", containerID, err)
	}
	return i, nil
}

func (i *ContainerImage) open(ctx context.Context, containerID string) error {
	container, err := containersapi.NewContainersClient(i.conn).Get(ctx, &containersapi.GetContainerRequest{ID: containerID})
	if err != nil {
		return errgrpc.ToNative(err)
	}
	name := container.Container.Image
	if name == "" {
		return nil
	}
	image, err := imagesapi.NewImagesClient(i.conn).Get(ctx, &imagesapi.GetImageRequest{Name: name})
	if err != nil {
		if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
			return nil // removed while its container lives on: nothing of it can be read
		}
		return err
	}
	target := image.Image.Target
	manager := leasesproxy.NewLeaseManager(leasesapi.NewLeasesClient(i.conn))
	lease, err := manager.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	i.leases, i.lease = manager, lease
	if err := manager.AddResource(ctx, lease, leases.Resource{ID: target.Digest, Type: "content"}); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	store := contentproxy.NewContentStore(i.conn)
	i.Image = &Image{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size,
		Open: func(ctx context.Context, d string) (io.ReadCloser, error) { return openBlob(ctx, store, d) }}
	return nil
}

// Close gives the image back to containerd.
func (i *ContainerImage) Close(ctx context.Context) error {
	var err error
	if i.leases != nil {
		err = i.leases.Delete(ctx, i.lease)
	}
	if closed := i.conn.Close(); err == nil {
		err = closed
	}
	return err
}

func openBlob(ctx context.Context, store content.Provider, d string) (io.ReadCloser, error) {
	// A size that is not known is asked for.
	r, err := store.ReaderAt(ctx, ocispec.Descriptor{Digest: digest.Digest(d)})
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("blob %s is not in the content store: %w", d, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(r, 0, r.Size()), r}, nil
}
