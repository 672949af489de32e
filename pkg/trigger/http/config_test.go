package http

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, config, err string }{
		{"unknown field", `{"component":"c","route":"/","rout":1}`, `trigger "t": json: unknown field "rout"`},
		{"no component", `{"route":"/"}`, `trigger "t": neither component nor static_response`},
		{"two answers", `{"route":"/","component":"c","static_response":{}}`, `trigger "t": component beside static_response`},
		{"no route", `{"component":"c"}`, `trigger "t": no route`},
		{"route that is null", `{"component":"c","route":null}`, `trigger "t": route is neither a text nor {"private": true}`},
		{"route that is a number", `{"component":"c","route":1}`, `trigger "t": route is neither a text nor {"private": true}`},
		{"route that is not private", `{"component":"c","route":{"private":false}}`, `trigger "t": route is neither a text nor {"private": true}`},
		{"private route with more", `{"component":"c","route":{"private":true,"x":1}}`, `trigger "t": route is neither a text nor {"private": true}`},
		{"bad route", `{"component":"c","route":"/*a"}`, `trigger "t": route "/*a": a wildcard has no name: write "*" instead of "*a"`},
		{"component that is none of HTTP", `{"component":"d","route":"/"}`, `trigger "t": component "d" handles no HTTP`},
		{"wagi", `{"component":"c","route":"/","executor":{"type":"wagi"}}`, `trigger "t": executor "wagi" is not supported`},
		{"wagi with settings", `{"component":"c","route":"/","executor":{"type":"wagi","argv":"a"}}`, `trigger "t": executor "wagi" is not supported`},
		{"unknown executor", `{"component":"c","route":"/","executor":{"type":"x"}}`, `trigger "t": executor "x" is unknown`},
		{"static status", `{"route":"/","static_response":{"status_code":100}}`, `trigger "t": static_response: status_code 100 is not between 200 and 999`},
		{"static header name", `{"route":"/","static_response":{"headers":{"a b":""}}}`, `trigger "t": static_response: header name "a b" is invalid`},
		{"static header value", `{"route":"/","static_response":{"headers":{"a":"b\nc"}}}`, `trigger "t": static_response: value of header "a" is invalid`},
		{"static framing", `{"route":"/","static_response":{"headers":{"Transfer-Encoding":"b"}}}`, `trigger "t": static_response: header "Transfer-Encoding" is the server's`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			app := &lockedapp.App{Triggers: []lockedapp.Trigger{{ID: "t", Type: "http", Config: json.RawMessage(c.config)}}}
			_, err := New(Config{App: app, Components: map[string]Component{"c": {}}})
			require.EqualError(t, err, c.err)
		})
	}
}

func TestNewChecksWhatTriggersShare(t *testing.T) {
	t.Parallel()
	for metadata, want := range map[string]string{
		`{}`:             "",
		`{"base":"/"}`:   "",
		`{"base":null}`:  "",
		`{"base":"/x"}`:  `application.trigger.http: base "/x" is not supported: put it before each route`,
		`{"other":"/x"}`: `application.trigger.http: json: unknown field "other"`,
	} {
		app := &lockedapp.App{}
		app.Metadata.Triggers = map[string]json.RawMessage{"http": json.RawMessage(metadata)}
		_, err := New(Config{App: app})
		if want == "" {
			require.NoError(t, err)
		} else {
			require.EqualError(t, err, want)
		}
	}
}
