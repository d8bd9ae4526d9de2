// Sign in with the account of a company (OpenID Connect), and link such an account to one's own.
// The verifier and the state stay in this tab. A code that another browser started cannot be used here.

import * as api from "./api.js";
import { button, element, say } from "./dom.js";

const STARTED = "sartiq-review-company";
const REASONS = {
  provider_unavailable: "The sign-in of your company cannot be reached at the moment. Try again later.",
  sign_in_rejected: "The sign-in of your company returned something that cannot be verified. Ask your administrator.",
  sign_in_canceled: "You have canceled the sign-in.",
  sign_in_expired: "The sign-in took too long, or was opened twice. Start it again.",
};
const OTHER_TAB = "This sign-in was not started in this tab. Start it again.";

const encode = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => encode(crypto.getRandomValues(new Uint8Array(32)));

/** Send the browser to the provider for an e-mail address; `purpose` is "sign in" or "link". */
async function start(email, purpose) {
  const domain = email.slice(email.lastIndexOf("@") + 1);
  const provider = await api.findProvider(domain);
  if (!provider) {
    say(`No company account is set up for ${domain}.`, true);
    return;
  }
  const verifier = random();
  const state = random();
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  sessionStorage.setItem(STARTED, JSON.stringify({ verifier, state, purpose }));
  window.location.assign(api.providerUrl(provider, { code_challenge: encode(new Uint8Array(digest)), state }));
}

function showForm(show, { title, text, action, purpose, back }) {
  const onsubmit = async (event) => {
    event.preventDefault();
    const { submitter } = event;
    submitter.disabled = true;
    say("");
    try {
      await start(event.target.elements.email.value.trim(), purpose);
    } catch (error) {
      say(error.message, true);
    } finally {
      submitter.disabled = false;
    }
  };
  show(title, element("form", { class: "sign-in", onsubmit },
    element("h1", {}, title), element("p", {}, text),
    element("label", { for: "email" }, "E-mail address at your company"),
    element("input", { id: "email", name: "email", type: "email", autocomplete: "email", required: true }),
    element("button", { type: "submit", class: "primary" }, action),
    element("p", {}, element("a", { href: back }, "Back"))));
}

function showEnd(show, title, text) {
  show(title, element("section", { class: "sign-in" }, element("h1", {}, title), element("p", {}, text),
    element("p", {}, element("a", { href: "#/shootings" }, "Continue"))));
}

/** Take what the tab keeps of a sign-in; null if this tab has not started the one with this state. */
function takeStarted(state) {
  const started = JSON.parse(sessionStorage.getItem(STARTED) || "null");
  sessionStorage.removeItem(STARTED);
  return started?.state === state ? started : null;
}

async function finish(show, code, state) {
  const started = takeStarted(state);
  if (!started) {
    showEnd(show, "Sign in", OTHER_TAB);
    return;
  }
  try {
    if (started.purpose === "link" && api.isSignedIn()) {
      await api.post("/users/me/identities", { code, code_verifier: started.verifier });
      showEnd(show, "Company account", "Your company account is linked. You can sign in with it from now on.");
      return;
    }
    await api.signInWithCode(code, started.verifier);
    window.location.hash = "#/shootings";
  } catch (error) {
    const text = error.code === "account_exists"
      ? "Your e-mail address has an account already. Sign in with its password, and link your company account under Security."
      : error.message;
    showEnd(show, "Sign in", text);
  }
}

/** Return the list of the linked company accounts, each with a button that removes it, and a link that adds one. */
export async function buildIdentities() {
  const list = element("ul", { class: "factors" });
  for await (const { id, email, subject, issuer } of api.rows("/users/me/identities", {})) {
    const name = email || subject;
    const row = element("li", {}, element("span", {}, name), element("span", { class: "hint" }, issuer), button("Remove", async () => {
      try {
        await api.remove(`/users/me/identities/${id}`);
        row.remove();
      } catch (error) {
        say(error.message, true);
      }
    }, { "aria-label": `Remove: ${name}` }));
    list.append(row);
  }
  return [
    element("h2", {}, "Company accounts"),
    list.children.length ? list : element("p", {}, "No company account is linked."),
    element("p", {}, element("a", { href: "#/link-company" }, "Link a company account")),
  ];
}

/** Show the page that the fragment of the address names, and return whether there is one. */
export function showCompanyPage(show) {
  const { hash, pathname } = window.location;
  if (hash === "#/company") {
    showForm(show, {
      title: "Sign in with your company account",
      text: "You are sent to the sign-in of your company and return here.",
      action: "Continue", purpose: "sign in", back: "#/",
    });
    return true;
  }
  if (hash === "#/link-company" && api.isSignedIn()) {
    showForm(show, {
      title: "Link a company account",
      text: "Sign in at your company once. Afterwards you can use its sign-in instead of your password.",
      action: "Continue", purpose: "link", back: "#/security",
    });
    return true;
  }
  const [, reason] = hash.match(/^#\/oidc-error\/([a-z_]+)$/) || [];
  const [, code, state] = hash.match(/^#\/oidc\/([\w-]{20,})\/([\w-]{22,128})$/) || [];
  if (!reason && !code) return false;
  // The code must not stay in the address bar, where it is copied and remembered.
  window.history.replaceState(null, "", pathname);
  if (reason) {
    sessionStorage.removeItem(STARTED);
    showEnd(show, "Sign in", Object.hasOwn(REASONS, reason) ? REASONS[reason] : "The sign-in failed. Start it again.");
  } else finish(show, code, state);
  return true;
}
