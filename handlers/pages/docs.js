// Shows the contract of the server that this page came from; sign-in and "Try it out" talk to that server only.

// Swagger UI fills every parameter's example in and sends it: a cursor or an If-Match that means nothing here, so that
// each first try would fail. Examples of optional parameters are therefore told, not filled in.
function tellExamples(node) {
  if (node === null || typeof node !== "object") return;
  if (typeof node.in === "string" && node.schema && !node.required) {
    const { example, ...schema } = node.schema;
    node.schema = schema;
    if (example !== undefined && schema.default === undefined && schema.enum === undefined) {
      node.description = `${node.description || ""} Example: \`${example}\``.trim();
    }
    return;
  }
  Object.values(node).forEach(tellExamples);
}

// Tools hide what a contract adds to OpenAPI, so each operation tells who may call it.
function tellPermission(operation, roles) {
  const permission = operation["x-permission"];
  if (permission === undefined) return;
  const link = `[\`${permission}\`](/api/v1/docs/permissions#${operation.operationId})`;
  operation.description += `\n\nPermission ${link}: ${roles[permission].join(", ")}.`;
}

// The page only strikes its name out; what people need to know is when it ends and what to use then.
function tellDeprecation(operation, tags) {
  if (!operation.deprecated) return;
  const [since, until] = ["x-deprecated-at", "x-sunset"].map((word) => operation[word].slice(0, 10));
  const next = operation["x-replacement"];
  const instead = next ? ` Use [\`${next}\`](/api/v1/docs#/${tags[next]}/${next}) instead.` : "";
  operation.description = `**Deprecated since ${since}, ends on ${until}.**${instead}\n\n${operation.description}`;
}

async function showContract() {
  const contract = await (await fetch("/api/v1/openapi.json")).json();
  const operations = Object.values(contract.paths).flatMap((item) => Object.values(item)).filter((one) => one.operationId);
  const tags = Object.fromEntries(operations.map((one) => [one.operationId, one.tags[0]]));
  for (const operation of operations) {
    tellPermission(operation, contract["x-permissions"]);
    tellDeprecation(operation, tags);
  }
  tellExamples(contract.paths);
  tellExamples(contract.components.parameters);
  window.documentation = SwaggerUIBundle({
    spec: contract,
    dom_id: "#documentation",
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
    deepLinking: true,
    filter: true,
    docExpansion: "none",
    displayOperationId: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: -1,
    persistAuthorization: true,
    tryItOutEnabled: true,
    validatorUrl: null,
  });
}

window.addEventListener("DOMContentLoaded", showContract);
