// WASI 0.2 and Spin for C without a library: the imports as the Canonical ABI lowers them, and memory for what comes back.
//
// A result that does not fit one core value is written to a return area (the last parameter, ret): 32-bit words at the offsets
// that the type's layout gives.
#pragma once

typedef unsigned char u8;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))

#define STREAMS "wasi:io/streams@0.2.0"
#define POLL "wasi:io/poll@0.2.0"
#define TYPES "wasi:http/types@0.2.0"
#define OUTGOING "wasi:http/outgoing-handler@0.2.0"
#define KEY_VALUE "fermyon:spin/key-value@2.0.0"
#define VARIABLES "fermyon:spin/variables@2.0.0"

IMPORT(STREAMS, "[method]input-stream.blocking-read") void input_stream_blocking_read(i32 self, u64 len, void *ret);
IMPORT(STREAMS, "[resource-drop]input-stream") void input_stream_drop(i32 self);
IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush") void output_stream_blocking_write_and_flush(i32 self, const void *p, u32 n, void *ret);
IMPORT(STREAMS, "[resource-drop]output-stream") void output_stream_drop(i32 self);

IMPORT(POLL, "[method]pollable.block") void pollable_block(i32 self);
IMPORT(POLL, "[resource-drop]pollable") void pollable_drop(i32 self);

IMPORT(TYPES, "[constructor]fields") i32 fields_new(void);
IMPORT(TYPES, "[method]fields.append") void fields_append(i32 self, const char *name, u32 name_len, const void *value, u32 value_len, void *ret);
IMPORT(TYPES, "[method]fields.entries") void fields_entries(i32 self, void *ret);
IMPORT(TYPES, "[resource-drop]fields") void fields_drop(i32 self);
IMPORT(TYPES, "[method]incoming-request.path-with-query") void incoming_request_path_with_query(i32 self, void *ret);
IMPORT(TYPES, "[method]incoming-request.headers") i32 incoming_request_headers(i32 self);
IMPORT(TYPES, "[method]incoming-request.consume") void incoming_request_consume(i32 self, void *ret);
IMPORT(TYPES, "[resource-drop]incoming-request") void incoming_request_drop(i32 self);
IMPORT(TYPES, "[method]incoming-body.stream") void incoming_body_stream(i32 self, void *ret);
IMPORT(TYPES, "[resource-drop]incoming-body") void incoming_body_drop(i32 self);
IMPORT(TYPES, "[constructor]outgoing-response") i32 outgoing_response_new(i32 headers);
IMPORT(TYPES, "[method]outgoing-response.set-status-code") i32 outgoing_response_set_status_code(i32 self, i32 status);
IMPORT(TYPES, "[method]outgoing-response.body") void outgoing_response_body(i32 self, void *ret);
IMPORT(TYPES, "[method]outgoing-body.write") void outgoing_body_write(i32 self, void *ret);
IMPORT(TYPES, "[static]outgoing-body.finish") void outgoing_body_finish(i32 self, i32 has_trailers, i32 trailers, void *ret);
// The last parameters are an error-code, flattened; unused when is_error is 0.
IMPORT(TYPES, "[static]response-outparam.set") void response_outparam_set(i32 self, i32 is_error, i32 response, i32 a, i64 b, i32 c, i32 d, i32 e, i32 f);
IMPORT(TYPES, "[constructor]outgoing-request") i32 outgoing_request_new(i32 headers);
IMPORT(TYPES, "[method]outgoing-request.set-scheme") i32 outgoing_request_set_scheme(i32 self, i32 some, i32 scheme, const void *other, u32 len);
IMPORT(TYPES, "[method]outgoing-request.set-authority") i32 outgoing_request_set_authority(i32 self, i32 some, const void *p, u32 len);
IMPORT(TYPES, "[method]outgoing-request.set-path-with-query") i32 outgoing_request_set_path_with_query(i32 self, i32 some, const void *p, u32 len);
IMPORT(TYPES, "[method]future-incoming-response.subscribe") i32 future_incoming_response_subscribe(i32 self);
IMPORT(TYPES, "[method]future-incoming-response.get") void future_incoming_response_get(i32 self, void *ret);
IMPORT(TYPES, "[resource-drop]future-incoming-response") void future_incoming_response_drop(i32 self);
IMPORT(TYPES, "[method]incoming-response.status") i32 incoming_response_status(i32 self);
IMPORT(TYPES, "[method]incoming-response.consume") void incoming_response_consume(i32 self, void *ret);
IMPORT(TYPES, "[resource-drop]incoming-response") void incoming_response_drop(i32 self);

IMPORT(OUTGOING, "handle") void outgoing_handler_handle(i32 request, i32 has_options, i32 options, void *ret);

IMPORT(KEY_VALUE, "[static]store.open") void store_open(const char *label, u32 len, void *ret);
IMPORT(KEY_VALUE, "[method]store.get") void store_get(i32 self, const char *key, u32 len, void *ret);
IMPORT(KEY_VALUE, "[method]store.set") void store_set(i32 self, const char *key, u32 len, const void *value, u32 value_len, void *ret);
IMPORT(KEY_VALUE, "[resource-drop]store") void store_drop(i32 self);

IMPORT(VARIABLES, "get") void variables_get(const char *name, u32 len, void *ret);

// The host puts lists and strings into memory that it asks for here. It is given out once, from the heap's start; what was given
// out since the mark was taken is free again when next_free is set back to it.
extern u8 __heap_base;
static u32 next_free;

EXPORT("cabi_realloc") void *cabi_realloc(void *old, u32 old_size, u32 align, u32 new_size) {
  const u32 page = 65536;
  u32 start = next_free ? next_free : (u32)&__heap_base;
  start = (start + align - 1) & ~(align - 1);
  next_free = start + new_size;
  u32 have = (u32)__builtin_wasm_memory_size(0) * page;
  if (next_free > have && __builtin_wasm_memory_grow(0, (next_free - have + page - 1) / page) == (unsigned long)-1) {
    __builtin_trap();
  }
  u32 keep = old_size < new_size ? old_size : new_size;
  for (u32 i = 0; i < keep; i++) {
    ((u8 *)start)[i] = ((u8 *)old)[i];
  }
  return (void *)start;
}

// The return area, and the word and byte at an offset of it.
static _Alignas(8) u8 ret[256];
#define WORD(offset) (*(i32 *)(ret + (offset)))
#define BYTE(offset) (ret[offset])
