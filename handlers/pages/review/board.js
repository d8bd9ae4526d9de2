// The review board: sign-in, shootings of an organization, and the contact sheet of a shooting.

import { showAccountPage } from "./account.js";
import * as api from "./api.js";
import { showCompanyPage } from "./company.js";
import { apiImage, ask, button, chip, describeDecision, describeRemark, element, forgetMessage, say, showConnection } from "./dom.js";
import { showChallenge, showSecurity } from "./security.js";
import { Shooting } from "./shooting.js";
import { showUsage } from "./usage.js";
import { showViewer } from "./viewer.js";

const ORGANIZATION = "sartiq-review-organization";
const RETRY_SECONDS = 5;
const main = document.querySelector("main");
const account = document.querySelector("#account");
let view = new AbortController();
let shooting = null;

/** Replace the content of the page and end what the last view was doing. */
function show(title, ...children) {
  showConnection(false);
  document.title = `${title} – Sartiq review`;
  main.replaceChildren(...children.flat());
  main.focus({ preventScroll: true });
}

function report(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401) {
    const wasGuest = api.guest();
    api.forget();
    if (wasGuest) showEndOfLink();
    else showSignIn("Your session has ended. Sign in again.");
  } else say(error.message, true);
}

function showSignIn(note) {
  account.replaceChildren();
  const submit = async (event) => {
    event.preventDefault();
    const { email, password } = event.target.elements;
    const send = event.submitter;
    send.disabled = true;
    say("Signing in");
    try {
      await api.signIn(email.value, password.value);
      say("");
      await route();
    } catch (error) {
      if (error.code === "second_factor_required") {
        say("");
        showChallenge(show, error, route, showSignIn);
      } else say(error.status === 0 ? error.message : "The e-mail address or the password is wrong.", true);
    } finally {
      send.disabled = false;
    }
  };
  show("Sign in", element("form", { class: "sign-in", onsubmit: submit },
    element("h1", {}, "Review"),
    note && element("p", {}, note),
    element("label", { for: "email" }, "E-mail address"),
    element("input", { id: "email", name: "email", type: "email", autocomplete: "username", required: true }),
    element("label", { for: "password" }, "Password"),
    element("input", { id: "password", name: "password", type: "password", autocomplete: "current-password", required: true }),
    element("button", { type: "submit", class: "primary" }, "Sign in"),
    element("p", {}, element("a", { href: "#/company" }, "Sign in with your company account")),
    element("p", {}, element("a", { href: "#/forgot-password" }, "Forgot your password?"))));
}

function showNote(title, text) {
  view.abort();
  account.replaceChildren();
  say("");
  show(title, element("section", { class: "sign-in" }, element("h1", {}, title), element("p", {}, text)));
}

const showEndOfLink = () => showNote("This review link has ended",
  "It has expired or was revoked. Ask the person who sent it for a new one.");

/** Ask a guest for a name before the link is exchanged: programs that preview links do not enter. */
function showEntrance(token) {
  const submit = async (event) => {
    event.preventDefault();
    try {
      window.location.hash = `#/shootings/${await api.enterAsGuest(token, event.target.elements.guest.value.trim())}`;
    } catch (error) {
      if (error.status === 401) showEndOfLink();
      else say(error.message, true);
    }
  };
  show("Review", element("form", { class: "sign-in", onsubmit: submit },
    element("h1", {}, "Review"),
    element("p", {}, "You are invited to review images, to comment on them and to approve or reject them."),
    element("label", { for: "guest" }, "Your name, for your comments"),
    element("input", { id: "guest", name: "guest", autocomplete: "name", maxlength: 100 }),
    element("button", { type: "submit", class: "primary" }, "Start the review")));
}

function showAccount(name) {
  const leave = async () => {
    const guest = api.guest();
    view.abort();
    await api.signOut().catch(() => {});
    window.location.hash = "";
    if (guest) showNote("You have left the review", "Open the link again to return.");
    else showSignIn();
  };
  // What a session of a company may do is managed by the company.
  const hasSecurity = !api.guest() && !api.isCompanySession();
  const security = hasSecurity ? element("a", { href: "#/security" }, "Security") : null;
  account.replaceChildren(...[name, security].filter(Boolean), button(api.guest() ? "Leave" : "Sign out", leave));
}

async function showShootings(signal) {
  const organizations = [];
  for await (const row of api.rows("/organizations/", { sort: "name" })) organizations.push(row);
  if (signal.aborted) return;
  const known = sessionStorage.getItem(ORGANIZATION);
  const chosen = organizations.some(({ id }) => id === known) || known === "" ? known : organizations[0]?.id || "";
  const choose = (event) => {
    sessionStorage.setItem(ORGANIZATION, event.target.value);
    route();
  };
  const options = [...organizations, ...(api.isCompanySession() ? [] : [{ id: "", name: "Personal" }])]
    .map(({ id, name }) => element("option", { value: id, selected: id === chosen }, name));
  const list = element("ul", { class: "shootings" });
  const search = element("input", { id: "search", type: "search", placeholder: "Name of a shooting" });
  let timer;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => fill(search.value.trim()).catch(report), 200);
  });
  show("Shootings",
    element("div", { class: "head" },
      element("h1", {}, "Shootings"),
      element("p", { class: "filters" },
        element("label", { for: "organization" }, "Organization"),
        element("select", { id: "organization", onchange: choose }, options),
        element("label", { for: "search" }, "Search"), search,
        chosen ? element("a", { href: `#/usage/${chosen}` }, "Usage") : null)),
    list);
  const fill = async (text, cursor = null) => {
    const parameters = { organization_id: chosen, q: text, archived: false, cursor };
    let found;
    try {
      found = await api.page("/shootings/", parameters, 50);
    } catch (error) {
      if (error.code !== "second_factor_enrollment_required") throw error;
      const add = element("a", { href: "#/security" }, "Add a second factor");
      return list.replaceChildren(element("li", { class: "empty" }, "This organization requires a second factor for sign-ins. ", add));
    }
    const { data, next_cursor } = found;
    if (signal.aborted || text !== search.value.trim()) return;
    list.querySelector(".more")?.remove();
    if (!cursor) list.replaceChildren();
    list.append(...data.map(describeShooting));
    if (next_cursor) {
      const more = () => fill(text, next_cursor).catch(report);
      list.append(element("li", { class: "more" }, button("Show more", more)));
    }
    if (!list.children.length) list.append(element("li", { class: "empty" }, "No shooting."));
  };
  await fill("");
}

function describeShooting({ id, name, due_date, phase, shots_count, shots_approved_count }) {
  const due = new Date(due_date).toLocaleDateString(undefined, { dateStyle: "medium" });
  return element("li", {}, element("a", { href: `#/shootings/${id}` },
    element("strong", {}, name),
    element("span", {}, `${phase.toLowerCase().replaceAll("_", " ")}, due ${due}`),
    element("progress", { max: Math.max(shots_count, 1), value: shots_approved_count, "aria-label": "Approved shots" }),
    element("span", {}, `${shots_approved_count} of ${shots_count} shots approved`)));
}

async function showShooting(id, signal) {
  shooting = new Shooting(await api.get(`/shootings/${id}`), signal);
  const sheet = element("ul", { class: "sheet", "aria-label": "Shots" });
  const cards = new Map();
  const selected = new Set();
  const count = element("output", {}, "No shot selected");
  const chooseAll = element("input", { id: "all", type: "checkbox" });
  const filter = element("select", { id: "shown" },
    element("option", { value: "" }, "All shots"),
    ["pending_review", "approved", "rejected", "generating", "pending"]
      .map((status) => element("option", { value: status }, chip(status).textContent)));

  const isShown = (shot) => !filter.value || shot.status === filter.value;
  const updateSelection = () => {
    for (const [shotId, card] of cards) card.querySelector("input").checked = selected.has(shotId);
    count.textContent = selected.size === 0 ? "No shot selected" : `${selected.size} selected`;
    approve.disabled = reject.disabled = selected.size === 0;
    const candidates = selectable();
    chooseAll.checked = candidates.length > 0 && candidates.every((shot) => selected.has(shot.id));
  };
  const selectable = () => [...shooting.shots.values()].filter((shot) => isShown(shot) && shooting.pick(shot));
  /** Hide or show a card. A hidden shot is not selected: a decision is only about what the reviewer sees. */
  const applyFilter = (shotId) => {
    const card = cards.get(shotId);
    card.hidden = !isShown(shooting.shots.get(shotId));
    return card.hidden && selected.delete(shotId);
  };
  const draw = (shot) => {
    const card = describeShot(shot);
    cards.get(shot.id)?.replaceWith(card);
    cards.set(shot.id, card);
    if (applyFilter(shot.id)) updateSelection();
    return card;
  };
  const toggle = (shotId, on) => {
    if (on) selected.add(shotId);
    else selected.delete(shotId);
    updateSelection();
  };

  function describeShot(shot) {
    const pick = shooting.pick(shot);
    const box = element("input", { type: "checkbox", "aria-label": `Select ${shot.title}`, onchange: (event) => toggle(shot.id, event.target.checked) });
    box.checked = selected.has(shot.id);
    const image = pick ? apiImage(pick.image_url, shot.title, 480, signal) : element("div", { class: "blank" }, shot.progress ?? "");
    return element("li", { class: "card", "data-shot": shot.id },
      element("a", { href: `#/shootings/${id}/shots/${shot.id}`, "aria-label": `Review ${shot.title}` }, image),
      element("p", {}, box, element("span", { class: "title" }, shot.title), chip(shot.status)),
      describeLastDecision(shot));
  }

  function describeLastDecision(shot) {
    const prediction = shooting.lastDecided(shot);
    if (!prediction) return describeRemark(shot);
    const { status, review } = prediction;
    const verb = status === "rejected" ? "rejected" : "approved";
    // The card may show another one.
    const subject = `Prediction ${shooting.of(shot).indexOf(prediction) + 1} ${verb}`;
    const text = [review.by_name ? `${subject} by ${review.by_name}` : subject, review.note].filter(Boolean).join(": ");
    return element("p", { class: `decision ${status}`, title: describeDecision(prediction) }, text);
  }

  const decide = async (action, asked, reason) => {
    // While a reason is written, another reviewer may have decided about some: the filter then hides them.
    const shotIds = asked.filter((shotId) => !cards.get(shotId).hidden);
    const picks = shotIds.map((shotId) => shooting.pick(shooting.shots.get(shotId))).filter(Boolean);
    const { done, problems } = await shooting.review(action, picks, reason);
    for (const shotId of shotIds) draw(shooting.shots.get(shotId));
    selected.clear();
    updateSelection();
    const verb = { approve: "approved", reject: "rejected", reopen: "reopened" }[action];
    const failures = problems.length ? ` ${problems.length} not: ${[...new Set(problems)].slice(0, 3).join(" ")}` : "";
    say(`${done} ${done === 1 ? "prediction" : "predictions"} ${verb}.${failures}`, problems.length > 0);
  };
  const rejectMany = async (shotIds) => {
    const reason = await ask(`Reject ${shotIds.length} ${shotIds.length === 1 ? "prediction" : "predictions"}`, "Reason", "Reject");
    if (reason) await decide("reject", shotIds, reason);
  };
  const approve = button("Approve selected", () => decide("approve", [...selected]).catch(report), { class: "primary" });
  const reject = button("Reject selected", () => rejectMany([...selected]).catch(report));
  chooseAll.addEventListener("change", () => {
    selected.clear();
    if (chooseAll.checked) for (const shot of selectable()) selected.add(shot.id);
    updateSelection();
  });
  filter.addEventListener("change", () => {
    for (const shotId of cards.keys()) applyFilter(shotId);
    updateSelection();
  });

  // The arrows move between the cards as they are on the screen.
  sheet.addEventListener("keydown", (event) => {
    const card = event.target.closest(".card");
    if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
    const visible = [...sheet.children].filter((one) => !one.hidden);
    const columns = visible.findIndex((one) => one.offsetTop > visible[0].offsetTop);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns < 1 ? 1 : columns, ArrowUp: columns < 1 ? -1 : -columns }[event.key];
    if (step) {
      visible[visible.indexOf(card) + step]?.querySelector("a").focus();
      event.preventDefault();
    } else if (event.key === "x") toggle(card.dataset.shot, !selected.has(card.dataset.shot));
  });
  // a and r decide about the selected shots, or about the card in focus if none is selected.
  document.addEventListener("keydown", (event) => {
    const work = { a: (shotIds) => decide("approve", shotIds), r: rejectMany }[event.key];
    const isTyping = event.target.closest("input:not([type=checkbox]), textarea, select, dialog");
    if (!work || isTyping || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const focused = event.target.closest(".card")?.dataset.shot;
    const shotIds = selected.size ? [...selected] : [focused].filter(Boolean);
    if (!shotIds.length) return;
    // Otherwise the letter is typed into the field of the dialog.
    event.preventDefault();
    work(shotIds).then(() => focusCard(focused)).catch(report);
  }, { signal });
  // The first arrow goes to the first card on the screen.
  document.addEventListener("keydown", (event) => {
    const isElsewhere = event.target.closest("a, button, input, select, textarea, dialog");
    if (!event.key.startsWith("Arrow") || isElsewhere || event.ctrlKey || event.metaKey || event.altKey) return;
    const first = [...sheet.children].find((card) => !card.hidden && card.getBoundingClientRect().bottom > 0);
    if (!first?.dataset.shot) return;
    first.querySelector("a").focus();
    event.preventDefault();
  }, { signal });
  const focusCard = (shotId) => cards.get(shotId)?.querySelector("a").focus();

  show(shooting.row.name,
    element("div", { class: "head" },
      element("p", { class: "crumbs" }, api.guest() ? null : element("a", { href: "#/shootings" }, "Shootings")),
      element("h1", {}, shooting.row.name),
      element("div", { class: "tools" },
        element("label", { for: "all" }, chooseAll, " All"), approve, reject, count,
        element("label", { for: "shown" }, "Show"), filter),
      element("p", { class: "hint" }, "Keys: arrows move, Enter opens, x selects, a approves and r rejects the selected shots, or the shot in focus.")),
    sheet);
  updateSelection();
  shooting.onChange = draw;
  shooting.onConnection = showConnection;
  for await (const shot of shooting.load()) {
    if (signal.aborted) return;
    sheet.append(draw(shot));
  }
  if (!sheet.children.length) sheet.append(element("li", { class: "empty" }, "This shooting has no shots."));
  const last = sessionStorage.getItem("sartiq-review-shot");
  focusCard(last);
  await shooting.follow();
}

async function route() {
  view.abort();
  view = new AbortController();
  const { signal } = view;
  forgetMessage();
  const token = window.location.hash.match(/^#([\w-]{20,})$/)?.[1];
  if (token) {
    // The token must not stay in the address bar, where it is copied and remembered.
    window.history.replaceState(null, "", window.location.pathname);
    api.forget();
    account.replaceChildren();
    showEntrance(token);
    return;
  }
  if (showAccountPage(show) || showCompanyPage(show)) {
    account.replaceChildren();
    return;
  }
  try {
    if (!api.isSignedIn()) return showSignIn();
    const guest = api.guest();
    showAccount(guest && element("span", {}, guest.name));
    const [, asked, shotId] = window.location.hash.match(/^#\/shootings\/([0-9a-f-]{36})(?:\/shots\/([0-9a-f-]{36}))?$/) || [];
    const usageId = guest ? null : window.location.hash.match(/^#\/usage\/([0-9a-f-]{36})$/)?.[1];
    // A guest has one shooting, whatever the address says.
    const shootingId = guest ? guest.shooting : asked;
    if (shotId && asked === shootingId) {
      sessionStorage.setItem("sartiq-review-shot", shotId);
      if (shooting?.row.id !== shootingId || !shooting.shots.has(shotId)) {
        shooting = new Shooting(await api.get(`/shootings/${shootingId}`), signal);
        for await (const shot of shooting.load()) if (signal.aborted) return shot;
      }
      shooting.signal = signal;
      await showViewer(shooting, shooting.shots.get(shotId), show, report);
    } else if (!guest && window.location.hash === "#/security") await showSecurity(show, signal);
    else if (usageId) await showUsage(await api.get(`/organizations/${usageId}`), show, signal);
    else if (shootingId) await showShooting(shootingId, signal);
    else await showShootings(signal);
  } catch (error) {
    if (error.code === "second_factor_enrollment_required") return showSecurity(show, signal, "The organization requires a second factor for sign-ins.").catch(report);
    if (error.status !== 0 || signal.aborted) return report(error);
    // The view is loaded as soon as the server can be reached.
    showConnection(true);
    await api.pause(RETRY_SECONDS, signal);
    if (!signal.aborted) await route();
  }
}

window.addEventListener("hashchange", route);
route();
