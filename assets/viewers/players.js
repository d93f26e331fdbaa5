/* <atelier-players>: clips side by side under one scrubber, with frame steps, speed, loop and full screen.
 *
 * Its <figure> children (a <video>, a <figcaption>; data-label, data-fps, data-seed) stay where they are and keep their
 * captions; without scripts each has the browser's own controls. The videos are the stored files themselves.
 * Keys: Space or K plays and pauses, arrows step a frame (with Shift ten), Home and End go to the ends, L loops.
 */
import { Ensemble } from "./ensemble.js";
import { button, controls, drawIcon, fullScreenButton, iconButton, keepPixels, layOut, make } from "./parts.js";

const SHEET = new CSSStyleSheet();
SHEET.replaceSync(`
  .wall { display: grid; gap: .9rem .8rem; align-items: start; border-radius: .6rem; }
  ::slotted(figure) { margin: 0 !important; min-width: 0; }
  .bar { position: sticky; bottom: 0; z-index: 1; margin: .6rem 0 0; padding: .45rem 0; background: var(--paper, #faf9f6); }
  .bar button { min-width: 2.3rem; display: inline-grid; place-items: center; }
  .bar .play { min-width: 3rem; background: var(--accent, #1f6f6b); color: var(--accent-ink, #fff); border-color: transparent; }
  input { flex: 1 1 9rem; min-width: 6rem; accent-color: var(--accent, #1f6f6b); min-height: 2rem; margin: 0; }
  .count { min-width: 7.5em; text-align: right; font-variant-numeric: tabular-nums; color: var(--quiet, #5c6369); }
`);
const PLAY = "M3.5 1.5v11l8.5-5.5z", PAUSE = "M4 1.5v11M10 1.5v11", LOOP = "M2 7a4.5 4.5 0 0 1 8.5-2M12 7a4.5 4.5 0 0 1-8.5 2M10.8 1.8V5H7.6M3.2 12.2V9h3.2";
const BACK = "M11 1.5v11L4 7zM2.5 1.5v11", AHEAD = "M3 1.5v11l7-5.5zM11.5 1.5v11";
const SPEEDS = [0.25, 0.5, 1, 2];
const LEAST_WIDTH = 190;  // px of a column that still shows something
const ONE_ROW = 0.6, MORE_ROWS = 0.34;  // which share of the window's height a row of clips may take

class Players extends HTMLElement {
  connectedCallback() {
    if (!this.shadowRoot) this.build();
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this);
  }

  disconnectedCallback() {
    this.observer.disconnect();
    this.ensemble.halt();
  }

  build() {
    this.figures = [...this.querySelectorAll("figure")].map((figure) => ({
      figure, video: figure.querySelector("video"), note: make("p", { className: "quiet", hidden: true }),
    }));
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = [controls, SHEET];
    this.wall = make("div", { className: "wall", tabIndex: 0, role: "group", "aria-label":
      "Clips side by side. Space plays and pauses, arrows step one frame, Home and End go to the ends." },
    [make("slot")]);
    this.shadowRoot.append(this.wall, this.toolbar());
    for (const { figure, video, note } of this.figures) {
      note.dataset.part = "length";
      figure.querySelector("figcaption").append(note);
      video.controls = false;
      Object.assign(video.style, { display: "block", cursor: "pointer", maxWidth: "100%", borderRadius: ".4rem" });
      video.addEventListener("click", () => this.toggle());
    }
    this.addEventListener("keydown", (event) => this.key(event));
    this.ensemble = new Ensemble(this.figures.map(({ video }) => video),
      this.figures.map(({ figure }) => Number(figure.dataset.fps)), () => this.show());
    this.ensemble.open().then((broken) => this.opened(broken));
  }

  toolbar() {
    this.playing = iconButton(PLAY, "Play", () => this.toggle());
    this.playing.className = "play";
    this.range = make("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": "Frame",
      oninput: () => this.ensemble.seek(Number(this.range.value)) });
    this.count = make("span", { className: "count" });
    this.speed = make("select", { title: "Speed", "aria-label": "Speed",
      onchange: () => this.ensemble.setRate(Number(this.speed.value)) },
    SPEEDS.map((speed) => new Option(`${speed}×`, speed, speed === 1, speed === 1)));
    this.looping = iconButton(LOOP, "Loop", () => this.setLoop(!this.ensemble.loop));
    this.looping.setAttribute("aria-pressed", "true");
    this.bar = make("div", { className: "bar", role: "toolbar", "aria-label": "Playback" }, [
      iconButton(BACK, "One frame back", () => this.step(-1)), this.playing,
      iconButton(AHEAD, "One frame ahead", () => this.step(1)), this.range, this.count, this.speed, this.looping,
      ...fullScreenButton(this)]);
    this.bar.inert = true;  // until the clips are there
    return this.bar;
  }

  opened(broken) {
    for (const { video, note } of this.figures) {
      if (!broken.includes(video)) continue;
      Object.assign(note, { hidden: false, textContent: "This clip cannot be played here. Download it below." });
      video.hidden = true;
    }
    if (!this.ensemble.clips.length) return;
    this.bar.inert = false;
    this.range.max = this.ensemble.frames - 1;
    this.dataset.ready = "";
    this.fit();
    this.show();
  }

  fit() {
    if (!this.ensemble.clips.length || !this.clientWidth) return;
    const whole = document.fullscreenElement === this, density = window.devicePixelRatio || 1;
    const [rows, columns] = layOut(this, this.wall, this.figures.map(({ figure }) => figure), LEAST_WIDTH);
    const share = rows === 1 || columns === 1 ? ONE_ROW : whole ? ONE_ROW / rows : MORE_ROWS;
    for (const { figure, video } of this.figures) {
      const [wide, high] = [video.videoWidth || 1, video.videoHeight || 1];
      let scale = Math.min(figure.clientWidth / wide, window.innerHeight * share / high);
      if (scale * density >= 2) scale = Math.floor(scale * density) / density;  // whole screen pixels: even and crisp
      Object.assign(video.style, { width: `${wide * scale}px`, height: `${high * scale}px` });
      keepPixels(video, scale);
    }
  }

  show() {
    const { ensemble } = this, { frame, frames, fps } = ensemble;
    this.range.value = frame;
    this.range.setAttribute("aria-valuetext", `Frame ${frame + 1} of ${frames}`);
    this.count.textContent = `${frame + 1} / ${frames} · ${(frame / fps).toFixed(2)} s`;
    if (this.dataset.playing !== String(ensemble.playing)) {
      this.dataset.playing = ensemble.playing;
      drawIcon(this.playing, ensemble.playing ? PAUSE : PLAY);
      this.playing.title = this.playing.ariaLabel = ensemble.playing ? "Pause" : "Play";
    }
    for (const clip of ensemble.clips) {
      const { note } = this.figures.find(({ video }) => video === clip.video);
      const told = this.told(clip);
      if (note.textContent !== told) Object.assign(note, { textContent: told, hidden: false });
    }
  }

  /* Size and length of a clip, and whether it is over. */
  told(clip) {
    const { ensemble } = this, size = `${clip.video.videoWidth} × ${clip.video.videoHeight}`;
    const facts = `${size}, ${clip.frames} frames at ${+clip.fps.toFixed(2)} fps`;
    if (!ensemble.holds(clip, ensemble.frames - 1)) return `${facts}.`;
    return ensemble.holds(clip) ? `${facts}. Over: its last frame is held.` : `${facts}; shorter than the others.`;
  }

  toggle() {
    if (this.ensemble.playing) this.ensemble.pause();
    else this.ensemble.play();
  }

  step(by) { this.ensemble.seek(this.ensemble.frame + by); }

  setLoop(on) {
    this.ensemble.loop = on;
    this.looping.setAttribute("aria-pressed", String(on));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.bar.inert) return;
    const on = event.composedPath()[0], step = event.shiftKey ? 10 : 1;
    if (on === this.speed || (on instanceof HTMLButtonElement && [" ", "Enter"].includes(event.key))) return;
    const act = {
      " ": () => this.toggle(), k: () => this.toggle(), l: () => this.setLoop(!this.ensemble.loop),
      ArrowLeft: () => this.step(-step), ArrowRight: () => this.step(step),
      Home: () => this.ensemble.seek(0), End: () => this.ensemble.seek(this.ensemble.frames - 1),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

if (!customElements.get("atelier-players")) customElements.define("atelier-players", Players);
