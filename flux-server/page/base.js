"use strict";
// The page's tools: text, storage, calls to the server, and who buys.

const $ = id => document.getElementById(id);
const number = new Intl.NumberFormat("en").format;
const clock = at => new Date(at).toLocaleTimeString([], { timeStyle: "medium" });
const pause = ms => new Promise(done => setTimeout(done, ms));
const units = (count, one) => `${number(count)} ${one}${count === 1 ? "" : "s"}`;
const styles = getComputedStyle(document.documentElement);

// What others named is only ever shown as text, never read as markup.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A copy of a template, with its parts by their data-r. */
function copy(template) {
  const root = $(template).content.firstElementChild.cloneNode(true);
  const parts = { root };
  for (const part of root.querySelectorAll("[data-r]")) parts[part.dataset.r] = part;
  return parts;
}

function say(text) {
  const line = document.createElement("p");
  line.textContent = text;
  $("say").append(line);
  while ($("say").childElementCount > 3) $("say").firstElementChild.remove();
  setTimeout(() => line.remove(), 7000);
}

/** A box that may refuse to keep anything, as in a private window. */
function box(storage) {
  const held = {};
  return {
    get(key) { try { return storage().getItem(key); } catch { return held[key] ?? null; } },
    set(key, value) { held[key] = value; try { storage().setItem(key, value); } catch { /* kept for this visit */ } },
  };
}
const local = box(() => localStorage);
const session = box(() => sessionStorage);

function uuid() {
  // randomUUID is only there on a secure origin.
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = bytes[6] & 0x0f | 0x40;
  bytes[8] = bytes[8] & 0x3f | 0x80;
  const hex = Array.from(bytes, byte => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

// Asking the server.

let skew = 0;
const now = () => Date.now() + skew;

/** One call. Throws only when no answer came. */
async function call(method, path, { body, wait } = {}) {
  const headers = {};
  const token = session.get("flux-token");
  if (token) headers.authorization = `Bearer ${token}`;
  if (body) headers["content-type"] = "application/json";
  if (wait) headers.prefer = `wait=${wait}`;
  const signal = AbortSignal.timeout(20_000);
  const answer = await fetch(path, { method, headers, signal, cache: "no-store", body: body && JSON.stringify(body) });
  // A clock a little off can't be told from a slow answer.
  const off = Date.parse(answer.headers.get("date")) - Date.now();
  skew = Math.abs(off) > 2000 ? off : 0;
  const text = await answer.text();
  let content = {};
  try { content = JSON.parse(text); } catch { content.detail = `the server answered ${answer.status}`; }
  return { status: answer.status, content, after: Number(answer.headers.get("retry-after")) || 1 };
}

function askToken(refused) {
  if (!$("token").hidden) return;
  write($("why"), refused
    ? "This token is for another buyer, or has ended. Paste the token you were given for this sale:"
    : "This sale wants to know who buys. Paste the token you were given:");
  $("token").hidden = false;
  $("secret").focus();
}

$("token").addEventListener("submit", event => {
  event.preventDefault();
  const token = $("secret").value.trim();
  session.set("flux-token", token);
  $("secret").value = "";
  $("token").hidden = true;
  takeName(token);
  for (const entry of mine) {
    if (entry.status !== "token") continue;
    // It was refused, so nothing is known of it yet.
    entry.buyer = $("buyer").value;
    send(entry);
  }
});

/** Buys under the name a token was made for; the server checks it anyway. */
function takeName(token) {
  try {
    const body = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const { sub } = JSON.parse(atob(body));
    if (isName(sub)) setBuyer(sub);
  } catch { /* a token of another kind */ }
}

// Who buys.

const isName = name => /^[!-~]{1,128}$/.test(name);

function setBuyer(name) {
  local.set("flux-buyer", name);
  $("buyer").value = name;
}

setBuyer(local.get("flux-buyer") || `guest-${uuid().slice(0, 6)}`);
$("buyer").addEventListener("change", () => {
  const name = $("buyer").value.trim();
  const fault = isName(name) ? "" : "A name is 1 to 128 letters, digits or signs, without spaces.";
  $("buyer").setCustomValidity(fault);
  if (fault) $("buyer").reportValidity();
  else setBuyer(name);
});
$("buyer").addEventListener("input", () => $("buyer").setCustomValidity(""));
