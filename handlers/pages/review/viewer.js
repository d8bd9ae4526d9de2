// One shot: its predictions side by side, a comparison with the photo, comments, and the decision.

import * as api from "./api.js";
import { apiImage, ask, button, chip, describeDecision, describeRemark, element, say } from "./dom.js";

let current = null;
const photos = new Map();

/** The width at which a prediction is seen whole. */
const fitted = ({ width, height }) => `min(100%, ${(80 * width) / height}vh)`;

/** Show a shot of a shooting. */
export async function showViewer(shooting, shot, show, report) {
  current?.abort();
  const own = new AbortController();
  current = own;
  const keys = own.signal;
  const shots = [...shooting.shots.values()];
  const place = shots.indexOf(shot);
  const predictions = shooting.of(shot);
  let chosen = Math.max(predictions.indexOf(shooting.pick(shot)), 0);
  const link = (other) => `#/shootings/${shooting.row.id}/shots/${other.id}`;
  const wall = element("ul", { class: "wall" });
  const stage = element("section", { class: "stage", "aria-label": "Comparison with the photo" });
  const notes = element("section", { class: "comments", "aria-label": "Comments" });
  const status = element("span", {});
  const remark = element("div", {});

  const choose = (index) => {
    chosen = (index + predictions.length) % predictions.length;
    [...wall.children].forEach((item, number) => item.classList.toggle("chosen", number === chosen));
    wall.children[chosen]?.querySelector("button").setAttribute("aria-pressed", "true");
    [...wall.children].forEach((item, number) => item.querySelector("button").setAttribute("aria-pressed", number === chosen));
    // On a phone the row is wider than the screen.
    const [row, item] = [wall, wall.children[chosen]].map((one) => one.getBoundingClientRect());
    wall.scrollLeft += item.left - row.left - (row.width - item.width) / 2;
    drawStage().catch(report);
    drawComments().catch(report);
  };

  const drawWall = () => {
    status.replaceChildren(chip(shot.status));
    remark.replaceChildren(...[describeRemark(shot)].filter(Boolean));
    wall.replaceChildren(...predictions.map((prediction, index) => element("li", { "data-prediction": prediction.id },
      element("button", { type: "button", class: "frame", "aria-pressed": false, "aria-label": `Choose prediction ${index + 1}`, onclick: () => choose(index) },
        apiImage(prediction.image_url, `Prediction ${index + 1} of ${shot.title}`, 960, keys)),
      element("p", {}, `${index + 1}`, chip(prediction.status),
        element("span", { class: "quality" }, `quality ${Math.round((prediction.quality?.score ?? 0) * 100)} %`)),
      describeReview(prediction),
      prediction.warnings?.length ? element("p", { class: "warnings" }, prediction.warnings.join(", ").replaceAll("_", " ")) : null)));
  };

  function describeReview(prediction) {
    const decision = describeDecision(prediction);
    if (!decision) return [];
    const { status, review } = prediction;
    return [
      element("p", { class: `decision ${status}` }, decision),
      review.note ? element("p", { class: "reason" }, review.note) : null,
    ];
  }

  async function drawStage() {
    const prediction = predictions[chosen];
    if (!prediction) return;
    const photo = shot.product_id ? await findPhoto(shot.product_id) : null;
    const front = apiImage(prediction.image_url, `Prediction ${chosen + 1}, full size`, null, keys, { class: "front" });
    const pins = element("div", { class: "pins", onclick: (event) => placeComment(event, prediction) });
    const box = element("div", { class: "compare" }, photo ? apiImage(photo, "Photo of the product", null, keys, { class: "back" }) : null, front, pins);
    // The box has exactly the shape of the image, so that the place of a comment is a share of the image.
    box.style.setProperty("aspect-ratio", `${prediction.width} / ${prediction.height}`);
    box.style.setProperty("width", fitted(prediction));
    const slider = element("input", { type: "range", min: 0, max: 100, value: 100, "aria-label": "Share of the prediction that covers the photo" });
    slider.addEventListener("input", () => front.style.setProperty("clip-path", `inset(0 ${100 - slider.value}% 0 0)`));
    const zoom = button("Zoom to 100 % (z)", () => toggleZoom(), { "aria-pressed": false });
    stage.replaceChildren(element("p", { class: "tools" }, photo ? element("label", {}, "Photo ", slider, " prediction") : null, zoom),
      element("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Prediction and photo" }, box));
  }

  function toggleZoom() {
    const box = stage.querySelector(".compare");
    const prediction = predictions[chosen];
    if (!box) return;
    const isLarge = box.classList.toggle("large");
    box.style.setProperty("width", isLarge ? `${prediction.width}px` : fitted(prediction));
    stage.querySelector("button").setAttribute("aria-pressed", isLarge);
  }

  async function findPhoto(productId) {
    if (!photos.has(productId)) {
      // A guest may see the photos of a product and nothing else of it.
      const images = api.guest() ? (await api.page(`/products/${productId}/images`, { sort: "created_at" })).data : null;
      const product = images ? { images } : await api.get(`/products/${productId}`).catch(() => null);
      photos.set(productId, product && (product.images[0]?.url || product.cover_image));
    }
    return photos.get(productId);
  }

  async function drawComments() {
    const prediction = predictions[chosen];
    if (!prediction) return;
    const rows = [];
    for await (const row of api.rows(`/predictions/${prediction.id}/comments`, { sort: "created_at" })) rows.push(row);
    const user = await api.getUserId();
    if (keys.aborted || prediction !== predictions[chosen]) return;
    const field = element("textarea", { id: "comment", rows: 2, maxlength: 2000, required: true });
    const send = async (event) => {
      event.preventDefault();
      await addComment(prediction, field.value.trim(), null);
    };
    notes.replaceChildren(element("h2", {}, `Comments on prediction ${chosen + 1}`),
      element("ol", {}, rows.map((row, index) => describeComment(row, index, user))),
      element("form", { onsubmit: (event) => send(event).catch(report) },
        element("label", { for: "comment" }, "New comment (click on the image to comment on a place)"), field,
        element("button", { type: "submit" }, "Comment")));
    const pins = stage.querySelector(".pins");
    pins?.replaceChildren(...rows.flatMap((row, index) => {
      if (!row.position) return [];
      const pin = element("span", { class: "pin", "aria-hidden": true }, `${index + 1}`);
      pin.style.setProperty("left", `${row.position.x * 100}%`);
      pin.style.setProperty("top", `${row.position.y * 100}%`);
      return [pin];
    }));
  }

  function describeComment(row, index, user) {
    const path = `/predictions/${row.prediction_id}/comments/${row.id}`;
    const change = async () => {
      const text = await ask("Change the comment", "Comment", "Save", row.text);
      if (!text) return;
      await api.patch(path, { text });
      await drawComments();
    };
    const drop = async () => {
      await api.remove(path);
      await drawComments();
    };
    return element("li", {},
      element("p", { class: "by" }, `${index + 1}. ${row.author_name}, ${new Date(row.created_at).toLocaleString()}`),
      element("p", { class: "text" }, row.text),
      isOwn(row, user) ? element("p", { class: "actions" }, button("Change", () => change().catch(report)), button("Delete", () => drop().catch(report))) : null);
  }

  const isOwn = (row, user) => (user ? row.author_id === user : row.review_link_id === api.guest()?.link);

  async function addComment(prediction, text, position) {
    if (!text) return;
    await api.post(`/predictions/${prediction.id}/comments`, position ? { text, position } : { text });
    say("The comment was added.");
    await drawComments();
  }

  async function placeComment(event, prediction) {
    const box = event.currentTarget.getBoundingClientRect();
    const position = { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
    const text = await ask("Comment on this place", "Comment", "Comment");
    await addComment(prediction, text, position).catch(report);
  }

  const decide = async (action) => {
    const prediction = predictions[chosen];
    if (!prediction) return;
    const reason = action === "reject" ? await ask(`Reject prediction ${chosen + 1}`, "Reason", "Reject") : undefined;
    if (reason === null) return;
    const { done, problems } = await shooting.review(action, [prediction], reason);
    const verb = { approve: "approved", reject: "rejected", reopen: "reopened" }[action];
    say(done ? `Prediction ${chosen + 1} was ${verb}.` : problems.join(" "), !done);
    predictions.splice(0, predictions.length, ...shooting.of(shot));
    drawWall();
    choose(chosen);
  };

  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input:not([type=range]), textarea, select, dialog");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const onSlider = event.target.matches("[type=range]");
    const neighbor = { ArrowRight: shots[place + 1], ArrowLeft: shots[place - 1] }[event.key];
    if (neighbor && !onSlider) window.location.hash = link(neighbor);
    else if ((event.key === "ArrowUp" || event.key === "ArrowDown") && !onSlider && predictions.length) {
      choose(chosen + (event.key === "ArrowUp" ? -1 : 1));
      event.preventDefault();
    } else if (event.key === "a" && !event.repeat) decide("approve").catch(report);
    else if (event.key === "r" && !event.repeat) {
      // Otherwise the letter is typed into the field of the dialog.
      event.preventDefault();
      decide("reject").catch(report);
    }
    else if (event.key === "z") toggleZoom();
    else if (event.key === "Escape") window.location.hash = `#/shootings/${shooting.row.id}`;
  }, { signal: keys });
  window.addEventListener("hashchange", () => own.abort(), { once: true });

  show(shot.title,
    element("div", { class: "head" },
      element("p", { class: "crumbs" }, element("a", { href: `#/shootings/${shooting.row.id}` }, shooting.row.name)),
      element("h1", {}, shot.title, " ", status),
      remark,
      element("div", { class: "tools" },
        button("Approve (a)", () => decide("approve").catch(report), { class: "primary" }),
        button("Reject (r)", () => decide("reject").catch(report)),
        button("Reopen", () => decide("reopen").catch(report)),
        shots[place - 1] ? element("a", { href: link(shots[place - 1]), rel: "prev" }, "Previous shot") : null,
        shots[place + 1] ? element("a", { href: link(shots[place + 1]), rel: "next" }, "Next shot") : null,
        element("span", { class: "hint" }, `${place + 1} of ${shots.length}`))),
    wall, element("div", { class: "desk" }, stage, notes));
  drawWall();
  if (predictions.length) choose(chosen);
  else stage.append(element("p", { class: "empty" }, "This shot has no predictions yet."));
}
