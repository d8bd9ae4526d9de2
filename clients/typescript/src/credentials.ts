// Who sends the requests. A session renews its access token once for all requests that need it.

import { APIError } from "./errors.ts";
import type { Token } from "./generated/schemas.ts";

export interface PasswordCredentials {
  email: string;
  password: string;
  /** Return a code of the authenticator app or a recovery code. Called if the account has a second factor. */
  otp?: (() => string | Promise<string>) | undefined;
}

/** Tokens of an earlier sign-in. Without `refresh_token`, requests fail when the access token has expired. */
export interface StoredTokens {
  access_token: string;
  refresh_token?: string | undefined;
}

export interface Credentials {
  /** Return the bearer token of the next request, or undefined if there is none. */
  token(): Promise<string | undefined>;
  /** Return another token after the API rejected `used`, or undefined if there is no other one. */
  renew(used: string): Promise<string | undefined>;
}

export interface TokenEndpoint {
  login(credentials: PasswordCredentials): Promise<Token>;
  refresh(refreshToken: string): Promise<Token>;
}

/** Return the credentials of an API key, or of a guest: one token that cannot be renewed. */
export function fixedToken(token: string | undefined): Credentials {
  return { token: async () => token, renew: async () => undefined };
}

/** Return the credentials of a user. The sign-in happens with the first request. */
export function session(
  endpoint: TokenEndpoint,
  password: PasswordCredentials | undefined,
  stored: StoredTokens | undefined,
  onTokens: ((tokens: Token) => unknown) | undefined,
): Credentials & { signIn(): Promise<Token> } {
  let tokens = stored;
  let pending: Promise<StoredTokens> | undefined;

  async function keep(received: Token): Promise<Token> {
    tokens = received;
    await onTokens?.(received);
    return received;
  }

  async function signIn(): Promise<Token> {
    if (!password) throw new TypeError("Signing in needs the options `email` and `password`");
    return keep(await endpoint.login(password));
  }

  async function refreshOrSignIn(): Promise<StoredTokens> {
    if (tokens?.refresh_token) {
      try {
        return await keep(await endpoint.refresh(tokens.refresh_token));
      } catch (error) {
        // The session has ended. Other errors, such as a lost connection, say nothing about it.
        if (!password || !(error instanceof APIError) || error.status !== 401) throw error;
      }
    }
    return signIn();
  }

  /** Let all requests that need a token wait for the same request to the token endpoint. */
  function once(obtain: () => Promise<StoredTokens>): Promise<StoredTokens> {
    pending ??= obtain().finally(() => {
      pending = undefined;
    });
    return pending;
  }

  return {
    signIn,
    async token() {
      if (pending || !tokens) return (await once(signIn)).access_token;
      return tokens.access_token;
    },
    async renew(used) {
      if (tokens && tokens.access_token !== used) return tokens.access_token;
      if (!password && !tokens?.refresh_token) return undefined;
      return (await once(refreshOrSignIn)).access_token;
    },
  };
}
