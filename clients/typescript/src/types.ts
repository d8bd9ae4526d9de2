/** A file to upload: a `File` keeps its name, other values are sent without one. */
export type FileInput = Blob | ArrayBuffer | ArrayBufferView;

/** For operations that take no arguments. */
export type NoArguments = Record<string, never>;

/** What one call can change. */
export interface RequestOptions {
  /** Ends the call, its retries and its download when it is aborted. The call rejects with `signal.reason`. */
  signal?: AbortSignal | undefined;
  /** How long one attempt may take, in milliseconds. A download may take longer once its headers have arrived. */
  timeout?: number | undefined;
  /** How often a failed attempt is repeated. */
  maxRetries?: number | undefined;
  /** Key of operations that create or start something. By default each call has a new UUID. */
  idempotencyKey?: string | undefined;
  /** The change is made only if the resource still has this `ETag`; otherwise the call rejects with status 412. */
  ifMatch?: string | undefined;
  /** Further request headers. They override those of the client. */
  headers?: Record<string, string> | undefined;
}

/** The result of a call with its response, for headers such as `ETag`. The body of `response` has been read. */
export interface WithResponse<Data> {
  data: Data;
  response: Response;
}

/** A promise of the result. `withResponse()` resolves with the response, too; it sends nothing again. */
export interface ApiPromise<Data> extends Promise<Data> {
  withResponse(): Promise<WithResponse<Data>>;
}

/** A promise of the first page. `for await` iterates over the items of all pages and requests pages as needed. */
export interface PagePromise<Item, Page> extends ApiPromise<Page>, AsyncIterable<Item> {
  /** Iterate over pages instead of items. */
  pages(): AsyncIterable<Page>;
}

/** What the client knows about an operation at run time. */
export interface Operation {
  /** The tag of the operation, as an identifier. */
  readonly group: string;
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly path: string;
  /** How the body is sent. Absent if there is none. */
  readonly body?: "json" | "form" | "multipart" | "binary";
  /** How the response is read. Default: as JSON. */
  readonly result?: "pages" | "response" | "events" | "none";
  /** Whether the operation takes an `Idempotency-Key`. */
  readonly keyed?: true;
  /** Whether the operation takes no credential. */
  readonly anonymous?: true;
}

/** Arguments of any operation: path and query parameters by name, and `body`. */
export type Arguments = Readonly<Record<string, unknown>>;
