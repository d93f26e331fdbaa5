/* A job that keeps itself up to date: it asks for the job's state, moves the bar, and fetches the piece of HTML again
 * when more than the progress has changed. `JobView` works on HTML that is already there (the result page);
 * <atelier-job job="..."> shows a job inside a tab, in a shadow root, so that the tab's framework leaves it alone.
 */
import "./compare.js";
import "./objects.js";
import "./players.js";
import { act, houseStyle, keepFocus } from "./house.js";

const PAUSE_MS = { running: 600, queued: 1200, paused: 3000 };
const RETRY_MS = 3000;

export class JobView {
  constructor(root, follow = () => {}) {
    this.root = root;  // the element or shadow root that holds the piece of HTML
    this.follow = follow;  // called with the id of a job that took this one's place
    this.tenth = -1;
    this.stopped = false;
    this.wake = () => document.hidden || this.tick();
  }

  start() {
    act(this.root, (then, answer) => (then === "follow" ? this.follow(answer.id) : this.refresh()));
    document.addEventListener("visibilitychange", this.wake);
    if (this.article) this.plan();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    document.removeEventListener("visibilitychange", this.wake);
  }

  get article() { return this.root.querySelector("[data-job]"); }

  part(name) { return this.root.querySelector(`[data-part="${name}"]`); }

  async load(address) {
    const answer = await fetch(address, { headers: { accept: "text/html" } });
    if (!answer.ok) return this.lost(answer);
    const html = await answer.text();
    if (this.stopped) return;
    keepFocus(this.root, () => {
      const piece = document.createElement("template");
      piece.innerHTML = html;
      (this.root.querySelector("[data-hold]") ?? this.root).replaceChildren(piece.content);
    });
    this.plan();
  }

  refresh() { return this.load(this.article.dataset.panel); }

  plan(pause) {
    clearTimeout(this.timer);
    pause ??= PAUSE_MS[this.article?.dataset.state];
    if (pause && !this.stopped) this.timer = setTimeout(() => document.hidden || this.tick(), pause);
  }

  async tick() {
    const article = this.article;
    if (!article || !PAUSE_MS[article.dataset.state]) return;
    clearTimeout(this.timer);
    try {
      const answer = await fetch(article.dataset.source, { headers: { accept: "application/json" } });
      if (!answer.ok) return this.lost(answer);
      const view = await answer.json();
      if (this.stopped) return;
      if (view.version !== article.dataset.version) return this.refresh();
      this.update(view);
      this.plan();
    } catch {
      this.say("The connection was lost; trying again.");
      this.plan(RETRY_MS);
    }
  }

  update(view) {
    const { fraction, message, eta } = view.progress;
    const bar = this.part("bar");
    if (bar) bar.value = fraction;
    if (view.state === "running" && !view.wish && message) this.say(message);
    const left = this.part("eta");
    if (left) left.textContent = eta == null ? "" : `about ${shownSeconds(eta)} left`;
    const picture = this.part("preview");
    if (picture && view.preview && !picture.src.endsWith(view.preview)) {
      picture.src = view.preview;
      picture.hidden = false;
    }
    const tenth = Math.floor(fraction * 10);
    if (tenth !== this.tenth && this.part("spoken")) {  // spoken at every tenth, not at every step
      this.tenth = tenth;
      this.part("spoken").textContent = `${tenth * 10} percent. ${message}`;
    }
  }

  say(text) {
    const line = this.part("message");
    if (line) line.textContent = text;
  }

  async lost(answer) {
    let sentence = "This job cannot be shown right now. Reload the page to try again.";
    try {
      const { error } = await answer.json();
      sentence = `${error.message} ${error.remedy}`;
    } catch { /* not our envelope: the sentence above stands */ }
    const note = document.createElement("p");
    note.className = "notice notice-error";
    note.setAttribute("role", "alert");
    note.textContent = sentence;
    (this.root.querySelector("[data-hold]") ?? this.root).replaceChildren(note);
  }
}

function shownSeconds(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 3600) return `${Math.round(whole / 60)} min`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

class JobElement extends HTMLElement {
  static observedAttributes = ["job"];

  connectedCallback() {
    if (!this.shadowRoot) {
      this.attachShadow({ mode: "open" });
      this.shadowRoot.adoptedStyleSheets = [houseStyle];
      this.hold = document.createElement("div");
      this.hold.dataset.hold = "";
      this.shadowRoot.append(this.hold);
    }
    this.show(this.getAttribute("job"));
  }

  disconnectedCallback() { this.view?.stop(); }

  attributeChangedCallback(_name, before, now) {
    if (this.shadowRoot && before !== now) this.show(now);
  }

  show(job) {
    this.view?.stop();
    if (!job) {
      const empty = document.createElement("p");
      empty.className = "empty";
      empty.textContent = this.getAttribute("empty") ?? "";
      this.hold.replaceChildren(empty);
      return;
    }
    const address = new URL(location.href);
    for (const done of ["settings", "send", "field", "name"]) address.searchParams.delete(done);
    address.searchParams.set("job", job);
    history.replaceState(history.state, "", address);  // so that a reload, or another tab, comes back to this job
    this.view = new JobView(this.shadowRoot, (next) => this.setAttribute("job", next));
    this.view.start();
    this.view.load(`/api/jobs/${encodeURIComponent(job)}/panel`);
  }
}

if (!customElements.get("atelier-job")) customElements.define("atelier-job", JobElement);
