package lockedapp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const shop = `{
  "spin_lock_version": 1,
  "must_understand": ["host_requirements"],
  "metadata": {
    "name": "shop", "version": "0.1.0", "description": "a shop", "authors": ["A <a@x>"],
    "triggers": {"http": {}}, "trigger": {"type": "http"},
    "origin": "file:///src/spin.toml", "oci_image_digest": "sha256:aa"
  },
  "host_requirements": {"local_service_chaining": "optional"},
  "variables": {"api_host": {"default": "x"}, "token": {"secret": true, "description": "secret"}},
  "triggers": [
    {"id": "cart-http-trigger", "trigger_type": "http",
     "trigger_config": {"component": "cart", "route": "/cart/...", "executor": {"type": "http"}}},
    {"id": "inner", "trigger_type": "http", "trigger_config": {"component": "cart", "route": {"private": true}}},
    {"id": "static", "trigger_type": "http", "trigger_config": {"route": "/s", "static_response": {"body": "x"}}}
  ],
  "components": [
    {"id": "cart",
     "metadata": {"description": "", "allowed_outbound_hosts": ["https://{{ api_host }}"],
       "key_value_stores": ["default"], "databases": ["default"], "ai_models": ["llama2-chat"], "build": {}},
     "source": {"content_type": "application/wasm", "digest": "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"},
     "env": {"LEVEL": "info"},
     "files": [
       {"digest": "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "path": "img/a.png"},
       {"inline": "aGk", "path": "hi.txt"},
       {"inline": "aGk=", "path": "padded.txt"},
       {"inline": "", "path": "empty.txt"}
     ],
     "config": {"url": "https://{{ api_host }}/v1"},
     "dependencies": {"a:b/c": {"source": {"digest": "sha256:aa"}, "export": null, "inherit": {"Some": ["allowed_outbound_hosts"]}}}}
  ]
}`

func TestDecodeReadsEveryField(t *testing.T) {
	t.Parallel()
	app, err := Decode([]byte(shop))
	require.NoError(t, err)

	require.Equal(t, "shop", app.Metadata.Name)
	require.Equal(t, []string{"A <a@x>"}, app.Metadata.Authors)
	require.Equal(t, "x", *app.Variables["api_host"].Default)
	require.Nil(t, app.Variables["token"].Default)
	require.True(t, app.Variables["token"].Secret)

	cart := app.Component("cart")
	require.NotNil(t, cart)
	require.Nil(t, app.Component("car"))
	require.Equal(t, ComponentMetadata{
		AllowedOutboundHosts: []string{"https://{{ api_host }}"}, KeyValueStores: []string{"default"},
		Databases: []string{"default"}, AIModels: []string{"llama2-chat"},
	}, cart.Metadata)
	require.Equal(t, "application/wasm", cart.Source.ContentType)
	require.Equal(t, map[string]string{"LEVEL": "info"}, cart.Env)
	require.Equal(t, map[string]string{"url": "https://{{ api_host }}/v1"}, cart.Config)
	require.Contains(t, cart.Dependencies, "a:b/c")
	require.Nil(t, cart.Files[0].Inline)
	require.Equal(t, Bytes("hi"), cart.Files[1].Inline)
	require.Equal(t, Bytes("hi"), cart.Files[2].Inline)
	require.Equal(t, Bytes{}, cart.Files[3].Inline, "empty content is content")

	for i, want := range []string{"cart", "cart", ""} {
		id, err := app.Triggers[i].ComponentID()
		require.NoError(t, err)
		require.Equal(t, want, id)
	}
	require.JSONEq(t, `{"private": true}`, string(field(t, app.Triggers[1].Config, "route")))
}

func field(t *testing.T, object json.RawMessage, name string) json.RawMessage {
	var fields map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(object, &fields))
	return fields[name]
}

func TestEncodeIsTheInverseOfDecode(t *testing.T) {
	t.Parallel()
	var compact bytes.Buffer // raw messages are encoded without the space between their tokens
	require.NoError(t, json.Compact(&compact, []byte(shop)))
	app, err := Decode(compact.Bytes())
	require.NoError(t, err)
	data, err := app.Encode()
	require.NoError(t, err)
	again, err := Decode(data)
	require.NoError(t, err)
	require.Equal(t, app, again)
}

// doc returns a small app, with old replaced.
func doc(old, new string) string {
	const minimal = `{"spin_lock_version":0,"metadata":{"name":"a"},"variables":{},` +
		`"triggers":[{"id":"t","trigger_type":"http","trigger_config":{"component":"c","route":"/"}}],` +
		`"components":[{"id":"c","source":{"inline":"AA"},"files":[]}]}`
	return strings.Replace(minimal, old, new, 1)
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	_, err := Decode([]byte(doc("", "")))
	require.NoError(t, err, "what the cases start from")

	for _, c := range []struct{ name, input, err string }{
		{"no JSON", `spin`, `decode locked app: invalid character 's' looking for beginning of value`},
		{"more after the document", doc("", "") + "{}", `decode locked app: invalid character '{' after top-level value`},
		{"another document", `{"layers":[]}`, `decode locked app: no spin_lock_version`},
		{"a newer version", doc(`version":0`, `version":2`), `locked app: spin_lock_version 2 is not supported`},
		{"a negative version", doc(`version":0`, `version":-1`), `locked app: spin_lock_version -1 is not supported`},
		{"must_understand of something new", doc(`"metadata"`, `"must_understand":["host_requirements","time"],"metadata"`),
			`locked app: must_understand: "time" is not supported`},
		{"host requirement", doc(`"variables"`, `"host_requirements":{"local_service_chaining":"required"},"variables"`),
			`locked app: host requirement "local_service_chaining" is not supported`},
		{"host requirement of an unknown degree", doc(`"variables"`, `"host_requirements":{"gpu":1},"variables"`),
			`locked app: host requirement "gpu" is not supported`},
		{"host requirement of a component", doc(`"files":[]`, `"host_requirements":{"middleware":"required"}`),
			`locked app: component "c": host requirement "middleware" is not supported`},
		{"no name", doc(`"name":"a"`, ``), `locked app: metadata: no name`},
		{"variable with a dash", doc(`"variables":{`, `"variables":{"a-b":{}`),
			`locked app: variable "a-b": a name is a lower-case letter, then letters, digits and single '_'`},
		{"component variable that ends in _", doc(`"files":[]`, `"config":{"a_":""}`),
			`locked app: component "c": variable "a_": a name is a lower-case letter, then letters, digits and single '_'`},
		{"no triggers", doc(`{"id":"t","trigger_type":"http","trigger_config":{"component":"c","route":"/"}}`, ``), `locked app: no triggers`},
		{"trigger without id", doc(`"id":"t",`, ``), `locked app: trigger 0: no id`},
		{"trigger without type", doc(`"trigger_type":"http",`, ``), `locked app: trigger "t": no trigger_type`},
		{"trigger without config", doc(`,"trigger_config":{"component":"c","route":"/"}`, ``), `locked app: trigger "t": trigger_config is not an object`},
		{"trigger config that is a list", doc(`{"component":"c","route":"/"}`, `[]`), `locked app: trigger "t": trigger_config is not an object`},
		{"trigger with an inline component", doc(`"component":"c"`, `"component":{}`),
			`locked app: trigger "t": trigger_config: json: cannot unmarshal object into Go struct field .component of type string`},
		{"trigger with an empty component", doc(`"component":"c"`, `"component":""`), `locked app: trigger "t": trigger_config: component is empty`},
		{"trigger of a component that is not there", doc(`"component":"c"`, `"component":"d"`), `locked app: trigger "t": no component "d"`},
		{"middleware", doc(`"trigger_type"`, `"trigger_dependencies":{"middleware":[{}]},"trigger_type"`),
			`locked app: trigger "t": trigger_dependencies (middleware) are not supported yet`},
		{"two triggers of one id", doc(`"triggers":[`, `"triggers":[{"id":"t","trigger_type":"http","trigger_config":{}},`),
			`locked app: trigger "t" is there twice`},
		{"component without id", doc(`"components":[{"id":"c",`, `"components":[{`), `locked app: component 0: no id`},
		{"component that is null", doc(`"components":[`, `"components":[null,`), `locked app: component 0: no id`},
		{"two components of one id", doc(`"components":[`, `"components":[{"id":"c","source":{"inline":""}},`),
			`locked app: component "c" is there twice`},
		{"component id that climbs", doc(`"components":[{"id":"c"`, `"components":[{"id":".."`),
			`locked app: component 0: id "..": only letters, digits, '-', '_' and '.' are allowed, the first a letter or digit`},
		{"component id with a slash", doc(`"components":[{"id":"c"`, `"components":[{"id":"a/b"`),
			`locked app: component 0: id "a/b": only letters, digits, '-', '_' and '.' are allowed, the first a letter or digit`},
		{"component id without end", doc(`"components":[{"id":"c"`, `"components":[{"id":"`+strings.Repeat("c", 129)+`"`),
			`locked app: component 0: id of 129 bytes, at most 128 are supported`},
		{"source without content", doc(`{"inline":"AA"}`, `{"content_type":"application/wasm"}`),
			`locked app: component "c": source: neither source nor digest nor inline`},
		{"source twice", doc(`"inline":"AA"`, `"inline":"AA","source":"a.wasm"`), `locked app: component "c": source: inline beside source`},
		{"digest of another algorithm", doc(`"inline":"AA"`, `"digest":"sha512:00"`), `locked app: component "c": source: digest "sha512:00" is not a sha256 digest`},
		{"digest that climbs", doc(`"inline":"AA"`, `"digest":"sha256:../../`+strings.Repeat("a", 58)+`"`),
			`locked app: component "c": source: digest "sha256:../../` + strings.Repeat("a", 58) + `" is not a sha256 digest`},
		{"inline that is not base64", doc(`"inline":"AA"`, `"inline":"A-"`), `decode locked app: component 0: illegal base64 data at input byte 1`},
		{"file without path", doc(`"files":[`, `"files":[{"inline":""}`), `locked app: component "c": file 0: no path`},
		{"file without content", doc(`"files":[`, `"files":[{"path":"a"}`), `locked app: component "c": file "a": neither source nor digest nor inline`},
		{"env that is no string", doc(`"files":[]`, `"env":{"A":1}`), `decode locked app: component 0: json: cannot unmarshal number into Go struct field Component.env of type string`},
		{"too many components", doc(`"components":[`, `"components":[`+strings.Repeat("{},", maxComponents)),
			`decode locked app: 1025 components, at most 1024 are supported`},
		{"too many triggers", doc(`"triggers":[`, `"triggers":[`+strings.Repeat("{},", maxTriggers)),
			`locked app: 4097 triggers, at most 4096 are supported`},
		{"too many variables", doc(`"variables":{`, `"variables":{`+manyVariables()), `locked app: 4097 variables, at most 4096 are supported`},
		{"too large", doc("", strings.Repeat(" ", MaxSize)), fmt.Sprintf(`decode locked app: %d bytes, at most 4194304 are read`, MaxSize+len(doc("", "")))},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := Decode([]byte(c.input))
			require.EqualError(t, err, c.err)
		})
	}
}

func manyVariables() string {
	var b strings.Builder
	for i := range maxVariables + 1 {
		fmt.Fprintf(&b, `"v%d":{},`, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

func FuzzLockedApp(f *testing.F) {
	f.Add([]byte(shop))
	f.Add([]byte(doc("", "")))
	f.Add([]byte(doc(`"files":[]`, `"files":null,"env":null,"metadata":null`)))
	f.Add([]byte(`{"spin_lock_version":1e0,"components":[[]]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		app, err := Decode(data)
		if err != nil {
			return
		}
		encoded, err := app.Encode()
		require.NoError(t, err)
		again, err := Decode(encoded)
		require.NoError(t, err)
		twice, err := again.Encode()
		require.NoError(t, err)
		require.Equal(t, string(encoded), string(twice))
	})
}
