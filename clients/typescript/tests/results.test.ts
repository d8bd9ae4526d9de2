import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { JobFailedError, Sartiq, WaitTimeoutError, verifyWebhook } from "../src/index.ts";
import { openFile, saveFile } from "../src/node.ts";
import { sendJson, sendProblem, serve } from "./server.ts";

function generation(status: string, progress: number) {
  return { id: "g1", generation_type: "BASE", status, progress, error: null };
}

test("iteration requests the next pages when they are needed", async (context) => {
  const { url, requests } = await serve(context, ({ path }, response) => {
    const cursor = new URL(path, "http://localhost").searchParams.get("cursor");
    const data = cursor === null ? [{ id: 1 }, { id: 2 }] : [{ id: 3 }];
    sendJson(response, 200, { data, count: 3, next_cursor: cursor === null ? "c2" : null }, { etag: '"1"' });
  });
  const sartiq = new Sartiq({ url, apiKey: "sk_1" });
  const ids = [];
  for await (const product of sartiq.products.list_products({ limit: 2 })) ids.push(product.id);
  assert.deepEqual(ids, [1, 2, 3]);
  assert.deepEqual(requests.map(({ path }) => path), ["/products/?limit=2", "/products/?limit=2&cursor=c2"]);
  for await (const _ of sartiq.products.list_products()) break;
  assert.equal(requests.length, 3);
  const page = sartiq.products.list_products();
  assert.equal((await page).count, 3);
  assert.equal((await page.withResponse()).response.headers.get("etag"), '"1"');
  assert.equal(requests.length, 4);
  const sizes = [];
  for await (const { data } of sartiq.products.list_products().pages()) sizes.push(data.length);
  assert.deepEqual(sizes, [2, 1]);
});

test("an interrupted event stream continues after the last event", async (context) => {
  const { url, requests } = await serve(context, ({ headers }, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    if (headers["last-event-id"] === undefined) {
      const state = JSON.stringify(generation("running", 40));
      response.write(`retry: 1\nid: 7\r\nevent: status\ndata: ${state.slice(0, 20)}`);
      response.write(`${state.slice(20)}\n\n:\n`, () => response.destroy());
    } else response.end(`:\nid: 8\ndata: ${JSON.stringify(generation("completed", 100))}\n\n`);
  });
  const seen = [];
  const { generations } = new Sartiq({ url, apiKey: "sk_1" });
  for await (const event of generations.stream_generation_events({ generation_id: "g1" })) {
    seen.push(event.progress);
    assert.ok(seen.length <= 2, "the stream started again");
  }
  assert.deepEqual(seen, [40, 100]);
  assert.deepEqual(requests.map(({ headers }) => headers["last-event-id"]), [undefined, "7"]);
});

test("wait reports progress, and sends the tag that it has", async (context) => {
  const answers = [generation("running", 40), null, generation("completed", 100)];
  const { url, requests } = await serve(context, (_, response, { length }) => {
    const headers = { etag: `"${length}"`, "preference-applied": "wait=25" };
    const answer = answers[length - 1];
    return answer ? sendJson(response, 200, answer, headers) : response.writeHead(304, headers).end();
  });
  const seen: number[] = [];
  const job = generation("pending", 0) as never;
  const onProgress = ({ progress }: { progress: number }) => seen.push(progress);
  const done = await new Sartiq({ url, apiKey: "sk_1" }).wait(job, { onProgress });
  assert.deepEqual(done, generation("completed", 100));
  assert.deepEqual(seen, [0, 40, 100]);
  const sent = requests.map(({ headers }) => [headers["prefer"], headers["if-none-match"]]);
  assert.deepEqual(sent, [[undefined, undefined], ["wait=25", '"1"'], ["wait=25", '"2"']]);
});

test("wait polls where the server does not wait, and rejects for a job that failed", async (context) => {
  const error = { category: "provider", message: "No capacity", retryable: true };
  const { url } = await serve(context, (_, response, { length }) =>
    sendJson(response, 200, length < 4 ? generation("running", 1) : { ...generation("failed", 1), error }, { etag: '"1"' }),
  );
  const sartiq = new Sartiq({ url, apiKey: "sk_1" });
  const failed = await sartiq.wait(generation("pending", 0) as never).catch((caught: unknown) => caught);
  assert.ok(failed instanceof JobFailedError);
  assert.equal(failed.message, "g1 is failed: No capacity");
});

test("wait outlasts a restart of the server", async (context) => {
  const { url } = await serve(context, (_, response, { length }) => {
    if (length === 1) return response.destroy();
    if (length === 2) return sendProblem(response, 503, "unavailable");
    return sendJson(response, 200, generation("completed", 100), { etag: '"1"' });
  });
  const sartiq = new Sartiq({ url, apiKey: "sk_1", maxRetries: 0 });
  const done: { status: string } = await sartiq.wait(generation("pending", 0) as never);
  assert.equal(done.status, "completed");
});

test("wait ends at once at an error that does not pass, and takes jobs only", async (context) => {
  const { url, requests } = await serve(context, (_, response) => sendProblem(response, 404, "not_found"));
  const sartiq = new Sartiq({ url, apiKey: "sk_1" });
  await assert.rejects(sartiq.wait(generation("pending", 0) as never), { status: 404 });
  assert.equal(requests.length, 1);
  await assert.rejects(sartiq.wait({ id: "p1" } as never), { name: "TypeError", message: /takes a generation/ });
});

test("an error says what the request needs, and where it is wrong", async (context) => {
  const answers = [
    { code: "not_enough_permissions", detail: "No", required_scope: "products:write" },
    { code: "invalid_transition", detail: "No", allowed_transitions: ["approve", "reject"] },
    { code: "not_found", detail: "No", pointer: "/brand_id" },
    { code: "not_found", detail: "No", parameter: "brand_id" },
    { code: "invalid_request", detail: [{ loc: ["body"], msg: "Is required", type: "missing", pointer: "" }] },
  ];
  const { url, requests } = await serve(context, (_, response, { length }) =>
    sendJson(response, 409, answers[length - 1]),
  );
  const sartiq = new Sartiq({ url, apiKey: "sk_1" });
  const messages = [
    "409 not_enough_permissions: No (needed: products:write)",
    "409 invalid_transition: No (allowed: approve, reject)",
    "409 not_found: No (at /brand_id)",
    "409 not_found: No (parameter brand_id)",
    "409 invalid_request: body: Is required",
  ];
  for (const message of messages) {
    await assert.rejects(async () => sartiq.brands.list_brands({ created_after: new Date(0) as never }), { message });
  }
  assert.equal(requests[0]?.path, "/brands/?created_after=1970-01-01T00%3A00%3A00.000Z");
});

test("a connection error names its reason, and no query", async () => {
  const sartiq = new Sartiq({ url: "http://127.0.0.1:9", apiKey: "sk_1", maxRetries: 0 });
  const message = /^GET http:\/\/127.0.0.1:9\/api\/v1\/brands\/ failed: (connect ECONNREFUSED|bad port)/;
  await assert.rejects(async () => sartiq.brands.list_brands({ limit: 1 }), { name: "APIConnectionError", message });
});

test("a URL that is none is rejected at once", () => {
  assert.throws(() => new (Sartiq as new () => Sartiq)(), { message: "The option `url` is missing" });
  assert.throws(() => new Sartiq({ url: "localhost:8000" }), /localhost:8000 is not a URL such as/);
  assert.equal(new Sartiq({ url: "/" }).url, "/api/v1");
});

test("wait gives up after its time limit", async (context) => {
  const { url } = await serve(context, (_, response) =>
    sendJson(response, 200, generation("running", 1), { etag: '"1"' }),
  );
  const waiting = new Sartiq({ url, apiKey: "sk_1" }).wait(generation("pending", 0) as never, { timeout: 300 });
  await assert.rejects(waiting, WaitTimeoutError);
});

test("a download is a file when it is complete, and no file when it breaks off", async (context) => {
  const { url } = await serve(context, (_, response, { length }) => {
    response.writeHead(200, { "content-length": 200_000 }).write("x".repeat(100_000));
    return length === 1 ? response.end("y".repeat(100_000)) : setTimeout(() => response.destroy(), 50);
  });
  const folder = await mkdtemp(join(tmpdir(), "sartiq-"));
  context.after(() => rm(folder, { recursive: true }));
  const { predictions } = new Sartiq({ url, apiKey: "sk_1" });
  const whole = await predictions.get_prediction_image({ prediction_id: "p1" });
  await saveFile(whole, join(folder, "whole.jpg"));
  assert.equal((await openFile(join(folder, "whole.jpg"))).size, 200_000);
  const broken = await predictions.get_prediction_image({ prediction_id: "p1" });
  await assert.rejects(saveFile(broken, join(folder, "broken.jpg")));
  assert.deepEqual(await readdir(folder), ["whole.jpg"]);
});

test("an upload sends its bytes to the signed URL, without the credential", async (context) => {
  const { url, requests } = await serve(context, ({ path, headers }, response) =>
    path === "/uploads/presigned-url"
      ? sendJson(response, 200, {
          upload_url: `http://${headers.host}/bucket?signature=s1`,
          upload_method: "PUT",
          expires_in_seconds: 900,
          file_url: "https://files.example.com/1.jpg",
        })
      : response.writeHead(204).end(),
  );
  const bytes = new TextEncoder().encode("bytes");
  const uploaded = await new Sartiq({ url, apiKey: "sk_1" }).upload(bytes, { contentType: "image/jpeg" });
  assert.equal(uploaded, "https://files.example.com/1.jpg");
  const [created, sent] = requests;
  assert.equal(created?.body, '{"filename":"file","content_type":"image/jpeg","size":5}');
  assert.deepEqual([sent?.method, sent?.path, sent?.body], ["PUT", "/bucket?signature=s1", "bytes"]);
  assert.deepEqual([sent?.headers["content-type"], sent?.headers.authorization], ["image/jpeg", undefined]);
});

test("a webhook message is verified by each secret of a rotation", async () => {
  const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
  // The example of the Standard Webhooks specification
  const headers = {
    "Webhook-Id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "Webhook-Timestamp": "1614265330",
    "Webhook-Signature": "v2,ignored v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  };
  const body = '{"test": 2432232314}';
  const tolerance = Number.MAX_SAFE_INTEGER;
  const message = { test: 2432232314 };
  assert.deepEqual(await verifyWebhook({ secret: ["whsec_AAAA", secret], headers, body, tolerance }), message);
  const bytes = new TextEncoder().encode(body);
  assert.deepEqual(await verifyWebhook({ secret, headers: new Headers(headers), body: bytes, tolerance }), message);
  const rejected = { name: "WebhookVerificationError" };
  await assert.rejects(verifyWebhook({ secret, headers, body }), rejected);
  await assert.rejects(verifyWebhook({ secret, headers, body: `${body} `, tolerance }), rejected);
  await assert.rejects(verifyWebhook({ secret: "whsec_AAAA", headers, body, tolerance }), rejected);
  await assert.rejects(verifyWebhook({ secret, headers: {}, body, tolerance }), rejected);
});

test("a deprecated operation is logged once", async (context) => {
  const documentation = "/api/v1/docs#/brands/list_brands";
  const { url } = await serve(context, (_, response) =>
    sendJson(response, 200, { data: [], count: 0, next_cursor: null }, {
      deprecation: "@1772323200",
      sunset: "Mon, 01 Mar 2027 12:00:00 GMT",
      link: `<${documentation}>; rel="deprecation"; type="text/html", </api/v1/labels/>; rel="successor-version"`,
    }),
  );
  const warn = context.mock.method(console, "warn", () => undefined);
  const sartiq = new Sartiq({ url, apiKey: "sk_1" });
  await sartiq.brands.list_brands();
  await sartiq.brands.list_brands();
  assert.deepEqual(
    warn.mock.calls.map((call) => call.arguments),
    [
      [
        "sartiq: list_brands is deprecated since 2026-03-01, and ends on Mon, 01 Mar 2027 12:00:00 GMT. " +
          `Use /api/v1/labels/. See ${documentation}.`,
      ],
    ],
  );
});
