import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { APIConnectionError, APIError, Sartiq, APITimeoutError } from "../src/index.ts";
import { sendJson, sendProblem, serve } from "./server.ts";

const BRAND = { id: "b1", name: "Linea" };
const create = (sartiq: Sartiq) => sartiq.brands.create_brand({ organization_id: "o1", body: { name: "Linea" } });

// Most of the time of these tests is waiting.
suite("retries", { concurrency: true }, () => {
  test("a rejected and a lost request are sent again with the same key", async (context) => {
    const { url, requests } = await serve(context, (_, response, { length }) => {
      if (length === 1) return sendProblem(response, 503, "unavailable", { "retry-after": "0" });
      if (length === 2) return response.destroy();
      return sendJson(response, 201, BRAND);
    });
    assert.deepEqual(await create(new Sartiq({ url, apiKey: "sk_1" })), BRAND);
    assert.equal(requests.length, 3);
    const keys = new Set(requests.map((request) => request.headers["idempotency-key"]));
    assert.match([...keys].join(), /^[0-9a-f-]{36}$/);
    for (const { method, path, headers, body } of requests) {
      assert.deepEqual([method, path, body], ["POST", "/brands/?organization_id=o1", '{"name":"Linea"}']);
      assert.equal(headers.authorization, "Bearer sk_1");
      assert.match(headers["user-agent"] ?? "", /^sartiq-typescript\/\d/);
    }
  });

  test("a response that breaks off is requested again", async (context) => {
    const { url, requests } = await serve(context, (_, response, { length }) =>
      length === 1
        ? response.writeHead(201, { "content-length": "100" }).write("{", () => response.destroy())
        : sendJson(response, 201, BRAND),
    );
    assert.deepEqual(await create(new Sartiq({ url, apiKey: "sk_1" })), BRAND);
    assert.equal(new Set(requests.map(({ headers }) => headers["idempotency-key"])).size, 1);
    assert.equal(requests.length, 2);
  });

  test("each call has a key of its own, and the caller's key wins", async (context) => {
    const { url, requests } = await serve(context, (_, response) => sendJson(response, 201, BRAND));
    const sartiq = new Sartiq({ url, apiKey: "sk_1" });
    await create(sartiq);
    await create(sartiq);
    await sartiq.brands.create_brand({ body: { name: "Linea" } }, { idempotencyKey: "mine" });
    const keys = requests.map((request) => request.headers["idempotency-key"]);
    assert.equal(new Set(keys).size, 3);
    assert.equal(keys[2], "mine");
  });

  test("429 waits for the time in Retry-After", async (context) => {
    const { url, requests } = await serve(context, (_, response, { length }) =>
      length === 1
        ? sendProblem(response, 429, "rate_limited", { "retry-after": "1" })
        : sendJson(response, 200, { status: "approved" }),
    );
    const started = performance.now();
    // An operation without a key: 429 says that nothing was executed.
    await new Sartiq({ url, apiKey: "sk_1" }).shots.approve_shot({ shot_id: "s1" });
    const elapsed = performance.now() - started;
    assert.ok(elapsed >= 1_000 && elapsed < 5_000, `waited ${elapsed} ms`);
    assert.equal(requests.length, 2);
  });

  test("a request whose key is in progress is sent again", async (context) => {
    const { url, requests } = await serve(context, (_, response, { length }) =>
      length === 1
        ? sendProblem(response, 409, "idempotency_key_in_progress", { "retry-after": "0" })
        : sendJson(response, 201, BRAND),
    );
    assert.deepEqual(await create(new Sartiq({ url, apiKey: "sk_1" })), BRAND);
    assert.equal(requests.length, 2);
  });

  test("a long Retry-After is left to the caller", async (context) => {
    const { url, requests } = await serve(context, (_, response) =>
      sendProblem(response, 429, "rate_limited", { "retry-after": "600" }),
    );
    await assert.rejects(create(new Sartiq({ url, apiKey: "sk_1" })), { status: 429, code: "rate_limited" });
    assert.equal(requests.length, 1);
  });

  test("what may have been executed is not sent again without a key or with a precondition", async (context) => {
    const { url, requests } = await serve(context, (_, response) => response.destroy());
    const sartiq = new Sartiq({ url, apiKey: "sk_1" });
    await assert.rejects(sartiq.shots.approve_shot({ shot_id: "s1" }), APIConnectionError);
    await assert.rejects(sartiq.brands.update_brand({ brand_id: "b1", body: {} }, { ifMatch: '"1"' }), APIConnectionError);
    assert.deepEqual(
      requests.map(({ method, headers }) => [method, headers["if-match"], headers["idempotency-key"]]),
      [["POST", undefined, undefined], ["PATCH", '"1"', undefined]],
    );
  });

  test("attempts end after maxRetries", async (context) => {
    const { url, requests } = await serve(context, (_, response) => sendProblem(response, 500, "internal_error"));
    await assert.rejects(new Sartiq({ url, apiKey: "sk_1", maxRetries: 1 }).brands.get_brand({ brand_id: "b1" }), { status: 500 });
    assert.equal(requests.length, 2);
  });

  test("a problem has the code, the violations and the id of the request", async (context) => {
    const violation = { loc: ["body", "name"], msg: "Field required", type: "missing", pointer: "/name" };
    const { url } = await serve(context, (_, response) =>
      sendJson(response, 422, { status: 422, code: "invalid_request", detail: [violation], request_id: "r7" }),
    );
    const error = await create(new Sartiq({ url, apiKey: "sk_1" })).catch((caught: unknown) => caught);
    assert.ok(error instanceof APIError);
    assert.deepEqual([error.status, error.code, error.requestId], [422, "invalid_request", "r7"]);
    assert.deepEqual(error.violations, [violation]);
    assert.equal(error.message, "422 invalid_request: /name: Field required");
  });

  test("a proxy's page is an error, too", async (context) => {
    const { url } = await serve(context, (_, response) => response.writeHead(403).end("<h1>No</h1>"));
    const failed = new Sartiq({ url, apiKey: "sk_1" }).brands.get_brand({ brand_id: "b1" });
    await assert.rejects(failed, { name: "APIError", status: 403, code: "unknown", problem: undefined });
  });

  test("an attempt has a time limit, and a signal ends all of them", async (context) => {
    const { url, requests } = await serve(context, () => undefined);
    const sartiq = new Sartiq({ url, apiKey: "sk_1" });
    // Long enough for a busy machine to connect.
    await assert.rejects(sartiq.brands.get_brand({ brand_id: "b1" }, { timeout: 1000, maxRetries: 1 }), APITimeoutError);
    assert.equal(requests.length, 2);
    const reason = new Error("The user left");
    const controller = new AbortController();
    setTimeout(() => controller.abort(reason), 1000);
    await assert.rejects(sartiq.brands.get_brand({ brand_id: "b1" }, { signal: controller.signal }), reason);
    assert.equal(requests.length, 3);
  });

  test("a path argument is escaped and may not be missing", async (context) => {
    const { url, requests } = await serve(context, (_, response) => sendJson(response, 200, {}));
    const sartiq = new Sartiq({ url: `${url}/api/v1/`, apiKey: "sk_1" });
    await sartiq.brands.get_brand({ brand_id: "../users/me?x" });
    await sartiq.shots.list_shots({ status_in: ["approved", "exported"], look_id: undefined });
    assert.deepEqual(
      requests.map((request) => request.path),
      ["/brands/..%2Fusers%2Fme%3Fx", "/shots/?status_in=approved%2Cexported"],
    );
    await assert.rejects(sartiq.brands.get_brand({ brand_id: "" }), /brand_id is missing/);
  });
});
