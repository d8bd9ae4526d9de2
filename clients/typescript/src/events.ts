// Server-sent events of a generation, with reconnection.

import { APIConnectionError } from "./errors.ts";
import type { GenerationEvent } from "./generated/schemas.ts";
import { sleep } from "./http.ts";
import type { RequestOptions, WithResponse } from "./types.ts";

type Connect = (headers: Record<string, string>, signal: AbortSignal) => Promise<WithResponse<unknown>>;

// The server sends a comment every 15 seconds, so a longer silence means that the connection is dead.
const SILENCE = 45_000;
const ATTEMPTS_WITHOUT_EVENT = 5;
const TERMINAL: ReadonlySet<string> = new Set(["completed", "failed", "canceled", "expired"]);

/** Yield the current state of a generation, then each change, until it has ended. */
export async function* readEvents(connect: Connect, options: RequestOptions): AsyncGenerator<GenerationEvent> {
  let lastId: string | undefined;
  let delay = 2_000;
  for (let failures = 0; failures < ATTEMPTS_WITHOUT_EVENT; failures++) {
    const silence = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, silence.signal]) : silence.signal;
    const headers: Record<string, string> = { ...options.headers, accept: "text/event-stream" };
    if (lastId !== undefined) headers["last-event-id"] = lastId;
    const started = Date.now();
    try {
      const response = (await connect(headers, signal)).data as Response;
      if (response.status === 204 || !response.body) return;
      for await (const event of parseEvents(response.body, silence)) {
        lastId = event.id ?? lastId;
        delay = event.retry ?? delay;
        if (!event.data) continue;
        failures = 0;
        const state = JSON.parse(event.data) as GenerationEvent;
        yield state;
        if (TERMINAL.has(state.status)) return;
      }
    } catch (error) {
      options.signal?.throwIfAborted();
      const broken = error instanceof TypeError || error instanceof APIConnectionError || silence.signal.aborted;
      if (!broken) throw error;
    } finally {
      // The server ends each stream after five minutes, also if there was no event to send.
      if (Date.now() - started > SILENCE) failures = 0;
      silence.abort(); // closes the connection when the caller stops iterating
    }
    await sleep(delay, options.signal);
  }
  throw new APIConnectionError("The event stream broke off several times without an event");
}

interface ServerSentEvent {
  id?: string;
  retry?: number;
  data: string;
}

/** Parse an event stream (WHATWG HTML, section 9.2.6). */
async function* parseEvents(
  body: ReadableStream<Uint8Array>,
  silence: AbortController,
): AsyncGenerator<ServerSentEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  let event: ServerSentEvent = { data: "" };
  for (;;) {
    const timer = setTimeout(() => silence.abort(), SILENCE);
    const { done, value } = await reader.read().finally(() => clearTimeout(timer));
    if (done) return;
    buffer += decoder.decode(value, { stream: true });
    const lines = buffer.split(/\r\n|\n|\r(?!$)/);
    buffer = lines.pop() ?? "";
    for (const line of lines) {
      const [, field, text] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
      if (line === "") {
        yield event;
        event = { data: "" };
      } else if (field === "data") event.data += event.data ? `\n${text ?? ""}` : (text ?? "");
      else if (field === "id") event.id = text ?? "";
      else if (field === "retry" && /^\d+$/.test(text ?? "")) event.retry = Number(text);
    }
  }
}
