// The client of the public API: session, requests, lists, images and the events of generations.
// It sends requests to the origin of the page only. The session ends with the tab.

const BASE = "/api/v1";
const SESSION = "sartiq-review-session";
const PAGE_SIZE = 100;

let session = JSON.parse(sessionStorage.getItem(SESSION) || "null");
let refreshing = null;

/** A problem document (RFC 9457) that the server returned, or a failure of the network. */
export class Problem extends Error {
  constructor(status, body) {
    super(typeof body.detail === "string" ? body.detail : body.title || `HTTP ${status}`);
    this.status = status;
    this.code = body.code;
    this.body = body;
  }

  /** Whether the same request may succeed a little later: no connection, too many requests, a server that restarts. */
  get isTransient() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

const isAborted = (error) => error.name === "AbortError";
/** Return the error of a request, or of a response that was cut off. */
const lost = (error) => (isAborted(error) ? error : new Problem(0, { detail: "The server cannot be reached. Check the connection and repeat." }));

function keep(token, more = {}) {
  session = { access: token.access_token, refresh: token.refresh_token || null, ...more };
  sessionStorage.setItem(SESSION, JSON.stringify(session));
}

export const isSignedIn = () => session !== null;
/** The guest of the session, `{shooting, link, name, token}` with the ids of what they may see; null for a user. */
export const guest = () => session?.guest || null;

/** Whether the session is from the identity provider of a company: it has no personal resources. */
export const isCompanySession = () => session?.company === true;

export function forget() {
  session = null;
  sessionStorage.removeItem(SESSION);
}

export async function signIn(username, password) {
  const body = new URLSearchParams({ username, password });
  keep(await readJson(await send("/login/access-token", { method: "POST", body })));
}

/** Complete a sign-in with the second factor that it asked for, `{otp}` or `{webauthn}`. */
export async function answerChallenge(challenge, answer) {
  const body = new URLSearchParams({ challenge, ...answer });
  keep(await readJson(await send("/login/access-token", { method: "POST", body })));
}

/** Begin a session with the code of an identity provider and the verifier that the sign-in was started with. */
export async function signInWithCode(code, verifier) {
  const body = new URLSearchParams({ grant_type: "authorization_code", code, code_verifier: verifier });
  keep(await readJson(await send("/login/access-token", { method: "POST", body })), { company: true });
}

/** Exchange the token of a review link for a session that is bound to one shooting, and return its id. */
export async function enterAsGuest(token, name) {
  const answer = await readJson(await send("/review-links/exchange", json("POST", name ? { token, name } : { token })));
  keep(answer, { guest: { shooting: answer.shooting_id, link: answer.review_link_id, name: answer.name, token } });
  return answer.shooting_id;
}

export async function signOut() {
  const token = session?.refresh;
  forget();
  if (token) await send("/oauth/revoke", { method: "POST", body: new URLSearchParams({ token }) });
}

function json(method, body) {
  return { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
}

async function send(path, options = {}) {
  try {
    return await fetch(path.startsWith("/api/") ? path : BASE + path, options);
  } catch (error) {
    throw lost(error);
  }
}

async function readJson(response) {
  if (response.ok) return response.status === 204 ? null : response.json().catch((error) => Promise.reject(lost(error)));
  const body = await response.json().catch(() => ({}));
  throw new Problem(response.status, body);
}

/** Several requests may meet the expired token at once: one of them refreshes it for all. */
function refresh() {
  refreshing ??= (async () => {
    try {
      const { user, company, guest: entered } = session;
      if (entered) {
        // Once: a link that has ended must not be tried by each request of the page.
        session.guest = { ...entered, token: null };
        await enterAsGuest(entered.token, entered.name);
      } else keep(await readJson(await send("/login/refresh-token", json("POST", { refresh_token: session.refresh }))), { user, company });
    } finally {
      refreshing = null;
    }
  })();
  return refreshing;
}

async function authorized(path, options = {}) {
  for (let attempt = 0; ; attempt += 1) {
    const headers = { ...options.headers, Authorization: `Bearer ${session.access}` };
    const response = await send(path, { ...options, headers });
    if (response.status === 401 && attempt === 0 && (session?.refresh || session?.guest?.token || refreshing)) {
      await refresh();
    } else if ((response.status === 429 || response.status === 503) && attempt < 3) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((resolve) => setTimeout(resolve, Math.min(seconds, 20) * 1000));
    } else {
      return response;
    }
  }
}

export const get = async (path) => readJson(await authorized(path));
export const post = async (path, body = {}, headers = {}) => {
  const options = json("POST", body);
  return readJson(await authorized(path, { ...options, headers: { ...options.headers, ...headers } }));
};
/** Call an operation that needs no session. */
export const call = async (method, path, body) => readJson(await send(path, body ? json(method, body) : { method }));
export const patch = async (path, body) => readJson(await authorized(path, json("PATCH", body)));
export const remove = async (path) => readJson(await authorized(path, { method: "DELETE" }));

/** The id of the signed-in user, or null for a guest. */
export async function getUserId() {
  if (session.guest) return null;
  session.user ??= (await get("/users/me")).id;
  return session.user;
}

function buildUrl(path, parameters) {
  const query = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return `${path}?${new URLSearchParams(query)}`;
}

/** The identity provider of a domain, or null. */
export const findProvider = async (domain) => (await readJson(await send(buildUrl("/login/oidc/provider", { domain })))).provider_id;
/** The URL at which a browser starts to sign in through an identity provider. */
export const providerUrl = (id, parameters) => buildUrl(`${BASE}/login/oidc/${id}/start`, parameters);

/** One page of a list: `{data, count, next_cursor}`. */
export const page = (path, parameters, limit = PAGE_SIZE) => get(buildUrl(path, { limit, ...parameters }));

/** All rows of a list, page by page. */
export async function* rows(path, parameters) {
  let cursor = null;
  do {
    const { data, next_cursor } = await page(path, cursor ? { ...parameters, cursor } : parameters);
    yield* data;
    cursor = next_cursor;
  } while (cursor);
}

/** Wait some seconds, at most until the browser is online again or `signal` is aborted. */
export function pause(seconds, signal) {
  return new Promise((resolve) => {
    const ended = new AbortController();
    const end = () => {
      clearTimeout(timer);
      ended.abort();
      resolve();
    };
    const timer = setTimeout(end, seconds * 1000);
    window.addEventListener("online", end, { signal: ended.signal });
    signal.addEventListener("abort", end, { signal: ended.signal });
    if (signal.aborted) end();
  });
}

/** An object URL of an image. `<img>` cannot send a token, so the image is fetched. */
export async function fetchImage(url, width, signal) {
  const { pathname } = new URL(url, window.location.href);
  const response = await authorized(width ? `${pathname}?width=${width}` : pathname, { signal });
  if (!response.ok) throw new Problem(response.status, {});
  return URL.createObjectURL(await response.blob());
}

/** The events of a generation (server-sent events) until it ends: `{status, progress, ...}`. */
export async function* generationEvents(id, signal) {
  const response = await authorized(`/generations/${id}/events`, { signal, headers: { Accept: "text/event-stream" } });
  if (!response.ok) throw new Problem(response.status, {});
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => Promise.reject(lost(error)));
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (data) yield JSON.parse(data);
    }
  }
}
