// Package component holds the component model as data: the decoded component ([Component] and its
// definitions, still in terms of index spaces) and value types ([Type], resolved and interned).
//
// The shapes follow Binary.md and Explainer.md of
// https://github.com/WebAssembly/component-model/tree/main/design/mvp.
// The package decodes nothing and runs nothing: package binary makes a Component, package link checks it
// and turns it into a plan.
package component

// Component is one decoded component: its definitions in the order of the binary. Each definition
// appends to the index spaces that its type says; indices in later definitions refer to these spaces.
type Component struct {
	// Offset is where the component's preamble stands in the file; it is 0 for the root.
	Offset int
	// Definitions in binary order.
	Definitions []Definition
}

// Sort names an index space.
type Sort uint8

// The index spaces of a component. Core sorts come first, so that a sort is a core sort iff it is
// below [SortFunc].
const (
	SortCoreFunc Sort = iota
	SortCoreTable
	SortCoreMemory
	SortCoreGlobal
	SortCoreTag
	SortCoreType
	SortCoreModule
	SortCoreInstance
	SortFunc
	SortValue
	SortType
	SortComponent
	SortInstance
	SortCount // number of sorts
)

// IsCore says whether s is a core sort.
func (s Sort) IsCore() bool { return s < SortFunc }

// String returns the sort as the text format writes it.
func (s Sort) String() string {
	if s >= SortCount {
		return "unknown sort"
	}
	return [SortCount]string{
		"core func", "core table", "core memory", "core global", "core tag", "core type", "core module", "core instance",
		"func", "value", "type", "component", "instance",
	}[s]
}

// Definition is one of the *Def types of this package.
type Definition interface {
	// Pos is the definition's byte offset in the file, for error messages.
	Pos() int
}

// At is embedded in every definition and holds its byte offset in the file.
type At int

// Pos returns the byte offset.
func (a At) Pos() int { return int(a) }

// CoreModuleDef is an embedded core module; it appends to the core modules.
type CoreModuleDef struct {
	At
	// Bytes is the module, preamble included; it aliases the decoder's input.
	Bytes []byte
}

// CoreInstantiateDef instantiates a core module; it appends to the core instances.
type CoreInstantiateDef struct {
	At
	Module uint32
	// Args name the core instances that satisfy the module's imports, by the import's module name.
	Args []CoreInstantiateArg
}

// CoreInstantiateArg is one `with` argument of a core instantiation.
type CoreInstantiateArg struct {
	Name     string
	Instance uint32
}

// CoreExportsDef makes a core instance of existing core definitions; it appends to the core instances.
type CoreExportsDef struct {
	At
	Exports []InlineExport
}

// InlineExport is a named reference to a definition in the index space of Sort.
type InlineExport struct {
	Name  string
	Sort  Sort
	Index uint32
	// Implements is as in [ExternName].
	Implements string
}

// CoreTypeDef is a core type; it appends to the core types. Exactly one of Func and Module is set.
type CoreTypeDef struct {
	At
	Func   *CoreFuncType
	Module *CoreModuleType
}

// CoreFuncType is a core function type.
type CoreFuncType struct {
	Params, Results []CoreValType
}

// CoreValType is a core value type by its byte in the core binary format (0x7f = i32 …).
type CoreValType byte

// The core value types that the canonical ABI uses.
const (
	CoreI32 CoreValType = 0x7f
	CoreI64 CoreValType = 0x7e
	CoreF32 CoreValType = 0x7d
	CoreF64 CoreValType = 0x7c
)

// String returns the type as the text format writes it.
func (v CoreValType) String() string {
	switch v {
	case CoreI32:
		return "i32"
	case CoreI64:
		return "i64"
	case CoreF32:
		return "f32"
	case CoreF64:
		return "f64"
	}
	return "unknown core type"
}

// CoreModuleType is the type of a core module: what it imports and exports.
type CoreModuleType struct {
	// Types is the module type's own core type index space. A Desc refers to types that the module type
	// declares before it.
	Types   []CoreTypeDecl
	Imports []CoreImport
	Exports []CoreExport
}

// CoreTypeDecl is a type that a core module type declares: a function type or, if Outer is set, that of an
// enclosing component or type (Outer.Count is at least 1: the module type has only its own types).
type CoreTypeDecl struct {
	CoreFuncType
	Outer *AliasOuterDef
}

// CoreImport is an import of a core module type.
type CoreImport struct {
	Module, Name string
	Desc         CoreExternDesc
}

// CoreExport is an export of a core module type.
type CoreExport struct {
	Name string
	Desc CoreExternDesc
}

// CoreExternDesc is the type of a core import or export.
type CoreExternDesc struct {
	Sort Sort
	// Type is the function's (or tag's) type index; Raw is the rest of the description as it stands in
	// the binary, for tables, memories and globals.
	Type uint32
	Raw  []byte
}

// ComponentDef is a nested component; it appends to the components.
type ComponentDef struct {
	At
	Component *Component
}

// InstantiateDef instantiates a component; it appends to the instances.
type InstantiateDef struct {
	At
	Component uint32
	Args      []InlineExport
}

// ExportsDef makes an instance of existing definitions; it appends to the instances.
type ExportsDef struct {
	At
	Exports []InlineExport
}

// AliasExportDef names an export of an instance; it appends to the space of Sort. The instance is a
// core instance iff Sort is a core sort other than [SortCoreType] and [SortCoreModule]
// (a component instance may export core modules).
type AliasExportDef struct {
	At
	Sort     Sort
	Instance uint32
	Name     string
	// Core says that Instance is in the space of core instances.
	Core bool
}

// AliasOuterDef names a definition of an enclosing component; it appends to the space of Sort, which is
// [SortCoreModule], [SortCoreType], [SortType] or [SortComponent].
type AliasOuterDef struct {
	At
	Sort  Sort
	Count uint32 // how many components to go outwards; 0 is the current one
	Index uint32
}

// TypeDef is an entry of a type section; it appends to the types.
type TypeDef struct {
	At
	Type TypeExpr
}

// StartDef is the start definition.
type StartDef struct {
	At
	Func    uint32
	Args    []uint32 // value indices
	Results uint32   // number of values appended
}

// ImportDef is an import; it appends to the space of Desc's sort.
type ImportDef struct {
	At
	Name ExternName
	Desc ExternDesc
}

// ExportDef is an export; it appends to the space of Sort too. In an instance or component type it
// declares an export: Index is unused and Desc set.
type ExportDef struct {
	At
	Name  ExternName
	Sort  Sort
	Index uint32
	// Desc is the type that the export is ascribed; nil means that of the definition.
	Desc *ExternDesc
}

// ExternName is the name of an import or export with its annotations.
type ExternName struct {
	// Name is a kebab name (`handle`, `[method]store.get`) or an interface name
	// (`wasi:io/streams@0.2.0`), as it stands in the binary.
	Name string
	// VersionSuffix completes a truncated version, or is "".
	VersionSuffix string
	// Implements names the interface that a plain-named instance implements, or is "".
	Implements string
}

// ExternDesc is the type of an import or export.
type ExternDesc struct {
	// Sort is [SortCoreModule], [SortFunc], [SortValue], [SortType], [SortComponent] or [SortInstance].
	Sort Sort
	// Index is the type's index: of a core type for [SortCoreModule], else of a type; for [SortType] the
	// type that the bound equals, unless SubResource; for [SortValue] see Value.
	Index uint32
	// SubResource says that a type's bound is `(sub resource)`.
	SubResource bool
	// Value is a value's type; for an `eq` bound Type is unset and Index the value's index.
	Value ValType
	// ValueEq says that a value's bound is `(eq Index)`.
	ValueEq bool
}

// TypeExpr is the body of a [TypeDef]: one of [ValTypeExpr]'s kinds, *FuncExpr, *ResourceExpr,
// *InstanceExpr or *ComponentExpr.
type TypeExpr interface{ typeExpr() }

// ValType is a value type where the binary allows a primitive or an index: a primitive if Kind is not
// [KindIndex], else the type Index.
type ValType struct {
	Kind  Kind
	Index uint32
}

// ValTypeExpr is a defined value type. Which fields are used follows from Kind.
type ValTypeExpr struct {
	Kind Kind
	// Fields of a record; of a tuple, without names.
	Fields []FieldExpr
	// Cases of a variant; of an enum, without types; of a result, "ok" and "error".
	Cases []CaseExpr
	// Labels of flags.
	Labels []string
	// Elem of a list, option, stream or future; HasElem is false for a stream or future without one.
	Elem    ValType
	HasElem bool
	// Length of a fixed-length list.
	Length uint32
	// Key of a map; Elem is its value.
	Key ValType
	// Resource is the type index of an own or borrow.
	Resource uint32
}

// FieldExpr is a field of a record or a parameter of a function.
type FieldExpr struct {
	Name string
	Type ValType
}

// CaseExpr is a case of a variant.
type CaseExpr struct {
	Name    string
	Type    ValType
	HasType bool
}

// FuncExpr is a function type.
type FuncExpr struct {
	Async  bool
	Params []FieldExpr
	// Result is unset if HasResult is false.
	Result    ValType
	HasResult bool
}

// ResourceExpr is a resource type with its representation, which is always i32 today.
type ResourceExpr struct {
	Rep CoreValType
	// Dtor is the destructor's core function index, if HasDtor.
	Dtor    uint32
	HasDtor bool
}

// InstanceExpr is an instance type: declarations of core types, types, aliases and exports.
type InstanceExpr struct{ Decls []Definition }

// ComponentExpr is a component type: declarations as in [InstanceExpr], and imports.
type ComponentExpr struct{ Decls []Definition }

func (*ValTypeExpr) typeExpr()   {}
func (*FuncExpr) typeExpr()      {}
func (*ResourceExpr) typeExpr()  {}
func (*InstanceExpr) typeExpr()  {}
func (*ComponentExpr) typeExpr() {}
