// The main job with the types of openapi-typescript and the client openapi-fetch.

import createClient from "openapi-fetch";
import type { paths } from "../../../.clients/generators/openapi-typescript/sartiq";
import { first, password, photo, report, run, url, username, waitFor } from "./job";

/** Return the data of a response; throw its problem if the request was rejected. */
async function unwrap<Data, Failure>(request: Promise<{ data?: Data; error?: Failure }>): Promise<Data> {
  const { data, error } = await request;
  if (data === undefined) throw new Error(JSON.stringify(error));
  return data;
}

run(async () => {
  const client = createClient<paths>({ baseUrl: url });
  const token = await unwrap(
    client.POST("/login/access-token", {
      body: { username, password },
      headers: { "Content-Type": "application/x-www-form-urlencoded" },
    }),
  );
  client.use({
    onRequest({ request }) {
      request.headers.set("Authorization", `Bearer ${token.access_token}`);
      return request;
    },
  });

  const organization = await unwrap(client.POST("/organizations/", { body: { name: "openapi-typescript" } }));
  const params = { query: { organization_id: organization.id } };
  const brand = await unwrap(client.POST("/brands/", { params, body: { name: "Linea" } }));
  const product = await unwrap(
    client.POST("/products/", { params, body: { name: "Wrap dress", sku: "OT-1", brand_id: brand.id } }),
  );
  const uploaded = await unwrap(
    client.POST("/products/{product_id}/images", {
      params: { path: { product_id: product.id } },
      body: { file: photo.name, type: "primary" },
      bodySerializer: ({ type }) => {
        const form = new FormData();
        form.set("file", photo);
        form.set("type", type);
        return form;
      },
    }),
  );
  if (uploaded.type !== "primary") throw new Error(uploaded.type);

  const preset = await unwrap(
    client.POST("/resolution-presets/", { params, body: { name: "Small", width: 192, height: 256 } }),
  );
  const shooting = await unwrap(
    client.POST("/shootings/", {
      params,
      body: {
        name: "Spring",
        brand_id: brand.id,
        default_guidelines: { name: "Shop", file_format: "JPEG", resolution_preset_id: preset.id },
      },
    }),
  );
  const shotTypes = await unwrap(client.GET("/shot-types/", { params: { query: { limit: 1 } } }));
  const look = await unwrap(
    client.POST("/shootings/{shooting_id}/looks", {
      params: { path: { shooting_id: shooting.id } },
      body: { main_product_id: product.id, shot_type_ids: [first(shotTypes.data).id] },
    }),
  );
  const shot = { path: { shot_id: first(look.shots).id } };

  const requested = await unwrap(
    client.POST("/shots/{shot_id}/generate", { params: shot, body: { num_predictions: 2, seed: 2041 } }),
  );
  if (!("status" in requested)) throw new Error("expected a generation, received an estimate");
  const generation = await waitFor(() =>
    unwrap(
      client.GET("/generations/{generation_id}", {
        params: { path: { generation_id: requested.id }, header: { Prefer: "wait=30" } },
      }),
    ),
  );
  const prediction_id = first(generation.predictions).id;
  const approved = await unwrap(client.POST("/shots/{shot_id}/approve", { params: shot, body: { prediction_id } }));
  if (approved.status !== "approved") throw new Error(approved.status);
  const image = await unwrap(
    client.GET("/predictions/{prediction_id}/image", { params: { path: { prediction_id } }, parseAs: "blob" }),
  );

  const { id: export_id } = await unwrap(
    client.POST("/shootings/{shooting_id}/exports", { params: { path: { shooting_id: shooting.id } } }),
  );
  await waitFor(() => unwrap(client.GET("/exports/{export_id}", { params: { path: { export_id } } })));
  const archive = await unwrap(
    client.GET("/exports/{export_id}/file", { params: { path: { export_id } }, parseAs: "blob" }),
  );

  await report({ product_id: product.id, prediction_id, export_id }, image, archive);
});
