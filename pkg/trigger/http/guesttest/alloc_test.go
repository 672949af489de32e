package guesttest

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// maxServeAllocs is how often Go's heap may be used for a request to c-hello, with what httptest's recorder takes. What is pooled is
// made anew now and then: it is some more than measured.
const maxServeAllocs = 145

func TestServeAllocations(t *testing.T) {
	s := serve(t, "c-hello")
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	got := testing.AllocsPerRun(100, func() {
		w := httptest.NewRecorder()
		s.trigger.ServeHTTP(w, r)
		require.Equal(t, http.StatusOK, w.Code)
	})
	require.LessOrEqual(t, got, float64(maxServeAllocs))
}
