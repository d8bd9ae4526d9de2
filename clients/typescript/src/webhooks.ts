// Verify webhook messages (Standard Webhooks 1.0.0) with the Web Cryptography API.

import { WebhookVerificationError } from "./errors.ts";
import type { WebhookEvents } from "./generated/operations.ts";

/** A webhook message. `type` tells which event it is, and so which properties `data` has. */
export type WebhookMessage = WebhookEvents[keyof WebhookEvents];

export interface WebhookRequest {
  /** The signing secret of the endpoint (`whsec_...`), or several after a rotation. */
  secret: string | readonly string[];
  /** The headers of the request: those of fetch, or an object as in Node.js. */
  headers: Headers | Readonly<Record<string, string | readonly string[] | undefined>>;
  /** The body as it arrived. A body that was parsed and written again has another signature. */
  body: string | Uint8Array;
  /** How old a message may be, in seconds. Default: 300. */
  tolerance?: number | undefined;
}

/**
 * Verify the signature and the age of a webhook message, and return it.
 *
 * A message can arrive twice: remember the header `webhook-id`.
 *
 * @throws WebhookVerificationError
 */
export async function verifyWebhook(request: WebhookRequest): Promise<WebhookMessage> {
  const id = readHeader(request.headers, "webhook-id");
  const timestamp = readHeader(request.headers, "webhook-timestamp");
  const signatures = readHeader(request.headers, "webhook-signature").split(" ");
  const age = Date.now() / 1000 - Number(timestamp);
  if (!/^\d+$/.test(timestamp) || Math.abs(age) > (request.tolerance ?? 300)) {
    throw new WebhookVerificationError("The message is too old, or the clocks differ");
  }
  const text = typeof request.body === "string" ? request.body : new TextDecoder(undefined, { ignoreBOM: true }).decode(request.body);
  const signed = new TextEncoder().encode(`${id}.${timestamp}.${text}`);
  for (const secret of [request.secret].flat()) {
    const bytes = decodeBase64(secret.replace(/^whsec_/, ""));
    const key = await crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
    for (const signature of signatures) {
      if (!signature.startsWith("v1,")) continue;
      // `verify` compares in constant time.
      const matches = await crypto.subtle.verify("HMAC", key, decodeBase64(signature.slice(3)), signed);
      if (matches) return JSON.parse(text) as WebhookMessage;
    }
  }
  throw new WebhookVerificationError("No signature of the message is valid");
}

function readHeader(headers: WebhookRequest["headers"], name: string): string {
  const value =
    headers instanceof Headers
      ? headers.get(name)
      : Object.entries(headers).find(([key]) => key.toLowerCase() === name)?.[1];
  if (typeof value !== "string" || value === "") throw new WebhookVerificationError(`The header ${name} is missing`);
  return value;
}

function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    throw new WebhookVerificationError("A secret or signature is not Base64");
  }
}
