// The second factor: the step of the sign-in that asks for it, and the page on which people add and remove factors.

import * as api from "./api.js";
import { buildIdentities } from "./company.js";
import { button, element, say } from "./dom.js";

const FACTORS = "/users/me/second-factors";
const when = (time) => new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
const hasPasskeys = () => Boolean(window.PublicKeyCredential?.parseRequestOptionsFromJSON);
/** Return the answer of a passkey of this device to a challenge, as the API takes it. */
const usePasskey = async (options) => JSON.stringify(await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(JSON.parse(options)) }));
const createPasskey = async (options) => JSON.stringify(await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(JSON.parse(options)) }));

/** Run the work of a button or form, which is disabled meanwhile, and say what went wrong. */
async function run(control, work) {
  control.disabled = true;
  say("");
  try {
    await work();
  } catch (error) {
    const isPasskey = error instanceof DOMException;
    say(isPasskey ? "The passkey was not used. Try again, or use another way." : error.message, true);
  } finally {
    control.disabled = false;
  }
}

function showForm(title, text, fields, action, submit) {
  const onsubmit = (event) => {
    event.preventDefault();
    return run(event.submitter, () => submit(event.target.elements));
  };
  return element("form", { class: "sign-in", onsubmit },
    element("h1", {}, title), text && element("p", {}, text), fields,
    element("button", { type: "submit", class: "primary" }, action));
}

const otpField = (label) => [
  element("label", { for: "otp" }, label),
  element("input", { id: "otp", name: "otp", autocomplete: "one-time-code", autocapitalize: "none", spellcheck: "false", maxlength: 40, required: true }),
];

/**
 * Ask for the second factor of a sign-in.
 * `problem` is the response to the password, `done` continues when the session is there, and `restart` asks for the password again.
 */
export function showChallenge(show, problem, done, restart) {
  const { challenge, methods, webauthn } = problem.body;
  const answer = async (body) => {
    try {
      await api.answerChallenge(challenge, body);
    } catch (error) {
      if (error.code === "challenge_ended" || error.body?.attempts_left === 0) return restart("Sign in again: the time or the attempts for the second step are over.");
      throw error;
    }
    return done();
  };
  const takesCodes = methods.includes("totp") || methods.includes("recovery_code");
  const passkey = webauthn && hasPasskeys()
    ? button("Use a passkey", (event) => run(event.target, async () => answer({ webauthn: await usePasskey(webauthn) })), { class: takesCodes ? null : "primary" })
    : null;
  const label = methods.includes("totp") ? "Code of your authenticator app, or a recovery code" : "Recovery code";
  show("Second step",
    takesCodes
      ? showForm("Second step", null, otpField(label), "Continue", ({ otp }) => answer({ otp: otp.value }))
      : element("section", { class: "sign-in" }, element("h1", {}, "Second step")),
    element("p", { class: "sign-in second" }, passkey, button("Start again", () => restart())));
  document.querySelector("#otp")?.focus();
}

const DESCRIPTIONS = {
  totp: () => "Authenticator app",
  passkey: ({ name }) => `Passkey: ${name}`,
  recovery_codes: ({ codes_left }) => `Recovery codes: ${codes_left} left`,
};

/** Show the second factors and company accounts of the account, with what adds and removes them. `note` says why the page is shown. */
export async function showSecurity(show, signal, note = "") {
  const factors = [];
  for await (const factor of api.rows(FACTORS, { sort: "created_at" })) factors.push(factor);
  const identities = await buildIdentities();
  if (signal.aborted) return;
  const again = () => showSecurity(show, signal);

  /** Ask for the password, and do something with it. */
  const prove = (title, action, work) => show(title, showForm(title, "Your password shows that it is you.", [
    element("label", { for: "password" }, "Password"),
    element("input", { id: "password", name: "password", type: "password", autocomplete: "current-password", required: true }),
  ], action, ({ password }) => work({ password: password.value })), back());
  const back = () => element("p", { class: "sign-in second" }, button("Back", again));

  const showCodes = (codes) => (codes.length
    ? show("Recovery codes", element("section", { class: "sign-in" },
      element("h1", {}, "Recovery codes"),
      element("p", {}, "Each code stands in for your second factor once. Keep them where you keep passwords: they are not shown again."),
      element("ul", { class: "codes" }, codes.map((code) => element("li", {}, element("code", {}, code)))),
      button("I have kept them", again, { class: "primary" })))
    : again());

  const addApp = () => prove("Add an authenticator app", "Continue", async (proof) => {
    const { secret, qr_code } = await api.post(`${FACTORS}/totp`, proof);
    show("Add an authenticator app", showForm("Add an authenticator app", "Scan the code with the app, or type the secret into it. Then enter the code that the app shows.", [
      element("img", { class: "qr", src: qr_code, alt: "QR code with the secret below" }),
      element("p", {}, "Secret: ", element("code", { id: "secret" }, secret)),
      ...otpField("Code of the app"),
    ], "Add the app", async ({ otp }) => showCodes((await api.post(`${FACTORS}/totp/confirm`, { otp: otp.value })).recovery_codes)), back());
  });
  const addPasskey = () => prove("Add a passkey", "Continue", async (proof) => {
    const { options } = await api.post(`${FACTORS}/passkeys/options`, proof);
    show("Add a passkey", showForm("Add a passkey", "Your browser asks where to keep it.", [
      element("label", { for: "name" }, "Name, by which you recognize it"),
      element("input", { id: "name", name: "name", maxlength: 100, required: true }),
    ], "Add the passkey", async ({ name }) => {
      const body = { name: name.value.trim(), credential: await createPasskey(options) };
      await showCodes((await api.post(`${FACTORS}/passkeys`, body)).recovery_codes);
    }), back());
  });
  const replaceCodes = () => prove("Replace the recovery codes", "Make new codes", async (proof) => showCodes((await api.post(`${FACTORS}/recovery-codes`, proof)).recovery_codes));
  const remove = (factor) => prove(`Remove: ${DESCRIPTIONS[factor.type]?.(factor) || factor.type}`, "Remove", async (proof) => {
    await api.post(`${FACTORS}/${factor.id}/remove`, proof);
    await again();
  });

  const hasFactor = factors.some(({ type }) => type !== "recovery_codes");
  // Recovery codes alone are no second factor.
  const shown = hasFactor ? factors : [];
  show("Security",
    element("div", { class: "head" },
      element("p", { class: "crumbs" }, element("a", { href: "#/shootings" }, "Shootings")),
      element("h1", {}, "Security"),
      note && element("p", {}, note),
      element("p", {}, hasFactor ? "A sign-in needs your password and one of these." : "A sign-in needs your password only. Add a second factor to protect your account.")),
    element("ul", { class: "factors" }, shown.map((factor) => element("li", {},
      element("span", {}, DESCRIPTIONS[factor.type]?.(factor) || factor.type),
      element("span", { class: "hint" }, factor.last_used_at ? `last used ${when(factor.last_used_at)}` : `added ${when(factor.created_at)}`),
      button("Remove", () => remove(factor), { "aria-label": `Remove: ${DESCRIPTIONS[factor.type]?.(factor) || factor.type}` })))),
    element("p", { class: "tools" },
      button(factors.some(({ type }) => type === "totp") ? "Replace the authenticator app" : "Add an authenticator app", addApp, { class: "primary" }),
      hasPasskeys() ? button("Add a passkey", addPasskey) : null,
      hasFactor ? button("Replace the recovery codes", replaceCodes) : null),
    ...identities);
}
