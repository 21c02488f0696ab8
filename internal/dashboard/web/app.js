// The dashboard's only script: colours, hover values, live updates. Every page works without it.
"use strict";

const $ = (id) => document.getElementById(id);

// Colours: light, dark, or as the system prefers until somebody chooses.
function theme() {
  const button = $("theme"), root = document.documentElement;
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", "Use " + (dark() ? "light" : "dark") + " colours");
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch (e) { /* the choice holds for this page */ }
    label();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  label();
}

// Hover values: one box for all charts. The table behind each chart is what keyboards and screen readers use.
function tips() {
  const box = document.createElement("div");
  box.className = "tip";
  box.setAttribute("aria-hidden", "true");
  document.body.append(box);
  let shown = null, top = 0;
  const hide = () => { shown = null; box.classList.remove("on"); };
  const show = (slot) => {
    if (!slot || !slot.isConnected || !slot.dataset.tip) return hide();
    shown = slot; top = slot.getBoundingClientRect().top;
    const [head, ...lines] = slot.dataset.tip.split("\n");
    const title = document.createElement("strong");
    title.textContent = head;
    const list = document.createElement("dl");
    for (const line of lines) {
      const [name, value] = line.split("\t");
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = name; dd.textContent = value;
      list.append(dt, dd);
    }
    box.replaceChildren(title, list);
    box.classList.add("on");
    const at = (slot.querySelector(".hit") || slot).getBoundingClientRect(), own = box.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left + at.width / 2 - own.width / 2), document.documentElement.clientWidth - own.width - 8);
    box.style.left = left + scrollX + "px";
    box.style.top = Math.max(at.top - own.height + 4, 8) + scrollY + "px";
  };
  document.addEventListener("pointerover", (e) => show(e.target.closest && e.target.closest("[data-tip]")));
  document.addEventListener("keydown", (e) => { if (e.key === "Escape") hide(); });
  // Scrolling hides the values, but for the scrolling with which a browser keeps in place what grew above.
  document.addEventListener("scroll", () => { if (shown && Math.abs(shown.getBoundingClientRect().top - top) > 4) hide(); }, { passive: true });
  return () => { if (shown) show(shown); }; // its values may be others now
}

// Forms that somebody is filling in. They stay as they are, with the state that they were filled in for: a command is refused where
// somebody else was quicker, and never given for a state that its giver did not see.
const held = new WeakSet();

// keyOf is what an element is known by among its siblings: a section that appears above must not make the ones below it others.
const keyOf = (e) => e.id || e.dataset?.key || e.getAttribute?.("aria-labelledby") || e.getAttribute?.("aria-label") || "";

// morph makes `old` equal to `next`, touching only what differs, so that nothing flickers and focus, selection, scrolling and open
// details stay. Named elements are matched by name, so a new row on top does not rewrite the others.
function morph(old, next) {
  if (held.has(old)) return;
  for (const a of [...old.attributes]) if (!next.hasAttribute(a.name) && a.name !== "open") old.removeAttribute(a.name);
  for (const a of next.attributes) if (old.getAttribute(a.name) !== a.value && a.name !== "open") old.setAttribute(a.name, a.value);
  const wanted = new Set([...next.children].map(keyOf)), done = new Set();
  let at = old.firstChild;
  const drop = () => { while (at && at.nodeType === Node.ELEMENT_NODE && keyOf(at) && !wanted.has(keyOf(at))) { const gone = at; at = at.nextSibling; gone.remove(); } };
  for (const want of [...next.childNodes]) {
    drop(); // named ones that are no more: what follows stays where it is
    const key = want.nodeType === Node.ELEMENT_NODE ? keyOf(want) : "";
    const kept = key && [...old.children].find((c) => !done.has(c) && keyOf(c) === key && c.nodeName === want.nodeName);
    if (kept) {
      done.add(kept);
      if (kept === at) at = at.nextSibling; else old.insertBefore(kept, at);
      if (!kept.isEqualNode(want)) morph(kept, want);
    } else if (at && at.nodeType === want.nodeType && at.nodeName === want.nodeName && !keyOf(at) && !key) {
      const here = at;
      at = at.nextSibling;
      if (here.isEqualNode(want)) continue;
      if (here.nodeType === Node.ELEMENT_NODE) morph(here, want); else here.nodeValue = want.nodeValue;
    } else {
      const fresh = document.importNode(want, true);
      if (fresh.id && fresh.id.startsWith("r-")) fresh.classList.add("fresh");
      old.insertBefore(fresh, at);
    }
  }
  while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
}

// Live updates: the server says that something changed, the page is fetched again and only the differences are applied.
function live(retip) {
  const text = $("live-text"), badge = $("live");
  let shown = "", busy = false, again = false;
  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const reply = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (reply.ok) {
        const page = new DOMParser().parseFromString(await reply.text(), "text/html");
        const focus = document.activeElement, form = focus?.closest("form");
        if (form) held.add(form);
        morph($("main"), page.getElementById("main"));
        if (form && !touched.has(form)) held.delete(form);
        if (focus?.isConnected && focus !== document.activeElement) focus.focus({ preventScroll: true }); // its row has moved
        document.title = page.title;
        retip();
      }
    } catch (e) { /* the event stream says when the server is away */ }
    busy = false;
    if (again) { again = false; setTimeout(refresh, 300); }
  };
  const touched = new WeakSet();
  $("main").addEventListener("input", ({ target }) => { const form = target.closest("form:not([data-auto])"); if (form) { held.add(form); touched.add(form); } });
  const say = (state, words) => { badge.hidden = false; badge.dataset.state = state; if (text.textContent !== words) text.textContent = words; };
  const events = new EventSource("/events");
  events.addEventListener("change", (e) => {
    say("on", "Live");
    if (shown && shown !== e.data) refresh();
    shown = e.data;
  });
  events.addEventListener("error", () => say("off", "Not connected"));
  addEventListener("pagehide", () => events.close());
}

// Forms that answer at once: sliders ask the server again, and the page takes on what differs.
function auto() {
  const form = document.querySelector("form[data-auto]");
  if (!form) return;
  let timer = 0, run = 0;
  const ask = async () => {
    const mine = ++run, address = form.getAttribute("action") + "?" + new URLSearchParams(new FormData(form));
    const reply = await fetch(address, { headers: { Accept: "text/html" } }).catch(() => null);
    if (!reply || mine !== run) return;
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    if (mine !== run || !page.getElementById("main")) return;
    morph($("main"), page.getElementById("main"));
    history.replaceState(null, "", address);
  };
  document.documentElement.classList.add("script");
  form.addEventListener("input", (e) => {
    if (e.target.name === "task") { for (const i of form.elements) if (i.name !== "task") i.disabled = true; form.submit(); return; }
    clearTimeout(timer);
    timer = setTimeout(ask, 120);
  });
}

// Keys of the review queue: A accepts what the form says, S skips. They keep quiet while somebody types.
function keys() {
  const form = document.querySelector("form[data-keys]");
  if (!form) return;
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches("input:not([type=radio]):not([type=checkbox]), select, textarea")) return;
    const button = form.querySelector({ a: "[value=accept]", s: "[value=skip]" }[e.key.toLowerCase()] || "never");
    if (button) { e.preventDefault(); button.click(); }
  });
}

theme();
const retip = tips();
keys();
auto();
if ($("live") && !document.querySelector("form[data-keys]") && !new URLSearchParams(location.search).has("cursor")) live(retip);
