// The main job with the Postman collection in newman. Arguments: URL, photo and the file of the collection.
//
// Each step takes the request of the collection with this name, fills in its path, query and body as a person does
// in Postman, disables the optional headers, and sends it with newman.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import newman from "newman";

const [url, photo, file] = process.argv.slice(2);
const collection = JSON.parse(readFileSync(file, "utf8"));
const requests = new Map();
const collect = (items) => items.forEach((item) => (item.item ? collect(item.item) : requests.set(item.name, item)));
collect(collection.item);
let token = "";

/** Send the request with this name and return its body as bytes; throw if it is not successful. */
async function send(name, { path = {}, query = {}, json, form, file, prefer } = {}) {
  const item = structuredClone(requests.get(name));
  if (!item) throw new Error(`The collection has no request "${name}".`);
  const { request } = item;
  for (const variable of request.url.variable ?? []) variable.value = path[variable.key];
  request.url.query = (request.url.query ?? []).filter((entry) => entry.key in query);
  for (const entry of request.url.query) Object.assign(entry, { value: String(query[entry.key]), disabled: false });
  const wanted = prefer ? ["Content-Type", "Accept", "Prefer"] : ["Content-Type", "Accept"];
  request.header = request.header.filter((header) => wanted.includes(header.key));
  for (const header of request.header) if (header.key === "Prefer") Object.assign(header, { value: prefer, disabled: false });
  if (json) request.body.raw = JSON.stringify(json);
  for (const entry of request.body?.urlencoded ?? []) {
    Object.assign(entry, { value: form[entry.key] ?? "", disabled: !(entry.key in form) });
  }
  for (const entry of request.body?.formdata ?? []) {
    if (entry.type === "file") entry.src = file;
    else entry.value = form[entry.key];
  }
  if (token) request.auth = { type: "bearer", bearer: [{ key: "token", value: token, type: "string" }] };
  const variable = [{ key: "baseUrl", value: url }];
  const single = { info: collection.info, item: [item], variable };
  const summary = await new Promise((resolve, reject) =>
    newman.run({ collection: single, timeoutRequest: 90_000 }, (error, run) => (error ? reject(error) : resolve(run))),
  );
  const { response, requestError } = summary.run.executions[0];
  if (requestError) throw requestError;
  if (response.code >= 300) throw new Error(`${name}: ${response.code} ${response.text()}`);
  return response.stream;
}

const sendJson = async (name, options) => JSON.parse((await send(name, options)).toString("utf8"));
const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");

token = (await sendJson("Sign in", { form: { username: "demo@example.com", password: "sartiq-demo" } })).access_token;
const organization = await sendJson("Create an organization", { json: { name: "newman" } });
const query = { organization_id: organization.id };
const brand = await sendJson("Create a brand", { query, json: { name: "Linea" } });
const product = await sendJson("Create a product", { query, json: { name: "Wrap dress", sku: "NM-1", brand_id: brand.id } });
await sendJson("Add a product image", { path: { product_id: product.id }, form: { type: "primary" }, file: photo });
const preset = await sendJson("Create a resolution preset", { query, json: { name: "Small", width: 192, height: 256 } });
const shooting = await sendJson("Create a shooting", {
  query,
  json: {
    name: "Spring",
    brand_id: brand.id,
    due_date: new Date(Date.now() + 7 * 86_400_000).toISOString(),
    default_guidelines: { name: "Shop", file_format: "JPEG", resolution_preset_id: preset.id },
  },
});
const shotTypes = await sendJson("List shot types", { query: { limit: 1 } });
const look = await sendJson("Add a look", {
  path: { shooting_id: shooting.id },
  json: { main_product_id: product.id, shot_type_ids: [shotTypes.data[0].id] },
});
const path = { shot_id: look.shots[0].id };
let generation = await sendJson("Generate predictions for a shot", { path, json: { num_predictions: 2, seed: 2041 } });
while (["pending", "running"].includes(generation.status)) {
  generation = await sendJson("Get a generation", { path: { generation_id: generation.id }, prefer: "wait=30" });
}
const best = generation.predictions[0];
await sendJson("Approve a shot", { path, json: { prediction_id: best.id } });
const image = await send("Download the image", { path: { prediction_id: best.id } });
let exported = await sendJson("Export approved predictions", { path: { shooting_id: shooting.id }, json: {} });
while (["pending", "running"].includes(exported.status)) {
  await new Promise((resolve) => setTimeout(resolve, 200));
  exported = await sendJson("Get an export", { path: { export_id: exported.id } });
}
const archive = await send("Download an archive", { path: { export_id: exported.id } });
console.log(
  JSON.stringify({
    product_id: product.id,
    prediction_id: best.id,
    image_sha256: digest(image),
    export_id: exported.id,
    archive_sha256: digest(archive),
  }),
);
