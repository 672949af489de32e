//! Answers with what it was asked: the method and path, the headers that begin with x- or spin-, and the body.
//! /teapot answers 418.

use std::fmt::Write;
use wasi::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

wasi::http::proxy::export!(Echo);

struct Echo;

impl wasi::exports::http::incoming_handler::Guest for Echo {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let mut head = format!("{:?} {path}\n", request.method());
        for (name, value) in request.headers().entries() {
            if name.starts_with("x-") || name.starts_with("spin-") {
                let _ = writeln!(head, "{name}: {}", String::from_utf8_lossy(&value));
            }
        }

        let headers = Fields::new();
        headers
            .append("content-type", b"text/plain")
            .expect("the header is allowed");
        let response = OutgoingResponse::new(headers);
        let status = if path == "/teapot" { 418 } else { 200 };
        response.set_status_code(status).expect("the status is valid");
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(response_out, Ok(response));

        let output = body.write().expect("the stream is taken once");
        let incoming = request.consume().expect("the body is taken once");
        let input = incoming.stream().expect("the stream is taken once");
        let mut sent = output.blocking_write_and_flush(head.as_bytes());
        while let (Ok(()), Ok(chunk)) = (&sent, input.blocking_read(4096)) {
            sent = output.blocking_write_and_flush(&chunk);
        }
        drop(output);
        // The client may be gone: there is nobody to tell.
        let _ = OutgoingBody::finish(body, None);
    }
}
