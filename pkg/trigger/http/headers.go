package http

import (
	"net/http"
	"strings"
)

// The headers that tell a component about the request beyond the request itself, as net/http spells them. On the wire
// and to guests they are in lower case.
const (
	headerPathInfo          = "Spin-Path-Info"
	headerFullURL           = "Spin-Full-Url"
	headerMatchedRoute      = "Spin-Matched-Route"
	headerBasePath          = "Spin-Base-Path"
	headerRawComponentRoute = "Spin-Raw-Component-Route"
	headerComponentRoute    = "Spin-Component-Route"
	headerClientAddr        = "Spin-Client-Addr"
)

// stripHeaders removes the headers that only this server may set.
func stripHeaders(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "Spin-") {
			delete(h, name)
		}
	}
}

// setHeaders adds what Spin tells components in headers to a request that matched r; captures are those of the match.
// Preconditions: checkRequest has accepted the request, stripHeaders has been called.
func (r *route) setHeaders(req *http.Request, path string, captures []string) {
	scheme, host := "http://", req.Host
	if req.TLS != nil {
		scheme = "https://"
	}
	if host == "" {
		host = "localhost" // an HTTP/1.0 client need not say
	}
	h := req.Header
	h[headerFullURL] = []string{scheme + host + req.RequestURI}
	h[headerPathInfo] = []string{r.pathInfo(path, captures)}
	h[headerMatchedRoute] = r.headers.matched
	h[headerBasePath] = r.headers.base
	h[headerRawComponentRoute] = r.headers.raw
	h[headerComponentRoute] = r.headers.component
	h[headerClientAddr] = []string{req.RemoteAddr}
	for i, name := range r.params {
		h[name] = []string{captures[i]}
	}
}

// pathInfo returns what a wildcard matched, with the slashes around it as the client sent them.
func (r *route) pathInfo(path string, captures []string) string {
	if len(captures) == len(r.params) {
		return ""
	}
	rest, end := captures[len(captures)-1], ""
	if strings.HasSuffix(path, "/") {
		end = "/"
	}
	if rest == "" {
		return end
	}
	return "/" + rest + end
}
