// Package link turns a decoded component into a plan: the flat list of steps that make an instance of it.
//
// Linking interprets every definition of the component once, nested components with their arguments included.
// What remains is which core modules to instantiate, in which order, with which imports, and what each canonical
// definition does; every name and index has become a number ("slot"). The same evaluation runs twice in a
// component's life: without a host, when its core modules are compiled ([Compile]), and with the host's
// interfaces, when it is linked ([Link]); both give the same numbers, so that modules compiled once serve every
// link.
//
// The files: plan.go holds the plan and its printer, scope.go the index spaces, evaluate.go the definitions,
// canon.go the canonical ones, types.go resolves types, match.go compares them, host.go what a host offers, and
// semver.go how interface names match.
//
// Linking checks what it uses: indices, sorts, core types of what modules import, and the type of everything
// that crosses a boundary. It does not prove that a nested component which is never instantiated is valid.
package link
