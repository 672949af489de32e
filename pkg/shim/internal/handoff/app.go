package handoff

import "path"

// The parts of a prepared app, below its folder.
const (
	// AppFile is the locked app, whose components' sources are digests and whose files are left out.
	AppFile = "app.json"
	// AssetsDir holds a folder for each component that has files, by its id.
	AssetsDir = "assets"
	// CodeDir holds machine code, as the engine stores it.
	CodeDir = "code"
)

// ComponentFile is the file of the component whose digest has these hex digits.
func ComponentFile(hex string) string { return path.Join("components", hex+".wasm") }
