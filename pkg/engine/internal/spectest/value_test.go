package spectest_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/spectest"
)

// The tests hold a value of the component model as
//   - bool: a bool
//   - string: a string or char
//   - uint64: an integer, sign-extended, or the bits of a float
//   - uint32: flags
//   - []any: a list, record or tuple
//   - choice: a variant, enum, option or result
//
// parse makes it of a script's JSON, put hands it to a guest, and lift reads it from a guest.

type choice struct {
	Case    int
	Payload any // nil if there is none
}

// decode reads the JSON form of a value.
func decode[T any](raw json.RawMessage) (out T, err error) {
	err = json.Unmarshal(raw, &out)
	return out, err
}

func parse(t *engine.Type, v spectest.Value) (any, error) {
	out, err := parseRaw(t, v.Value)
	if err != nil {
		return nil, fmt.Errorf("value %s as %s: %w", v.Value, t, err)
	}
	return out, nil
}

func parseRaw(t *engine.Type, raw json.RawMessage) (any, error) {
	switch t.Kind {
	case component.KindBool:
		return decode[bool](raw)
	case component.KindChar, component.KindString:
		return decode[string](raw)
	case component.KindList:
		values, err := decode[[]spectest.Value](raw)
		if err != nil {
			return nil, err
		}
		return parseAll(slices.Repeat([]component.Field{{Type: t.Elem}}, len(values)), values)
	case component.KindTuple:
		values, err := decode[[]spectest.Value](raw)
		if err != nil {
			return nil, err
		}
		return parseAll(t.Fields, values)
	case component.KindRecord: // pairs of name and value, in the order of the type
		pairs, err := decode[[][2]json.RawMessage](raw)
		if err != nil {
			return nil, err
		}
		values := make([]spectest.Value, len(pairs))
		for i, p := range pairs {
			if values[i], err = decode[spectest.Value](p[1]); err != nil {
				return nil, err
			}
		}
		return parseAll(t.Fields, values)
	case component.KindVariant:
		c, err := decode[struct {
			Case    string
			Payload *spectest.Value
		}](raw)
		if err != nil {
			return nil, err
		}
		return parseCase(t, c.Case, c.Payload)
	case component.KindEnum:
		name, err := decode[string](raw)
		if err != nil {
			return nil, err
		}
		return parseCase(t, name, nil)
	case component.KindOption:
		some, err := decode[*spectest.Value](raw)
		switch {
		case err != nil:
			return nil, err
		case some == nil:
			return parseCase(t, "none", nil)
		}
		return parseCase(t, "some", some)
	case component.KindResult:
		r, err := decode[map[string]*spectest.Value](raw)
		if err != nil {
			return nil, err
		}
		if ok, has := r["Ok"]; has {
			return parseCase(t, "ok", ok)
		}
		return parseCase(t, "error", r["Err"])
	case component.KindFlags:
		labels, err := decode[[]string](raw)
		var bits uint32
		for _, l := range labels {
			bits |= 1 << slices.Index(t.Labels, l)
		}
		return bits, err
	}
	digits, err := decode[string](raw)
	if err != nil {
		return nil, err
	}
	if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
		return uint64(n), nil
	}
	return strconv.ParseUint(digits, 10, 64)
}

func parseCase(t *engine.Type, name string, payload *spectest.Value) (any, error) {
	i := slices.IndexFunc(t.Cases, func(c component.Case) bool { return c.Name == name })
	if i < 0 || (payload == nil) != (t.Cases[i].Type == nil) {
		return nil, fmt.Errorf("no such case %q", name)
	}
	if payload == nil {
		return choice{Case: i}, nil
	}
	p, err := parse(t.Cases[i].Type, *payload)
	return choice{i, p}, err
}

func parseAll(types []component.Field, values []spectest.Value) ([]any, error) {
	if len(types) != len(values) {
		return nil, fmt.Errorf("%d values, want %d", len(values), len(types))
	}
	out := make([]any, len(values))
	for i, v := range values {
		var err error
		if out[i], err = parse(types[i].Type, v); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// put hands v, a value of type t, to a guest.
func put(c *engine.Call, t *engine.Type, v any) {
	switch t.Kind {
	case component.KindBool:
		c.PutBool(v.(bool))
	case component.KindChar:
		r, _ := utf8.DecodeRuneInString(v.(string))
		c.PutChar(r)
	case component.KindString:
		c.PutString(v.(string))
	case component.KindU8:
		c.PutU8(uint8(v.(uint64)))
	case component.KindU16:
		c.PutU16(uint16(v.(uint64)))
	case component.KindU32:
		c.PutU32(uint32(v.(uint64)))
	case component.KindU64:
		c.PutU64(v.(uint64))
	case component.KindS8:
		c.PutS8(int8(v.(uint64)))
	case component.KindS16:
		c.PutS16(int16(v.(uint64)))
	case component.KindS32:
		c.PutS32(int32(v.(uint64)))
	case component.KindS64:
		c.PutS64(int64(v.(uint64)))
	case component.KindF32:
		c.PutF32(math.Float32frombits(uint32(v.(uint64))))
	case component.KindF64:
		c.PutF64(math.Float64frombits(v.(uint64)))
	case component.KindFlags:
		c.PutFlags(v.(uint32))
	case component.KindList:
		c.PutList(len(v.([]any)))
		for _, e := range v.([]any) {
			put(c, t.Elem, e)
		}
	case component.KindRecord, component.KindTuple:
		for i, f := range v.([]any) {
			put(c, t.Fields[i].Type, f)
		}
	default:
		putChoice(c, t, v.(choice))
	}
}

func putChoice(c *engine.Call, t *engine.Type, v choice) {
	switch {
	case t.Kind == component.KindVariant, t.Kind == component.KindEnum:
		c.PutCase(v.Case)
	case t.Kind == component.KindOption && v.Case == 0:
		c.PutNone()
	case t.Kind == component.KindOption:
		c.PutSome()
	case v.Case == 0:
		c.PutOk()
	default:
		c.PutErr()
	}
	if p := t.Cases[v.Case].Type; p != nil {
		put(c, p, v.Payload)
	}
}

// lift reads a value of type t from a guest.
func lift(c *engine.Call, t *engine.Type) any {
	switch t.Kind {
	case component.KindBool:
		return c.Bool()
	case component.KindChar:
		return string(c.Char())
	case component.KindString:
		return c.String()
	case component.KindU8:
		return uint64(c.U8())
	case component.KindU16:
		return uint64(c.U16())
	case component.KindU32:
		return uint64(c.U32())
	case component.KindU64:
		return c.U64()
	case component.KindS8:
		return uint64(c.S8())
	case component.KindS16:
		return uint64(c.S16())
	case component.KindS32:
		return uint64(c.S32())
	case component.KindS64:
		return uint64(c.S64())
	case component.KindF32:
		return uint64(math.Float32bits(c.F32()))
	case component.KindF64:
		return math.Float64bits(c.F64())
	case component.KindFlags:
		return c.Flags()
	case component.KindList:
		out := make([]any, c.List())
		for i := range out {
			out[i] = lift(c, t.Elem)
		}
		return out
	case component.KindRecord, component.KindTuple:
		out := make([]any, len(t.Fields))
		for i, f := range t.Fields {
			out[i] = lift(c, f.Type)
		}
		return out
	case component.KindOwn, component.KindBorrow:
		return c.Handle()
	}
	return liftChoice(c, t)
}

func liftChoice(c *engine.Call, t *engine.Type) any {
	var v choice
	switch t.Kind {
	case component.KindOption:
		if c.Option() {
			v.Case = 1
		}
	case component.KindResult:
		if !c.Result() {
			v.Case = 1
		}
	default:
		v.Case = c.Case()
	}
	if p := t.Cases[v.Case].Type; p != nil {
		v.Payload = lift(c, p)
	}
	return v
}
