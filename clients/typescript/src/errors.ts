import type { ProblemCode } from "./generated/operations.ts";
import type { Problem, RateLimitProblem, ValidationProblem, Violation } from "./generated/schemas.ts";

/** The base of all errors of this package. */
export class SartiqError extends Error {
  override name = "SartiqError";
}

/** The API rejected the request. The properties are those of the problem document (RFC 9457). */
export class APIError extends SartiqError {
  override name = "APIError";
  /** HTTP status of the response. */
  readonly status: number;
  /** Stable code to branch on. `unknown` if a proxy sent the response instead of the API. */
  readonly code: ProblemCode | "unknown" | (string & {});
  /** What was wrong with the request, for people. */
  readonly detail: string;
  /** Each invalid value of the request, with its JSON Pointer. Empty unless `status` is 422. */
  readonly violations: readonly Violation[];
  /** Identifier of the request, which the server's log contains too. */
  readonly requestId: string | undefined;
  /** The whole problem document; `undefined` if a proxy sent the response. */
  readonly problem: Problem | ValidationProblem | RateLimitProblem | undefined;
  /** The response. Its body has been read. */
  readonly response: Response;

  constructor(response: Response, text: string) {
    const problem = parseProblem(text);
    const violations = Array.isArray(problem?.detail) ? problem.detail : [];
    const detail = violations.length
      ? violations.map(({ pointer, loc, msg }) => `${pointer || loc.join(".")}: ${msg}`).join("; ")
      : String(problem?.detail ?? response.statusText);
    const code = problem?.code ?? "unknown";
    super(`${response.status} ${code}: ${detail}${describeWayOut(problem)}`);
    this.status = response.status;
    this.code = code;
    this.detail = detail;
    this.violations = violations;
    this.requestId = problem?.request_id ?? response.headers.get("x-request-id") ?? undefined;
    this.problem = problem;
    this.response = response;
  }
}

/** No response arrived, or it broke off. `cause` is the error of `fetch`. */
export class APIConnectionError extends SartiqError {
  override name = "APIConnectionError";
}

/** No response arrived in time. */
export class APITimeoutError extends SartiqError {
  override name = "APITimeoutError";
}

/** `wait` gave up after its `timeout`. The work continues on the server. */
export class WaitTimeoutError extends SartiqError {
  override name = "WaitTimeoutError";
}

/** A generation, export or import that `wait` waited for ended without success. */
export class JobFailedError<Job = unknown> extends SartiqError {
  override name = "JobFailedError";
  /** The resource in its last state. */
  readonly resource: Job;

  constructor(message: string, resource: Job) {
    super(message);
    this.resource = resource;
  }
}

/** A webhook message has no valid signature, or is too old. */
export class WebhookVerificationError extends SartiqError {
  override name = "WebhookVerificationError";
}

/** Return the place of the error, the permission that the caller lacks, or the values that are allowed; else nothing. */
function describeWayOut(problem: APIError["problem"]): string {
  const facts = (problem ?? {}) as Record<string, unknown>;
  const pointer = facts["pointer"];
  if (typeof pointer === "string" && pointer) return ` (at ${pointer})`;
  const parameter = facts["parameter"];
  if (typeof parameter === "string" && parameter) return ` (parameter ${parameter})`;
  const needed = facts["required_scope"] ?? facts["required_permission"];
  if (typeof needed === "string") return ` (needed: ${needed})`;
  const allowed = facts["allowed_transitions"] ?? facts["allowed_values"];
  return Array.isArray(allowed) && allowed.length ? ` (allowed: ${allowed.join(", ")})` : "";
}

function parseProblem(text: string): APIError["problem"] {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && "code" in value ? (value as Problem) : undefined;
  } catch {
    return undefined;
  }
}
