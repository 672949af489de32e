package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// triggerType is what HTTP triggers are called in a locked app.
const triggerType = "http"

// triggerConfig is the configuration of one HTTP trigger.
// See https://github.com/spinframework/spin/blob/main/crates/http/src/config.rs.
//
// Differences from the specification:
//   - The executor "wagi" is refused.
type triggerConfig struct {
	Component *string         `json:"component"`
	Static    *staticResponse `json:"static_response"`
	Route     routeConfig     `json:"route"`
	Executor  json.RawMessage `json:"executor"`
}

// routeConfig is a pattern or {"private": true}.
type routeConfig struct {
	pattern string
	set     bool
	private bool
}

// staticResponse answers without a component.
type staticResponse struct {
	Status  int               `json:"status_code"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

// UnmarshalJSON decodes a route.
func (c *routeConfig) UnmarshalJSON(data []byte) error {
	c.set = true
	if data[0] == '"' {
		return json.Unmarshal(data, &c.pattern)
	}
	var private struct {
		Private *bool `json:"private"`
	}
	if err := decodeStrictly(data, &private); err != nil || private.Private == nil || !*private.Private {
		return errors.New(`route is neither a text nor {"private": true}`)
	}
	c.private = true
	return nil
}

// UnmarshalJSON decodes a static response, of which only the fields that are known count.
func (s *staticResponse) UnmarshalJSON(data []byte) error {
	type plain staticResponse
	p := plain{Status: http.StatusOK}
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	*s = staticResponse(p)
	return nil
}

// decodeTrigger reads and checks the configuration of a trigger.
func decodeTrigger(t *lockedapp.Trigger) (*triggerConfig, error) {
	var c triggerConfig
	if err := decodeStrictly(t.Config, &c); err != nil {
		return nil, err
	}
	switch {
	case c.Component == nil && c.Static == nil:
		return nil, errors.New("neither component nor static_response")
	case c.Component != nil && c.Static != nil:
		return nil, errors.New("component beside static_response")
	case !c.Route.set:
		return nil, errors.New("no route")
	}
	if err := checkExecutor(c.Executor); err != nil {
		return nil, err
	}
	if c.Static != nil {
		if err := c.Static.validate(); err != nil {
			return nil, fmt.Errorf("static_response: %w", err)
		}
	}
	return &c, nil
}

// checkExecutor refuses all but the default way to call a component.
func checkExecutor(data json.RawMessage) error {
	if len(data) == 0 {
		return nil
	}
	var executor *struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(data, &executor); err != nil || executor == nil {
		return err
	}
	switch executor.Type {
	case "http", "spin":
		return decodeStrictly(data, &executor)
	case "wagi":
		return errors.New(`executor "wagi" is not supported`)
	}
	return fmt.Errorf("executor %.100q is unknown", executor.Type)
}

func (s *staticResponse) validate() error {
	if s.Status < 200 || s.Status > 999 {
		return fmt.Errorf("status_code %d is not between 200 and 999", s.Status)
	}
	for name, value := range s.Headers {
		if !isToken(name) {
			return fmt.Errorf("header name %.100q is invalid", name)
		}
		if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return fmt.Errorf("value of header %q is invalid", name)
		}
		switch strings.ToLower(name) {
		case "connection", "content-length", "trailer", "transfer-encoding":
			return fmt.Errorf("header %q is the server's", name)
		}
	}
	return nil
}

// checkMetadata checks the settings that all HTTP triggers of an app share. The only one is base, of which Spin accepts
// what changes nothing.
func checkMetadata(app *lockedapp.App) error {
	data, ok := app.Metadata.Triggers[triggerType]
	if !ok {
		return nil
	}
	var shared struct {
		Base *string `json:"base"`
	}
	if err := decodeStrictly(data, &shared); err != nil {
		return fmt.Errorf("application.trigger.http: %w", err)
	}
	if shared.Base != nil && *shared.Base != "/" {
		return fmt.Errorf("application.trigger.http: base %.100q is not supported: put it before each route", *shared.Base)
	}
	return nil
}

// decodeStrictly decodes the JSON of one value and refuses fields that v has not.
func decodeStrictly(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
