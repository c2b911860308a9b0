// What I bought: sent until it is answered, remembered, shown with its time.

const SAYS = {
  sending: "Sending…",
  token: "Waiting for your token, above.",
  unsent: "The server did not take it. Trying again uses the same order number, so nothing is bought twice.",
  lost: "The server does not know this order: it never arrived, or its sale is over.",
  queued: "In the queue: it will be decided in its turn.",
  held: "Held for you. Pay before the time is up.",
  confirmed: "Paid: it is yours.",
  released: "Given back.",
  expired: "The time ran out before it was paid, so it is on sale again.",
  cancelled: "Cancelled, and on sale again.",
  refund_due: "Paid too late, when it was gone already: the money will come back to you.",
};
const REASONS = {
  sold_out: "Sold out: there is less left than you asked for.",
  seat_taken: "Somebody was faster: a seat you chose is taken. Choose another.",
  buyer_limit: "That is more than one buyer may have of this.",
  not_open: "The sale had not opened yet. Try again when it does.",
  closed: "The sale has closed.",
  unknown_item: "This can't be ordered any more. Reload the page to see what is on sale.",
};
const LIVE = new Set(["sending", "token", "queued", "held"]);
const BAD = new Set(["rejected", "unsent", "lost", "refund_due", "refused"]);
const KEPT = 50;

let mine = [];
try { mine = JSON.parse(local.get("flux-orders")) || []; } catch { /* none that can be read */ }
const shown = new Map();

function keep() {
  if (mine.length > KEPT) {
    const spare = mine.findLast(entry => !LIVE.has(entry.status));
    if (spare) forget(spare);
  }
  local.set("flux-orders", JSON.stringify(mine));
}

function forget(entry) {
  mine = mine.filter(other => other !== entry);
  shown.get(entry.id)?.root.remove();
  shown.delete(entry.id);
}

/** What another tab did. */
addEventListener("storage", ({ key, newValue }) => {
  if (key !== "flux-orders" || !newValue) return;
  const theirs = new Map(JSON.parse(newValue).map(entry => [entry.id, entry]));
  for (const entry of mine) {
    if (!theirs.has(entry.id)) forget(entry);
    else Object.assign(entry, theirs.get(entry.id), { busy: entry.busy });
    theirs.delete(entry.id);
  }
  mine = [...theirs.values(), ...mine];
  mine.forEach(showOrder);
  showList();
});

const what = entry => entry.seats
  ? `${entry.seats.length > 1 ? "Seats" : "Seat"} ${entry.seats.slice(0, 6).join(", ")}${entry.seats.length > 6 ? ` and ${entry.seats.length - 6} more` : ""}`
  : `${number(entry.quantity)} ×`;
const title = entry => entry.seats ? `${what(entry)} · ${entry.name}` : `${what(entry)} ${entry.name}`;

function buy(item, ask) {
  const entry = { id: uuid(), buyer: $("buyer").value, item: item.item_id, name: item.name ?? item.item_id, status: "sending", ...ask };
  mine.unshift(entry);
  keep();
  showOrder(entry);
  return send(entry);
}

/** Sends an order until there is an answer; the same id never buys twice. */
async function send(entry) {
  setStatus(entry, "sending");
  const ask = entry.seats ? { seats: entry.seats } : { quantity: entry.quantity };
  const body = { order_id: entry.id, buyer_id: entry.buyer, item_id: entry.item, ...ask };
  for (let tries = 1; tries <= 8; tries++) {
    let answer;
    try {
      answer = await call("POST", "/v1/orders", { body, wait: 5 });
    } catch {
      setStatus(entry, "sending", `No answer yet. Trying again, under the same order number (${tries})…`);
      await pause(Math.min(8000, 400 * 2 ** tries) * (0.75 + Math.random() / 2));
      continue;
    }
    const { status, content, after } = answer;
    if (status >= 500 || status === 429) {
      setStatus(entry, "sending", `The server is busy. Trying again in ${units(after, "second")}…`);
      await pause(after * 1000 * (1 + Math.random() / 4));
    } else if (status === 401 || status === 403) {
      setStatus(entry, "token");
      return askToken(status === 403 || session.get("flux-token"));
    } else if (content.order ?? content.order_id) {
      return take(entry, content.order ?? content);
    } else if (status === 409) {
      const reason = content.type?.split("/").pop().replaceAll("-", "_");
      return setStatus(entry, "refused", REASONS[reason] ?? content.detail, true);
    } else if (status === 404) {
      return setStatus(entry, "refused", REASONS.unknown_item, true);
    } else {
      return setStatus(entry, "refused", `Not accepted: ${content.detail ?? content.title}`, true);
    }
  }
  setStatus(entry, "unsent", undefined, true);
}

/** Takes over what the server says of an order. */
function take(entry, order) {
  entry.reason = order.reason;
  entry.decided = order.decided_at;
  entry.expires = order.hold_expires_at;
  entry.look = now() + (order.status === "queued" ? 0 : 8000);
  const news = order.status !== entry.status;
  setStatus(entry, order.status, order.status === "rejected" ? REASONS[order.reason] : undefined, news);
}

function setStatus(entry, status, note, aloud) {
  const before = entry.status;
  Object.assign(entry, { status, note });
  keep();
  showOrder(entry);
  if (aloud) say(`${title(entry)}: ${note ?? SAYS[status]}`);
  if (entry.seats && before !== status) cards.get(entry.item)?.hall?.refresh();
}

async function look(entry) {
  entry.busy = true;
  entry.look = now() + 8000;
  try {
    const wait = entry.status === "queued" ? 5 : 0;
    const { status, content } = await call("GET", `/v1/orders/${entry.id}`, { wait });
    if (status === 200) take(entry, content);
    else if (status === 404 && session.get("flux-token") && entry.buyer !== $("buyer").value) entry.look = now() + 60_000;
    else if (status === 404) setStatus(entry, "lost");
    else if (status === 401) askToken(true);
  } catch { /* looked for again soon */ }
  entry.busy = false;
}

function showOrder(entry) {
  let view = shown.get(entry.id);
  if (!view) {
    view = copy("order-t");
    shown.set(entry.id, view);
    write(view.title, title(entry));
    write(view.id, `Order ${entry.id}`);
    view.release.addEventListener("click", () => release(entry, view.release));
    view.again.addEventListener("click", () => send(entry));
    view.drop.addEventListener("click", () => { forget(entry); keep(); showList(); });
    $("mine").prepend(view.root);
  }
  const { status } = entry;
  view.root.className = `card order ${status}${BAD.has(status) ? " bad" : ""}`;
  write(view.what, entry.note ?? SAYS[status] ?? status);
  view.hold.hidden = view.time.hidden = view.release.hidden = status !== "held";
  view.again.hidden = status !== "unsent";
  view.drop.hidden = LIVE.has(status);
  showTime(entry, view);
  showList();
}

function showTime(entry, view) {
  if (entry.status !== "held") return;
  const ends = Date.parse(entry.expires);
  write(view.time, timeLeft(entry));
  write(view.what, `Held for you until ${clock(ends)}. Pay before the time is up.`);
  const whole = ends - Date.parse(entry.decided);
  view.fuse.style.transform = `scaleX(${Math.max(0, Math.min(1, (ends - now()) / whole))})`;
}

/** On a narrow screen the orders are far down. */
function showJump() {
  const held = mine.filter(entry => entry.status === "held");
  $("jump").hidden = held.length === 0;
  if (held.length === 0) return;
  const next = held.reduce((one, other) => one.expires < other.expires ? one : other);
  write($("jump"), `${units(held.length, "order")} held · ${timeLeft(next)} left`);
}

function timeLeft(entry) {
  const seconds = Math.max(0, Math.ceil((Date.parse(entry.expires) - now()) / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

function showList() {
  $("none").hidden = mine.length > 0;
  $("tidy").hidden = mine.every(entry => LIVE.has(entry.status));
}

async function release(entry, button) {
  button.disabled = true;
  try {
    const { status, content } = await call("POST", `/v1/orders/${entry.id}/release`);
    if (status === 200) take(entry, content);
    else if (status === 401 || status === 403) askToken(true);
    else if (status === 409 || status === 404) await look(entry);
    else say(`It could not be given back yet: ${content.detail}. Try again.`);
  } catch {
    say("The server could not be reached. Try again; giving back twice does no harm.");
  }
  button.disabled = false;
  // The button is gone, and with it the place of a keyboard.
  if (button.hidden) shown.get(entry.id).root.focus({ preventScroll: true });
}

$("tidy").addEventListener("click", () => {
  for (const entry of mine.filter(entry => !LIVE.has(entry.status))) forget(entry);
  keep();
  showList();
});
