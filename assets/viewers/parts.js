/* What the viewers are built from: elements in one call, the look of their controls, and full screen. */

export const controls = new CSSStyleSheet();
controls.replaceSync(`
  :host { display: block; color: var(--ink, #1c2024); }
  :host(:fullscreen) { background: var(--paper, #faf9f6); padding: 1rem; box-sizing: border-box; overflow: auto; }
  .bar { display: flex; flex-wrap: wrap; gap: .4rem; align-items: center; margin-bottom: .5rem; font-size: .85rem; }
  .bar .space { flex: 1; }
  button, select {
    font: inherit; color: inherit; background: var(--raised, #fff); border: 1px solid var(--line, #d8d5cc);
    border-radius: .45rem; padding: .28rem .6rem; min-height: 2rem; max-width: 100%; cursor: pointer;
  }
  button:hover { border-color: var(--accent, #1f6f6b); }
  button[aria-pressed="true"] { background: var(--accent-soft, #e2efed); border-color: var(--accent, #1f6f6b); }
  button svg { display: block; }
  :focus-visible { outline: 3px solid var(--focus, #2b7fff); outline-offset: 2px; }
  [hidden] { display: none !important; }
`);

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export function make(tag, properties = {}, children = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made && name !== "role") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const button = (text, label, onclick) =>
  make("button", { type: "button", textContent: text, title: label, "aria-label": label, onclick });

export function iconButton(path, label, onclick) {
  const made = button("", label, onclick);
  drawIcon(made, path);
  return made;
}

export function drawIcon(place, path) {
  place.innerHTML = `<svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true" fill="none"
    stroke="currentColor" stroke-width="1.8" stroke-linejoin="round"><path d="${path}"/></svg>`;
}

/* Buttons that show `host` on the whole screen and take it back; none where the browser has no full screen. */
export function fullScreenButton(host) {
  if (!document.fullscreenEnabled) return [];
  return [iconButton("M1 5V1h4M9 1h4v4M13 9v4H9M5 13H1V9", "Full screen", () =>
    document.fullscreenElement ? document.exitFullscreen() : host.requestFullscreen())];
}

/* A picture or clip that is shown at twice its size or more keeps its pixels; smaller scales are smoothed. */
export function keepPixels(media, scale) {
  media.style.imageRendering = scale * (window.devicePixelRatio || 1) >= 2 ? "pixelated" : "auto";
}

/* Puts `figures` of `host` into columns of `wall`, as many as are at least `least` pixels wide: a row for each group (see
 * studio/exhibits.py) if there are several and a row of one fits, else rows of nearly the same length. Returns how many
 * rows and columns. */
export function layOut(host, wall, figures, least) {
  const groupOf = ({ dataset }) => dataset.group || dataset.seed, sizes = new Map();
  for (const figure of figures) sizes.set(groupOf(figure), (sizes.get(groupOf(figure)) ?? 0) + 1);
  const fits = Math.max(1, Math.floor((host.clientWidth + 12) / least)), widest = Math.max(...sizes.values());
  const byGroup = sizes.size > 1 && widest > 1 && widest <= fits;
  const columns = byGroup ? widest : Math.ceil(figures.length / Math.ceil(figures.length / fits));
  wall.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  let group;
  for (const figure of figures) {
    figure.style.gridColumnStart = byGroup && groupOf(figure) !== group ? "1" : "auto";
    group = groupOf(figure);
  }
  return [Math.ceil(figures.length / columns), columns];
}
