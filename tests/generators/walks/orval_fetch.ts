// The main job with the fetch client of orval. Each response is validated by the zod schemas of orval.

import * as api from "../../../.clients/generators/orval/client";
import * as schemas from "../../../.clients/generators/orval/schemas";
import { first, password, photo, report, run, username, waitFor } from "./job";

type Result = { status: number; data: unknown };
type Data<Response, Status> = Extract<Response, { status: Status }> extends { data: infer Value } ? Value : never;

/** Return the data of a response with this status; throw its problem if it has another status. */
async function unwrap<Response extends Result, Status extends Response["status"]>(
  request: Promise<Response>,
  status: Status,
): Promise<Data<Response, Status>> {
  const response = await request;
  if (response.status !== status) throw new Error(`${response.status} ${JSON.stringify(response.data)}`);
  return response.data as Data<Response, Status>;
}

/** Validate the data of a response. Throw an error that lists what the schema does not allow. */
async function valid<Value>(data: Promise<Value>, schema: { parse(data: unknown): unknown }): Promise<Value> {
  const value = await data;
  schema.parse(value);
  return value;
}

run(async () => {
  const token = await valid(unwrap(api.login({ username, password }), 200), schemas.LoginResponse);
  const options = { headers: { Authorization: `Bearer ${token.access_token}` } };
  const waiting = { headers: { ...options.headers, Prefer: "wait=30" } };

  const organization = await valid(
    unwrap(api.createOrganization({ name: "orval" }, options), 201),
    schemas.CreateOrganizationResponse,
  );
  const query = { organization_id: organization.id };
  const brand = await valid(
    unwrap(api.createBrand({ name: "Linea" }, query, options), 201),
    schemas.CreateBrandResponse,
  );
  const product = await valid(
    unwrap(api.createProduct({ name: "Wrap dress", sku: "OR-1", brand_id: brand.id }, query, options), 201),
    schemas.CreateProductResponse,
  );
  const uploaded = await valid(
    unwrap(api.addProductImage(product.id, { file: photo, type: "primary" }, options), 201),
    schemas.AddProductImageResponse,
  );
  if (uploaded.type !== "primary") throw new Error(uploaded.type);

  const preset = await valid(
    unwrap(api.createResolutionPreset({ name: "Small", width: 192, height: 256 }, query, options), 201),
    schemas.CreateResolutionPresetResponse,
  );
  const shooting = await valid(
    unwrap(
      api.createShooting(
        {
          name: "Spring",
          brand_id: brand.id,
          default_guidelines: { name: "Shop", file_format: "JPEG", resolution_preset_id: preset.id },
        },
        query,
        options,
      ),
      201,
    ),
    schemas.CreateShootingResponse,
  );
  const shotTypes = await valid(unwrap(api.listShotTypes({ limit: 1 }, options), 200), schemas.ListShotTypesResponse);
  const look = await valid(
    unwrap(
      api.createLook(
        shooting.id,
        { main_product_id: product.id, shot_type_ids: [first(shotTypes.data).id] },
        options,
      ),
      201,
    ),
    schemas.CreateLookResponse,
  );
  const shotId = first(look.shots).id;

  const requested = await unwrap(
    api.generateShot(shotId, { num_predictions: 2, seed: 2041 }, undefined, options),
    202,
  );
  const generation = await waitFor(() =>
    valid(unwrap(api.getGeneration(requested.id, waiting), 200), schemas.GetGenerationResponse),
  );
  const predictionId = first(generation.predictions).id;
  const approved = await valid(
    unwrap(api.approveShot(shotId, { prediction_id: predictionId }, options), 200),
    schemas.ApproveShotResponse,
  );
  if (approved.status !== "approved") throw new Error(approved.status);
  const image = await unwrap(api.getPredictionImage(predictionId, undefined, options), 200);

  const { id: exportId } = await unwrap(api.createExport(shooting.id, undefined, options), 202);
  await waitFor(() => valid(unwrap(api.getExport(exportId, options), 200), schemas.GetExportResponse));
  const archive = await unwrap(api.downloadExport(exportId, options), 200);

  await report({ product_id: product.id, prediction_id: predictionId, export_id: exportId }, image, archive);
});
