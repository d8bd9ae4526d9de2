// Shows the contract of the server that served this page. Sign-in and "Try it out" send requests to that server only.

// Swagger UI fills in and sends the example of each parameter. Examples of a cursor or an If-Match are not valid on this
// server, so each first request would fail. Examples of optional parameters are therefore moved to the description.
function describeExamples(node) {
  if (node === null || typeof node !== "object") return;
  if (typeof node.in === "string" && node.schema && !node.required) {
    const { example, ...schema } = node.schema;
    node.schema = schema;
    if (example !== undefined && schema.default === undefined && schema.enum === undefined) {
      node.description = `${node.description || ""} Example: \`${example}\``.trim();
    }
    return;
  }
  Object.values(node).forEach(describeExamples);
}

// Swagger UI hides extensions, so the permission is added to the description of the operation.
function describePermission(operation, roles) {
  const permission = operation["x-permission"];
  if (permission === undefined) return;
  const link = `[\`${permission}\`](/api/v1/docs/permissions#${operation.operationId})`;
  operation.description += `\n\nPermission ${link}: ${roles[permission].join(", ")}.`;
}

// Swagger UI only strikes the name through. The description adds the dates and the replacement.
function describeDeprecation(operation, tags) {
  if (!operation.deprecated) return;
  const [since, until] = ["x-deprecated-at", "x-sunset"].map((word) => operation[word].slice(0, 10));
  const next = operation["x-replacement"];
  const instead = next ? ` Use [\`${next}\`](/api/v1/docs#/${tags[next]}/${next}) instead.` : "";
  operation.description = `**Deprecated since ${since}, ends on ${until}.**${instead}\n\n${operation.description}`;
}

// Sort required parameters first, and headers, which most calls omit, last.
function sortParameters(item, shared) {
  const resolve = (parameter) => (parameter.$ref ? shared[parameter.$ref.split("/").pop()] : parameter);
  const rank = (parameter) => (parameter.required ? 0 : parameter.in === "header" ? 2 : 1);
  const { parameters = [], ...operations } = item;
  delete item.parameters;
  for (const operation of Object.values(operations)) {
    const all = [...parameters, ...(operation.parameters || [])];
    operation.parameters = all.sort((a, b) => rank(resolve(a)) - rank(resolve(b)));
  }
}

// Fold paragraphs that begin with a topic, so that the operations are visible without scrolling.
function foldTopics(info) {
  const paragraphs = info.description.split("\n\n").map((paragraph) => {
    const [, topic, text] = paragraph.match(/^([A-Z][\w ]*): (.*)$/s) || [];
    return topic ? `<details><summary>${topic}</summary>\n\n${text}\n\n</details>` : paragraph;
  });
  info.description = paragraphs.join("\n\n");
}

// The filter of Swagger UI searches tags only. This one searches path, method, id, summary and tag for each word.
function searchPlugin(system) {
  const { createElement, useRef } = system.React;

  function matches(operation, tag, words) {
    const paths = [["method"], ["path"], ["operation", "operationId"], ["operation", "summary"]];
    const text = [tag, ...paths.map((path) => operation.getIn(path) || "")].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  }

  function opsFilter(groups, phrase) {
    const words = phrase.toLowerCase().split(/\s+/);
    return groups
      .map((group, tag) => group.update("operations", (all) => all.filter((operation) => matches(operation, tag, words))))
      .filter((group) => group.get("operations").size > 0);
  }

  function Search({ layoutActions, specSelectors }) {
    const timer = useRef();
    const search = (event) => {
      const phrase = event.target.value.trim();
      clearTimeout(timer.current);
      timer.current = setTimeout(() => layoutActions.updateFilter(phrase), 120);
    };
    const groups = specSelectors.taggedOperations();
    const count = groups.reduce((sum, group) => sum + group.get("operations").size, 0);
    return createElement("search", { className: "search wrapper" }, [
      createElement("label", { key: "label", htmlFor: "search" }, "Search operations"),
      createElement("input", {
        key: "input", id: "search", type: "search", placeholder: "path, id, summary or tag",
        autoComplete: "off", spellCheck: false, onChange: search,
      }),
      createElement("output", { key: "count", htmlFor: "search" }, `${count} operation${count === 1 ? "" : "s"}`),
    ]);
  }

  const withNoMatchesMessage = (Operations, { specSelectors }) => (props) =>
    specSelectors.taggedOperations().size > 0
      ? createElement(Operations, props)
      : createElement("p", { className: "nothing" }, "No operation has all of these words in its path, id, summary or tag.");

  // Show matches without a click on their tag.
  const isShown = (original) => (_state, thing, ...rest) => {
    const phrase = system.layoutSelectors.currentFilter();
    const searching = typeof phrase === "string" && phrase !== "";
    const isTag = Array.isArray(thing) && thing.length === 2 && thing[0] === "operations-tag";
    return (searching && isTag) || original(thing, ...rest);
  };

  return {
    fn: { opsFilter },
    components: { FilterContainer: Search },
    wrapComponents: { operations: withNoMatchesMessage },
    statePlugins: { layout: { wrapSelectors: { isShown } } },
  };
}

// Hide the list of servers, which has one entry, and remove links inside buttons, which no keyboard can reach.
function plainPlugin({ React }) {
  const withoutNestedLink = (Link) => (link) =>
    link.path.includes("/")
      ? React.createElement("span", { className: "path" }, link.text)
      : React.createElement(Link, link);
  return { components: { ServersContainer: () => null }, wrapComponents: { DeepLink: withoutNestedLink } };
}

// Show the code samples of the contract above the responses.
function samplesPlugin({ React }) {
  const { createElement, useEffect, useState } = React;

  function Samples({ samples }) {
    const [label, setLabel] = useState(samples[0].label);
    const [status, setStatus] = useState("");
    useEffect(() => setStatus(""), [label]);
    const { source } = samples.find((sample) => sample.label === label);
    const copy = async () => {
      await navigator.clipboard.writeText(source);
      setStatus("Copied");
    };
    const choice = (sample) =>
      createElement("button", {
        key: sample.label, type: "button", "aria-pressed": sample.label === label, onClick: () => setLabel(sample.label),
      }, sample.label);
    return createElement("section", { className: "samples", "aria-label": "Code samples" },
      createElement("div", { className: "choices" },
        createElement("h4", null, "Code samples"),
        samples.map(choice),
        createElement("button", { key: "copy", type: "button", className: "copy", onClick: copy }, "Copy"),
        createElement("output", { key: "status" }, status)),
      createElement("pre", { tabIndex: 0, "data-language": label.toLowerCase() }, source));
  }

  const withSamples = (Responses, { specSelectors }) => (props) => {
    const samples = specSelectors.specJson().getIn(["paths", props.path, props.method, "x-codeSamples"]);
    return createElement(React.Fragment, null,
      samples && createElement(Samples, { key: "samples", samples: samples.toJS() }),
      createElement(Responses, { key: "responses", ...props }));
  };
  return { wrapComponents: { responses: withSamples } };
}

// Add the accessible names that Swagger UI omits, and make code blocks reachable by keyboard.
function nameControls() {
  for (const button of document.querySelectorAll(".model-box-control:not([aria-label])")) {
    if (!button.textContent.trim()) button.setAttribute("aria-label", "Details");
  }
  document.querySelectorAll(".close-modal:not([aria-label])").forEach((button) => (button.ariaLabel = "Close"));
  document.querySelectorAll(".auth-btn-wrapper [aria-label]").forEach((button) => (button.ariaLabel = null));
  document.querySelectorAll("textarea.body-param__text:not([aria-label])").forEach((body) => (body.ariaLabel = "Body"));
  document.querySelectorAll(".examples-select-element:not([aria-label])").forEach((one) => (one.ariaLabel = "Example"));
  for (const row of document.querySelectorAll("[data-param-name], [data-property-name]")) {
    const name = row.dataset.paramName || row.dataset.propertyName;
    row.querySelectorAll(":is(input, select, textarea):not([aria-label])").forEach((one) => (one.ariaLabel = name));
  }
  document.querySelectorAll("#documentation pre:not([tabindex])").forEach((text) => (text.tabIndex = 0));
}

// Swagger UI puts the fields of the sign-in into no form, so Enter would do nothing there.
function signInWithEnter(event) {
  if (event.key !== "Enter" || !["oauth_username", "oauth_password"].includes(event.target.id)) return;
  event.target.closest(".auth-container").querySelector("button.authorize").click();
}

// Swagger UI has a dark mode, but its switch is in a top bar that this page does not have.
function followColorScheme() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", follow);
  follow();
}

async function readContract() {
  // Swagger UI 5.35 takes four times as long to show the same contract as OpenAPI 3.1.
  const contract = await (await fetch("/api/v1/openapi-3.0.json")).json();
  const operations = Object.values(contract.paths).flatMap((item) => Object.values(item)).filter((operation) => operation.operationId);
  const tags = Object.fromEntries(operations.map((operation) => [operation.operationId, operation.tags[0]]));
  for (const operation of operations) {
    describePermission(operation, contract["x-permissions"]);
    describeDeprecation(operation, tags);
  }
  Object.values(contract.paths).forEach((item) => sortParameters(item, contract.components.parameters));
  // Requests go to the origin of the page, which may have another name than PUBLIC_URL.
  contract.servers.forEach((server) => (server.url = new URL(server.url, window.location.href).pathname));
  foldTopics(contract.info);
  describeExamples(contract.paths);
  describeExamples(contract.components.parameters);
  return contract;
}

// Swagger UI itself would keep tokens in localStorage, after the tab is closed.
const AUTHORIZATION = "sartiq-docs-authorization";

function keepAuthorization() {
  const { authActions, authSelectors } = window.documentation;
  const saved = sessionStorage.getItem(AUTHORIZATION);
  if (saved) authActions.restoreAuthorization({ authorized: JSON.parse(saved) });
  window.addEventListener("pagehide", () => {
    sessionStorage.setItem(AUTHORIZATION, JSON.stringify(authSelectors.authorized()));
  });
}

async function showContract() {
  window.documentation = SwaggerUIBundle({
    spec: await readContract(),
    dom_id: "#documentation",
    presets: [SwaggerUIBundle.presets.apis],
    plugins: [searchPlugin, plainPlugin, samplesPlugin],
    layout: "BaseLayout",
    deepLinking: true,
    filter: true,
    docExpansion: "none",
    displayOperationId: true,
    displayRequestDuration: true,
    defaultModelExpandDepth: 2,
    defaultModelsExpandDepth: -1,
    onComplete: keepAuthorization,
    tryItOutEnabled: true,
    validatorUrl: null,
  });
  new MutationObserver(nameControls).observe(document.querySelector("#documentation"), {
    childList: true,
    subtree: true,
  });
}

followColorScheme();
document.addEventListener("keydown", signInWithEnter);
// Swagger UI reads the fragment only when it starts; its own changes of it send no event.
window.addEventListener("hashchange", () => window.documentation?.layoutActions.parseDeepLinkHash(window.location.hash));
window.addEventListener("DOMContentLoaded", showContract);
