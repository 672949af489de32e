// Program go-counter counts requests in a variable. Each request sees a fresh instance, so it always answers n=1.
//
// It is stock Go, built as a reactor for WASI preview 1 and made a component with an adapter. The imports are those of WASI 0.2 as the
// Canonical ABI lowers them: a result that does not fit one core value is written to a return area.
package main

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"
)

//go:wasmimport wasi:http/types@0.2.0 [constructor]fields
func fieldsNew() int32

//go:wasmimport wasi:http/types@0.2.0 [method]fields.append
func fieldsAppend(self int32, name unsafe.Pointer, nameLen uint32, value unsafe.Pointer, valueLen uint32, ret unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.0 [constructor]outgoing-response
func outgoingResponseNew(headers int32) int32

//go:wasmimport wasi:http/types@0.2.0 [method]outgoing-response.body
func outgoingResponseBody(self int32, ret unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.0 [method]outgoing-body.write
func outgoingBodyWrite(self int32, ret unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.0 [static]outgoing-body.finish
func outgoingBodyFinish(self, hasTrailers, trailers int32, ret unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.0 [static]response-outparam.set
func responseOutparamSet(self, isError, response, a int32, b int64, c, d, e, f int32)

//go:wasmimport wasi:http/types@0.2.0 [method]incoming-request.path-with-query
func incomingRequestPath(self int32, ret unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.0 [resource-drop]incoming-request
func incomingRequestDrop(self int32)

//go:wasmimport wasi:io/streams@0.2.0 [method]output-stream.blocking-write-and-flush
func outputStreamWrite(self int32, p unsafe.Pointer, n uint32, ret unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.0 [resource-drop]output-stream
func outputStreamDrop(self int32)

// retArea is where the host writes results.
type retArea [8]uint64

func (r *retArea) byte(offset int) byte  { return *(*byte)(unsafe.Add(unsafe.Pointer(r), offset)) }
func (r *retArea) word(offset int) int32 { return *(*int32)(unsafe.Add(unsafe.Pointer(r), offset)) }

// lent keeps memory that the host was given from being collected.
var lent = map[unsafe.Pointer][]byte{}

// The adapter asks for its own state through cabi_realloc while _initialize runs, before the runtime is up. Until init has run,
// memory comes straight from sbrk (the reason for -checklinkname=0).
//
//go:linkname sbrk runtime.sbrk
func sbrk(n uintptr) unsafe.Pointer

var initialized bool

func init() { initialized = true }

//go:wasmexport cabi_realloc
func cabiRealloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	if size == 0 {
		return unsafe.Pointer(uintptr(align))
	}
	up := func(p unsafe.Pointer) unsafe.Pointer {
		return unsafe.Add(p, -uintptr(p)&uintptr(align-1))
	}
	if !initialized {
		return up(sbrk(uintptr(size + align)))
	}
	b := make([]byte, size+align)
	p := up(unsafe.Pointer(&b[0]))
	if oldSize > 0 {
		copy(unsafe.Slice((*byte)(p), size), unsafe.Slice((*byte)(old), oldSize))
	}
	lent[p] = b
	return p
}

var count int

//go:wasmexport wasi:http/incoming-handler@0.2.0#handle
func handle(request, responseOut int32) {
	count++
	r := new(retArea)
	ret := unsafe.Pointer(r)
	path := ""
	if incomingRequestPath(request, ret); r.byte(0) == 1 {
		path = string(unsafe.Slice((*byte)(unsafe.Pointer(uintptr(uint32(r.word(4))))), r.word(8)))
	}
	// A goroutine, to show that they run.
	line := make(chan string)
	go func() {
		line <- fmt.Sprintf("hello from go: path=%s n=%d env=%d %s\n", path, count, len(os.Environ()), runtime.Version())
	}()
	text := []byte(<-line)

	name, value := []byte("content-type"), []byte("text/plain")
	headers := fieldsNew()
	fieldsAppend(headers, unsafe.Pointer(&name[0]), uint32(len(name)), unsafe.Pointer(&value[0]), uint32(len(value)), ret)
	response := outgoingResponseNew(headers)
	outgoingResponseBody(response, ret)
	body := r.word(4)
	responseOutparamSet(responseOut, 0, response, 0, 0, 0, 0, 0, 0)
	outgoingBodyWrite(body, ret)
	stream := r.word(4)
	outputStreamWrite(stream, unsafe.Pointer(&text[0]), uint32(len(text)), ret)
	outputStreamDrop(stream)
	outgoingBodyFinish(body, 0, 0, ret)
	incomingRequestDrop(request)
	runtime.KeepAlive(name)
	runtime.KeepAlive(value)
}

func main() {}
