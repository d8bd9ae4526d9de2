// A shooting with its shots and predictions, and the decisions about them. It knows the API, not the page.

import * as api from "./api.js";

const TERMINAL = ["completed", "failed", "canceled", "expired"];
const MAX_STREAMS = 4;
const MAX_BATCH = 500;
const POLL_SECONDS = 10;

export class Shooting {
  constructor(row, signal) {
    this.row = row;
    this.signal = signal;
    this.shots = new Map();
    this.predictions = new Map();
    this.onChange = () => {};
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
      this.shots.set(shot.id, shot);
      yield shot;
    }
  }

  #add(prediction) {
    if (!prediction.shot_id) return;
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
    await this.refresh([...new Set(predictions.map((prediction) => prediction.shot_id))]);
    return { done, problems };
  }

  /** Read shots and their predictions again. */
  async refresh(shotIds) {
    await Promise.all(shotIds.map(async (shotId) => {
      const known = this.shots.get(shotId);
      Object.assign(known, await api.get(`/shots/${shotId}`), { title: known.title, progress: null });
      const parameters = { shot_id: shotId, organization_id: this.row.organization_id, sort: "created_at" };
      for await (const prediction of api.rows("/predictions/", parameters)) this.#add(prediction);
      this.onChange(known);
    }));
  }

  /** Follow the generations that run or start, a few at a time, and update their shots until the view ends. */
  async follow() {
    const parameters = { shooting_id: this.row.id, organization_id: this.row.organization_id, status: "generating" };
    const followed = new Set();
    while (!this.signal.aborted) {
      const { data } = await api.page("/shots/", parameters);
      const started = data.filter(({ id, generation_id }) => this.shots.has(id) && generation_id && !followed.has(generation_id));
      for (const { id, status, generation_id } of started) {
        followed.add(generation_id);
        Object.assign(this.shots.get(id), { status, generation_id });
      }
      const next = async () => {
        for (let row = started.shift(); row && !this.signal.aborted; row = started.shift()) await this.#followOne(this.shots.get(row.id));
      };
      await Promise.all(Array.from({ length: MAX_STREAMS }, next));
      await new Promise((resolve) => setTimeout(resolve, POLL_SECONDS * 1000));
    }
  }

  async #followOne(shot) {
    for await (const event of api.generationEvents(shot.generation_id, this.signal)) {
      shot.progress = event.status === "running" ? `${event.progress} %` : event.status;
      if (TERMINAL.includes(event.status)) break;
      this.onChange(shot);
    }
    await this.refresh([shot.id]);
  }
}
