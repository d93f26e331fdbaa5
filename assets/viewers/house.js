/* What the viewers share: the house's style for shadow roots, buttons that post, and focus that survives an update. */

export const houseStyle = new CSSStyleSheet();
fetch("/atelier/css/atelier.css").then((answer) => answer.text()).then((css) => houseStyle.replace(css));

/* Runs `change` and gives the focus back to the control that had it, if there is still one for the same thing. */
export function keepFocus(root, change) {
  const tree = root.getRootNode();
  const had = tree.activeElement && root.contains(tree.activeElement) ? keyOf(tree.activeElement) : null;
  change();
  if (had) [...root.querySelectorAll("button, select, input, a")].find((item) => keyOf(item) === had)?.focus();
}

const keyOf = (item) => item.dataset.post ?? item.dataset.copy ?? item.getAttribute("href") ?? item.id ?? null;

/* Clicks on [data-post] and [data-copy] under `root`; `done(then, answer)` after a success. */
export function act(root, done) {
  if (root.acting) return;
  root.acting = true;
  root.addEventListener("click", (event) => {
    const pressed = event.composedPath().find((item) => item instanceof HTMLButtonElement);
    if (pressed?.dataset.post) send(root, pressed, undefined, done);
    if (pressed?.dataset.copy) copy(pressed);
  });
  root.addEventListener("change", (event) => {
    const changed = event.target;
    if (changed.dataset?.post) send(root, changed, { [changed.dataset.field]: Number(changed.value) }, done);
  });
}

async function send(root, control, body, done) {
  control.disabled = true;
  try {
    const answer = await fetch(control.dataset.post, {
      method: control.dataset.method ?? "POST",
      headers: body ? { "content-type": "application/json" } : {},
      body: body && JSON.stringify(body),
    });
    const told = answer.status === 204 ? {} : await answer.json();
    if (answer.ok) done(control.dataset.then ?? "refresh", told);
    else fail(root, `${told.error.message} ${told.error.remedy}`);
  } catch {
    fail(root, "The server did not answer. Check the connection and try again.");
  } finally {
    control.disabled = false;
  }
}

function fail(root, sentence) {
  const place = root.querySelector('[data-part="failure"]');
  if (place) Object.assign(place, { textContent: sentence, hidden: false });
}

async function copy(button) {
  const address = new URL(button.dataset.copy, location.href).href;
  const field = button.parentElement.querySelector("input");
  field.value = address;
  field.select();
  try {
    await navigator.clipboard.writeText(address);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Press Ctrl + C";  // without a secure connection a page may not write to the clipboard
  }
}
