// The main job with the `typescript-fetch` client of openapi-generator.

import * as api from "../../../.clients/generators/openapi-generator-typescript-fetch/client";
import { first, password, photo, report, run, url, username, waitFor } from "./job";

run(async () => {
  const anonymous = new api.LoginApi(new api.Configuration({ basePath: url }));
  const token = await anonymous.login({ username, password });
  const configuration = new api.Configuration({
    basePath: url,
    headers: { Authorization: `Bearer ${token.accessToken}` },
  });

  const organization = await new api.OrganizationsApi(configuration).createOrganization({
    organizationCreate: { name: "typescript-fetch" },
  });
  const organizationId = organization.id;
  const brand = await new api.BrandsApi(configuration).createBrand({ brandCreate: { name: "Linea" }, organizationId });
  const products = new api.ProductsApi(configuration);
  const product = await products.createProduct({
    productCreate: { name: "Wrap dress", sku: "FE-1", brandId: brand.id },
    organizationId,
  });
  const uploaded = await products.addProductImage({
    productId: product.id,
    file: photo,
    type: api.ProductImageType.Primary,
  });
  if (uploaded.type !== api.ProductImageType.Primary) throw new Error(uploaded.type);

  const preset = await new api.ResolutionPresetsApi(configuration).createResolutionPreset({
    resolutionPresetCreate: { name: "Small", width: 192, height: 256 },
    organizationId,
  });
  const shootings = new api.ShootingsApi(configuration);
  const shooting = await shootings.createShooting({
    shootingCreate: {
      name: "Spring",
      dueDate: new Date(Date.now() + 7 * 86_400_000),
      brandId: brand.id,
      defaultGuidelines: { name: "Shop", fileFormat: api.ImageFormat.Jpeg, resolutionPresetId: preset.id },
    },
    organizationId,
  });
  const shotTypes = await new api.ShotTypesApi(configuration).listShotTypes({ limit: 1 });
  const look = await shootings.createLook({
    shootingId: shooting.id,
    lookCreate: { mainProductId: product.id, shotTypeIds: new Set([first(shotTypes.data).id]) },
  });
  const shotId = first(look.shots).id;

  const shots = new api.ShotsApi(configuration);
  await shots.generateShot({ shotId, shotGenerate: { numPredictions: 2, seed: 2041 } });
  const generations = new api.GenerationsApi(configuration);
  const requested = await generations.listGenerations({ shotId });
  const generation = await waitFor(() =>
    generations.getGeneration({ generationId: first(requested.data).id, prefer: "wait=30" }),
  );
  const predictionId = first(generation.predictions).id;
  const approved = await shots.approveShot({ shotId, shotApprove: { predictionId } });
  if (approved.status !== "approved") throw new Error(approved.status);
  const image = await new api.PredictionsApi(configuration).getPredictionImage({ predictionId });

  const exports = new api.ExportsApi(configuration);
  const { id: exportId } = await exports.createExport({ shootingId: shooting.id });
  await waitFor(() => exports.getExport({ exportId }));
  const archive = await exports.downloadExport({ exportId });

  await report({ product_id: product.id, prediction_id: predictionId, export_id: exportId }, image, archive);
});
