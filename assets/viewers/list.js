/* <atelier-list source="/api/lists/jobs" searchable>: a list rendered by the server, looked at again while something
 * in it is moving, with an optional search field and choice of method (attribute engines: "name=Title, ...").
 */
import { act, houseStyle, keepFocus } from "./house.js";
import { keepPixels } from "./parts.js";

const LOOK_MS = 1500;
const REST_MS = 10000;
const TYPING_MS = 300;

const shownScale = (media) => media.clientWidth / (media.naturalWidth || media.videoWidth || 1);

class List extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = [houseStyle];
    this.before = null;
    this.pages = document.createElement("div");
    this.pages.setAttribute("aria-live", "off");
    this.shadowRoot.append(...this.search(), this.problem(), this.pages);
    act(this.shadowRoot, () => this.look());
    this.pages.addEventListener("click", (event) => {
      const more = event.target.closest("[data-more]");
      if (more) this.more(more);
    });
    for (const event of ["load", "loadedmetadata"]) {
      this.pages.addEventListener(event, ({ target }) => keepPixels(target, shownScale(target)), true);
    }
    this.wake = () => document.hidden || this.look();
    document.addEventListener("visibilitychange", this.wake);
    this.look();
  }

  disconnectedCallback() {
    clearTimeout(this.timer);
    document.removeEventListener("visibilitychange", this.wake);
  }

  problem() {
    const note = document.createElement("p");
    note.className = "notice notice-error";
    note.setAttribute("role", "alert");
    note.dataset.part = "failure";
    note.hidden = true;
    return note;
  }

  search() {
    if (!this.hasAttribute("searchable")) return [];
    const form = document.createElement("form");
    form.className = "search";
    form.setAttribute("role", "search");
    form.innerHTML = `<label>Search <input type="search" name="q" placeholder="words of the prompt"></label>
      <label>Method <select name="engine"><option value="">all</option></select></label>`;
    for (const pair of (this.getAttribute("engines") ?? "").split(",").filter(Boolean)) {
      const [name, title] = pair.split("=");
      form.engine.append(new Option(title.trim(), name.trim()));
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.look(), TYPING_MS);
    });
    this.form = form;
    return [form];
  }

  address(before) {
    const query = this.form ? new URLSearchParams(new FormData(this.form)) : new URLSearchParams();
    if (before) query.set("before", before);
    return `${this.getAttribute("source")}?${query}`;
  }

  async look() {
    clearTimeout(this.timer);
    const address = this.address();
    try {
      const answer = await fetch(address, { headers: { accept: "text/html" } });
      const html = await answer.text();
      if (answer.ok && address === this.address() && html !== this.shown) {
        this.shown = html;
        keepFocus(this.shadowRoot, () => { this.pages.innerHTML = html; });
      }
    } catch { /* the next look tries again */ }
    const moving = this.pages.querySelector('[data-open="1"]');
    this.timer = setTimeout(() => document.hidden || this.look(), moving ? LOOK_MS : REST_MS);
  }

  async more(button) {
    clearTimeout(this.timer);  // an extended list stands still until it is searched or left
    const answer = await fetch(this.address(button.dataset.more), { headers: { accept: "text/html" } });
    if (!answer.ok) return;
    const piece = document.createElement("template");
    piece.innerHTML = await answer.text();
    button.parentElement.replaceWith(piece.content);
  }
}

if (!customElements.get("atelier-list")) customElements.define("atelier-list", List);
