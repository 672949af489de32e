package http

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
)

// This file implements what a request must be before it is routed; net/http checks much of it, this is the rest. For
// example, "GET http://shop.example/cart HTTP/1.1" with the header "Host: bank.example" is refused.
// See https://www.rfc-editor.org/rfc/rfc9112 and https://www.rfc-editor.org/rfc/rfc9110.

// checkRequest returns the path of r, not decoded, or the status that refuses r. It brings r into one form: RequestURI
// is path and query, Host the authority. raw is r's head as it arrived, if known, in HTTP/1.
func checkRequest(r *http.Request, raw []byte) (path string, refusal int) {
	switch {
	case r.Method == http.MethodConnect:
		return "", http.StatusNotImplemented
	case len(r.RequestURI) > maxURILength:
		return "", http.StatusRequestURITooLong
	case r.RequestURI == "*" && r.Method != http.MethodOptions || strings.Contains(r.RequestURI, "#"):
		return "", http.StatusBadRequest
	case !checkFraming(r, raw) || !checkHost(r, raw) || !originForm(r):
		return "", http.StatusBadRequest
	}
	path, _, _ = strings.Cut(r.RequestURI, "?")
	return path, 0
}

// originForm reduces the absolute form of r's target to path and query.
func originForm(r *http.Request) bool {
	if r.RequestURI == "*" || strings.HasPrefix(r.RequestURI, "/") {
		return true
	}
	u := r.URL
	if r.ProtoMajor != 1 || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return false
	}
	_, rest, _ := strings.Cut(r.RequestURI, "://")
	uri := "/"
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		uri = "/" + strings.TrimPrefix(rest[i:], "/")
	}
	r.RequestURI = uri
	u.Scheme, u.Host = "", ""
	return true
}

// checkHost reports whether all that names the host agrees and is an authority. In HTTP/1 net/http has checked that there
// is one Host header, and has put the authority of an absolute target in its place; in HTTP/2 :authority comes first.
func checkHost(r *http.Request, raw []byte) bool {
	if hosts, ok := r.Header["Host"]; ok {
		if len(hosts) != 1 || !strings.EqualFold(hosts[0], r.Host) {
			return false
		}
		delete(r.Header, "Host")
	}
	if r.URL.Host != "" {
		if h, ok := parseHead(r, raw); ok && slices.ContainsFunc(h.hosts, func(host string) bool { return !strings.EqualFold(host, r.Host) }) {
			return false
		}
	}
	return r.Host == "" || isAuthority(r.Host)
}

// checkFraming reports whether it is clear where r's body ends. net/http drops the header that it does not go by; where
// the head is not known, the connection must not outlive the response, which r.Close then says.
func checkFraming(r *http.Request, raw []byte) bool {
	if r.ProtoMajor != 1 || r.ProtoMinor > 0 && len(r.TransferEncoding) == 0 {
		return true
	}
	h, ok := parseHead(r, raw)
	r.Close = r.Close || !ok
	return !h.encoding || r.ProtoMinor > 0 && !h.length
}

// isAuthority reports whether s is a host with or without a port.
func isAuthority(s string) bool {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
	}
	if strings.Trim(port, "0123456789") != "" {
		return false
	}
	if strings.HasPrefix(host, "[") {
		inner := strings.TrimSuffix(host[1:], "]")
		return len(inner) == len(host)-2 && inner != "" && strings.Trim(inner, "0123456789abcdefABCDEF:.") == ""
	}
	for _, c := range []byte(host) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && strings.IndexByte("-._~!$&'()*+,;=%", c) < 0 {
			return false
		}
	}
	return host != ""
}

// head is what net/http does not tell of a head.
type head struct {
	hosts            []string
	length, encoding bool // whether there is a Content-Length, a Transfer-Encoding
}

// parseHead reads r's head, if raw is that. ok is false if it is not, or not to its end.
func parseHead(r *http.Request, raw []byte) (h head, ok bool) {
	line, rest, found := bytes.Cut(raw, []byte("\n"))
	if !found || !strings.HasPrefix(string(line), r.Method+" "+r.RequestURI+" HTTP/1.") {
		return head{}, false
	}
	for {
		line, rest, found = bytes.Cut(rest, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if !found {
			return head{}, false
		}
		if len(line) == 0 {
			return h, true
		}
		name, value, _ := strings.Cut(string(line), ":")
		switch {
		case strings.EqualFold(name, "Host"):
			h.hosts = append(h.hosts, strings.Trim(value, " \t"))
		case strings.EqualFold(name, "Content-Length"):
			h.length = true
		case strings.EqualFold(name, "Transfer-Encoding"):
			h.encoding = true
		}
	}
}
