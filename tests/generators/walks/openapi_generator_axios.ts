// The main job with the `typescript-axios` client of openapi-generator.

import * as api from "../../../.clients/generators/openapi-generator-typescript-axios/client";
import { first, password, photo, report, run, url, username, waitFor } from "./job";

run(async () => {
  const anonymous = new api.LoginApi(new api.Configuration({ basePath: url }));
  const { data: token } = await anonymous.login({ username, password });
  const configuration = new api.Configuration({ basePath: url, accessToken: token.access_token });

  const { data: organization } = await new api.OrganizationsApi(configuration).createOrganization({
    organizationCreate: { name: "typescript-axios" },
  });
  const organizationId = organization.id;
  const { data: brand } = await new api.BrandsApi(configuration).createBrand({
    brandCreate: { name: "Linea" },
    organizationId,
  });
  const products = new api.ProductsApi(configuration);
  const { data: product } = await products.createProduct({
    productCreate: { name: "Wrap dress", sku: "AX-1", brand_id: brand.id },
    organizationId,
  });
  const { data: uploaded } = await products.addProductImage({
    productId: product.id,
    file: photo,
    type: api.ProductImageType.Primary,
  });
  if (uploaded.type !== api.ProductImageType.Primary) throw new Error(uploaded.type);

  const { data: preset } = await new api.ResolutionPresetsApi(configuration).createResolutionPreset({
    resolutionPresetCreate: { name: "Small", width: 192, height: 256 },
    organizationId,
  });
  const shootings = new api.ShootingsApi(configuration);
  const { data: shooting } = await shootings.createShooting({
    shootingCreate: {
      name: "Spring",
      brand_id: brand.id,
      default_guidelines: {
        name: "Shop",
        file_format: api.ImageFormat.Jpeg,
        resolution_preset_id: preset.id,
      },
    },
    organizationId,
  });
  const { data: shotTypes } = await new api.ShotTypesApi(configuration).listShotTypes({ limit: 1 });
  const { data: look } = await shootings.createLook({
    shootingId: shooting.id,
    lookCreate: { main_product_id: product.id, shot_type_ids: new Set([first(shotTypes.data).id]) },
  });
  const shotId = first(look.shots).id;

  const shots = new api.ShotsApi(configuration);
  await shots.generateShot({ shotId, shotGenerate: { num_predictions: 2, seed: 2041 } });
  const generations = new api.GenerationsApi(configuration);
  const { data: requested } = await generations.listGenerations({ shotId });
  const generation = await waitFor(async () => {
    const response = await generations.getGeneration({ generationId: first(requested.data).id, prefer: "wait=30" });
    return response.data;
  });
  const predictionId = first(generation.predictions).id;
  const { data: approved } = await shots.approveShot({ shotId, shotApprove: { prediction_id: predictionId } });
  if (approved.status !== "approved") throw new Error(approved.status);
  const binary = { responseType: "arraybuffer" } as const;
  const predictions = new api.PredictionsApi(configuration);
  const image: unknown = (await predictions.getPredictionImage({ predictionId }, binary)).data;

  const exports = new api.ExportsApi(configuration);
  const { data: ordered } = await exports.createExport({ shootingId: shooting.id });
  const exportId = ordered.id;
  await waitFor(async () => (await exports.getExport({ exportId })).data);
  const archive: unknown = (await exports.downloadExport({ exportId }, binary)).data;

  await report(
    { product_id: product.id, prediction_id: predictionId, export_id: exportId },
    new Blob([image as Uint8Array<ArrayBuffer>]),
    new Blob([archive as Uint8Array<ArrayBuffer>]),
  );
});
