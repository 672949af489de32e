// A Spin app in one file of C: /kv counts in the default key-value store, /var reads the variable greeting, /fetch sends a request
// to the host that the variable upstream names, /echo streams the request's body back, /headers lists the request's headers.
#include "wasi.h"

static i32 body, stream; // of the response

static u32 length(const char *s) {
  u32 n = 0;
  while (s[n]) {
    n++;
  }
  return n;
}

// begin sends the response's head.
static void begin(i32 response_out, i32 status) {
  i32 headers = fields_new();
  fields_append(headers, "content-type", 12, "text/plain", 10, ret);
  i32 response = outgoing_response_new(headers);
  outgoing_response_set_status_code(response, status);
  outgoing_response_body(response, ret);
  body = WORD(4);
  response_outparam_set(response_out, 0, response, 0, 0, 0, 0, 0, 0);
  outgoing_body_write(body, ret);
  stream = WORD(4);
}

static void end(void) {
  output_stream_drop(stream);
  outgoing_body_finish(body, 0, 0, ret);
}

static void write(const void *p, u32 n) {
  const u32 most = 4096; // that one call may write
  for (const u8 *at = p; n > 0;) {
    u32 chunk = n < most ? n : most;
    output_stream_blocking_write_and_flush(stream, at, chunk, ret);
    if (BYTE(0)) {
      return; // the client is gone
    }
    at += chunk;
    n -= chunk;
  }
}

static void text(const char *s) { write(s, length(s)); }

// decimal writes v into digits and returns how many of them there are; the number begins at digits + 10 - n.
static u32 decimal(u32 v, char digits[10]) {
  u32 n = 0;
  do {
    digits[9 - n++] = (char)('0' + v % 10);
    v /= 10;
  } while (v);
  return n;
}

static void number(u32 v) {
  char digits[10];
  u32 n = decimal(v, digits);
  write(digits + 10 - n, n);
}

static void fail(i32 response_out, i32 status, const char *what, i32 code) {
  begin(response_out, status);
  text(what);
  text(": error ");
  number((u32)code);
  text("\n");
  end();
}

// copy streams an incoming body to the response, in constant memory.
static void copy(i32 from) {
  incoming_body_stream(from, ret);
  i32 input = WORD(4);
  for (u32 mark = next_free;; next_free = mark) {
    input_stream_blocking_read(input, 4096, ret);
    if (BYTE(0)) {
      break;
    }
    write((void *)WORD(4), (u32)WORD(8));
  }
  input_stream_drop(input);
  incoming_body_drop(from);
}

static void count(i32 response_out) {
  store_open("default", 7, ret);
  if (BYTE(0)) {
    fail(response_out, 500, "open store", BYTE(4));
    return;
  }
  i32 store = WORD(4);
  u32 n = 0;
  store_get(store, "n", 1, ret);
  if (!BYTE(0) && BYTE(4)) {
    const u8 *digits = (const u8 *)WORD(8);
    for (i32 i = 0; i < WORD(12); i++) {
      n = n * 10 + digits[i] - '0';
    }
  }
  char digits[10];
  u32 len = decimal(++n, digits);
  store_set(store, "n", 1, digits + 10 - len, len, ret);
  i32 failed = BYTE(0), code = BYTE(4);
  store_drop(store);
  if (failed) {
    fail(response_out, 500, "set", code);
    return;
  }
  begin(response_out, 200);
  text("n=");
  number(n);
  text("\n");
  end();
}

static void variable(i32 response_out) {
  variables_get("greeting", 8, ret);
  if (BYTE(0)) {
    fail(response_out, 500, "get variable", BYTE(4));
    return;
  }
  const void *value = (const void *)WORD(4);
  u32 n = (u32)WORD(8);
  begin(response_out, 200);
  write(value, n);
  text("\n");
  end();
}

static void fetch(i32 response_out) {
  variables_get("upstream", 8, ret);
  if (BYTE(0)) {
    fail(response_out, 500, "get variable", BYTE(4));
    return;
  }
  i32 request = outgoing_request_new(fields_new());
  outgoing_request_set_authority(request, 1, (const void *)WORD(4), (u32)WORD(8));
  outgoing_request_set_scheme(request, 1, 0, 0, 0);
  outgoing_request_set_path_with_query(request, 1, "/", 1);
  outgoing_handler_handle(request, 0, 0, ret);
  if (BYTE(0)) {
    fail(response_out, 502, "send request", BYTE(8));
    return;
  }
  i32 future = WORD(8);
  i32 ready = future_incoming_response_subscribe(future);
  pollable_block(ready);
  pollable_drop(ready);
  // option<result<result<incoming-response, error-code>>>: the discriminants are at 0, 8 and 16, the payload at 24.
  future_incoming_response_get(future, ret);
  if (!BYTE(0) || BYTE(8) || BYTE(16)) {
    fail(response_out, 502, "await response", BYTE(24));
    future_incoming_response_drop(future);
    return;
  }
  i32 response = WORD(24);
  i32 status = incoming_response_status(response);
  incoming_response_consume(response, ret);
  i32 from = WORD(4);
  begin(response_out, 200);
  text("upstream answered ");
  number((u32)status);
  text(": ");
  copy(from);
  incoming_response_drop(response);
  future_incoming_response_drop(future);
  end();
}

static void echo(i32 request, i32 response_out) {
  incoming_request_consume(request, ret);
  i32 from = WORD(4);
  begin(response_out, 200);
  copy(from);
  end();
}

static void headers(i32 request, i32 response_out) {
  struct { const void *name; u32 name_len; const void *value; u32 value_len; } *field;
  i32 all = incoming_request_headers(request);
  fields_entries(all, ret);
  fields_drop(all);
  field = (void *)WORD(0);
  i32 n = WORD(4);
  begin(response_out, 200);
  for (; n > 0; n--, field++) {
    write(field->name, field->name_len);
    text(": ");
    write(field->value, field->value_len);
    text("\n");
  }
  end();
}

// is reports whether a path, which a query may follow, is want.
static int is(const char *path, u32 n, const char *want) {
  u32 len = length(want);
  if (n < len || (n > len && path[len] != '?')) {
    return 0;
  }
  for (u32 i = 0; i < len; i++) {
    if (path[i] != want[i]) {
      return 0;
    }
  }
  return 1;
}

EXPORT("wasi:http/incoming-handler@0.2.0#handle") void handle(i32 request, i32 response_out) {
  incoming_request_path_with_query(request, ret);
  const char *path = BYTE(0) ? (const char *)WORD(4) : "";
  u32 n = BYTE(0) ? (u32)WORD(8) : 0;
  if (is(path, n, "/kv")) {
    count(response_out);
  } else if (is(path, n, "/var")) {
    variable(response_out);
  } else if (is(path, n, "/fetch")) {
    fetch(response_out);
  } else if (is(path, n, "/echo")) {
    echo(request, response_out);
  } else if (is(path, n, "/headers")) {
    headers(request, response_out);
  } else {
    begin(response_out, 404);
    text("not found\n");
    end();
  }
  incoming_request_drop(request);
}
