package wasi

import (
	"slices"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// Add defines the interfaces of WASI in l.
func Add(l *engine.Linker, cfg Config) *Host {
	h := &Host{cfg: cfg, start: time.Now()}
	for name, value := range cfg.Env {
		h.env = append(h.env, [2]string{name, value})
	}
	slices.SortFunc(h.env, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	h.files = engine.NewSlot(l, func(*engine.Instance) *openFiles { return new(openFiles) })
	for _, i := range h.interfaces() {
		l.Define(i)
	}
	return h
}

// funcs are the host functions of one interface, by WIT name.
type funcs = map[string]engine.HostFunc

// interfaces is the table of WASI 0.2: which host function stands for which function of the WIT.
func (h *Host) interfaces() []engine.Interface {
	return []engine.Interface{
		{Type: ioErrorType(), Funcs: funcs{
			"[method]error.to-debug-string": errorToDebugString,
		}},
		{Type: ioPollType(), Funcs: funcs{
			"[method]pollable.ready": pollableReady,
			"[method]pollable.block": pollableBlock,
			"poll":                   poll,
		}},
		{Type: ioStreamsType(), Funcs: funcs{
			"[method]input-stream.read":                             inputRead(false),
			"[method]input-stream.blocking-read":                    inputRead(true),
			"[method]input-stream.skip":                             inputSkip(false),
			"[method]input-stream.blocking-skip":                    inputSkip(true),
			"[method]input-stream.subscribe":                        subscribe,
			"[method]output-stream.check-write":                     outputCheckWrite,
			"[method]output-stream.write":                           outputWrite(false),
			"[method]output-stream.blocking-write-and-flush":        outputWrite(true),
			"[method]output-stream.flush":                           outputFlush,
			"[method]output-stream.blocking-flush":                  outputFlush,
			"[method]output-stream.subscribe":                       subscribe,
			"[method]output-stream.write-zeroes":                    outputWriteZeroes(false),
			"[method]output-stream.blocking-write-zeroes-and-flush": outputWriteZeroes(true),
			"[method]output-stream.splice":                          outputSplice(false),
			"[method]output-stream.blocking-splice":                 outputSplice(true),
		}},
		{Type: cliEnvironmentType(), Funcs: funcs{
			"get-environment": h.getEnvironment,
			"get-arguments":   h.getArguments,
			"initial-cwd":     initialCwd,
		}},
		{Type: cliExitType(), Funcs: funcs{
			"exit":           exit,
			"exit-with-code": exitWithCode,
		}},
		{Type: cliStdinType(), Funcs: funcs{"get-stdin": h.getStdin}},
		{Type: cliStdoutType(), Funcs: funcs{"get-stdout": getOutput(h.cfg.Stdout)}},
		{Type: cliStderrType(), Funcs: funcs{"get-stderr": getOutput(h.cfg.Stderr)}},
		{Type: cliTerminalInputType()},
		{Type: cliTerminalOutputType()},
		{Type: cliTerminalStdinType(), Funcs: funcs{"get-terminal-stdin": noTerminal}},
		{Type: cliTerminalStdoutType(), Funcs: funcs{"get-terminal-stdout": noTerminal}},
		{Type: cliTerminalStderrType(), Funcs: funcs{"get-terminal-stderr": noTerminal}},
		{Type: clocksWallClockType(), Funcs: funcs{
			"now":        wallClockNow,
			"resolution": wallClockResolution,
		}},
		{Type: clocksMonotonicClockType(), Funcs: funcs{
			"now":                h.monotonicNow,
			"resolution":         monotonicResolution,
			"subscribe-instant":  h.subscribeInstant,
			"subscribe-duration": h.subscribeDuration,
		}},
		{Type: randomRandomType(), Funcs: funcs{
			"get-random-bytes": randomBytes,
			"get-random-u64":   randomU64,
		}},
		{Type: randomInsecureType(), Funcs: funcs{
			"get-insecure-random-bytes": randomBytes,
			"get-insecure-random-u64":   randomU64,
		}},
		{Type: randomInsecureSeedType(), Funcs: funcs{"insecure-seed": insecureSeed}},
		{Type: filesystemPreopensType(), Funcs: funcs{"get-directories": h.getDirectories}},
		{Type: filesystemTypesType(), Funcs: funcs{
			"[method]descriptor.read-via-stream":                  descriptorReadViaStream,
			"[method]descriptor.write-via-stream":                 readOnly,
			"[method]descriptor.append-via-stream":                readOnly,
			"[method]descriptor.advise":                           descriptorAdvise,
			"[method]descriptor.sync-data":                        unchanged,
			"[method]descriptor.get-flags":                        descriptorGetFlags,
			"[method]descriptor.get-type":                         descriptorGetType,
			"[method]descriptor.set-size":                         readOnly,
			"[method]descriptor.set-times":                        readOnly,
			"[method]descriptor.read":                             descriptorReadAt,
			"[method]descriptor.write":                            readOnly,
			"[method]descriptor.read-directory":                   h.descriptorReadDirectory,
			"[method]descriptor.sync":                             unchanged,
			"[method]descriptor.create-directory-at":              readOnly,
			"[method]descriptor.stat":                             descriptorStat,
			"[method]descriptor.stat-at":                          descriptorStatAt,
			"[method]descriptor.set-times-at":                     readOnly,
			"[method]descriptor.link-at":                          readOnly,
			"[method]descriptor.open-at":                          h.descriptorOpenAt,
			"[method]descriptor.readlink-at":                      descriptorReadlinkAt,
			"[method]descriptor.remove-directory-at":              readOnly,
			"[method]descriptor.rename-at":                        readOnly,
			"[method]descriptor.symlink-at":                       readOnly,
			"[method]descriptor.unlink-file-at":                   readOnly,
			"[method]descriptor.is-same-object":                   descriptorIsSameObject,
			"[method]descriptor.metadata-hash":                    descriptorMetadataHash,
			"[method]descriptor.metadata-hash-at":                 descriptorMetadataHashAt,
			"[method]directory-entry-stream.read-directory-entry": readDirectoryEntry,
			"filesystem-error-code":                               filesystemErrorCode,
		}},
	}
}
