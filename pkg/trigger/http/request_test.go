package http

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// describeRequest answers with what a component would see of the request, its body included.
func describeRequest(w http.ResponseWriter, r *http.Request) error {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return nil
	}
	answer := fmt.Sprintf("%s %s host=%s %s", r.Method, r.RequestURI, r.Host, b)
	w.Header()["Content-Type"] = nil
	w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
	_, err = io.WriteString(w, answer)
	return err
}

// TestRawRequests sends bytes and says what comes back: the status, whether the connection ends, and the body.
func TestRawRequests(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/...")}, nil, describeRequest)
	const keep, end = "keep", "end"
	for _, c := range []struct {
		name, request string
		status        int
		connection    string
		body          string
	}{
		{"origin form", "GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n", 200, keep, "GET /a?b host=h "},
		{"no query but a mark", "GET /? HTTP/1.1\r\nHost: h\r\n\r\n", 200, keep, "GET /? host=h "},
		{"path that is not clean", "GET //a/../b//./c HTTP/1.1\r\nHost: h\r\n\r\n", 200, keep, "GET //a/../b//./c host=h "},
		{"path of UTF-8", "GET /é HTTP/1.1\r\nHost: h\r\n\r\n", 200, keep, "GET /é host=h "},
		{"any method", "BREW /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, keep, "BREW /a host=h "},
		{"TRACE", "TRACE /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, keep, "TRACE /a host=h "},
		{"absolute form", "GET http://h:80/a?b HTTP/1.1\r\nHost: h:80\r\n\r\n", 200, keep, "GET /a?b host=h:80 "},
		{"absolute form in other case", "GET HTTP://H/a HTTP/1.1\r\nHost: h\r\n\r\n", 200, keep, "GET /a host=H "},
		{"absolute form without path", "GET http://h HTTP/1.1\r\nHost: h\r\n\r\n", 200, keep, "GET / host=h "},
		{"absolute form without path but query", "GET http://h?a/b HTTP/1.1\r\nHost: h\r\n\r\n", 200, keep, "GET /?a/b host=h "},
		{"absolute form of HTTP/1.0", "GET http://h/a HTTP/1.0\r\n\r\n", 200, end, "GET /a host=h "},
		{"absolute form against Host", "GET http://h/a HTTP/1.1\r\nHost: other\r\n\r\n", 400, end, ""},
		{"absolute form against port", "GET http://h/a HTTP/1.1\r\nHost: h:81\r\n\r\n", 400, end, ""},
		{"absolute form with user", "GET http://u@h/a HTTP/1.1\r\nHost: h\r\n\r\n", 400, end, ""},
		{"absolute form of another scheme", "GET ftp://h/a HTTP/1.1\r\nHost: h\r\n\r\n", 400, end, ""},
		{"absolute form without Host", "GET http://h/a HTTP/1.1\r\n\r\n", 400, end, "*"},
		{"opaque target", "GET mailto:a HTTP/1.1\r\nHost: h\r\n\r\n", 400, end, ""},
		{"fragment", "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", 400, end, ""},
		{"target without slash", "GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400, end, "*"},
		{"no target", "GET HTTP/1.1\r\nHost: h\r\n\r\n", 400, end, "*"},
		{"space in target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400, end, "*"},
		{"OPTIONS of the server", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 200, keep, ""},
		{"OPTIONS of a resource", "OPTIONS /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, keep, "OPTIONS /a host=h "},
		{"GET of the server", "GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400, end, ""},
		{"CONNECT", "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", 501, end, ""},
		{"CONNECT of a path", "CONNECT /a HTTP/1.1\r\nHost: h\r\n\r\n", 501, end, ""},
		{"no Host", "GET /a HTTP/1.1\r\n\r\n", 400, end, "*"},
		{"empty Host", "GET /a HTTP/1.1\r\nHost:\r\n\r\n", 200, keep, "GET /a host= "},
		{"two Hosts", "GET /a HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400, end, "*"},
		{"Host with a path", "GET /a HTTP/1.1\r\nHost: h/b\r\n\r\n", 400, end, "*"},
		{"Host with a user", "GET /a HTTP/1.1\r\nHost: u@h\r\n\r\n", 400, end, "*"},
		{"Host with a port that is none", "GET /a HTTP/1.1\r\nHost: h:b\r\n\r\n", 400, end, ""},
		{"Host that is IPv6", "GET /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200, keep, "GET /a host=[::1]:80 "},
		{"Host that is half IPv6", "GET /a HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, end, ""},
		{"HTTP/1.0", "GET /a HTTP/1.0\r\nHost: h\r\n\r\n", 200, end, "GET /a host=h "},
		{"HTTP/1.0 without Host", "GET /a HTTP/1.0\r\n\r\n", 200, end, "GET /a host= "},
		{"HTTP/1.0 that stays", "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, keep, "GET /a host= "},
		{"HTTP/1.0 with transfer-encoding", "POST /a HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, end, ""},
		{"HTTP/0.9", "GET /a-longer-path\r\n\r\n", 400, end, "*"},
		{"HTTP/2.0 in text", "GET /a HTTP/2.0\r\nHost: h\r\n\r\n", 505, end, "*"},
		{"preface of HTTP/2 and then not", "PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400, end, ""},
		{"no HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, end, "*"},
		{"body", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", 200, keep, "POST /a host=h hi"},
		{"chunks", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1;x=y\r\ni\r\n0\r\n\r\n", 200, keep, "POST /a host=h hi"},
		{"content-length and chunks", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, end, ""},
		{"chunks and content-length", "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: h\r\ncontent-length: 2\r\n\r\n0\r\n\r\n", 400, end, ""},
		{"two lengths", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi", 400, end, "*"},
		{"two equal lengths", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", 200, keep, "POST /a host=h hi"},
		{"length that is none", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n\r\nhi", 400, end, "*"},
		{"length without end", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\nhi", 400, end, "*"},
		{"unknown transfer-encoding", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\nhi", 501, end, "*"},
		{"two transfer-encodings", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\nhi", 501, end, "*"},
		{"hidden transfer-encoding", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\nhi", 501, end, "*"},
		{"chunk without size", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n", 400, end, ""},
		{"chunk without end", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n", 400, end, ""},
		{"chunk without limit", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400, end, ""},
		{"space before colon", "GET /a HTTP/1.1\r\nHost : h\r\n\r\n", 400, end, "*"},
		{"header without colon", "GET /a HTTP/1.1\r\nHost: h\r\nnonsense\r\n\r\n", 400, end, "*"},
		{"header with a zero", "GET /a HTTP/1.1\r\nHost: h\r\nA: b\x00c\r\n\r\n", 400, end, "*"},
		{"header of bytes", "GET /a HTTP/1.1\r\nHost: h\r\nA: \xff\xfe\r\n\r\n", 200, keep, "GET /a host=h "},
		{"unknown expectation", "POST /a HTTP/1.1\r\nHost: h\r\nExpect: coffee\r\nContent-Length: 2\r\n\r\nhi", 417, end, ""},
		{"URI that is too long", "GET /" + strings.Repeat("a", maxURILength) + " HTTP/1.1\r\nHost: h\r\n\r\n", 414, end, ""},
		{"header that is too large", "GET /a HTTP/1.1\r\nHost: h\r\nA: " + strings.Repeat("a", 2*maxHeadSize) + "\r\n\r\n", 431, end, "*"},
		{"too many headers", "GET /a HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("A: b\r\n", maxHeadSize/3) + "\r\n", 431, end, "*"},
		{"close as asked", "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 200, end, "GET /a host=h "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := s.dial()
			conn.t = t
			conn.send("%s", c.request)
			method, _, _ := strings.Cut(c.request, " ")
			res := conn.response(method)
			require.Equal(t, c.status, res.StatusCode)
			if got := text(t, res); c.body != "*" { // what net/http says itself
				require.Equal(t, c.body, got)
			}
			if c.connection == end {
				require.Empty(t, conn.rest(), "the connection ends")
				return
			}
			conn.send("GET /again HTTP/1.1\r\nHost: h\r\n\r\n")
			require.Equal(t, "GET /again host=h ", text(t, conn.response("GET")), "the connection goes on")
		})
	}
}

func TestHostInHTTP2(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/...")}, nil, describeRequest)
	c := http2(t)
	for header, want := range map[string]string{"h:1": "200 GET / host=h:1 ", "other": "400 ", "": "200 GET / host=h:1 "} {
		req, err := http.NewRequest("GET", s.url("/"), nil)
		require.NoError(t, err)
		req.Host = "h:1"
		res, err := c.Do(req)
		if header != "" {
			require.NoError(t, err)
			res.Body.Close()
			// The client does not send both; so the check is called as the server would call it.
			req.Header["Host"] = []string{header}
			req.RequestURI, req.ProtoMajor, req.URL.Host = "/", 2, ""
			_, refusal := checkRequest(req, nil)
			require.Equal(t, strings.HasPrefix(want, "400"), refusal == 400, header)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, fmt.Sprintf("%d %s", res.StatusCode, text(t, res)))
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/...")}, nil, describeRequest)
	c := s.dial()
	c.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n" +
		"POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi" +
		"POST /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\n" +
		"GET /4 HTTP/1.1\r\nHost: h\r\n\r\n")
	require.Equal(t, "GET /1 host=h ", text(t, c.response("GET")))
	require.Equal(t, "POST /2 host=h hi", text(t, c.response("POST")))
	res := c.response("POST")
	require.True(t, res.Close, "whether its head had a content-length is not known")
	require.Equal(t, "POST /3 host=h ho", text(t, res))
	require.Empty(t, c.rest())
}

// awaitIdle waits until the server has seen that its one response has been sent: of what a client sends before that, as when it
// pipelines, the head is not known.
func (r *running) awaitIdle() {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		r.listener.mu.Lock()
		defer r.listener.mu.Unlock()
		for c := range r.listener.open {
			c.mu.Lock()
			listening := c.listening
			c.mu.Unlock()
			if !listening {
				return false
			}
		}
		return true
	}, patience, time.Millisecond)
}

func TestHeadThatArrivesInPieces(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/...")}, nil, describeRequest)
	c := s.dial()
	for range 2 {
		for _, b := range []byte("POST http://h/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") {
			c.send("%c", b)
		}
		require.Equal(t, "POST /a host=h ", text(t, c.response("POST")))
		s.awaitIdle()
	}
	for _, b := range []byte("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n") {
		c.send("%c", b)
	}
	require.Equal(t, 400, c.response("POST").StatusCode)
}

func TestHEADHasNoBodyAndTheLengthOfGET(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/...")}, nil, describeRequest)
	c := s.dial()
	for path, want := range map[string]int64{"/": int64(len("HEAD / host=h ")), "/.well-known/spin/health": 2} {
		c.send("HEAD %s HTTP/1.1\r\nHost: h\r\n\r\n", path)
		res := c.response("HEAD")
		require.Equal(t, want, res.ContentLength)
		require.Empty(t, text(t, res))
	}
	c.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
	require.Equal(t, "GET /a host=h ", text(t, c.response("GET")))
}

func TestContinueIsSentOnlyWhenTheBodyIsRead(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/read", "/ignore")}, nil, describeRequest, hello)
	c := s.dial()
	c.send("POST /read HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	require.Equal(t, 100, c.response("POST").StatusCode)
	c.send("hi")
	require.Equal(t, "POST /read host=h hi", text(t, c.response("POST")))
	for _, path := range []string{"/ignore", "/none"} {
		c := s.dial()
		c.send("POST %s HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", path)
		res := c.response("POST")
		require.NotEqual(t, 100, res.StatusCode)
		require.True(t, res.Close, "the client may send the body or not")
		_ = text(t, res)
		require.Empty(t, c.rest())
	}
}

func TestBodiesThatNobodyReads(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/...")}, nil, hello)
	t.Run("small ones keep the connection", func(t *testing.T) {
		t.Parallel()
		c := s.dial()
		for range 2 {
			c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
			c.send("%s", "12345")
			require.Equal(t, "hello", text(t, c.response("POST")))
			c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n")
			require.Equal(t, "hello", text(t, c.response("POST")))
		}
	})
	t.Run("a response does not wait for them", func(t *testing.T) {
		t.Parallel()
		c := s.dial()
		c.send("POST /.well-known/spin/health HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
		require.Equal(t, "OK", text(t, c.response("POST")))
		c.send("12345GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		require.Equal(t, "hello", text(t, c.response("GET")))
	})
	t.Run("large ones do not cut the response off", func(t *testing.T) {
		t.Parallel()
		const size = 1 << 30
		for _, framing := range []string{fmt.Sprintf("Content-Length: %d\r\n\r\n", size), "Transfer-Encoding: chunked\r\n\r\n40000000\r\n"} {
			c := s.dial()
			c.send("POST / HTTP/1.1\r\nHost: h\r\n%s", framing)
			chunk := make([]byte, 1<<20)
			for n := 0; n < size; n += len(chunk) { // a client that sends all before it looks for the response
				if _, err := c.Write(chunk); err != nil {
					break // the server has read enough, but what it said must not be lost
				}
			}
			require.Equal(t, "hello", text(t, c.response("POST")))
		}
	})
	t.Run("bad ones end the connection", func(t *testing.T) {
		t.Parallel()
		c := s.dial()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
		require.Equal(t, "hello", text(t, c.response("POST")))
		require.Empty(t, c.rest())
	})
}

func TestSlowClients(t *testing.T) {
	t.Parallel()
	const short = 50 * time.Millisecond
	s := start(t, Config{App: appOf("/read", "/stream", "/write")}, func(s *Server) {
		s.timeouts = timeouts{
			header: short, idle: short, body: short, send: short, drain: short, lastWords: short, lastWord: short, retire: short, welcome: short,
		}
	}, describeRequest,
		func(w http.ResponseWriter, r *http.Request) error {
			_ = http.NewResponseController(w).EnableFullDuplex()
			_, _ = io.WriteString(w, "begun,")
			_ = http.NewResponseController(w).Flush()
			_, err := io.Copy(w, r.Body)
			return err
		},
		func(w http.ResponseWriter, _ *http.Request) error {
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
		})
	t.Run("no request", func(t *testing.T) {
		t.Parallel()
		require.Empty(t, s.dial().rest())
	})
	t.Run("half a head", func(t *testing.T) {
		t.Parallel()
		c := s.dial()
		c.send("GET /read HTTP/1.1\r\nHost:")
		require.Empty(t, c.rest())
	})
	t.Run("no second request", func(t *testing.T) {
		t.Parallel()
		c := s.dial()
		c.send("GET /read HTTP/1.1\r\nHost: h\r\n\r\n")
		require.Equal(t, "GET /read host=h ", text(t, c.response("GET")))
		require.Empty(t, c.rest())
	})
	t.Run("half a body that is waited for", func(t *testing.T) {
		t.Parallel()
		c := s.dial()
		c.send("POST /read HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf")
		require.Equal(t, 400, c.response("POST").StatusCode)
	})
	t.Run("half a body in HTTP/2", func(t *testing.T) {
		t.Parallel()
		body, w := io.Pipe()
		defer w.Close()
		res, err := http2(t).Post(s.url("/read"), "", body)
		require.NoError(t, err)
		require.Equal(t, 400, res.StatusCode)
		require.NoError(t, res.Body.Close())
	})
	t.Run("a body that goes on", func(t *testing.T) {
		t.Parallel()
		c := s.dial()
		c.send("POST /read HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\n")
		for range 40 {
			c.send("x")
			<-time.After(short / 10)
		}
		require.Equal(t, "POST /read host=h "+strings.Repeat("x", 40), text(t, c.response("POST")))
	})
	t.Run("a silent body while the response is on its way", func(t *testing.T) {
		t.Parallel()
		c := s.dial()
		c.send("POST /stream HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n")
		res := c.response("POST")
		<-time.After(4 * short)
		c.send("end")
		require.Equal(t, "begun,end", text(t, res))
	})
	t.Run("a client that does not read", func(t *testing.T) {
		t.Parallel()
		c := s.dial()
		c.send("GET /write HTTP/1.1\r\nHost: h\r\n\r\n")
		require.Eventually(t, func() bool {
			return strings.Contains(s.log.String(), "component=c2 route=/write")
		}, patience, short)
	})
	t.Run("a client of HTTP/2 that does not read", func(t *testing.T) {
		t.Parallel()
		failed := make(chan error, 1)
		s := start(t, Config{App: appOf("/...")}, func(s *Server) { s.timeouts.send = short }, func(w http.ResponseWriter, r *http.Request) error {
			if r.URL.Path == "/hello" {
				return hello(w, r)
			}
			var err error
			for err == nil {
				_, err = w.Write(make([]byte, 1<<20))
			}
			failed <- err
			return err
		})
		c := http2(t)
		res, err := c.Get(s.url("/write"))
		require.NoError(t, err)
		require.Error(t, <-failed)
		_, err = io.Copy(io.Discard, res.Body)
		require.Error(t, err, "the body breaks off")
		require.NoError(t, res.Body.Close())
		res, err = c.Get(s.url("/hello"))
		require.NoError(t, err)
		require.Equal(t, "hello", text(t, res), "other streams live on")
	})
}

func FuzzParseHead(f *testing.F) {
	f.Add("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
	f.Add("GET / HTTP/1.1\nhost:a\nHost : b\n\n")
	f.Add("GET / HTTP/1.")
	f.Fuzz(func(t *testing.T, raw string) {
		h, ok := parseHead(&http.Request{Method: "GET", RequestURI: "/"}, []byte(raw))
		if !ok {
			require.Empty(t, h)
			return
		}
		require.True(t, strings.HasPrefix(raw, "GET / HTTP/1."))
		require.LessOrEqual(t, len(h.hosts), strings.Count(raw, "\n"))
	})
}
