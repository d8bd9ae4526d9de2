// The main job of the API with the package @sartiq/client, as its user writes it. Prints the result as JSON.
// Usage: `node main_job.js URL PHOTO FOLDER`. The strict compiler checks this file against the installed package.

import { APIError, Sartiq } from "@sartiq/client";
import type { Generation } from "@sartiq/client";
import { openFile, saveFile } from "@sartiq/client/node";

const [url = "", photo = "", folder = ""] = process.argv.slice(2);
const sartiq = new Sartiq({ url, email: "demo@example.com", password: "sartiq-demo" });

const { id: organization_id } = await sartiq.organizations.create_organization({ body: { name: "Atelier npm" } });
const brand = await sartiq.brands.create_brand({ organization_id, body: { name: "Linea" } });
const dress = { name: "Wrap dress", sku: "NPM-1", brand_id: brand.id };
const product = await sartiq.products.create_product({ organization_id, body: dress });
await sartiq.products.add_product_image({ product_id: product.id, body: { type: "primary", file: await openFile(photo) } });

const preset = await sartiq.resolution_presets.create_resolution_preset({
  organization_id,
  body: { name: "Small", width: 192, height: 256 },
});
const shooting = await sartiq.shootings.create_shooting({
  organization_id,
  body: {
    name: "Spring",
    brand_id: brand.id,
    default_guidelines: { name: "Shop", file_format: "JPEG", resolution_preset_id: preset.id },
  },
});
const [shotType] = (await sartiq.shot_types.list_shot_types({ limit: 1 })).data;
if (!shotType) throw new Error("There is no shot type");
const look = await sartiq.shootings.create_look({
  shooting_id: shooting.id,
  body: { main_product_id: product.id, shot_type_ids: [shotType.id] },
});

const seen: number[] = [];
const [shot] = look.shots;
if (!shot) throw new Error("The look has no shot");
const estimate = await sartiq.shots.generate_shot({ shot_id: shot.id, validate_only: true, body: { num_predictions: 2 } });
const requested = await sartiq.shots.generate_shot({ shot_id: shot.id, body: { num_predictions: 2, seed: 2041 } });
const generation: Generation = await sartiq.wait(requested, { onProgress: ({ progress }) => seen.push(progress) });
// @ts-expect-error: the contract has no such property, so the type check must reject it.
void generation.mistake;
// @ts-expect-error: a body that lacks a required property
void (() => sartiq.brands.create_brand({ body: {} }));
// @ts-expect-error: a value that is not in the enumeration
void (() => sartiq.shots.list_shots({ status: "done" }));

const events: string[] = [];
for await (const event of sartiq.generations.stream_generation_events({ generation_id: generation.id })) events.push(event.status);

const [best] = generation.predictions;
if (!best) throw new Error("The generation has no predictions");
const approved = await sartiq.shots.approve_shot({ shot_id: shot.id, body: { prediction_id: best.id } });
await saveFile(await sartiq.predictions.get_prediction_image({ prediction_id: best.id }), `${folder}/best.jpg`);

const order = await sartiq.wait(await sartiq.exports.create_export({ shooting_id: shooting.id, body: {} }));
await saveFile(await sartiq.exports.download_export({ export_id: order.id }), `${folder}/export.zip`);

// The other two ways to upload: bytes, and a URL of one's own for later use.
const bytes = new Uint8Array(await (await openFile(photo)).arrayBuffer());
await sartiq.products.add_product_image({ product_id: product.id, body: { type: "back", file: bytes } });
const cover_image = await sartiq.upload(await openFile(photo));
const { response } = await sartiq.products.get_product({ product_id: product.id }).withResponse();
const ifMatch = response.headers.get("etag") ?? "";
await sartiq.products.update_product({ product_id: product.id, body: { cover_image, color: "red" } }, { ifMatch });
const stale = await sartiq
  .products.update_product({ product_id: product.id, body: { name: "Dress" } }, { ifMatch })
  .catch((error: unknown) => error);

const images: string[] = [];
for await (const image of sartiq.products.list_product_images({ product_id: product.id, limit: 1 })) images.push(image.type);

const taken = await sartiq.products.create_product({ organization_id, body: dress }).catch((error: unknown) => error);
const invalid = await sartiq.brands.create_brand({ body: { name: "" } }).catch((error: unknown) => error);
if (!(taken instanceof APIError && invalid instanceof APIError && stale instanceof APIError)) {
  throw new Error("Three requests must be rejected");
}
console.log(
  JSON.stringify({
    prediction_id: best.id,
    content_hash: order.content_hash,
    status: approved.status,
    cost: estimate.cost_credits,
    progress: [seen[0], seen.at(-1)],
    events: events.at(-1),
    images: images.sort(),
    problems: [taken.code, invalid.violations.map((violation) => violation.pointer), stale.status],
  }),
);
