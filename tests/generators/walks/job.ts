// What the TypeScript walks share: the arguments, the wait, the digests and the printed result. It knows no client.
// Usage of each walk: `node WALK.js URL PHOTO`.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { argv } from "node:process";

const [, , urlArgument, photoArgument] = argv;
if (urlArgument === undefined || photoArgument === undefined) throw new Error("Usage: URL PHOTO");

/** URL of the server with `/api/v1`. */
export const url: string = urlArgument;
/** The JPEG file to upload. */
export const photo = new File([readFileSync(photoArgument)], "dress.jpg", { type: "image/jpeg" });
export const username = "demo@example.com";
export const password = "sartiq-demo";

/** Load a generation or an export until it is in a terminal state. Throw an error if the state is not `completed`. */
export async function waitFor<Job extends { status: string; error: unknown }>(load: () => Promise<Job>): Promise<Job> {
  for (;;) {
    const job = await load();
    if (job.status === "completed") return job;
    if (job.status !== "pending" && job.status !== "running") throw new Error(JSON.stringify(job));
    await new Promise((resume) => setTimeout(resume, 200));
  }
}

/** Return the first element. Throw an error if there is none. */
export function first<Element>(elements: readonly Element[]): Element {
  const [element] = elements;
  if (element === undefined) throw new Error("the list is empty");
  return element;
}

/** Print the ids, and the digests of the downloaded files. */
export async function report(
  ids: { product_id: string; prediction_id: string; export_id: string },
  image: Blob | ArrayBuffer,
  archive: Blob | ArrayBuffer,
): Promise<void> {
  const result = { ...ids, image_sha256: await digest(image), archive_sha256: await digest(archive) };
  console.log(JSON.stringify(result));
}

async function digest(content: Blob | ArrayBuffer): Promise<string> {
  const bytes = content instanceof Blob ? await content.arrayBuffer() : content;
  return createHash("sha256").update(new Uint8Array(bytes)).digest("hex");
}

/** Run the walk. Print why it failed and end with status 1 if it throws an error. */
export function run(walk: () => Promise<void>): void {
  walk().catch((error: unknown) => {
    console.error(error);
    process.exitCode = 1;
  });
}
