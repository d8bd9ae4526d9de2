// Wait for generations, exports and imports.

import { send } from "./calls.ts";
import type { Connection } from "./calls.ts";
import { APIConnectionError, APIError, APITimeoutError, JobFailedError, WaitTimeoutError } from "./errors.ts";
import type { OperationName } from "./generated/operations.ts";
import type { AccountExport, Export, Generation, ProductImport } from "./generated/schemas.ts";
import { readRetryAfter, sleep } from "./http.ts";
import type { Arguments, WithResponse } from "./types.ts";

/** A resource that works in the background: it has a status and a progress, and ends. */
export type Job = Generation | Export | ProductImport | AccountExport;

export interface WaitOptions<J extends Job = Job> {
  /** Called with each new state, the first and the last one included. */
  onProgress?: ((job: J) => void) | undefined;
  signal?: AbortSignal | undefined;
  /** How long to wait in total, in milliseconds. Default: until the job has ended. */
  timeout?: number | undefined;
}

const OPEN: ReadonlySet<string> = new Set(["pending", "running", "canceling"]);
// Seconds that one request waits on the server; proxies often close connections after 60.
const LONG_POLL = 25;
const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 5_000;
// How long the server may be unreachable, in milliseconds: a restart must not end the wait.
const LONGEST_OUTAGE = 120_000;
const TEMPORARY: ReadonlySet<number> = new Set([429, 502, 503, 504]);

/**
 * Wait until a job has ended, and return its last state.
 *
 * @throws JobFailedError if it did not succeed, WaitTimeoutError after `timeout`.
 */
export async function wait<J extends Job>(connection: Connection, job: J, options: WaitOptions<J>): Promise<J> {
  if (typeof job?.status !== "string") throw new TypeError("`wait` takes a generation, an export or an import");
  const { onProgress, timeout } = options;
  const deadline = timeout === undefined ? undefined : AbortSignal.timeout(timeout);
  const signals = [options.signal, deadline].filter((signal) => signal !== undefined);
  const signal = signals.length ? AbortSignal.any(signals) : undefined;
  const [name, args] = readerOf(job);
  let state = job;
  let etag: string | undefined;
  let pause = FIRST_PAUSE;
  let outage: number | undefined;
  onProgress?.(state);
  try {
    while (OPEN.has(state.status)) {
      // The first request returns at once: without a tag, the server would not respond before the end.
      const headers: Record<string, string> = etag ? { prefer: `wait=${LONG_POLL}`, "if-none-match": etag } : {};
      let received: WithResponse<unknown>;
      try {
        received = await send(connection, name, args, { headers, signal });
      } catch (error) {
        outage ??= Date.now();
        if (!isTemporary(error) || Date.now() - outage >= LONGEST_OUTAGE) throw error;
        await sleep(pause, signal);
        pause = Math.min(LONGEST_PAUSE, pause * 1.5);
        continue;
      }
      outage = undefined;
      const { data, response } = received;
      etag = response.headers.get("etag") ?? etag;
      if (data !== undefined) {
        const changed = (data as J).status !== state.status || (data as J).progress !== state.progress;
        state = data as J;
        if (changed) onProgress?.(state);
      }
      // Only generations are waited for on the server, and not by WSGI servers.
      const waited = response.headers.has("preference-applied");
      if (OPEN.has(state.status) && (etag === undefined || "prefer" in headers) && !waited) {
        await sleep(Math.max(pause, readRetryAfter(response.headers) ?? 0), signal);
        pause = Math.min(LONGEST_PAUSE, pause * 1.5);
      }
    }
  } catch (error) {
    if (deadline?.aborted && !options.signal?.aborted) {
      const facts = `${state.id} is still ${state.status} after ${timeout} ms`;
      throw new WaitTimeoutError(`${facts}; it continues on the server`);
    }
    throw error;
  }
  if (state.status !== "completed") throw new JobFailedError(describe(state), state);
  return state;
}

/** Return whether the server may be there again soon. */
function isTemporary(error: unknown): boolean {
  if (error instanceof APIError) return TEMPORARY.has(error.status);
  return error instanceof APIConnectionError || error instanceof APITimeoutError;
}

/** Return the operation that reads the job. */
function readerOf(job: Job): [OperationName, Arguments] {
  if ("generation_type" in job) return ["get_generation", { generation_id: job.id }];
  if ("shooting_id" in job) return ["get_export", { export_id: job.id }];
  if ("match_by" in job) return ["get_product_import", { import_id: job.id }];
  return ["get_account_export", { account_export_id: job.id }];
}

function describe(job: Job): string {
  const cause = "problem" in job ? job.problem : job.error;
  const reason = cause && (typeof cause === "string" ? cause : "message" in cause ? cause.message : cause.detail);
  return `${job.id} is ${job.status}${reason ? `: ${reason}` : ""}`;
}
