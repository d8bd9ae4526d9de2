// The usage of an organization: one chart of the credits per day, and the table of the chosen grouping.

import * as api from "./api.js";
import { element } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const DAYS = 30;
const GROUPS = { day: "Day", model: "Model", member: "Member", api_key: "API key", product: "Product" };
const DAY_MS = 86_400_000;

const isoDay = (time) => new Date(time).toISOString().slice(0, 10);
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

function shape(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

/** Draw one bar per day. Days without usage are not in the response, so they are filled in. */
function drawChart(rows, from) {
  const credits = new Map(rows.map(({ day, credits: number }) => [day, number]));
  const days = Array.from({ length: DAYS }, (_, index) => isoDay(Date.parse(from) + index * DAY_MS));
  const most = Math.max(1, ...days.map((day) => credits.get(day) ?? 0));
  const total = rows.reduce((sum, row) => sum + row.credits, 0);
  const chart = shape("svg", { viewBox: `0 0 ${DAYS * 24} 200`, class: "chart", role: "img" });
  chart.setAttribute("aria-label", `Credits per day: ${total} in ${DAYS} days, at most ${most} in a day`);
  days.forEach((day, index) => {
    const height = (Math.max(credits.get(day) ?? 0, 0) / most) * 170;
    const bar = shape("rect", { x: index * 24 + 3, y: 180 - height, width: 18, height });
    const label = shape("title", {});
    label.textContent = `${day}: ${credits.get(day) ?? 0} credits`;
    bar.append(label);
    chart.append(bar);
  });
  for (const [index, anchor] of [[0, "start"], [DAYS - 1, "end"]]) {
    const text = shape("text", { x: index === 0 ? 0 : DAYS * 24, y: 198, "text-anchor": anchor });
    text.textContent = days[index];
    chart.append(text);
  }
  chart.append(shape("line", { x1: 0, x2: DAYS * 24, y1: 180, y2: 180 }));
  return chart;
}

/** Show the usage of an organization in the last 30 days. */
export async function showUsage(organization, show, signal) {
  const to = isoDay(Date.now());
  const from = isoDay(Date.now() - (DAYS - 1) * DAY_MS);
  const path = `/organizations/${organization.id}/usage`;
  const byDay = await api.page(path, { group_by: "day", from, to });
  if (signal.aborted) return;
  const body = element("tbody");
  const choice = element("select", { id: "group" }, Object.entries(GROUPS).map(([value, name]) => element("option", { value }, name)));
  const describe = (row) => element("tr", {},
    element("th", { scope: "row" }, row.day || row.name || (row.id ? "Deleted" : "None")),
    element("td", {}, row.credits), element("td", {}, row.generations), element("td", {}, row.failures),
    element("td", {}, megabytes(row.storage_bytes)));
  const fill = async () => {
    const group = choice.value;
    const { data } = group === "day" ? byDay : await api.page(path, { group_by: group, from, to });
    if (group === choice.value) body.replaceChildren(...data.map(describe));
  };
  choice.addEventListener("change", fill);
  const { credits, generations, failures, storage_bytes } = byDay.totals;
  show("Usage",
    element("div", { class: "head" },
      element("p", { class: "crumbs" }, element("a", { href: "#/shootings" }, "Shootings")),
      element("h1", {}, `Usage of ${organization.name}`),
      element("p", {}, `Since ${from}: credits ${credits}, generations ${generations}, failures ${failures}, new images ${megabytes(storage_bytes)}.`)),
    drawChart(byDay.data, from),
    element("p", { class: "filters" }, element("label", { for: "group" }, "By"), choice),
    element("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Usage as a table" },
      element("table", {}, element("thead", {}, element("tr", {},
        ["", "Credits", "Generations", "Failures", "Images"].map((name) => element("th", { scope: "col" }, name)))), body)));
  await fill();
}
