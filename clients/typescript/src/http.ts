// Send one request until it succeeds or may not be repeated. This module knows neither operations nor credentials.

import { APIConnectionError, APIError, SartiqError, APITimeoutError } from "./errors.ts";

export interface Exchange {
  url: string;
  method: string;
  headers: Headers;
  body: BodyInit | null;
  /** Whether a second execution has the same effect as one. Otherwise only responses that say "not executed" repeat. */
  repeatable: boolean;
  /** Return the body to the caller as a stream instead of reading it. */
  stream: boolean;
  timeout: number;
  maxRetries: number;
  signal: AbortSignal | undefined;
  fetch: typeof fetch;
  /** Called with the head of each response, also that of an error. */
  onResponse?: (response: Response) => void;
}

export interface Received {
  response: Response;
  /** The body, if it was read. */
  text: string;
}

const FIRST_DELAY = 500;
const LONGEST_DELAY = 8_000;
// A longer `Retry-After`, for example of the sign-in after wrong passwords, is the caller's decision.
const LONGEST_RETRY_AFTER = 60_000;
const REPEATABLE_STATUSES = new Set([408, 500, 502, 503, 504]);
// The first request with this Idempotency-Key is still running, or nothing was executed.
const NOT_EXECUTED_CODES = new Set(["idempotency_key_in_progress", "rate_limited", "too_many_concurrent_requests"]);

/**
 * Send a request and return its response with a status below 400.
 *
 * @throws APIError, APIConnectionError, APITimeoutError, or the reason of the signal.
 */
export async function exchange(request: Exchange): Promise<Received> {
  for (let attempt = 0; ; attempt++) {
    let error: SartiqError;
    try {
      return await attemptOnce(request);
    } catch (caught) {
      if (!(caught instanceof SartiqError)) throw caught;
      error = caught;
    }
    const delay = delayBefore(attempt + 1, error, request.repeatable);
    if (attempt >= request.maxRetries || delay === null) throw error;
    await sleep(delay, request.signal);
  }
}

async function attemptOnce(request: Exchange): Promise<Received> {
  const { signal } = request;
  signal?.throwIfAborted();
  const timer = new AbortController();
  const timeout = setTimeout(() => timer.abort(), request.timeout);
  try {
    const response = await request.fetch(request.url, {
      method: request.method,
      headers: request.headers,
      body: request.body,
      signal: signal ? AbortSignal.any([signal, timer.signal]) : timer.signal,
    });
    request.onResponse?.(response);
    if (request.stream && response.ok) return { response, text: "" };
    const text = await response.text();
    if (response.status >= 400) throw new APIError(response, text);
    return { response, text };
  } catch (error) {
    if (error instanceof APIError) throw error;
    signal?.throwIfAborted();
    if (timer.signal.aborted) {
      throw new APITimeoutError(`No response to ${describe(request)} within ${request.timeout} ms`);
    }
    throw new APIConnectionError(`${describe(request)} failed: ${findReason(error)}`, { cause: error });
  } finally {
    clearTimeout(timeout);
  }
}

/** Return the request without its query, which is a secret in presigned URLs. */
function describe({ method, url }: Exchange): string {
  return `${method} ${url.split("?", 1)[0]}`;
}

/** Return what `fetch` hides in its causes, such as ECONNREFUSED. */
function findReason(error: unknown): string {
  let cause = error;
  while (cause instanceof Error && cause.cause instanceof Error) cause = cause.cause;
  const { message, code } = cause as { message?: string; code?: string };
  return message || code || String(cause);
}

/** Return how long to wait before the next attempt, in milliseconds, or null if there must be none. */
function delayBefore(attempt: number, error: SartiqError, repeatable: boolean): number | null {
  const backoff = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** (attempt - 1)) * (0.5 + Math.random() / 2);
  if (!(error instanceof APIError)) return repeatable ? backoff : null;
  const notExecuted = error.status === 429 || NOT_EXECUTED_CODES.has(error.code);
  if (!notExecuted && !(repeatable && REPEATABLE_STATUSES.has(error.status))) return null;
  const retryAfter = readRetryAfter(error.response.headers);
  if (retryAfter === null) return backoff;
  // The random part keeps clients that were rejected together from coming back together.
  return retryAfter > LONGEST_RETRY_AFTER ? null : retryAfter + Math.random() * FIRST_DELAY;
}

/** Return the value of `Retry-After` in milliseconds, or null if it is absent or not readable. */
export function readRetryAfter(headers: Headers): number | null {
  const value = headers.get("retry-after");
  if (value === null) return null;
  const milliseconds = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(milliseconds) ? null : Math.max(0, milliseconds);
}

/** Wait; reject with the reason of the signal when it is aborted. */
export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
