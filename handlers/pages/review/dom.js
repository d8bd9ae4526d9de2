// Build elements. Text of users is always set as text, never parsed as HTML.

import { fetchImage } from "./api.js";

/** Return a new element. Attributes that start with "on" are listeners; null and false are left out. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const button = (label, onclick, attributes = {}) => element("button", { type: "button", onclick, ...attributes }, label);

// Thumbnails are fetched when they come into view, and their memory is freed when they are taken from the page.
const pending = new WeakMap();
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    load(target, pending.get(target));
  }
}, { rootMargin: "300px" });

async function load(image, { url, width, signal }) {
  try {
    const source = await fetchImage(url, width, signal);
    const free = () => URL.revokeObjectURL(source);
    image.addEventListener("load", free, { once: true });
    image.addEventListener("error", free, { once: true });
    image.src = source;
  } catch (error) {
    if (error.name === "AbortError") return;
    image.alt = `${image.alt} (cannot be loaded)`;
    image.classList.add("missing");
  }
}

/** Return an image of the API, `width` pixels wide (null: full size). It is loaded when it comes into view. */
export function apiImage(url, alt, width, signal, attributes = {}) {
  const image = element("img", { alt, ...attributes });
  if (url) {
    pending.set(image, { url, width, signal });
    observer.observe(image);
  }
  return image;
}

const MESSAGE_SECONDS = 6;
const messages = document.querySelector("#messages");
const live = document.querySelector("#status");
const connection = document.querySelector("#connection");
const dismiss = document.querySelector("#dismiss");
let expiry;

/** Say what happened: shown at the edge of the page for six seconds, and read by screen readers. A problem stays until it is closed. */
export function say(text, isProblem = false) {
  clearTimeout(expiry);
  live.textContent = text;
  live.parentElement.classList.toggle("problem", isProblem);
  dismiss.hidden = !isProblem;
  if (text && !isProblem) expiry = setTimeout(say, MESSAGE_SECONDS * 1000, "");
}
dismiss.addEventListener("click", () => say(""));

/** End the message about the last view, unless it is a problem. */
export function forgetMessage() {
  if (dismiss.hidden) say("");
}

/** Show that the server cannot be reached, until it can. */
export function showConnection(isLost) {
  const text = isLost ? "No connection. What others change is shown when it is back." : "";
  if (connection.textContent !== text) connection.textContent = text;
}

// The page can be scrolled until its end is above the messages.
new ResizeObserver(() => {
  const height = messages.getBoundingClientRect().height;
  document.documentElement.style.setProperty("--messages", height ? `calc(${height}px + 1rem)` : "0px");
}).observe(messages);

/** Ask for a text in a dialog. Returns null if the person cancels. */
export function ask(title, label, confirm, text = "") {
  return new Promise((resolve) => {
    const field = element("textarea", { id: "answer", rows: 3, maxlength: 2000, required: true }, text);
    const form = element("form", { method: "dialog" },
      element("h2", { id: "question" }, title),
      element("label", { for: "answer" }, label), field,
      element("p", { class: "actions" },
        button("Cancel", () => dialog.close("")),
        element("button", { type: "submit", class: "primary", value: "yes" }, confirm)));
    // The key that opened the dialog may still be held down: its repetitions are no text.
    let isHeld = true;
    field.addEventListener("keydown", (event) => {
      isHeld &&= event.repeat;
      if (isHeld) event.preventDefault();
    });
    const dialog = element("dialog", { "aria-labelledby": "question", onclose: () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes" ? field.value.trim() || null : null);
    } }, form);
    document.body.append(dialog);
    dialog.showModal();
    field.focus();
  });
}

export const STATUS_NAMES = {
  pending: "Pending", generating: "Generating", pending_review: "In review", approved: "Approved",
  rejected: "Rejected", revision_requested: "Revision requested", exported: "Exported",
};
const VERBS = { approved: "Approved", exported: "Approved", rejected: "Rejected" };

/** Who approved or rejected a prediction, and when: "Rejected by Ana Berg, 2 Nov 2026, 10:15". Null if it is in review. */
export function describeDecision({ status, review }) {
  if (!review || !VERBS[status]) return null;
  const by = review.by_name ? ` by ${review.by_name}` : "";
  return `${VERBS[status]}${by}, ${new Date(review.at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" })}`;
}

/** Why a shot itself was rejected, or what its revision must change. Null without either. */
export function describeRemark({ rejection_reason, revision_note }) {
  if (rejection_reason) return element("p", { class: "decision rejected" }, `Shot rejected: ${rejection_reason}`);
  return revision_note ? element("p", { class: "decision rejected" }, `Revision requested: ${revision_note}`) : null;
}

export const chip = (status) => element("span", { class: `chip ${status}` }, STATUS_NAMES[status] || status);
