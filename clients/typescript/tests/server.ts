// A server that misbehaves as it is told, and remembers the requests.

import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import type { TestContext } from "node:test";

export interface Seen {
  method: string;
  path: string;
  headers: IncomingMessage["headers"];
  body: string;
}
export type Answer = (request: Seen, response: ServerResponse, requests: Seen[]) => unknown;

/** Start the server for one test. Returns its URL and the requests so far. */
export async function serve(context: TestContext, answer: Answer): Promise<{ url: string; requests: Seen[] }> {
  const requests: Seen[] = [];
  const server = createServer(async (message, response) => {
    const { method = "", url: path = "", headers } = message;
    const request = { method, path: path.replace("/api/v1", ""), headers, body: await text(message) };
    requests.push(request);
    await answer(request, response, requests);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

export function sendJson(response: ServerResponse, status: number, body: unknown, headers: object = {}): void {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}

export function sendProblem(response: ServerResponse, status: number, code: string, headers: object = {}): void {
  const problem = { type: "about:blank", title: code, status, detail: `because of ${code}`, code, request_id: "r1" };
  sendJson(response, status, problem, { "content-type": "application/problem+json", ...headers });
}
