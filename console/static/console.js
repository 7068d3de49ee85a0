// Renews the sections that the server has rendered, and stamps everything STALE once nothing has come for 10 s.
"use strict";

const STALE_MS = 10000;
const title = { text: document.title.replace(/^STALE /, "") };
let freshAt = performance.now() - (document.documentElement.dataset.stale === "yes" ? STALE_MS : 0);
let wasStale = document.documentElement.dataset.stale === "yes";

function announce(words) {
  document.getElementById("announcer").textContent = words;
}

function stamp() {
  const stale = performance.now() - freshAt > STALE_MS;
  document.documentElement.dataset.stale = stale ? "yes" : "no";
  for (const mark of document.querySelectorAll(".stale")) mark.hidden = !stale;
  document.title = (stale ? "STALE " : "") + title.text;
  if (stale !== wasStale) announce(stale ? "Stale: nothing new has come for more than 10 seconds" : "Up to date again");
  wasStale = stale;
}

// Makes one element like another with as few changes as that takes, so that focus, selection and scrolling stay.
function renew(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  let place = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const known = child.id ? [...old.children].find((candidate) => candidate.id === child.id) : null;
    if (known && known !== place) old.insertBefore(known, place);
    const mine = known || place;
    const alike = mine && mine.nodeType === child.nodeType && mine.nodeName === child.nodeName && (mine.id || "") === (child.id || "");
    if (!alike) {
      old.insertBefore(document.importNode(child, true), place);
      continue;
    }
    place = mine.nextSibling;
    if (child.nodeType === Node.ELEMENT_NODE) renew(mine, child);
    else if (mine.data !== child.data) mine.data = child.data;
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function show(look) {
  const focused = document.activeElement ? document.activeElement.id : "";
  for (const [name, html] of Object.entries(look.sections)) {
    const section = document.getElementById(name);
    const fresh = new DOMParser().parseFromString(html, "text/html").body;
    fresh.id = name;
    fresh.dataset.section = "";
    renew(section, fresh);
  }
  if (focused && document.activeElement.id !== focused) {
    const again = document.getElementById(focused);
    if (again) again.focus({ preventScroll: true });
  }
  title.text = look.title;
  freshAt = performance.now() - look.age_seconds * 1000;
  stamp();
  if (look.changes.length) announce(look.changes.join(". "));
}

const events = new EventSource("/events");
events.addEventListener("look", (event) => {
  if (document.getElementById("nothing-yet")) location.reload();
  else show(JSON.parse(event.data));
});
events.addEventListener("error", () => {
  // A line that breaks is taken up again by the browser; where the server has refused it, the whole page is asked for.
  if (events.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
});
setInterval(stamp, 1000);
