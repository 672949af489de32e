package oci

// Media types that decide what an image is.
const (
	// MediaTypeLockedApp is the locked app: written by `spin registry push` as a layer since Spin 2.0, as the config before.
	MediaTypeLockedApp = "application/vnd.fermyon.spin.application.v1+config"
	// MediaTypeWasmLayer is one component: written by `spin registry push`.
	MediaTypeWasmLayer = "application/vnd.wasm.content.layer.v1+wasm"
	// MediaTypeDataLayer is one static file: written by `spin registry push`.
	MediaTypeDataLayer = "application/vnd.wasm.content.layer.v1+data"
	// MediaTypeBundleLayer is a tar of static files: written by `spin registry push` for apps of 500 layers and more.
	MediaTypeBundleLayer = "application/vnd.wasm.content.bundle.v1.tar+gzip"
	// MediaTypeWasm is one component: written by `wkg oci push`, and by `oras push` as documented for WebAssembly.
	MediaTypeWasm = "application/wasm"

	// Manifest and index in Docker's form: written by `docker push` and by registries that convert.
	mediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)
