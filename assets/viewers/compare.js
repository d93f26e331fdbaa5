/* <atelier-compare>: pictures at full resolution behind one another, with a divider, zoom and pan.
 *
 * Its <figure> children (an <img>, a <figcaption>, data-label) are what it shows; without scripts they stand side by
 * side as they are. The pictures are the stored files themselves: nothing is scaled on the server or drawn to a canvas.
 * Mouse: drag to move the divider (or the picture when zoomed in), Ctrl + wheel or pinch to zoom, double click for 1:1.
 * Keys: divider with Left/Right/Home/End; on the picture + - 0 (fit) 1 (one pixel to one) and arrows to move.
 */

import { button, clamp, controls, fullScreenButton, keepPixels, layOut, make } from "./parts.js";

const SHEET = new CSSStyleSheet();
SHEET.replaceSync(`
  .zoom { min-width: 3.6em; text-align: center; font-variant-numeric: tabular-nums; color: var(--quiet, #5c6369); }
  .stage {
    position: relative; overflow: hidden; width: 100%; margin: 0 auto; border-radius: .6rem; user-select: none;
    background: var(--sunken, #eceae4); touch-action: pan-y; cursor: ew-resize; contain: strict;
  }
  .stage.zoomed { touch-action: none; cursor: grab; }
  .stage.held { cursor: grabbing; }
  .stage.single { cursor: default; }
  .layer { position: absolute; inset: 0; overflow: hidden; }
  .layer img { position: absolute; left: 0; top: 0; transform-origin: 0 0; max-width: none; display: block; }
  .layer img.pixels { image-rendering: pixelated; }
  .divider {
    position: absolute; top: 0; bottom: 0; width: 44px; margin-left: -22px; cursor: ew-resize; touch-action: none;
    display: grid; place-items: center;
  }
  .divider::before { content: ""; position: absolute; top: 0; bottom: 0; width: 2px; background: #fff;
    box-shadow: 0 0 0 1px rgb(0 0 0 / .45); }
  .knob { position: relative; width: 34px; height: 34px; border-radius: 50%; background: #fff; color: #1c2024;
    box-shadow: 0 1px 4px rgb(0 0 0 / .5); display: grid; place-items: center; font-size: 15px; }
  .tag { position: absolute; bottom: .5rem; max-width: 46%; padding: .15rem .55rem; border-radius: 1rem; color: #fff;
    background: rgb(16 20 24 / .72); font-size: .8rem; pointer-events: none; overflow: hidden;
    text-overflow: ellipsis; white-space: nowrap; }
  .tag.left { left: .5rem; } .tag.right { right: .5rem; }
  .broken { padding: 1rem; }
  .grid { display: grid; gap: .5rem; margin-top: .8rem; }
  .thumb { display: grid; gap: .2rem; padding: .3rem; text-align: left; font-size: .82rem; align-content: start; min-width: 0; }
  .thumb img { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: .3rem; display: block; }
`);

const MOST_ZOOM = 32;
const LEAST_WIDTH = 110;  // px of a picture in the grid

class Compare extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    this.pictures = [...this.querySelectorAll("figure")].map((figure) => ({
      url: figure.querySelector("img").src,
      alt: figure.querySelector("img").alt,
      label: figure.dataset.label,
      role: figure.dataset.role,
      group: figure.dataset.group || figure.dataset.seed,  // those that are compared with one another
    }));
    if (!this.pictures.length) return;
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = [controls, SHEET];
    this.split = 0.5;
    this.fitted = true;
    this.pointers = new Map();
    this.shown = [];  // the left and the right picture
    this.build();
    const last = this.pictures.length - 1;
    const method = this.pictures.findIndex((picture) => picture.role === "method");
    const baseline = this.pictures.findIndex((picture) => picture.role === "baseline");
    this.show(0, Math.max(0, baseline));
    this.show(1, method < 0 ? last : method);
    this.observer = new ResizeObserver(() => {
      if (this.fitted) this.fit();
      else this.place();
      if (this.wall) layOut(this, this.wall, this.thumbs, LEAST_WIDTH);
    });
    this.observer.observe(this.stage);
  }

  disconnectedCallback() { this.observer?.disconnect(); }

  build() {
    const pair = this.pictures.length > 1;
    this.images = [0, 1].map(() => make("img", { draggable: false, decoding: "async" }));
    this.layers = this.images.map((image) => make("div", { className: "layer" }, [image]));
    this.tags = ["left", "right"].map((side) => make("span", { className: `tag ${side}`, hidden: !pair }));
    this.divider = make("div", {
      className: "divider", role: "slider", tabIndex: 0, hidden: !pair, "aria-label": "Divider between the pictures",
      "aria-orientation": "horizontal", "aria-valuemin": "0", "aria-valuemax": "100",
    }, [make("span", { className: "knob", textContent: "⇆", "aria-hidden": "true" })]);
    this.stage = make("div", {
      className: pair ? "stage" : "stage single", tabIndex: 0, role: "group",
      "aria-label": "Pictures at full resolution. Plus and minus zoom, 0 fits, 1 shows every pixel, arrows move.",
    }, [...this.layers, ...this.tags, this.divider]);
    this.layers[1].hidden = !pair;
    this.zoomed = make("span", { className: "zoom", role: "status" });
    this.shadowRoot.append(this.toolbar(), this.stage, ...this.grid());
    for (const image of this.images) {
      image.addEventListener("load", () => this.sized());
      image.addEventListener("error", () => this.stage.replaceChildren(
        make("p", { className: "broken", textContent: "The picture could not be loaded. Reload the page." })));
    }
    this.listen();
  }

  toolbar() {
    const bar = make("div", { className: "bar" });
    if (this.pictures.length > 2) {
      this.choices = ["Left picture", "Right picture"].map((label, side) => make("select", {
        "aria-label": label, onchange: (event) => this.show(side, event.target.selectedIndex),
      }, this.pictures.map((picture) => make("option", { textContent: picture.label }))));
      bar.append(this.choices[0], this.choices[1]);
    }
    bar.append(make("span", { className: "space" }), this.zoomed,
      button("−", "Zoom out", () => this.zoom(1 / 1.5)), button("+", "Zoom in", () => this.zoom(1.5)),
      button("Fit", "Fit the picture", () => this.fit()),
      button("1:1", "One picture element to one of the screen", () => this.exact()),
      ...fullScreenButton(this));
    return bar;
  }

  /* Every picture of a job with several seeds, or photos, small, a row for each; a click shows it beside its baseline. */
  grid() {
    if (new Set(this.pictures.map((picture) => picture.group)).size < 2) return [];
    this.thumbs = this.pictures.map((picture, index) => {
      const image = make("img", { src: picture.url, alt: "", loading: "lazy", decoding: "async" });
      const thumb = make("button", { type: "button", className: "thumb", onclick: () => this.choose(index) },
        [image, make("span", { textContent: picture.label })]);
      image.addEventListener("load", () => keepPixels(image, image.clientWidth / image.naturalWidth));
      thumb.dataset.group = picture.group;
      return thumb;
    });
    this.wall = make("div", { className: "grid", role: "group", "aria-label": "All pictures" }, this.thumbs);
    return [this.wall];
  }

  /* One picture on the right beside the baseline of its group; a baseline on the left beside the method of its group. */
  choose(index) {
    const { pictures } = this, wanted = pictures[index] ?? pictures.at(-1);
    const mates = pictures.filter((each) => each !== wanted && (each.group === wanted.group || !each.group));
    const mate = (role) => mates.find((each) => each.role === role);
    const left = wanted.role === "baseline" ? wanted : mate("baseline") ?? mates[0] ?? pictures[0];
    const right = left !== wanted ? wanted : mate("method") ?? mates.at(-1) ?? wanted;
    this.show(0, pictures.indexOf(left));
    this.show(1, pictures.indexOf(right));
  }

  show(side, index) {
    const picture = this.pictures[index];
    this.images[side].src = picture.url;
    this.images[side].alt = picture.alt;
    this.tags[side].textContent = picture.label;
    this.shown[side] = index;
    if (this.choices) this.choices[side].selectedIndex = index;
    this.thumbs?.forEach((thumb, at) => thumb.setAttribute("aria-pressed", String(this.shown.includes(at))));
  }

  get size() { return [this.images[0].naturalWidth || 1, this.images[0].naturalHeight || 1]; }

  sized() {
    const [width, height] = this.size;
    this.stage.style.aspectRatio = `${width} / ${height}`;
    this.stage.style.maxWidth = `calc(82vh * ${width / height})`;
    for (const image of this.images) {  // a picture of another size is laid over the first one's frame
      image.style.width = `${width}px`;
      image.style.height = `${height}px`;
    }
    this.fit();
  }

  fit() {
    const [width, height] = this.size;
    this.scale = Math.min(this.stage.clientWidth / width, this.stage.clientHeight / height) || 1;
    this.x = this.y = 0;
    this.fitted = true;
    this.place();
  }

  exact() {
    this.zoom(1 / (window.devicePixelRatio || 1) / this.scale);
  }

  zoom(factor, atX = this.stage.clientWidth / 2, atY = this.stage.clientHeight / 2) {
    const [width, height] = this.size;
    const least = Math.min(this.stage.clientWidth / width, this.stage.clientHeight / height, 1);
    const scale = clamp(this.scale * factor, least, MOST_ZOOM);
    this.x = atX - (atX - this.x) * (scale / this.scale);
    this.y = atY - (atY - this.y) * (scale / this.scale);
    this.scale = scale;
    this.fitted = false;
    this.place();
  }

  move(dx, dy) { this.x += dx; this.y += dy; this.place(); }

  place() {
    const [width, height] = this.size;
    const inside = (offset, picture, room) => picture <= room ? (room - picture) / 2 : clamp(offset, room - picture, 0);
    this.x = inside(this.x, width * this.scale, this.stage.clientWidth);
    this.y = inside(this.y, height * this.scale, this.stage.clientHeight);
    for (const image of this.images) {
      image.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
      image.classList.toggle("pixels", this.scale * (window.devicePixelRatio || 1) >= 2);
    }
    const room = width * this.scale > this.stage.clientWidth + 1 || height * this.scale > this.stage.clientHeight + 1;
    this.stage.classList.toggle("zoomed", room);
    this.zoomed.textContent = `${Math.round(this.scale * (window.devicePixelRatio || 1) * 100)} %`;
    this.part(this.split);
  }

  part(split) {
    this.split = clamp(split, 0, 1);
    const share = Math.round(this.split * 100);
    this.divider.style.left = `${this.split * 100}%`;
    this.layers[1].style.clipPath = `inset(0 0 0 ${this.split * 100}%)`;
    this.divider.setAttribute("aria-valuenow", String(share));
    this.divider.setAttribute("aria-valuetext",
      `${share} % ${this.tags[0].textContent}, ${100 - share} % ${this.tags[1].textContent}`);
  }

  listen() {
    this.stage.addEventListener("pointerdown", (event) => this.down(event));
    this.stage.addEventListener("pointermove", (event) => this.moved(event));
    for (const end of ["pointerup", "pointercancel"]) this.stage.addEventListener(end, (event) => this.up(event));
    this.stage.addEventListener("dblclick", () => (this.fitted ? this.exact() : this.fit()));
    this.stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey && document.fullscreenElement !== this) return;  // the page scrolls
      event.preventDefault();
      const box = this.stage.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    this.stage.addEventListener("keydown", (event) => this.key(event));
  }

  down(event) {
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    const divides = this.pictures.length > 1 &&
      (event.composedPath().includes(this.divider) || !this.stage.classList.contains("zoomed"));
    this.action = divides ? "part" : "move";
    this.stage.classList.toggle("held", this.action === "move");
    if (this.action === "part" && event.pointerType === "mouse") this.partAt(event.clientX);
  }

  partAt(clientX) {
    const box = this.stage.getBoundingClientRect();
    this.part((clientX - box.left) / box.width);
  }

  moved(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    if (this.pointers.size === 2) {
      const [, other] = [...this.pointers].find(([id]) => id !== event.pointerId);
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      const box = this.stage.getBoundingClientRect();
      this.zoom(apart(now) / apart(before), (now[0] + other[0]) / 2 - box.left, (now[1] + other[1]) / 2 - box.top);
    } else if (this.action === "part") {
      this.partAt(event.clientX);
    } else {
      this.move(now[0] - before[0], now[1] - before[1]);
    }
    this.pointers.set(event.pointerId, now);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    this.stage.classList.remove("held");
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 0.1 : 0.01;
    const divider = {
      ArrowLeft: () => this.part(this.split - step), ArrowRight: () => this.part(this.split + step),
      Home: () => this.part(0), End: () => this.part(1),
    };
    const picture = {
      "+": () => this.zoom(1.25), "=": () => this.zoom(1.25), "-": () => this.zoom(0.8),
      0: () => this.fit(), 1: () => this.exact(),
      ArrowLeft: () => this.move(40, 0), ArrowRight: () => this.move(-40, 0),
      ArrowUp: () => this.move(0, 40), ArrowDown: () => this.move(0, -40),
    };
    const onDivider = event.composedPath().includes(this.divider);
    const act = (onDivider && divider[event.key]) || picture[event.key];
    const scrolls = event.key.startsWith("Arrow") && !onDivider && !this.stage.classList.contains("zoomed");
    if (!act || scrolls) return;  // an arrow with nothing to move scrolls the page
    event.preventDefault();
    act();
  }
}

if (!customElements.get("atelier-compare")) customElements.define("atelier-compare", Compare);
