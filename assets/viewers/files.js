/* <atelier-files field="field-images" accept="image/*,.zip" multiple>: a place to drop files, which are uploaded at
 * once and shown with what became of each. What is kept stands as JSON, a list of {sha256, name}, in the text field of
 * the form that `field` names; `show` is called when somebody else changes that field.
 */
import { houseStyle } from "./house.js";

const AT_ONCE = 3;
const SHEET = new CSSStyleSheet();
SHEET.replaceSync(`
  :host { display: block; color: var(--ink, #1c2024); }
  .label { font-weight: 600; margin: 0 0 .1rem; } .info { color: var(--quiet, #5c6369); font-size: .9rem; margin: 0 0 .5rem; }
  .drop { display: block; border: 2px dashed var(--line, #d8d5cc); border-radius: .7rem; padding: 1.1rem .8rem; text-align: center;
    background: var(--sunken, #eceae4); cursor: pointer; }
  .drop.over, .drop:hover { border-color: var(--accent, #1f6f6b); }
  .drop:focus-within { outline: 3px solid var(--focus, #2b7fff); outline-offset: 2px; }
  input { position: absolute; width: 1px; height: 1px; opacity: 0; }
  ul { list-style: none; margin: .6rem 0 0; padding: 0; display: grid; gap: .35rem; max-height: 22rem; overflow: auto; }
  li { display: grid; grid-template-columns: 2.6rem 1fr auto; gap: .6rem; align-items: center; }
  .thumb { width: 2.6rem; height: 2.6rem; border-radius: .35rem; object-fit: cover; background: var(--sunken, #eceae4); }
  .name { overflow-wrap: anywhere; font-size: .92rem; } .state { color: var(--quiet, #5c6369); font-size: .85rem; display: block; }
  li.bad .state { color: var(--bad, #a3261b); }
  button { font: inherit; color: inherit; background: var(--raised, #fff); border: 1px solid var(--line, #d8d5cc); border-radius: .45rem;
    min-width: 2.2rem; min-height: 2.2rem; cursor: pointer; }
  button:hover { border-color: var(--accent, #1f6f6b); }
  :focus-visible { outline: 3px solid var(--focus, #2b7fff); outline-offset: 2px; }
  .all { display: flex; justify-content: space-between; align-items: center; margin-top: .4rem; font-size: .9rem; }
  .try { display: flex; flex-wrap: wrap; gap: .4rem; align-items: center; margin-top: .5rem; font-size: .9rem; }
  .try button { padding: .2rem .8rem; border-radius: 1rem; }
  [hidden] { display: none !important; }
`);

function make(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

class Files extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    this.items = [];  // {name, sha256?, file?, state}
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [houseStyle, SHEET];
    this.input = make("input", { type: "file", multiple: this.many, accept: this.getAttribute("accept") ?? "" });
    this.input.setAttribute("aria-label", this.getAttribute("label"));
    const words = this.many ? "Drop files here, or choose some" : "Drop a file here, or choose one";
    this.drop = make("label", { className: "drop" }, [this.input, words]);
    this.list = make("ul");
    this.told = make("span", { role: "status" });
    this.clear = make("button", { type: "button", textContent: "Remove all" });
    this.all = make("div", { className: "all", hidden: true }, [this.told, this.clear]);
    const label = make("p", { className: "label", textContent: this.getAttribute("label") });
    const info = make("p", { className: "info", textContent: this.getAttribute("info") });
    root.append(label, info, this.drop, this.list, this.all, ...this.examples());
    this.input.addEventListener("change", () => { this.add([...this.input.files]); this.input.value = ""; });
    this.clear.addEventListener("click", () => { this.items = []; this.tell(); this.input.focus(); });
    for (const kind of ["dragenter", "dragover"]) this.drop.addEventListener(kind, (event) => this.over(event, true));
    this.drop.addEventListener("dragleave", (event) => this.over(event, false));
    this.drop.addEventListener("drop", (event) => { this.over(event, false); this.add([...event.dataTransfer.files]); });
    this.show(this.field?.value ?? "");
  }

  /* Buttons with files of the house, fetched and uploaded like any others. */
  examples() {
    const known = Object.entries(JSON.parse(this.getAttribute("examples") ?? "{}"));
    if (!known.length) return [];
    const buttons = known.map(([word, addresses]) => {
      const button = make("button", { type: "button", textContent: word });
      button.addEventListener("click", () => this.fetchAll(addresses));
      return button;
    });
    return [make("div", { className: "try" }, [make("span", { textContent: "Or try:" }), ...buttons])];
  }

  async fetchAll(addresses) {
    const files = addresses.map(async (address) => {
      const answer = await fetch(address);
      return new File([await answer.blob()], address.split("/").at(-1));
    });
    try {
      this.items = [];
      this.add(await Promise.all(files));
    } catch {
      this.told.textContent = "The example could not be fetched. Check the connection and try again.";
      this.all.hidden = false;
    }
  }

  get many() { return this.hasAttribute("multiple"); }

  get field() { return document.querySelector(`#${this.getAttribute("field")} textarea, #${this.getAttribute("field")} input`); }

  over(event, now) {
    event.preventDefault();
    this.drop.classList.toggle("over", now);
  }

  /* What the form holds, when it was filled by something else than this element. */
  show(text) {
    if (text === this.said) return;
    let kept = [];
    try { kept = [JSON.parse(text || "[]")].flat(); } catch { /* not ours: as good as nothing */ }
    this.items = kept.filter((item) => item?.sha256).map((item) => ({ ...item, state: "kept" }));
    this.said = text;
    this.draw();
  }

  add(files) {
    if (!this.many) { files = files.slice(0, 1); this.items = []; }
    this.items.push(...files.map((file) => ({ name: file.name, file, state: "waiting" })));
    this.draw();
    for (let line = 0; line < AT_ONCE; line += 1) this.work();
  }

  async work() {
    const item = this.items.find((each) => each.state === "waiting");
    if (!item) return;
    item.state = "sending";
    this.draw();
    try {
      await this.send(item);
    } catch {
      Object.assign(item, { state: "bad", why: "The connection was lost." });
    }
    this.tell();
    this.work();
  }

  async send(item) {
    const answer = await fetch(`/api/uploads?name=${encodeURIComponent(item.name.slice(-200))}`, { method: "POST", body: item.file });
    const told = await answer.json();
    if (answer.status === 429) {  // too many at once: the server says when
      item.why = "Waiting for a moment, as there are many files.";
      this.draw();
      await new Promise((done) => setTimeout(done, 1000 * Number(/(\d+) s/.exec(told.error.remedy)?.[1] ?? 5)));
      if (this.items.includes(item)) item.state = "waiting";
      return;
    }
    if (answer.ok) Object.assign(item, { sha256: told.sha256, state: "kept", picture: told.width != null });
    else Object.assign(item, { state: "bad", why: `${told.error.message} ${told.error.remedy}` });
  }

  /* Writes what is kept into the form, as if it had been typed. */
  tell() {
    this.draw();
    const kept = this.items.filter((item) => item.state === "kept").map(({ sha256, name }) => ({ sha256, name }));
    const value = this.many ? kept : kept[0];
    this.said = kept.length ? JSON.stringify(value) : "";
    const field = this.field;
    if (!field || field.value === this.said) return;
    field.value = this.said;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  draw() {
    this.list.replaceChildren(...this.items.map((item) => this.row(item)));
    const count = (state) => this.items.filter((item) => item.state === state).length;
    const coming = count("waiting") + count("sending");
    this.told.textContent = `${count("kept")} ready${coming ? `, ${coming} on the way` : ""}${count("bad") ? `, ${count("bad")} refused` : ""}`;
    this.all.hidden = this.items.length < 2;
  }

  row(item) {
    const shown = { waiting: "waiting", sending: "on its way", kept: "ready", bad: item.why }[item.state];
    const thumb = item.sha256 && !item.name.toLowerCase().endsWith(".zip")
      ? make("img", { className: "thumb", alt: "", loading: "lazy", src: `/files/${item.sha256}` })
      : make("span", { className: "thumb" });
    const remove = make("button", { type: "button", textContent: "×", title: "Remove" });
    remove.setAttribute("aria-label", `Remove ${item.name}`);
    remove.addEventListener("click", () => { this.items = this.items.filter((each) => each !== item); this.tell(); this.input.focus(); });
    const words = make("span", { className: "name", textContent: item.name }, []);
    words.append(make("span", { className: "state", textContent: item.why && item.state === "waiting" ? item.why : shown }));
    return make("li", { className: item.state }, [thumb, words, remove]);
  }
}

customElements.define("atelier-files", Files);
