// The pages that e-mails lead to: accept an invitation, set a new password, confirm an address, cancel a deletion.
// The token stands in the fragment, leaves the address bar at once, and works once.

import { call } from "./api.js";
import { element, say } from "./dom.js";

const ENDED = "The link has expired or was used before.";
const password = (label) => [
  element("label", { for: "password" }, label),
  element("input", { id: "password", name: "password", type: "password", autocomplete: "new-password", minlength: 8, maxlength: 128, required: true }),
  element("p", { class: "hint" }, "At least 8 characters."),
];

/**
 * Show a form that calls one operation.
 * `fields` are its elements, `submit` gets its controls and calls the operation, `done` is told and led on to afterwards.
 */
function showForm(show, { title, text, fields = [], action, submit, done, ended = ENDED }) {
  const onsubmit = async (event) => {
    event.preventDefault();
    const { target, submitter } = event;
    submitter.disabled = true;
    say("");
    try {
      const next = await submit(target.elements);
      if (next) next();
      else showDone(show, title, done);
    } catch (error) {
      if (error.status === 401) showDone(show, title, `${ended} Request a new e-mail.`);
      else say(error.message, true);
    } finally {
      submitter.disabled = false;
    }
  };
  show(title, element("form", { class: "sign-in", onsubmit },
    element("h1", {}, title), text && element("p", {}, text), fields,
    element("button", { type: "submit", class: "primary" }, action)));
}

function showDone(show, title, text) {
  show(title, element("section", { class: "sign-in" }, element("h1", {}, title), element("p", {}, text),
    element("p", {}, element("a", { href: "/review" }, "Sign in"))));
}

function showInvitation(show, token) {
  const accept = (more = {}) => call("POST", "/invitations/accept", { token, ...more });
  const newAccount = {
    title: "Create your account",
    text: "This address has no account yet. Choose a password for it.",
    fields: [
      element("label", { for: "name" }, "Your name"),
      element("input", { id: "name", name: "name", autocomplete: "name", maxlength: 200, required: true }),
      ...password("Password"),
    ],
    action: "Create the account",
    submit: async ({ name, password: { value } }) => { await accept({ full_name: name.value.trim(), password: value }); },
    done: "Your account is ready, and you are a member of the organization.",
  };
  showForm(show, {
    title: "Accept the invitation",
    text: "You become a member of the organization that is named in the e-mail.",
    action: "Accept",
    submit: async () => {
      try {
        await accept();
        return null;
      } catch (error) {
        if (error.code !== "password_required") throw error;
        return () => showForm(show, newAccount);
      }
    },
    done: "You are a member of the organization.",
    ended: "The invitation has expired or was used before.",
  });
}

const PAGES = {
  "invitation": showInvitation,
  "reset-password": (show, token) => showForm(show, {
    title: "Set a new password",
    fields: password("New password"),
    action: "Set the password",
    submit: async ({ password: { value } }) => { await call("POST", "/reset-password/", { token, new_password: value }); },
    done: "Your password is changed. All sessions have ended.",
  }),
  "confirm-email": (show, token) => showForm(show, {
    title: "Confirm your address",
    action: "Confirm",
    submit: async () => { await call("POST", "/email-change/confirm", { token }); },
    done: "Your account uses the new address from now on.",
  }),
  "cancel-deletion": (show, token) => showForm(show, {
    title: "Keep your account",
    text: "Your account is scheduled for deletion.",
    action: "Cancel the deletion",
    submit: async () => { await call("POST", "/account-deletion/cancel", { token }); },
    done: "The deletion is canceled.",
  }),
};

/** Ask for the address of an account that gets an e-mail with a link. */
function showForgotPassword(show) {
  showForm(show, {
    title: "Forgot your password?",
    text: "You get an e-mail with a link that sets a new one.",
    fields: [
      element("label", { for: "email" }, "E-mail address"),
      element("input", { id: "email", name: "email", type: "email", autocomplete: "username", required: true }),
    ],
    action: "Send the e-mail",
    submit: async ({ email }) => { await call("POST", `/password-recovery/${encodeURIComponent(email.value.trim())}`); },
    done: "If the address has an account, an e-mail with a link is on its way. The link works for an hour.",
  });
}

/** Show the page that the fragment of the address names, and return whether there is one. No session is needed. */
export function showAccountPage(show) {
  const { hash, pathname } = window.location;
  if (hash === "#/forgot-password") {
    showForgotPassword(show);
    return true;
  }
  const [, name, token] = hash.match(/^#\/([a-z-]+)\/(.*)$/) || [];
  if (!Object.hasOwn(PAGES, name || "")) return false;
  // The token must not stay in the address bar, where it is copied and remembered.
  window.history.replaceState(null, "", pathname);
  if (/^[\w-]{20,}$/.test(token)) PAGES[name](show, token);
  else showDone(show, "The link is incomplete", "Copy the whole link of the e-mail, or request a new e-mail.");
  return true;
}
