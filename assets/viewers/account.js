/* <atelier-account>: the way to log in, or who has. Shows nothing on a server where nobody can. */
class Account extends HTMLElement {
  async connectedCallback() {
    if (this.firstChild) return;
    const answer = await fetch("/account/state");
    if (!answer.ok) return;
    const { name, login } = await answer.json();
    if (!login && !name) return;
    const link = document.createElement("a");
    const back = location.pathname + location.search;
    link.href = name ? "/account" : `/account?next=${encodeURIComponent(back)}`;
    link.textContent = name ?? "Log in";
    if (name) link.setAttribute("aria-label", `Account: ${name}`);
    this.replaceChildren(link);
  }
}
customElements.define("atelier-account", Account);
