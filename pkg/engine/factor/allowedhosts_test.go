package factor

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// destination is what a guest connects to.
type destination struct {
	scheme, host string
	port         uint16
}

func TestAllowedHostsAllows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		entries []string
		allowed []destination
		denied  []destination
	}{
		{
			name:   "nothing is allowed by default",
			denied: []destination{{"https", "example.com", 443}, {"http", "localhost", 80}},
		},
		{
			name:    "no port is the port of the scheme",
			entries: []string{"http://web.example", "https://web.example", "redis://cache.example", "mqtt://a.example", "mysql://a.example", "postgres://a.example"},
			allowed: []destination{{"http", "web.example", 80}, {"https", "web.example", 443}, {"https", "web.example", 0}, {"redis", "cache.example", 6379}, {"mqtt", "a.example", 1883}, {"mysql", "a.example", 3306}, {"postgres", "a.example", 5432}},
			denied:  []destination{{"http", "web.example", 443}, {"https", "web.example", 80}, {"https", "web.example", 8443}, {"redis", "web.example", 6379}, {"http", "cache.example", 80}},
		},
		{
			name:    "a port is that port only",
			entries: []string{"http://web.example:8080", "*://any.example:443/"},
			allowed: []destination{{"http", "web.example", 8080}, {"https", "any.example", 443}, {"tcp", "any.example", 443}, {"https", "any.example", 0}},
			denied:  []destination{{"http", "web.example", 80}, {"http", "web.example", 0}, {"http", "any.example", 0}, {"tcp", "any.example", 0}},
		},
		{
			name:    "the end of a range is outside of it",
			entries: []string{"http://web.example:8000..8002"},
			allowed: []destination{{"http", "web.example", 8000}, {"http", "web.example", 8001}},
			denied:  []destination{{"http", "web.example", 7999}, {"http", "web.example", 8002}},
		},
		{
			name:    "an empty range allows nothing",
			entries: []string{"http://web.example:80..80", "http://web.example:81..80"},
			denied:  []destination{{"http", "web.example", 80}, {"http", "web.example", 81}},
		},
		{
			name:    "any port",
			entries: []string{"https://web.example:*"},
			allowed: []destination{{"https", "web.example", 1}, {"https", "web.example", 65535}},
			denied:  []destination{{"http", "web.example", 443}},
		},
		{
			name:    "everything",
			entries: []string{"*://*:*"},
			allowed: []destination{{"https", "web.example", 443}, {"tcp", "10.0.0.1", 5}, {"udp", "[::1]", 5}},
			denied:  []destination{{"https", "", 443}, {"https", "a b", 443}, {"https", "user@web.example", 443}},
		},
		{
			name:    "case does not matter",
			entries: []string{"HTTPS://Web.Example", "https://*.Sub.Example"},
			allowed: []destination{{"https", "web.example", 443}, {"HTTPS", "WEB.EXAMPLE", 0}, {"https", "A.sub.EXAMPLE", 443}},
		},
		{
			name:    "letters of other alphabets are not those of ASCII",
			entries: []string{"https://k.example"},
			denied:  []destination{{"https", "\u212a.example", 443}},
		},
		{
			name:    "subdomains without the domain",
			entries: []string{"http://*.example.com", "http://*.example2.com:8383"},
			allowed: []destination{{"http", "a.example.com", 80}, {"http", "a.b.example.com", 80}, {"http", "a.b.example2.com", 8383}},
			denied:  []destination{{"http", "example.com", 80}, {"http", "myexample.com", 80}, {"http", "a.example2.com", 80}, {"http", "a.example.com.evil.example", 80}, {"http", "a.example.com.", 80}},
		},
		{
			name:    "an address is that address however it is written",
			entries: []string{"http://192.0.2.1", "http://[2001:db8::1]:80"},
			allowed: []destination{{"http", "192.0.2.1", 80}, {"http", "[2001:db8::1]", 80}, {"http", "2001:DB8:0::1", 80}},
			denied:  []destination{{"http", "192.0.2.2", 80}, {"http", "[::ffff:192.0.2.1]", 80}, {"http", "[2001:db8::1%eth0]", 80}, {"http", "3221225985", 80}},
		},
		{
			name:    "a network is the addresses in it, not the names",
			entries: []string{"*://127.0.0.77/24:63551", "http://2001:db8::/32:80"},
			allowed: []destination{{"tcp", "127.0.0.1", 63551}, {"http", "[2001:db8:1::]", 80}},
			denied:  []destination{{"tcp", "127.0.1.1", 63551}, {"tcp", "127.0.0.1", 80}, {"tcp", "localhost", 63551}, {"http", "[2001:db9::]", 80}, {"tcp", "[::ffff:127.0.0.1]", 63551}},
		},
		{
			name:    "self is no host",
			entries: []string{"http://self", "http://self.alt"},
			denied:  []destination{{"http", "self", 80}, {"http", "self.alt", 80}},
		},
		{
			name:    "other components by name",
			entries: []string{"http://cart.spin.internal", "https://*.spin.internal"},
			allowed: []destination{{"http", "cart.spin.internal", 80}, {"https", "shop.spin.internal", 443}},
			denied:  []destination{{"http", "shop.spin.internal", 80}},
		},
		{
			name:    "an unresolved template allows nothing",
			entries: []string{"https://{{ host }}"},
			denied:  []destination{{"https", "{{ host }}", 443}, {"https", "host", 443}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, err := ParseAllowedHosts(tt.entries)
			require.NoError(t, err)
			for _, d := range tt.allowed {
				require.True(t, a.Allows(d.scheme, d.host, d.port), "%v allow %v", tt.entries, d)
			}
			for _, d := range tt.denied {
				require.False(t, a.Allows(d.scheme, d.host, d.port), "%v deny %v", tt.entries, d)
			}
		})
	}
}

func TestAllowedHostsAllowsSelf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		entry string
		want  bool
	}{
		{"http://self", true},
		{"https://self", true},
		{"http://self.alt", true},
		{"*://self:80", true},
		{"https://*:*", true},
		{"*://*:*", true},
		{"redis://self", false},
		{"redis://*:*", false},
		{"http://example.com", false},
	} {
		a, err := ParseAllowedHosts([]string{tt.entry})
		require.NoError(t, err)
		require.Equal(t, tt.want, a.AllowsSelf("http", "https"), tt.entry)
	}
	require.False(t, AllowedHosts{}.AllowsSelf("http", "https"))
}

func TestParseAllowedHostsErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ entry, reason string }{
		{"", "no scheme"},
		{"*", "no scheme"},
		{":", "no scheme"},
		{"?", "no scheme"},
		{"example.com", "no scheme"},
		{"example.com:80", "no scheme"},
		{"localhost:3001", "no scheme"},
		{"insecure:allow-all", "no longer supported"},
		{"://example.com:80", "a scheme is"},
		{"ht tp://example.com", "a scheme is"},
		{"h2c://example.com:80", "a scheme is"},
		{"{http,https}://example.com:80", "a scheme is"},
		{"ftp://example.com", "no port"},
		{"*://example.com", "no port"},
		{"*://127.0.0.0/24", "no port"},
		{"http://example.com:port", "a port is"},
		{"http://example.com:65536", "a port is"},
		{"http://example.com:-1", "a port is"},
		{"http://example.com:80..", "a port is"},
		{"http://example.com:..90", "a port is"},
		{"http://example.com:{80,81}", "lists of ports"},
		{"http://user:secret@example.com", "a port is"},
		{"http://[::1]", "an IPv6 address needs a port"},
		{"http://::1:80", "stands in brackets"},
		{"http://[10.0.0.1]:80", "brackets are for"},
		{"http://[::1:80", "brackets are for"},
		{"http://[fe80::1%eth0]:80", "a host is"},
		{"http://example.com/a", "a path"},
		{"http://example.com:6666/a/b", "a path"},
		{"http://example.com/a:80", "a path"},
		{"http://*.example.com/a", "a path"},
		{"http://10.0.0.0/99:80", "a path"},
		{"http://example.com?q", "a host is"},
		{"http://example.com#f", "a host is"},
		{"http://user@example.com", "a host is"},
		{"http://{a,b}:80", "lists of hosts"},
		{"http://a.*.example.com", "a * in a host"},
		{"http://*example.com", "a * in a host"},
		{"http://*.*.com", "a * in a host"},
		{"http://*.10.0.0.1", "a * before an IP address"},
		{"http://bücher.example", "xn--"},
		{"http://", "no host"},
		{"http://:80", "no host"},
		{"http://" + strings.Repeat("a", 254), "too long"},
		{"http://{{ host", "{{ without }}"},
	} {
		_, err := ParseAllowedHosts([]string{"https://fine.example", tt.entry})
		require.ErrorContains(t, err, tt.reason, tt.entry)
	}
	_, err := ParseAllowedHosts(make([]string, maxAllowedHosts+1))
	require.ErrorContains(t, err, "1025 entries")
	_, err = ParseAllowedHosts([]string{strings.Repeat("a", 10_000)})
	require.Less(t, len(err.Error()), 400)
}

// resolver resolves templates with its values, and others to an error.
type resolver map[string]string

func (r resolver) Resolve(_ context.Context, template string) (string, error) {
	t, err := ParseTemplate(template)
	if err != nil {
		return "", err
	}
	return t.Expand(func(name string) (string, error) {
		value, ok := r[name]
		if !ok {
			return "", errors.New("no variable " + name)
		}
		return value, nil
	})
}

func TestAllowedHostsResolve(t *testing.T) {
	t.Parallel()
	values := resolver{"host": "web.example", "port": "8080", "none": "", "secret": "s3cr3t", "entry": " redis://cache.example:6379 "}
	resolve := func(entries ...string) (AllowedHosts, error) {
		a, err := ParseAllowedHosts(entries)
		require.NoError(t, err)
		return a.Resolve(t.Context(), values)
	}

	a, err := resolve("https://{{ host }}:{{port}}", "http://fixed.example", "{{entry}}")
	require.NoError(t, err)
	require.True(t, a.Allows("https", "web.example", 8080))
	require.True(t, a.Allows("http", "fixed.example", 80))
	require.True(t, a.Allows("redis", "cache.example", 6379))
	require.False(t, a.Allows("https", "web.example", 443))

	a, err = resolve("{{none}}", "http://{{none}}", "https://{{none}}")
	require.NoError(t, err)
	require.True(t, a.IsEmpty())

	_, err = resolve("https://{{ other }}")
	require.EqualError(t, err, `allowed_outbound_hosts: "https://{{ other }}": no variable other`)
	_, err = resolve("https://{{ secret }}/{{ secret }}")
	require.ErrorContains(t, err, "a path is not allowed")
	require.NotContains(t, err.Error(), "s3cr3t")
	_, err = resolve("redis://{{ none }}")
	require.ErrorContains(t, err, "no host")
}

func FuzzParseAllowedHosts(f *testing.F) {
	for _, seed := range []string{"https://example.com", "*://*:*", "http://*.example.com:80..90/", "*://10.0.0.0/8:*", "http://[::1]:80", "*://ff00::/8:80", "http://{{ host }}", "http://self", "{a}://{b}:{c}", "://:/", ""} {
		f.Add(seed, "example.com")
	}
	f.Add("https://k.example", "\u212a.example")
	f.Fuzz(func(t *testing.T, entry, host string) {
		a, err := ParseAllowedHosts([]string{entry})
		if err != nil {
			require.True(t, a.IsEmpty())
			return
		}
		if a.Allows("https", host, 443) {
			_, _, err := parseHost(host)
			require.NoError(t, err)
			require.NotContains(t, host, "/")
			require.NotContains(t, host, "@")
		}
	})
}
