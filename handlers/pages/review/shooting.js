// A shooting with its shots and predictions, and the decisions about them. It knows the API, not the page.

import * as api from "./api.js";

const TERMINAL = ["completed", "failed", "canceled", "expired"];
const MAX_STREAMS = 4;
const MAX_BATCH = 500;
const POLL_SECONDS = 10;
const MIN_BACKOFF_SECONDS = 2;
const MAX_BACKOFF_SECONDS = 60;
// A list of what changed can miss a row that is committed after the read, so each read goes back further.
const OVERLAP_SECONDS = 120;

export class Shooting {
  constructor(row, signal) {
    this.row = row;
    this.signal = signal;
    this.shots = new Map();
    this.predictions = new Map();
    this.newest = 0; // when the newest known change was made, by the clock of the server
    this.onChange = () => {};
    this.onConnection = () => {}; // called with true when the connection is lost, and with false when it works
  }

  /** Load all shots with their predictions; yields each shot when it is complete. */
  async *load() {
    const parameters = { shooting_id: this.row.id, organization_id: this.row.organization_id };
    for await (const prediction of api.rows("/predictions/", { ...parameters, sort: "created_at" })) this.#add(prediction);
    const names = new Map();
    for await (const look of api.rows(`/shootings/${this.row.id}/looks`, {})) names.set(look.id, look.main_product_id);
    for await (const shot of api.rows("/shots/", { ...parameters, sort: "created_at" })) {
      shot.product_id = names.get(shot.look_id);
      shot.title = [shot.product?.name, shot.shot_type].filter(Boolean).join(", ");
      this.#note(shot);
      this.shots.set(shot.id, shot);
      yield shot;
    }
  }

  #note({ updated_at }) {
    this.newest = Math.max(this.newest, Date.parse(updated_at));
  }

  #add(prediction) {
    if (!prediction.shot_id) return;
    this.#note(prediction);
    const own = this.predictions.get(prediction.shot_id) || [];
    const place = own.findIndex(({ id }) => id === prediction.id);
    if (place < 0) own.push(prediction);
    else own[place] = prediction;
    this.predictions.set(prediction.shot_id, own);
  }

  of(shot) {
    return this.predictions.get(shot.id) || [];
  }

  /** The prediction that a decision about a shot is about: the approved one, else the best in review. */
  pick(shot) {
    const own = this.of(shot);
    const score = ({ quality }) => quality?.score ?? 0;
    const inReview = own.filter(({ status }) => status === "pending_review").sort((a, b) => score(b) - score(a));
    return own.find(({ id }) => id === shot.approved_prediction_id) || inReview[0] || own[0] || null;
  }

  /** The prediction that was decided last, of those whose decision holds. Null if all are in review. */
  lastDecided(shot) {
    const decided = this.of(shot).filter(({ status, review }) => review && status !== "pending_review");
    return decided.sort((a, b) => Date.parse(b.review.at) - Date.parse(a.review.at))[0] || null;
  }

  /** Approve, reject or reopen predictions. Returns how many succeeded, and the problems of the others. */
  async review(action, predictions, reason) {
    let done = 0;
    const problems = [];
    for (let start = 0; start < predictions.length; start += MAX_BATCH) {
      const part = predictions.slice(start, start + MAX_BATCH);
      const items = part.map(({ id }) => (action === "reject" ? { action, id, body: { reason } } : { action, id }));
      const organization = this.row.organization_id ? `?organization_id=${this.row.organization_id}` : "";
      const answer = await api.post(`/predictions/batch${organization}`, { items }, { "Idempotency-Key": crypto.randomUUID() });
      done += answer.accepted_count;
      problems.push(...answer.results.filter(({ problem }) => problem).map(({ problem }) => problem.detail));
    }
    await this.readChanges();
    return { done, problems };
  }

  /** Read the shots and predictions that changed since the last read, and show them. It takes two lists for all shots. */
  async readChanges() {
    const since = new Date(this.newest - OVERLAP_SECONDS * 1000).toISOString();
    const parameters = { shooting_id: this.row.id, organization_id: this.row.organization_id, updated_after: since };
    const changed = new Set();
    for await (const prediction of api.rows("/predictions/", parameters)) {
      const known = (this.predictions.get(prediction.shot_id) || []).find(({ id }) => id === prediction.id);
      if (known?.updated_at === prediction.updated_at) continue;
      this.#add(prediction);
      changed.add(prediction.shot_id);
    }
    for await (const shot of api.rows("/shots/", parameters)) {
      const known = this.shots.get(shot.id);
      if (!known || known.updated_at === shot.updated_at) continue;
      this.#note(Object.assign(known, shot, { product_id: known.product_id, title: known.title, progress: null }));
      changed.add(shot.id);
    }
    for (const id of changed) if (this.shots.has(id)) this.onChange(this.shots.get(id));
  }

  /**
   * Show changes of others and the progress of generations, a few at a time, until the view ends.
   *
   * A lost connection does not end it: it tries again, with growing pauses, and at once when the browser is online again.
   */
  async follow() {
    const followed = new Set();
    const waiting = [];
    let streams = 0;
    let failure = null;
    let backoff = MIN_BACKOFF_SECONDS;
    const next = async () => {
      if (streams >= MAX_STREAMS || waiting.length === 0 || this.signal.aborted) return;
      streams += 1;
      const shot = waiting.shift();
      try {
        await this.#followOne(shot);
      } catch (error) {
        if (error.isTransient) followed.delete(shot.generation_id);
        else failure ??= error;
      }
      streams -= 1;
      next();
    };
    while (!this.signal.aborted) {
      if (failure) throw failure;
      try {
        await this.readChanges();
        this.onConnection(false);
        backoff = MIN_BACKOFF_SECONDS;
      } catch (error) {
        if (!error.isTransient) throw error;
        if (!this.signal.aborted) this.onConnection(true);
        // A random part, so that the pages of all reviewers do not return to a restarted server together.
        await api.pause(backoff * (1 + Math.random() / 2), this.signal);
        backoff = Math.min(backoff * 2, MAX_BACKOFF_SECONDS);
        continue;
      }
      for (const shot of this.shots.values()) {
        // A guest may not read generations: their predictions appear with the next changes.
        if (api.guest() || shot.status !== "generating" || followed.has(shot.generation_id)) continue;
        followed.add(shot.generation_id);
        waiting.push(shot);
        next();
      }
      await api.pause(POLL_SECONDS, this.signal);
    }
  }

  async #followOne(shot) {
    for await (const event of api.generationEvents(shot.generation_id, this.signal)) {
      shot.progress = event.status === "running" ? `${event.progress} %` : event.status;
      if (TERMINAL.includes(event.status)) break;
      this.onChange(shot);
    }
    await this.readChanges();
  }
}
