// The main job with the Bruno collection in Bruno's CLI. Arguments: URL, photo and the folder of the collection.
//
// Each step takes the request of the collection with this name, fills in its path, query and body as a person does
// in Bruno, disables the optional headers, and sends it with `bru run`. The CLI reads all files of a collection at each start,
// about a minute with the examples, so each step is saved without examples in a collection of its own.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import filestore from "@usebruno/filestore";

const [url, photo, folder] = process.argv.slice(2);
const cli = createRequire(import.meta.url).resolve("@usebruno/cli/bin/bru.js");
const format = { format: "bru" };
const files = new Map(readdirSync(folder, { recursive: true }).map((file) => [path.basename(file, ".bru"), file]));
// The report has no bytes: Bruno itself computes the digest and puts it in the place of the body.
const digestScript = `
const { createHash } = require("crypto");
if (res.status === 200) res.setBody({ sha256: createHash("sha256").update(res.getDataBuffer()).digest("hex") });
`;
const step = path.resolve(folder, "..", "step");
mkdirSync(step);
copyFileSync(path.join(folder, "bruno.json"), path.join(step, "bruno.json"));
let token = "";

/** Send the request with this name and return its body; throw if it is not successful. */
function send(name, { path: ids = {}, query = {}, json, form, file, prefer, digest } = {}) {
  const location = files.get(name);
  if (!location) throw new Error(`The collection has no request "${name}".`);
  const item = filestore.parseRequest(readFileSync(path.join(folder, location), "utf8"), format);
  item.examples = [];
  const { request } = item;
  // Bruno sends the query of the URL; its editor writes enabled parameters there.
  request.params = request.params.filter((param) => param.type === "path" || param.name in query);
  for (const param of request.params) {
    Object.assign(param, { enabled: true, value: String(param.type === "path" ? ids[param.name] : query[param.name]) });
  }
  const search = new URLSearchParams(query).toString();
  request.url = request.url.split("?")[0] + (search && `?${search}`);
  for (const header of request.headers) {
    header.enabled = header.name === "Prefer" && prefer !== undefined;
    if (header.enabled) header.value = prefer;
  }
  if (json) request.body.json = JSON.stringify(json);
  for (const entry of request.body.formUrlEncoded ?? []) {
    Object.assign(entry, { value: form[entry.name] ?? "", enabled: entry.name in form });
  }
  for (const entry of request.body.multipartForm ?? []) {
    entry.value = entry.type === "file" ? [file] : form[entry.name];
  }
  request.auth = token ? { mode: "bearer", bearer: { token } } : { mode: "none" };
  if (digest) request.script.res = digestScript;
  writeFileSync(path.join(step, "request.bru"), filestore.stringifyRequest(item, format));
  const response = run(name);
  if (!(response.status < 300)) throw new Error(`${name}: ${response.status} ${JSON.stringify(response.data)}`);
  return response.data;
}

/** Run the saved request with the CLI and return the response of its JSON report. */
function run(name) {
  const report = path.resolve(folder, "..", "report.json");
  const options = ["--env-var", `baseUrl=${url}`, "--sandbox", "developer", "--reporter-json", report];
  writeFileSync(report, "");
  let output = "";
  try {
    output = execFileSync(process.execPath, [cli, "run", "request.bru", ...options], { cwd: step, encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    // A failed script of the collection also ends the program with 1; the report has the response.
    output = `${error.stdout}${error.stderr}`;
  }
  const text = readFileSync(report, "utf8");
  if (!text) throw new Error(`${name}: bru wrote no report.\n${output}`);
  const [result] = JSON.parse(text)[0].results;
  if (result.error) throw new Error(`${name}: ${result.error}`);
  return result.response;
}

token = send("Sign in", { form: { username: "demo@example.com", password: "sartiq-demo" } }).access_token;
const organization = send("Create an organization", { json: { name: "Bruno" } });
const query = { organization_id: organization.id };
const brand = send("Create a brand", { query, json: { name: "Linea" } });
const product = send("Create a product", { query, json: { name: "Wrap dress", sku: "BR-1", brand_id: brand.id } });
send("Add a product image", { path: { product_id: product.id }, form: { type: "primary" }, file: photo });
const preset = send("Create a resolution preset", { query, json: { name: "Small", width: 192, height: 256 } });
const shooting = send("Create a shooting", {
  query,
  json: {
    name: "Spring",
    brand_id: brand.id,
    due_date: new Date(Date.now() + 7 * 86_400_000).toISOString(),
    default_guidelines: { name: "Shop", file_format: "JPEG", resolution_preset_id: preset.id },
  },
});
const shotTypes = send("List shot types", { query: { limit: 1 } });
const look = send("Add a look", {
  path: { shooting_id: shooting.id },
  json: { main_product_id: product.id, shot_type_ids: [shotTypes.data[0].id] },
});
const shot = { shot_id: look.shots[0].id };
let generation = send("Generate predictions for a shot", { path: shot, json: { num_predictions: 2, seed: 2041 } });
while (["pending", "running"].includes(generation.status)) {
  generation = send("Get a generation", { path: { generation_id: generation.id }, prefer: "wait=30" });
}
const best = generation.predictions[0];
send("Approve a shot", { path: shot, json: { prediction_id: best.id } });
const image = send("Download the image", { path: { prediction_id: best.id }, digest: true });
let exported = send("Export approved predictions", { path: { shooting_id: shooting.id }, json: {} });
while (["pending", "running"].includes(exported.status)) {
  exported = send("Get an export", { path: { export_id: exported.id } });
}
const archive = send("Download an archive", { path: { export_id: exported.id }, digest: true });
console.log(
  JSON.stringify({
    product_id: product.id,
    prediction_id: best.id,
    image_sha256: image.sha256,
    export_id: exported.id,
    archive_sha256: archive.sha256,
  }),
);
