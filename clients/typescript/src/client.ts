import { call, send } from "./calls.ts";
import type { Connection } from "./calls.ts";
import { fixedToken, session } from "./credentials.ts";
import type { StoredTokens, TokenEndpoint } from "./credentials.ts";
import { APIError } from "./errors.ts";
import { toBlob } from "./files.ts";
import { BASE_PATH, OPERATIONS } from "./generated/operations.ts";
import type { OperationGroups, OperationName } from "./generated/operations.ts";
import type { PresignedUrl, PresignedUrlCreate, Token } from "./generated/schemas.ts";
import { exchange } from "./http.ts";
import type { Arguments, FileInput, RequestOptions } from "./types.ts";
import { wait } from "./waiting.ts";
import type { Job, WaitOptions } from "./waiting.ts";

export interface SartiqOptions {
  /** URL of the server, such as `https://api.example.com`. The path `/api/v1` is added if it is missing. */
  url: string;
  /** Send an API key, or the access token of a guest. */
  apiKey?: string | undefined;
  /** Sign in with this account at the first request, and again when its session has ended. */
  email?: string | undefined;
  password?: string | undefined;
  /** Return a code of the authenticator app or a recovery code. Called if the account has a second factor. */
  otp?: (() => string | Promise<string>) | undefined;
  /** Continue a session. Its tokens are refreshed when the access token has expired. */
  tokens?: StoredTokens | undefined;
  /** Called with new tokens after each sign-in and refresh, so that you can store them. */
  onTokens?: ((tokens: Token) => unknown) | undefined;
  /** How long one attempt may take, in milliseconds. Default: 60,000. Uploads get more time by their size. */
  timeout?: number | undefined;
  /** How often a failed attempt is repeated. Default: 3. */
  maxRetries?: number | undefined;
  /** Headers of every request. */
  headers?: Record<string, string> | undefined;
  /** A replacement for the global `fetch`, for example with a proxy. */
  fetch?: typeof fetch | undefined;
}

export interface UploadOptions {
  /** Default: the name of the `File`, or `file`. */
  filename?: string | undefined;
  /** Default: the type of the `Blob`. */
  contentType?: PresignedUrlCreate["content_type"] | undefined;
  signal?: AbortSignal | undefined;
}

// A lost response to a refresh can be requested again within ten seconds. Later, the same token ends the session.
const REFRESH = { timeout: 4_000, maxRetries: 1 };

/**
 * A connection to the API. Each operation of the contract is a method with its name, in the group of its tag.
 *
 * @example
 * const sartiq = new Sartiq({ url: "http://localhost:8000", email: "demo@example.com", password: "sartiq-demo" });
 * const brand = await sartiq.brands.create_brand({ body: { name: "Linea" } });
 */
export class Sartiq {
  readonly #connection: Connection;
  readonly #signIn: (() => Promise<Token>) | undefined;

  constructor(options: SartiqOptions) {
    // Programs in JavaScript may pass nothing at all.
    if (!(options as SartiqOptions | undefined)?.url) throw new TypeError("The option `url` is missing");
    // A path is relative to the page, in browsers.
    if (!/^(https?:\/)?\//i.test(options.url)) {
      throw new TypeError(`${options.url} is not a URL such as https://api.example.com`);
    }
    const url = options.url.replace(/\/+$/, "");
    const anonymous: Connection = {
      url: url.endsWith(BASE_PATH) ? url : url + BASE_PATH,
      // A method called without its object: browsers reject `this.fetch()`.
      fetch: options.fetch ?? ((...request) => fetch(...request)),
      headers: options.headers ?? {},
      timeout: options.timeout ?? 60_000,
      maxRetries: options.maxRetries ?? 3,
      credentials: fixedToken(options.apiKey),
    };
    this.#connection = anonymous;
    const { email, password, otp, tokens } = options;
    if ((email === undefined) !== (password === undefined)) throw new TypeError("Pass both `email` and `password`");
    const account = email === undefined || password === undefined ? undefined : { email, password, otp };
    if (options.apiKey !== undefined && (account || tokens)) {
      throw new TypeError("Pass either `apiKey` or the credentials of a user");
    }
    if (account || tokens) {
      const user = session(tokenEndpoint(anonymous), account, tokens, options.onTokens);
      this.#connection = { ...anonymous, credentials: user };
      this.#signIn = user.signIn;
    }
    for (const [group, methods] of buildGroups(this.#connection)) {
      Object.defineProperty(this, group, { value: methods }); // not enumerable: `console.log(sartiq)` stays short
    }
  }

  /** URL that the paths of the contract are relative to. */
  get url(): string {
    return this.#connection.url;
  }

  /** Sign in now instead of with the first request, for example to check a password. */
  async signIn(): Promise<Token> {
    if (!this.#signIn) throw new TypeError("Signing in needs the options `email` and `password`");
    return this.#signIn();
  }

  /**
   * Wait until a generation, an export or an import has ended, and return its last state.
   *
   * @throws JobFailedError if it failed or was canceled. APITimeoutError after `timeout`.
   */
  async wait<J extends Job>(job: J, options: WaitOptions<J> = {}): Promise<J> {
    return wait(this.#connection, job, options);
  }

  /**
   * Upload a file and return its URL, for properties such as `cover_image` and `file_url`.
   * Image uploads of products and subjects are simpler with `add_product_image` and `add_base_image`.
   */
  async upload(file: FileInput, options: UploadOptions = {}): Promise<string> {
    const blob = toBlob(file);
    const content_type = options.contentType ?? (blob.type as PresignedUrlCreate["content_type"]);
    const filename = options.filename ?? (file instanceof File ? file.name : "file");
    const { signal } = options;
    const body = { filename, content_type, size: blob.size };
    const created = await send(this.#connection, "create_presigned_url", { body }, { signal });
    const target = created.data as PresignedUrl;
    // The URL may be that of a bucket, so no credential is sent.
    await exchange({
      ...this.#connection,
      url: target.upload_url,
      method: target.upload_method,
      headers: new Headers({ "content-type": content_type }),
      body: blob,
      repeatable: true,
      stream: false,
      timeout: target.expires_in_seconds * 1000,
      signal,
    });
    return target.file_url;
  }

}

// The groups that the constructor adds.
export interface Sartiq extends OperationGroups {}

/** Return the methods of the operations by their group and name. */
function buildGroups(connection: Connection): Map<string, Record<string, unknown>> {
  const groups = new Map<string, Record<string, unknown>>();
  for (const name of Object.keys(OPERATIONS) as OperationName[]) {
    const { group } = OPERATIONS[name];
    const method = {
      [name]: (args: Arguments = {}, options: RequestOptions = {}) => call(connection, name, args, options),
    };
    groups.set(group, { ...groups.get(group), ...method });
  }
  return groups;
}

function tokenEndpoint(connection: Connection): TokenEndpoint {
  return {
    async login({ email, password, otp }) {
      const request = async (body: Record<string, string>) => (await send(connection, "login", { body })).data as Token;
      try {
        return await request({ grant_type: "password", username: email, password });
      } catch (error) {
        const challenge = error instanceof APIError && error.problem && "challenge" in error.problem ? error.problem.challenge : undefined;
        if (!challenge || !otp) throw error;
        return request({ grant_type: "password", challenge, otp: await otp() });
      }
    },
    async refresh(refresh_token) {
      return (await send(connection, "refresh_token", { body: { refresh_token } }, REFRESH)).data as Token;
    },
  };
}
