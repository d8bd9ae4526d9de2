import assert from "node:assert/strict";
import { test } from "node:test";
import { Sartiq } from "../src/index.ts";
import type { Answer } from "./server.ts";
import { sendJson, sendProblem, serve } from "./server.ts";

const ACCOUNT = { email: "demo@example.com", password: "sartiq-demo" };

/** Answer the sign-in and refreshes with tokens a1, a2, ..., and accept only the last one. */
function sessions({ refresh = true } = {}): Answer {
  let issued = 0;
  return async ({ path, headers }, response) => {
    const tokens = () => ({ access_token: `a${++issued}`, refresh_token: `r${issued}`, expires_in: 3600 });
    if (path === "/login/access-token") return sendJson(response, 200, tokens());
    if (path === "/login/refresh-token") {
      await new Promise((resolve) => setTimeout(resolve, 50)); // the other requests come meanwhile
      return refresh ? sendJson(response, 200, tokens()) : sendProblem(response, 401, "invalid_token");
    }
    if (path === "/expire") return sendJson(response, 200, ++issued);
    if (headers.authorization !== `Bearer a${issued}`) return sendProblem(response, 401, "invalid_token");
    return sendJson(response, 200, { id: path });
  };
}

test("the first request signs in, once for all", async (context) => {
  const { url, requests } = await serve(context, sessions());
  const sartiq = new Sartiq({ url, ...ACCOUNT });
  await Promise.all([sartiq.brands.get_brand({ brand_id: "b1" }), sartiq.brands.get_brand({ brand_id: "b2" })]);
  assert.deepEqual(
    requests.map((request) => request.path),
    ["/login/access-token", "/brands/b1", "/brands/b2"],
  );
  assert.equal(requests[0]?.body, "grant_type=password&username=demo%40example.com&password=sartiq-demo");
  assert.equal(requests[0]?.headers.authorization, undefined);
});

test("ten requests with an expired token cause one refresh, and keep their keys", async (context) => {
  const { url, requests } = await serve(context, sessions());
  const kept: string[] = [];
  const sartiq = new Sartiq({ url, ...ACCOUNT, onTokens: (tokens) => kept.push(tokens.refresh_token) });
  await sartiq.signIn();
  await fetch(`${url}/expire`);
  requests.length = 0;
  const created = Array.from({ length: 10 }, (_, n) => sartiq.brands.create_brand({ body: { name: `Brand ${n}` } }));
  assert.equal((await Promise.all(created)).length, 10);
  const refreshes = requests.filter((request) => request.path === "/login/refresh-token");
  assert.deepEqual(refreshes.map((request) => request.body), ['{"refresh_token":"r1"}']);
  assert.deepEqual(kept, ["r1", "r3"]);
  const keys = requests.filter(({ path }) => path === "/brands/").map(({ headers }) => headers["idempotency-key"]);
  assert.equal(keys.length, 20);
  assert.equal(new Set(keys).size, 10);
});

test("stored tokens continue a session; when it has ended, the password starts another one", async (context) => {
  const { url, requests } = await serve(context, sessions({ refresh: false }));
  const tokens = { access_token: "old", refresh_token: "old" };
  await new Sartiq({ url, ...ACCOUNT, tokens }).brands.get_brand({ brand_id: "b1" });
  const paths = requests.map((request) => request.path);
  assert.deepEqual(paths, ["/brands/b1", "/login/refresh-token", "/login/access-token", "/brands/b1"]);
  await assert.rejects(new Sartiq({ url, tokens }).brands.get_brand({ brand_id: "b1" }), { status: 401 });
});

test("an aborted call does not wait for the sign-in, which the other calls get", async (context) => {
  const { url } = await serve(context, async ({ path }, response) => {
    if (path === "/brands/b1") return sendJson(response, 200, { id: "b1" });
    await new Promise((resolve) => setTimeout(resolve, 300));
    return sendJson(response, 200, { access_token: "a1" });
  });
  const sartiq = new Sartiq({ url, ...ACCOUNT });
  const aborted = sartiq.brands.get_brand({ brand_id: "b1" }, { signal: AbortSignal.timeout(50) });
  const other = sartiq.brands.get_brand({ brand_id: "b1" });
  const started = performance.now();
  await assert.rejects(aborted, { name: "TimeoutError" });
  assert.ok(performance.now() - started < 290);
  assert.equal((await other).id, "b1");
});

test("a rejected API key is reported at once", async (context) => {
  const { url, requests } = await serve(context, (_, response) => sendProblem(response, 401, "invalid_token"));
  await assert.rejects(new Sartiq({ url, apiKey: "sk_1" }).brands.list_brands(), { status: 401, code: "invalid_token" });
  assert.equal(requests.length, 1);
});

test("options that contradict each other are rejected", () => {
  assert.throws(() => new Sartiq({ url: "" }), /`url` is missing/);
  assert.throws(() => new Sartiq({ url: "http://localhost", email: "demo@example.com" }), /both/);
  assert.throws(() => new Sartiq({ url: "http://localhost", apiKey: "sk_1", ...ACCOUNT }), /either/);
});

test("a sign-in sends the code of the second factor that the server asks for", async (context) => {
  const { url, requests } = await serve(context, ({ body }, response) => {
    if (String(body).includes("otp=")) return sendJson(response, 200, { access_token: "a1", refresh_token: "r1", expires_in: 3600 });
    return sendJson(response, 401, { status: 401, code: "second_factor_required", detail: "", challenge: "sf_1" });
  });
  await new Sartiq({ url, ...ACCOUNT, otp: () => "492039" }).signIn();
  assert.equal(requests[1]?.body, "grant_type=password&challenge=sf_1&otp=492039");
  await assert.rejects(new Sartiq({ url, ...ACCOUNT }).signIn(), { code: "second_factor_required" });
});
