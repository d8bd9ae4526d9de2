// The main job with the client of hey-api.

import * as api from "../../../.clients/generators/hey-api-openapi-ts/client";
import { client } from "../../../.clients/generators/hey-api-openapi-ts/client/client.gen";
import { first, password, photo, report, run, url, username, waitFor } from "./job";

const throwOnError = true;

run(async () => {
  client.setConfig({ baseUrl: url });
  const { data: token } = await api.login({ body: { username, password }, throwOnError });
  client.setConfig({ auth: token.access_token });

  const { data: organization } = await api.createOrganization({ body: { name: "hey-api" }, throwOnError });
  const query = { organization_id: organization.id };
  const { data: brand } = await api.createBrand({ body: { name: "Linea" }, query, throwOnError });
  const { data: product } = await api.createProduct({
    body: { name: "Wrap dress", sku: "HE-1", brand_id: brand.id },
    query,
    throwOnError,
  });
  const { data: uploaded } = await api.addProductImage({
    path: { product_id: product.id },
    body: { file: photo, type: "primary" },
    throwOnError,
  });
  if (uploaded.type !== "primary") throw new Error(uploaded.type);

  const { data: preset } = await api.createResolutionPreset({
    body: { name: "Small", width: 192, height: 256 },
    query,
    throwOnError,
  });
  const { data: shooting } = await api.createShooting({
    body: {
      name: "Spring",
      brand_id: brand.id,
      default_guidelines: { name: "Shop", file_format: "JPEG", resolution_preset_id: preset.id },
    },
    query,
    throwOnError,
  });
  const { data: shotTypes } = await api.listShotTypes({ query: { limit: 1 }, throwOnError });
  const { data: look } = await api.createLook({
    path: { shooting_id: shooting.id },
    body: { main_product_id: product.id, shot_type_ids: [first(shotTypes.data).id] },
    throwOnError,
  });
  const path = { shot_id: first(look.shots).id };

  const { data: requested } = await api.generateShot({ path, body: { num_predictions: 2, seed: 2041 }, throwOnError });
  if (!("status" in requested)) throw new Error("expected a generation, received an estimate");
  const generation = await waitFor(async () => {
    const response = await api.getGeneration({
      path: { generation_id: requested.id },
      headers: { Prefer: "wait=30" },
      throwOnError,
    });
    return response.data;
  });
  const prediction_id = first(generation.predictions).id;
  const { data: approved } = await api.approveShot({ path, body: { prediction_id }, throwOnError });
  if (approved.status !== "approved") throw new Error(approved.status);
  const { data: image } = await api.getPredictionImage({ path: { prediction_id }, throwOnError });

  const { data: ordered } = await api.createExport({ path: { shooting_id: shooting.id }, throwOnError });
  const export_id = ordered.id;
  await waitFor(async () => (await api.getExport({ path: { export_id }, throwOnError })).data);
  const { data: archive } = await api.downloadExport({ path: { export_id }, throwOnError });

  await report({ product_id: product.id, prediction_id, export_id }, image, archive);
});
