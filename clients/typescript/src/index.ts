export { Sartiq } from "./client.ts";
export type { SartiqOptions, UploadOptions } from "./client.ts";
export type { StoredTokens } from "./credentials.ts";
export {
  APIConnectionError,
  APIError,
  APITimeoutError,
  JobFailedError,
  SartiqError,
  WaitTimeoutError,
  WebhookVerificationError,
} from "./errors.ts";
export { VERSION } from "./generated/operations.ts";
export type { OperationGroups, ProblemCode, WebhookEvents } from "./generated/operations.ts";
export type * from "./generated/schemas.ts";
export type { ApiPromise, FileInput, PagePromise, RequestOptions, WithResponse } from "./types.ts";
export type { Job, WaitOptions } from "./waiting.ts";
export { verifyWebhook } from "./webhooks.ts";
export type { WebhookMessage, WebhookRequest } from "./webhooks.ts";
