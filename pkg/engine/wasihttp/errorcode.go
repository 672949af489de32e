package wasihttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// Case is a case of wasi:http's variant error-code.
type Case int

// The cases of error-code, in the order of the WIT.
const (
	DNSTimeout Case = iota
	DNSError
	DestinationNotFound
	DestinationUnavailable
	DestinationIPProhibited
	DestinationIPUnroutable
	ConnectionRefused
	ConnectionTerminated
	ConnectionTimeout
	ConnectionReadTimeout
	ConnectionWriteTimeout
	ConnectionLimitReached
	TLSProtocolError
	TLSCertificateError
	TLSAlertReceived
	HTTPRequestDenied
	HTTPRequestLengthRequired
	HTTPRequestBodySize
	HTTPRequestMethodInvalid
	HTTPRequestURIInvalid
	HTTPRequestURITooLong
	HTTPRequestHeaderSectionSize
	HTTPRequestHeaderSize
	HTTPRequestTrailerSectionSize
	HTTPRequestTrailerSize
	HTTPResponseIncomplete
	HTTPResponseHeaderSectionSize
	HTTPResponseHeaderSize
	HTTPResponseBodySize
	HTTPResponseTrailerSectionSize
	HTTPResponseTrailerSize
	HTTPResponseTransferCoding
	HTTPResponseContentCoding
	HTTPResponseTimeout
	HTTPUpgradeFailed
	HTTPProtocolError
	LoopDetected
	ConfigurationError
	InternalError
)

// String returns the name of the case in the WIT.
func (c Case) String() string {
	if c < 0 || int(c) >= len(httpTypesErrorCode.Cases) {
		return "error-code " + strconv.Itoa(int(c))
	}
	return httpTypesErrorCode.Cases[c].Name
}

// ErrorCode is a value of wasi:http's error-code, and an error. It is immutable.
type ErrorCode struct {
	Case Case
	// Text is the text in the payload of the case, if that has one: rcode, alert-message, field-name, the
	// name of a coding or a message. "" is none.
	Text string
	// Number is the number in the payload of the case, if that has one: info-code, alert-id or a size. Nil
	// is none.
	Number *uint64
}

// NewError returns the error of a case without payload, or with none of it given.
func NewError(c Case) *ErrorCode { return &ErrorCode{Case: c} }

// Error returns the case and what is known of its payload.
func (e *ErrorCode) Error() string {
	s := e.Case.String()
	if e.Number != nil {
		s += " " + strconv.FormatUint(*e.Number, 10)
	}
	if e.Text != "" {
		s += " " + strconv.Quote(e.Text)
	}
	return s
}

// payload is the shape of a case's payload.
type payload uint8

const (
	noPayload payload = iota
	optionU64
	optionU32
	optionString
	dnsError        // record of option<string>, option<u16>
	tlsAlert        // record of option<u8>, option<string>
	fieldSize       // record of option<string>, option<u32>
	optionFieldSize // option of such
)

func (c Case) payload() payload {
	switch c {
	case DNSError:
		return dnsError
	case TLSAlertReceived:
		return tlsAlert
	case HTTPRequestBodySize, HTTPResponseBodySize:
		return optionU64
	case HTTPRequestHeaderSectionSize, HTTPRequestTrailerSectionSize, HTTPResponseHeaderSectionSize, HTTPResponseTrailerSectionSize:
		return optionU32
	case HTTPRequestHeaderSize:
		return optionFieldSize
	case HTTPRequestTrailerSize, HTTPResponseHeaderSize, HTTPResponseTrailerSize:
		return fieldSize
	case HTTPResponseTransferCoding, HTTPResponseContentCoding, InternalError:
		return optionString
	}
	return noPayload
}

// put writes e as an error-code.
func (e *ErrorCode) put(c *engine.Call) {
	c.PutCase(int(e.Case))
	text := func() {
		if e.Text == "" {
			c.PutNone()
			return
		}
		c.PutSome()
		c.PutString(e.Text)
	}
	number := func(put func(n uint64)) {
		if e.Number == nil {
			c.PutNone()
			return
		}
		c.PutSome()
		put(*e.Number)
	}
	u32 := func(n uint64) { c.PutU32(uint32(n)) }
	switch e.Case.payload() {
	case optionU64:
		number(c.PutU64)
	case optionU32:
		number(u32)
	case optionString:
		text()
	case dnsError:
		text()
		number(func(n uint64) { c.PutU16(uint16(n)) })
	case tlsAlert:
		number(func(n uint64) { c.PutU8(uint8(n)) })
		text()
	case optionFieldSize:
		if e.Text == "" && e.Number == nil {
			c.PutNone()
			return
		}
		c.PutSome()
		fallthrough
	case fieldSize:
		text()
		number(u32)
	}
}

// errorCode reads an error-code.
func errorCode(c *engine.Call) *ErrorCode {
	e := &ErrorCode{Case: Case(c.Case())}
	text := func() {
		if c.Option() {
			e.Text = c.String()
		}
	}
	number := func(get func() uint64) {
		if c.Option() {
			e.Number = new(get())
		}
	}
	u32 := func() uint64 { return uint64(c.U32()) }
	switch e.Case.payload() {
	case optionU64:
		number(c.U64)
	case optionU32:
		number(u32)
	case optionString:
		text()
	case dnsError:
		text()
		number(func() uint64 { return uint64(c.U16()) })
	case tlsAlert:
		number(func() uint64 { return uint64(c.U8()) })
		text()
	case optionFieldSize:
		if !c.Option() {
			break
		}
		fallthrough
	case fieldSize:
		text()
		number(u32)
	}
	return e
}

// httpErrorCode tells guests which error-code a stream's error is.
func httpErrorCode(c *engine.Call) error {
	if e, ok := errors.AsType[*ErrorCode](engine.Rep[error](c)); ok {
		c.PutSome()
		e.put(c)
	} else {
		c.PutNone()
	}
	return nil
}

// sendError returns the error-code of what sending a request, or reading its response's head, failed with.
// Where WIT offers several, it is what Spin answers: TLS-protocol-error for every failure of TLS.
func sendError(err error) *ErrorCode {
	if e, ok := errors.AsType[*ErrorCode](err); ok {
		return e
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		if e.IsTimeout {
			return NewError(DNSTimeout)
		}
		return noAddress()
	}
	if isTLS(err) {
		return NewError(TLSProtocolError)
	}
	timeout, isNet := errors.AsType[net.Error](err)
	op, isOp := errors.AsType[*net.OpError](err)
	dial := isOp && op.Op == "dial"
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return noAddress()
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return NewError(DestinationIPUnroutable)
	case errors.Is(err, syscall.ECONNREFUSED):
		return NewError(ConnectionRefused)
	case isNet && timeout.Timeout() && dial:
		return NewError(ConnectionTimeout)
	case isNet && timeout.Timeout():
		return NewError(ConnectionReadTimeout)
	case dial:
		return NewError(ConnectionRefused)
	case isLost(err):
		return NewError(ConnectionTerminated)
	}
	return NewError(HTTPProtocolError)
}

// noAddress is what Spin answers if a name has no address, or the address cannot be used.
func noAddress() *ErrorCode {
	return &ErrorCode{Case: DNSError, Text: "address not available", Number: new(uint64(0))}
}

// isTLS says whether err comes from a TLS handshake or record.
func isTLS(err error) bool {
	var (
		alert     tls.AlertError
		record    tls.RecordHeaderError
		verify    *tls.CertificateVerificationError
		ech       *tls.ECHRejectionError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	op, ok := errors.AsType[*net.OpError](err)
	return ok && (op.Op == "remote error" || op.Op == "local error") || // crypto/tls: an alert
		errors.As(err, &alert) || errors.As(err, &record) || errors.As(err, &verify) || errors.As(err, &ech) ||
		errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &invalid) ||
		errors.Is(err, http.ErrSchemeMismatch)
}

// isLost says whether err is the end of a connection.
func isLost(err error) bool {
	for _, lost := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
		context.Canceled, http.ErrAbortHandler,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}

// bodyError returns the error-code of what reading a body failed with. incomplete is for a body that ended
// too early.
func bodyError(err error, incomplete Case) *ErrorCode {
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &ErrorCode{Case: HTTPRequestBodySize, Number: new(uint64(e.Limit))}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return NewError(incomplete)
	}
	return sendError(err)
}
