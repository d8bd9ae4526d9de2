// Turn the name and the arguments of an operation into a request, and its response into a result.

import type { Credentials } from "./credentials.ts";
import { APIError } from "./errors.ts";
import { readEvents } from "./events.ts";
import { isFile, toBlob } from "./files.ts";
import { OPERATIONS, VERSION } from "./generated/operations.ts";
import type { OperationName } from "./generated/operations.ts";
import { exchange } from "./http.ts";
import type { Received } from "./http.ts";
import { withPages } from "./pages.ts";
import type { ApiPromise, Arguments, FileInput, Operation, RequestOptions, WithResponse } from "./types.ts";

export interface Connection {
  /** URL that the paths of the contract are relative to, without a slash at the end. */
  url: string;
  fetch: typeof fetch;
  headers: Record<string, string>;
  timeout: number;
  maxRetries: number;
  credentials: Credentials;
}

// The server rejects bodies that arrive more slowly, in bytes per millisecond. A time-out must not be shorter.
const SLOWEST_UPLOAD = 32;
// They start nothing that a second execution would double: a lost response may be requested again.
const REPEATABLE_POSTS: ReadonlySet<string> = new Set(["login", "refresh_token", "test_token"]);

/** Call an operation and return what its method promises. */
export function call(connection: Connection, name: OperationName, args: Arguments, options: RequestOptions): unknown {
  const operation = OPERATIONS[name];
  if (operation.result === "events") {
    return readEvents((headers, signal) => send(connection, name, args, { ...options, headers, signal }), options);
  }
  const sent = send(connection, name, args, options);
  if (operation.result !== "pages") return toApiPromise(sent);
  return withPages(toApiPromise(sent as Promise<WithResponse<never>>), (cursor) =>
    toApiPromise(send(connection, name, { ...args, cursor }, options) as Promise<WithResponse<never>>),
  );
}

/** Send a request of an operation with the current token, and once more if the token has expired. */
export async function send(
  connection: Connection,
  name: OperationName,
  args: Arguments,
  options: RequestOptions = {},
): Promise<WithResponse<unknown>> {
  const operation = OPERATIONS[name];
  const { url, body, contentType } = encode(connection.url, operation, args);
  const headers = new Headers({ ...connection.headers, ...options.headers });
  if (contentType) headers.set("content-type", contentType);
  if (options.ifMatch !== undefined) headers.set("if-match", options.ifMatch);
  if (operation.keyed && !headers.has("idempotency-key")) {
    headers.set("idempotency-key", options.idempotencyKey ?? crypto.randomUUID());
  }
  if (isNode() && !headers.has("user-agent")) headers.set("user-agent", `sartiq-typescript/${VERSION}`);

  // A repeated request with If-Match would fail because of its own first execution.
  const repeatable =
    !headers.has("if-match") &&
    (operation.method !== "POST" || operation.keyed === true || REPEATABLE_POSTS.has(name));
  const request = {
    url,
    method: operation.method,
    headers,
    body,
    repeatable,
    stream: operation.result === "response" || operation.result === "events",
    timeout: (options.timeout ?? connection.timeout) + sizeOf(body) / SLOWEST_UPLOAD,
    maxRetries: options.maxRetries ?? connection.maxRetries,
    signal: options.signal,
    fetch: connection.fetch,
    onResponse: (response: Response) => warnIfDeprecated(name, response),
  };
  if (operation.anonymous || headers.has("authorization")) return decode(operation, await exchange(request));

  const { signal } = options;
  const token = await abortable(connection.credentials.token(), signal);
  if (token !== undefined) headers.set("authorization", `Bearer ${token}`);
  try {
    return decode(operation, await exchange(request));
  } catch (error) {
    // Nothing was executed, so even a request that may not be repeated is sent again.
    if (token === undefined || !(error instanceof APIError) || error.status !== 401) throw error;
    const renewed = await abortable(connection.credentials.renew(token), signal);
    if (renewed === undefined) throw error;
    headers.set("authorization", `Bearer ${renewed}`);
    return decode(operation, await exchange(request));
  }
}

const warned = new Set<OperationName>();

/** Log a warning for the first response of a deprecated operation (RFC 9745) in this process. */
function warnIfDeprecated(name: OperationName, { headers }: Response): void {
  const since = headers.get("deprecation");
  if (since === null || warned.has(name)) return;
  warned.add(name);
  const date = /^@(\d{1,11})$/.exec(since)?.[1];
  const sunset = headers.get("sunset");
  const findLink = (relation: string): string | undefined =>
    new RegExp(`<([^<>]*)>; rel="${relation}"`).exec(headers.get("link") ?? "")?.[1];
  const parts = [
    `sartiq: ${name} is deprecated` +
      (date ? ` since ${new Date(Number(date) * 1000).toISOString().slice(0, 10)}` : "") +
      (sunset ? `, and ends on ${sunset}` : ""),
    findLink("successor-version") && `Use ${findLink("successor-version")}`,
    findLink("deprecation") && `See ${findLink("deprecation")}`,
  ];
  console.warn(`${parts.filter(Boolean).join(". ")}.`);
}

/** Let a call end when it is aborted while it waits for the sign-in that it shares with others. */
async function abortable<Value>(promise: Promise<Value>, signal: AbortSignal | undefined): Promise<Value> {
  if (!signal) return promise;
  let stop = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
  });
  signal.addEventListener("abort", stop);
  if (signal.aborted) stop();
  return Promise.race([promise, aborted]).finally(() => signal.removeEventListener("abort", stop));
}

function toApiPromise<Data>(sent: Promise<WithResponse<Data>>): ApiPromise<Data> {
  const promise = sent.then(({ data }) => data);
  return Object.assign(promise, { withResponse: () => sent });
}

function encode(
  baseUrl: string,
  operation: Operation,
  args: Arguments,
): { url: string; body: BodyInit | null; contentType: string | null } {
  const { body, ...rest } = args;
  const parameters: Record<string, unknown> = rest;
  const path = operation.path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = parameters[name];
    // An empty value would address the collection instead of one resource.
    if (value === undefined || value === "") throw new TypeError(`The argument ${name} is missing`);
    delete parameters[name];
    return encodeURIComponent(String(value));
  });
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined || value === null) continue;
    query.set(name, value instanceof Date ? value.toISOString() : String(value)); // arrays are joined with commas
  }
  const url = baseUrl + path + (query.size ? `?${query}` : "");
  if (body === undefined || operation.body === undefined) return { url, body: null, contentType: null };
  return { url, ...encodeBody(operation.body, body) };
}

function encodeBody(
  kind: NonNullable<Operation["body"]>,
  body: unknown,
): { body: BodyInit; contentType: string | null } {
  if (kind === "json") return { body: JSON.stringify(body), contentType: "application/json" };
  if (kind === "binary") {
    const blob = toBlob(body as FileInput);
    return { body: blob, contentType: blob.type || "application/octet-stream" };
  }
  const form = kind === "form" ? new URLSearchParams() : new FormData();
  for (const [name, value] of Object.entries(body as object)) {
    if (form instanceof FormData && isFile(value)) form.set(name, toBlob(value));
    else if (value !== undefined && value !== null) form.set(name, String(value));
  }
  return { body: form, contentType: null }; // fetch sets the type, with the boundary of the parts
}

function sizeOf(body: BodyInit | null): number {
  if (body instanceof Blob) return body.size;
  if (!(body instanceof FormData)) return 0;
  return [...body.values()].reduce((sum, value) => sum + (value instanceof Blob ? value.size : 0), 0);
}

function decode(operation: Operation, { response, text }: Received): WithResponse<unknown> {
  if (operation.result === "response" || operation.result === "events") return { data: response, response };
  // 204, and 304 for a caller that sends If-None-Match itself
  if (text === "") return { data: undefined, response };
  try {
    return { data: JSON.parse(text), response };
  } catch {
    throw new APIError(response, text); // for example the sign-in page of a proxy
  }
}

/** Browsers forbid a User-Agent of one's own, or ask the server with a preflight request. */
function isNode(): boolean {
  const { process } = globalThis as { process?: { versions?: { node?: string } } };
  return process?.versions?.node !== undefined;
}
