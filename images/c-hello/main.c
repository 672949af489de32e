// The smallest Spin app: answers each request with 200 and a line of text.
#include "wasi.h"

EXPORT("wasi:http/incoming-handler@0.2.0#handle") void handle(i32 request, i32 response_out) {
  static const char text[] = "Hello from C!\n";
  i32 headers = fields_new();
  fields_append(headers, "content-type", 12, "text/plain", 10, ret);
  i32 response = outgoing_response_new(headers);
  outgoing_response_body(response, ret);
  i32 body = WORD(4);
  response_outparam_set(response_out, 0, response, 0, 0, 0, 0, 0, 0);
  outgoing_body_write(body, ret);
  i32 stream = WORD(4);
  output_stream_blocking_write_and_flush(stream, text, sizeof text - 1, ret);
  output_stream_drop(stream);
  outgoing_body_finish(body, 0, 0, ret);
  incoming_request_drop(request);
}
