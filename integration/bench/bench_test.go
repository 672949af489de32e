package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLoad(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	addr := server.Listener.Addr().String()
	r, err := load(t.Context(), addr, "/", 4, 100*time.Millisecond)
	require.NoError(t, err)
	require.GreaterOrEqual(t, r.P99, r.P50)

	_, err = load(t.Context(), addr, "/absent", 4, 100*time.Millisecond)
	require.ErrorContains(t, err, "404", "an answer that is not 200 is no measurement")
}

func TestPhases(t *testing.T) {
	t.Parallel()
	const line = `level=info msg="container: app started" container=a t_listen=0.2ms t_load=388.1ms t_prepare=0.0ms t_resolve=1.5ms t_spawn=40.5ms`
	require.Equal(t, map[string]float64{"t_resolve": 1.5, "t_prepare": 0, "t_spawn": 40.5, "t_load": 388.1, "t_listen": 0.2}, phasesOf(line))
	require.Empty(t, phasesOf("another line"))
}

func TestSample(t *testing.T) {
	t.Parallel()
	s := new(sample)
	require.Equal(t, "–", s.spread())
	for _, f := range []float64{3, 1, 2} {
		s.add(f)
	}
	require.Equal(t, "1/2/3", s.spread())
	b, err := json.Marshal(s)
	require.NoError(t, err)
	require.JSONEq(t, `{"median": 2, "min": 1, "max": 3, "n": 3}`, string(b))
}

func TestProcess(t *testing.T) {
	t.Parallel()
	p, err := parent(os.Getpid())
	require.NoError(t, err)
	require.Equal(t, os.Getppid(), p)
	_, err = cpuTime(os.Getpid())
	require.NoError(t, err)
	mb, err := pss(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, mb)
	all, err := family(os.Getppid())
	require.NoError(t, err)
	require.Contains(t, all, os.Getpid())
}
