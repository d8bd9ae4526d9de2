// The main flow of the API with the generated TypeScript types. Prints the result as JSON.
// Usage: `node journey.mts BASE_URL PHOTO`. `tsc --strict` checks this file.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "../../.clients/typescript/sartiq.d.ts";

type Generation = components["schemas"]["Generation"];
type Problem = components["schemas"]["Problem"];

const [baseUrl, photo] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl });

/** Return the data of a response; throw its problem if the request was rejected. */
async function unwrap<Data, Failure>(request: Promise<{ data?: Data; error?: Failure }>): Promise<Data> {
  const { data, error } = await request;
  if (data === undefined) throw new Error(JSON.stringify(error));
  return data;
}

const token = await unwrap(
  client.POST("/login/access-token", {
    body: { username: "demo@example.com", password: "sartiq-demo" },
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
  }),
);
client.use({
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${token.access_token}`);
    return request;
  },
});

const organization = await unwrap(client.POST("/organizations/", { body: { name: "Atelier TypeScript" } }));
const params = { query: { organization_id: organization.id } };
const brand = await unwrap(client.POST("/brands/", { params, body: { name: "Linea" } }));
const productBody = { name: "Wrap dress", sku: "TS-1", brand_id: brand.id };
const product = await unwrap(client.POST("/products/", { params, body: productBody }));

const bytes = await readFile(photo);
const image = await unwrap(
  client.POST("/products/{product_id}/images", {
    params: { path: { product_id: product.id } },
    body: { file: "dress.jpg", type: "primary" },
    bodySerializer: ({ type }) => {
      const form = new FormData();
      form.set("file", new Blob([bytes], { type: "image/jpeg" }), "dress.jpg");
      form.set("type", type);
      return form;
    },
  }),
);
if (image.type !== "primary") throw new Error(image.type);

const preset = await unwrap(
  client.POST("/resolution-presets/", { params, body: { name: "Small", width: 192, height: 256 } }),
);
const shooting = await unwrap(
  client.POST("/shootings/", {
    params,
    body: {
      name: "Spring",
      due_date: new Date(Date.now() + 7 * 86_400_000).toISOString(),
      brand_id: brand.id,
      default_guidelines: { name: "Shop", file_format: "JPEG", resolution_preset_id: preset.id },
    },
  }),
);
const shotTypes = await unwrap(client.GET("/shot-types/", { params: { query: { limit: 1 } } }));
const look = await unwrap(
  client.POST("/shootings/{shooting_id}/looks", {
    params: { path: { shooting_id: shooting.id } },
    body: { main_product_id: product.id, shot_type_ids: [shotTypes.data[0].id] },
  }),
);
const shot = { path: { shot_id: look.shots[0].id } };

const requested = await unwrap(
  client.POST("/shots/{shot_id}/generate", { params: shot, body: { num_predictions: 2, seed: 2041 } }),
);
if (!("status" in requested)) throw new Error("expected a generation, received an estimate");
let generation: Generation = requested;
while (generation.status === "pending" || generation.status === "running") {
  generation = await unwrap(
    client.GET("/generations/{generation_id}", {
      params: { path: { generation_id: generation.id }, header: { Prefer: "wait=30" } },
    }),
  );
}
// @ts-expect-error: the contract has no such property, so the type check must reject it.
void generation.mistake;
if (generation.status !== "completed") throw new Error(JSON.stringify(generation.error));
const best = generation.predictions[0];
const approved = await unwrap(
  client.POST("/shots/{shot_id}/approve", { params: shot, body: { prediction_id: best.id } }),
);
if (approved.status !== "approved") throw new Error(approved.status);
const imageBytes = await unwrap(
  client.GET("/predictions/{prediction_id}/image", {
    params: { path: { prediction_id: best.id } },
    parseAs: "arrayBuffer",
  }),
);

const rejected = await client.POST("/products/", { params, body: productBody });
if (rejected.error === undefined) throw new Error("a repeated SKU must be rejected");
const problem: Problem | components["schemas"]["ValidationProblem"] = rejected.error;
console.log(
  JSON.stringify({
    prediction_id: best.id,
    sha256: createHash("sha256").update(new Uint8Array(imageBytes)).digest("hex"),
    problem: [problem.status, problem.code],
  }),
);
