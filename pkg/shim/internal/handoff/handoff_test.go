package handoff

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReport(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	sent := Report{Load: 3 * time.Millisecond, Listen: time.Microsecond, Warnings: []string{"seccomp is not there"}}
	require.NoError(t, sent.Write(&b))
	got, err := ReadReport(&b)
	require.NoError(t, err)
	require.Equal(t, sent, got)

	_, err = ReadReport(strings.NewReader(""))
	require.ErrorIs(t, err, ErrNoReport)
	_, err = ReadReport(strings.NewReader("{"))
	require.ErrorContains(t, err, "decode the worker's report")
	_, err = ReadReport(strings.NewReader(strings.Repeat("x", maxReport+1)))
	require.ErrorContains(t, err, "more than")
	require.NoError(t, Report{Error: "\x1b[31m" + strings.Repeat("\x01", 10*maxReport)}.Write(&b))
	got, err = ReadReport(&b)
	require.NoError(t, err, "a long reason is cut, however long it is in JSON")
	require.Equal(t, " [31m", strings.TrimRight(got.Error, " "), "a terminal does not act on it")
}

func TestConnSendsMessagesAndFiles(t *testing.T) {
	t.Parallel()
	daemon, file, err := NewConn()
	require.NoError(t, err)
	prepare, err := OpenConn(file)
	require.NoError(t, err)
	defer daemon.Close()

	require.NoError(t, daemon.Send(Request{Step: StepCompile}, nil))
	var request Request
	got, err := prepare.Receive(&request)
	require.NoError(t, err)
	require.Nil(t, got)
	require.Equal(t, Request{Step: StepCompile}, request)

	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, daemon.Send(Answer{}, r))
	require.NoError(t, r.Close())
	var answer Answer
	got, err = prepare.Receive(&answer)
	require.NoError(t, err)
	_, err = w.WriteString("content")
	require.NoError(t, err)
	require.NoError(t, w.Close())
	content, err := io.ReadAll(got)
	require.NoError(t, err)
	require.Equal(t, "content", string(content))
	require.NoError(t, got.Close())

	require.ErrorContains(t, prepare.Send(Ask{Error: strings.Repeat("x", maxMessage)}, nil), "at most")
	require.NoError(t, prepare.Close())
	_, err = daemon.Receive(&Ask{})
	require.ErrorIs(t, err, io.EOF)
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte(`{"blob":"sha256:00"}`))
	f.Add([]byte(`{"done":true,"error":"x","notApp":true}`))
	f.Add([]byte(`{"error":"x","load":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var ask Ask
		_ = decodeMessage(b, &ask)
		_, _ = ReadReport(bytes.NewReader(b))
	})
}
