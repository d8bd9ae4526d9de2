// Write src/generated/ from the contract: the types of the schemas, and a typed method for each operation.
// Usage: node scripts/generate.mjs openapi.json
//
// openapi-typescript writes the types of the schemas. This script writes a table that src/client.ts turns into
// methods at run time, and their interfaces.

import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";
import ts from "typescript";

const contract = JSON.parse(await readFile(process.argv[2], "utf8"));
const output = new URL("../src/generated/", import.meta.url);
const header = "// Generated from the contract by scripts/generate.mjs. Do not edit.\n\n";
const used = new Set(); // names of schemas that operations.ts imports

function resolve(value) {
  return "$ref" in value ? value.$ref.split("/").slice(1).reduce((node, key) => node[key], contract) : value;
}

/** Return the type of a text that can have values which are newer than the client. Editors complete the known ones. */
function openTypeOf(values) {
  return [...values.map((value) => JSON.stringify(value)), "(string & {})"].join(" | ");
}

function nameOf(schema) {
  const name = schema.$ref.split("/").at(-1);
  used.add(name);
  return name;
}

/** Return the type of a parameter or of a body. Objects have a name in the contract, so none is written inline. */
function typeOf(schema) {
  if (schema.$ref) return nameOf(schema);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `readonly ${schema.items.enum ? `(${typeOf(schema.items)})` : typeOf(schema.items)}[]`;
  if (schema.type === "integer" || schema.type === "number") return "number";
  if (schema.type === "boolean") return "boolean";
  if (schema.type === "string") return schema.format === "binary" ? "FileInput" : "string";
  if (schema.type === "object") return "Record<string, unknown>";
  throw new Error(`No type for ${JSON.stringify(schema).slice(0, 200)}`);
}

function comment(indent, ...parts) {
  const lines = parts.filter(Boolean).join("\n\n").replaceAll("*/", "*\\/").split("\n");
  if (lines.length === 1) return `${indent}/** ${lines[0]} */\n`;
  return `${indent}/**\n${lines.map((line) => `${indent} * ${line}`.trimEnd()).join("\n")}\n${indent} */\n`;
}

/** Return the JSDoc tag of a deprecated operation or parameter, or null. */
function deprecation(node) {
  if (!node.deprecated) return null;
  const { "x-deprecated-at": since, "x-sunset": sunset, "x-replacement": replacement } = node;
  const texts = [
    since && `Since ${since.slice(0, 10)}.`,
    sunset && `Ends on ${sunset.slice(0, 10)}.`,
    replacement && (/\s/.test(replacement) ? replacement : `Use \`${replacement}\`.`),
  ];
  return ["@deprecated", ...texts.filter(Boolean)].join(" ");
}

/** Return whether an operation has ended: the server answers it with 410 alone. */
function hasEnded(operation) {
  return "410" in operation.responses && !Object.keys(operation.responses).some((status) => status < "400");
}

function bodyOf(operation) {
  if (!operation.requestBody) return null;
  const body = resolve(operation.requestBody);
  const types = Object.keys(body.content);
  const kinds = {
    "application/json": "json",
    "application/x-www-form-urlencoded": "form",
    "multipart/form-data": "multipart",
  };
  const kind = types.length === 1 ? kinds[types[0]] : "binary";
  if (!kind) throw new Error(`${operation.operationId}: no encoder for ${types}`);
  return { kind, required: body.required === true, schema: body.content[types[0]].schema };
}

/** Return how a successful response is read, and the type that the method promises. */
function resultOf(operation) {
  const responses = Object.entries(operation.responses).filter(([status]) => status.startsWith("2"));
  const schemas = [];
  for (const [, reference] of responses) {
    const content = resolve(reference).content ?? {};
    if ("text/event-stream" in content) return { kind: "events", type: "AsyncIterable<GenerationEvent>" };
    if (Object.keys(content).length === 0) continue;
    if (!("application/json" in content)) return { kind: "response", type: "Response" };
    const { schema } = content["application/json"];
    schemas.push(schema);
    const { data, next_cursor } = resolve(schema).properties ?? {};
    if (data?.type === "array" && next_cursor) {
      return { kind: "pages", type: `PagePromise<${nameOf(data.items)}, ${nameOf(schema)}>` };
    }
  }
  if (schemas.length === 0) return { kind: "none", type: "ApiPromise<void>" };
  const types = [...new Set(schemas.map(typeOf))];
  return { kind: "json", type: `ApiPromise<${types.at(-1)}>`, estimate: types.length > 1 ? types[0] : null };
}

function signature(name, fields, required, result) {
  const type = fields.length ? `{\n${fields.join("")}  }` : "NoArguments";
  return `  ${name}(args${required ? "" : "?"}: ${type}, options?: RequestOptions): ${result};\n`;
}

const table = [];
const groups = new Map(); // the texts of the methods of each tag
for (const [path, item] of Object.entries(contract.paths)) {
  for (const [method, operation] of Object.entries(item)) {
    if (!operation.operationId || hasEnded(operation)) continue;
    const name = operation.operationId;
    const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])].map(resolve);
    const inputs = parameters.filter((parameter) => parameter.in === "path" || parameter.in === "query");
    const headers = parameters.filter((parameter) => parameter.in === "header").map((parameter) => parameter.name);
    const body = bodyOf(operation);
    const result = resultOf(operation);
    if (inputs.some((input) => input.name === "body")) throw new Error(`${name}: a parameter is called body`);

    const group = operation.tags[0].replaceAll("-", "_");
    if (!groups.has(group)) groups.set(group, []);
    const methods = groups.get(group);
    const entry = { group, method: method.toUpperCase(), path };
    if (body) entry.body = body.kind;
    if (result.kind !== "json") entry.result = result.kind;
    if (headers.includes("Idempotency-Key")) entry.keyed = true;
    if (operation.security?.length === 0) entry.anonymous = true;
    table.push(`  ${name}: ${JSON.stringify(entry)},\n`);

    const fields = inputs.map((input) => ({
      name: input.name,
      text:
        comment("    ", input.description, deprecation(input)) +
        `    ${input.name}${input.required ? "" : "?"}: ${typeOf(input.schema)}${input.required ? "" : " | undefined"};\n`,
    }));
    if (body) {
      const optional = body.required ? "" : "?";
      fields.push({ name: "body", text: `    body${optional}: ${typeOf(body.schema)}${optional && " | undefined"};\n` });
    }
    const required = inputs.some((input) => input.required) || body?.required === true;
    const target = `\`${entry.method} ${path}\``;
    const documentation = comment("  ", operation.summary + ".", operation.description, target, deprecation(operation));
    if (result.estimate) {
      const dry = fields.map((field) => (field.name === "validate_only" ? "    validate_only: true;\n" : field.text));
      methods.push(documentation, signature(name, dry, true, `ApiPromise<${result.estimate}>`));
    }
    const texts = fields.map((field) =>
      result.estimate && field.name === "validate_only" ? field.text.replace("boolean", "false") : field.text,
    );
    const promised = result.kind === "response" ? "ApiPromise<Response>" : result.type;
    methods.push(documentation, signature(name, texts, required, promised), "\n");
  }
}

const events = Object.entries(contract.webhooks).map(([event, item]) => {
  const schema = item.post.requestBody.content["application/json"].schema;
  return comment("  ", item.post.description) + `  ${JSON.stringify(event)}: ${nameOf(schema)};\n`;
});
const tags = new Map(contract.tags.map((tag) => [tag.name.replaceAll("-", "_"), tag.description]));
const interfaceOf = (group) => `${group.replace(/(?:^|_)(\w)/g, (_, letter) => letter.toUpperCase())}Operations`;
const interfaces = [...groups].map(
  ([group, methods]) => `export interface ${interfaceOf(group)} {\n${methods.join("").trimEnd()}\n}\n`,
);
const members = [...groups.keys()].map(
  (group) => comment("  ", tags.get(group)) + `  readonly ${group}: ${interfaceOf(group)};\n`,
);
const codes = Object.keys(contract["x-problem-codes"]).map((code) => `  | ${JSON.stringify(code)}\n`);
used.add("GenerationEvent");

const operations = `${header}import type { ApiPromise, FileInput, NoArguments, Operation, PagePromise, RequestOptions } from "../types.ts";
import type {
${[...used].sort().map((name) => `  ${name},\n`).join("")}} from "./schemas.ts";

/** Version of the contract that this client was generated from, and of this package. */
export const VERSION = ${JSON.stringify(contract.info.version)};

/** Path that the paths of the contract are relative to. */
export const BASE_PATH = ${JSON.stringify(contract.servers[0].url)};

/** Codes of the problems that the contract knows. A newer server may send others. */
export type ProblemCode =
${codes.join("")};

/** The message of each webhook event. */
export interface WebhookEvents {
${events.join("")}}

${interfaces.join("\n")}
/** The operations of the contract, by their tag. */
export interface OperationGroups {
${members.join("")}}

export type OperationName = ${[...groups.keys()].map((group) => `keyof ${interfaceOf(group)}`).join("\n  | ")};

export const OPERATIONS: Readonly<Record<OperationName, Operation>> = {
${table.join("")}};
`;

const schemas = await openapiTS(
  { ...contract, paths: {}, webhooks: {}, components: { schemas: contract.components.schemas } },
  {
    defaultNonNullable: false, // a request may leave out properties that have a default
    rootTypes: true,
    rootTypesNoSchemaPrefix: true,
    silent: true,
    inject: 'import type { FileInput } from "../types.ts";\n',
    transform: (schema) => {
      if (schema.format === "binary") return ts.factory.createTypeReferenceNode("FileInput");
      const values = schema["x-extensible-enum"];
      return values && ts.factory.createTypeReferenceNode(openTypeOf(values));
    },
  },
);

/** Replace a file at once: tests that run at the same time read either version, never a part. */
async function replace(name, text) {
  const partial = new URL(`${name}.${process.pid}`, output);
  await writeFile(partial, text);
  await rename(partial, new URL(name, output));
}

await mkdir(output, { recursive: true });
await replace("operations.ts", operations);
// The parts of the contract that were left out
const empty = /^export type (paths|webhooks|operations|\$defs) = .*\n/gm;
await replace("schemas.ts", header + astToString(schemas).replace(empty, ""));
