/* <atelier-objects>: meshes side by side under one camera: turn one, and all turn.
 *
 * Its <figure> children (data-model: the address of a GLB file; perhaps an <img> as poster; a <figcaption>) stay where
 * they are; without scripts the posters are what there is. three.js is fetched only when such an element is on a page.
 * Drag turns, with Shift or the right button it moves; Ctrl + wheel or two fingers zoom.
 * Keys: arrows turn, + and - zoom, 0 resets, T turns by itself, 1 to 4 choose what is drawn.
 */
import { button, controls, fullScreenButton, iconButton, layOut, make } from "./parts.js";

const SHEET = new CSSStyleSheet();
SHEET.replaceSync(`
  .wall { display: grid; gap: .9rem .8rem; align-items: start; border-radius: .6rem; }
  ::slotted(figure) { margin: 0 !important; min-width: 0; }
  .looks { display: inline-flex; flex-wrap: wrap; gap: .25rem; }
  .stand { font-variant-numeric: tabular-nums; color: var(--quiet, #5c6369); }
`);
const AGAIN = "M2.2 7a4.8 4.8 0 1 0 1.5-3.5M3.6 1v3h3", TURN = "M1.5 7c0 2 2.5 3.2 5.5 3.2s5.5-1.2 5.5-3.2S10 3.8 7 3.8M8.8 1.6L6.6 3.8l2.2 2.2";
const LOOKS = ["Colours", "Shape", "Normals", "Wireframe"];
const LEAST_WIDTH = 240;  // px of a column
const TALLEST = 0.62;  // of the window's height
const STEP = 10;  // degrees a key press

class Objects extends HTMLElement {
  connectedCallback() {
    if (!this.shadowRoot) this.build();
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this);
    this.seen = new IntersectionObserver(([entry]) => this.show(entry.isIntersecting), { rootMargin: "300px" });
    this.seen.observe(this);
  }

  disconnectedCallback() {
    this.observer.disconnect();
    this.seen.disconnect();
    this.stage?.close();
    this.stage = this.opening = undefined;
  }

  build() {
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = [controls, SHEET];
    this.figures = [...this.querySelectorAll("figure")].map((figure) => {
      const canvas = make("canvas", { role: "img", "aria-label": `${figure.dataset.label}, a mesh` });
      Object.assign(canvas.style, { display: "none", width: "100%", borderRadius: ".6rem", cursor: "grab",
        background: "var(--sunken, #efede7)" });
      const note = make("p", { className: "quiet", textContent: "Loading." });
      note.dataset.part = "facts";
      figure.prepend(canvas);
      figure.querySelector("figcaption").append(note);
      return { figure, canvas, note, poster: figure.querySelector("img") };
    });
    this.wall = make("div", { className: "wall", tabIndex: 0, role: "group", "aria-label":
      "Meshes side by side. Arrows turn them, plus and minus zoom, 0 resets." }, [make("slot")]);
    this.shadowRoot.append(this.toolbar(), this.wall);
    this.addEventListener("keydown", (event) => this.key(event));
  }

  toolbar() {
    this.looks = LOOKS.map((look) => {
      const made = button(look, look, () => this.setLook(look));
      made.setAttribute("aria-pressed", String(look === LOOKS[0]));
      return made;
    });
    this.turning = iconButton(TURN, "Turn by itself", () => this.setTurning(!this.stage.turning));
    this.turning.setAttribute("aria-pressed", "false");
    this.stand = make("span", { className: "stand" });
    this.bar = make("div", { className: "bar", role: "toolbar", "aria-label": "View" }, [
      make("span", { className: "looks" }, this.looks), make("span", { className: "space" }), this.stand, this.turning,
      button("−", "Zoom out", () => this.stage.zoom(1 / 1.25)), button("+", "Zoom in", () => this.stage.zoom(1.25)),
      iconButton(AGAIN, "Reset the view", () => this.stage.home()), ...fullScreenButton(this)]);
    this.bar.inert = true;
    return this.bar;
  }

  /* The library and the files are fetched when the element comes near the window. */
  show(visible) {
    if (visible) this.opening ??= this.open();
    if (!this.stage) return;
    this.stage.visible = visible;
    if (visible) this.stage.redraw();
  }

  async open() {
    try {
      const { Stage } = await import("./stage.js");
      if (!this.isConnected) return;
      this.stage = new Stage(this.figures.map(({ canvas }) => canvas), () => this.told());
    } catch {
      for (const { note } of this.figures) note.textContent = "This browser cannot draw meshes. Download the file below.";
      return;
    }
    await Promise.all(this.figures.map((item, index) => this.load(item, index)));
    this.bar.inert = false;
    this.dataset.ready = "";
  }

  async load({ figure, canvas, note, poster }, index) {
    try {
      const facts = await this.stage.load(index, figure.dataset.model);
      if (!facts) return;
      const texture = facts.texture ? `, texture ${facts.texture} px` : "";
      note.textContent = `${facts.triangles.toLocaleString("en")} triangles${texture}.`;
    } catch {
      note.textContent = "This mesh cannot be shown. Download the file below.";
      return;
    }
    if (poster) poster.hidden = true;
    canvas.style.display = "block";
    this.fit();
  }

  fit() {
    if (!this.clientWidth) return;
    layOut(this, this.wall, this.figures.map(({ figure }) => figure), LEAST_WIDTH);
    for (const { figure, canvas } of this.figures) {
      canvas.style.height = `${Math.min(figure.clientWidth, window.innerHeight * TALLEST)}px`;
    }
    this.stage?.redraw();
  }

  told() {
    const [azimuth, height, distance] = this.stage.stand.map((number, place) => number.toFixed(place === 2 ? 2 : 0));
    Object.assign(this.dataset, { azimuth, height, distance });
    this.stand.textContent = `${azimuth}° around, ${height}° up`;
  }

  setLook(look) {
    this.stage.setLook(look);
    for (const each of this.looks) each.setAttribute("aria-pressed", String(each.textContent === look));
  }

  setTurning(on) {
    this.stage.setTurning(on);
    this.turning.setAttribute("aria-pressed", String(on));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.bar.inert) return;
    const act = {
      ArrowLeft: () => this.stage.turn(-STEP, 0), ArrowRight: () => this.stage.turn(STEP, 0),
      ArrowUp: () => this.stage.turn(0, STEP), ArrowDown: () => this.stage.turn(0, -STEP),
      "+": () => this.stage.zoom(1.25), "=": () => this.stage.zoom(1.25), "-": () => this.stage.zoom(1 / 1.25),
      0: () => this.stage.home(), t: () => this.setTurning(!this.stage.turning),
      1: () => this.setLook(LOOKS[0]), 2: () => this.setLook(LOOKS[1]), 3: () => this.setLook(LOOKS[2]),
      4: () => this.setLook(LOOKS[3]),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

if (!customElements.get("atelier-objects")) customElements.define("atelier-objects", Objects);
