// Answers with what was asked for, and with how often this instance was: always 1, since each request sees a fresh one.
let count = 0;

addEventListener("fetch", (event) => event.respondWith(hello(event.request)));

async function hello(request) {
  count++;
  const { pathname } = new URL(request.url);
  const body = await request.text();
  return new Response(`hello from js: ${request.method} ${pathname} n=${count} body=${body.length}\n`, {
    headers: { "content-type": "text/plain" },
  });
}
