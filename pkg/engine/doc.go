// Package engine runs WebAssembly components on wazero.
//
// A component passes through these phases, each in a package of its own below internal:
//
//	decode       bytes → component.Component                         (binary)
//	link         component + host interfaces, types checked → flat plan of slots (link)
//	compile      core modules, imports renamed to slots → machine code, cached on disk (core, wazero)
//	instantiate  plan → Instance: core instances, handle tables, host state
//	call         lift and lower values by the Canonical ABI          (abi)
//
// An [Engine] is the process's one wazero runtime. [Engine.Compile] makes a [Component], which a [Linker]
// links with the host's interfaces into an [InstancePre]; that is cheap to instantiate, and each
// [Instance] is one isolated world: one request's, usually.
//
// Why it is built so is in RATIONALE.md, from "Why is a component flattened when it is linked?" on.
//
// The package knows components; what WASI is, packages wasi and wasihttp know, and Spin begins at
// package factor.
package engine
