package integration

import (
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// A guest reaches a real TLS server by the container's name service, from a read-only root, as a user who is not root; the
// certificate is checked against the bundle that the container has.
func TestOutgoingTLS(t *testing.T) {
	l := newLab(t)
	upstream := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s says %s", r.Host, r.URL.Path)
	}))
	t.Cleanup(upstream.Close)
	startNameServer(t)
	_, port, err := net.SplitHostPort(upstream.Listener.Addr().String())
	require.NoError(t, err)

	dir := t.TempDir()
	mount := func(name, text, at string) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
		return "type=bind,src=" + name + ",dst=" + at + ",options=rbind:ro"
	}
	// The test's certificate is for this name.
	const host = "example.com"
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: upstream.Certificate().Raw}))
	flags := []string{"--read-only", "--user", "1234:1234"}
	bundle := []string{"--mount", mount("ca.crt", ca, "/etc/ssl/certs/ca-certificates.crt")}
	elsewhere := []string{"--mount", mount("ca.crt", ca, "/ca.crt"), "--env", "SSL_CERT_FILE=/ca.crt"}

	g := guestNamed("js-app")
	g.manifest = `allowed_outbound_hosts = ["https://` + host + `:*"]`
	ref := l.push(t, g.name, artifact.image(t, g.write(t)))
	for name, trust := range map[string][]string{"bundle": bundle, "environment": elsewhere} {
		t.Run(name, func(t *testing.T) {
			i := l.start(t, ref, name, append(trust, flags...)...)
			i.get(t, "/fetch?u=https://"+host+":"+port+"/a").requireText(t, "status=200 body="+host+":"+port+" says /a\n")
		})
	}
	// A guest whose fetch fails begins an answer of 500 and does not finish it.
	for name, url := range map[string]string{"untrusted": host, "not-allowed": "localhost"} {
		t.Run(name, func(t *testing.T) {
			i := l.start(t, ref, name, flags...)
			resp, err := http.Get(i.url + "/fetch?u=https://" + url + ":" + port + "/a")
			require.NoError(t, err)
			require.Equal(t, http.StatusInternalServerError, resp.StatusCode)
			require.NoError(t, resp.Body.Close())
		})
	}
}

// startNameServer starts the name service of the containers on the host's network: it answers each question for an address with
// 127.0.0.1.
func startNameServer(t *testing.T) {
	t.Helper()
	// ctr mounts the node's file into containers. The mount is only in the namespace of the tests.
	file := filepath.Join(t.TempDir(), "resolv.conf")
	require.NoError(t, os.WriteFile(file, []byte("nameserver 127.0.0.1\n"), 0o644))
	require.NoError(t, unix.Mount(file, "/etc/resolv.conf", "", unix.MS_BIND, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH)) })
	conn, err := net.ListenPacket("udp", "127.0.0.1:53")
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() { // ends with conn
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if reply, err := localhost(b[:n]); err == nil {
				conn.WriteTo(reply, from)
			}
		}
	}()
}

func localhost(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	for _, q := range m.Questions {
		if q.Type == dnsmessage.TypeA {
			header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}})
		}
	}
	return m.Pack()
}

// Bodies pass through in both directions as they come, and the worker's memory does not grow with them.
func TestLargeBody(t *testing.T) {
	const size = 1 << 30
	l := newLab(t)
	i := l.startGuest(t, "c-spin")
	i.ask(t, http.MethodPost, "/echo", strings.Repeat("x", 1<<20))
	before := rss(t, l.pid(t, i.id))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.url+"/echo", &repeated{left: size})
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b := make([]byte, 1<<20)
	most, got := 0, 0
	for {
		n, err := resp.Body.Read(b)
		if got += n; got>>24 != (got-n)>>24 {
			most = max(most, rss(t, l.pid(t, i.id)))
		}
		if err != nil {
			break
		}
	}
	require.Equal(t, size, got)
	require.Less(t, most-before, 16<<20, "bytes of memory")
}

// repeated is a reader of so many bytes.
type repeated struct{ left int }

func (r *repeated) Read(b []byte) (int, error) {
	n := min(len(b), r.left)
	if r.left -= n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// rss is the resident memory of a process in bytes.
func rss(t *testing.T, pid int) int {
	t.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	require.NoError(t, err)
	var size, resident int
	_, err = fmt.Sscan(string(statm), &size, &resident)
	require.NoError(t, err)
	return resident * os.Getpagesize()
}
