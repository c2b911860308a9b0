// What is on sale, a card an item.

const cards = new Map();
const STATES = { open: "On sale", sold_out: "Sold out", closed: "Closed", scheduled: "Soon" };

function showItem(item) {
  let card = cards.get(item.item_id);
  if (!card) {
    card = newCard(item);
    cards.set(item.item_id, card);
    card.root.dataset.item = item.item_id;
    // They come in order, so the place is nearly always the last.
    let [last, next] = [$("cards").lastElementChild, null];
    for (; last && last.dataset.item > item.item_id; last = last.previousElementSibling) next = last;
    $("cards").insertBefore(card.root, next);
    $("blank").hidden = true;
    $("filter").hidden = cards.size < 8;
  }
  const before = card.item;
  card.item = item;
  const { available, held, sold, capacity, state, max_per_buyer: cap } = item;
  write(card.name, item.name ?? item.item_id);
  card.root.setAttribute("aria-label", item.name ?? item.item_id);
  sift(card);
  const facts = [item.name && item.item_id, item.kind === "seats" && "seats", `${span(item.hold_seconds)} to pay`, cap && `at most ${number(cap)} each`, item.closes_at && state !== "closed" && `closes ${clock(item.closes_at)}`];
  write(card.sub, facts.filter(Boolean).join(" · "));
  write(card.left, number(available));
  write(card.of, `left of ${number(capacity)}`);
  for (const [part, count] of [["A", available], ["H", held], ["S", sold]]) {
    write(card[part.toLowerCase()], number(count));
    card[`bar${part}`].style.flexGrow = count;
    card[`bar${part}`].hidden = count === 0;
  }
  card.bar.setAttribute("aria-label", `${number(available)} available, ${number(held)} held, ${number(sold)} sold`);
  card.badge.className = `badge ${state}`;
  showState(card);
  if (item.kind === "pool") {
    const most = Math.min(1000, cap ?? 1000, capacity);
    card.quantity.max = most;
    card.buy.disabled = card.count.inert = state !== "open";
    showQuantity(card);
  } else {
    card.hall?.allow();
    const moved = before && ["available", "held", "sold", "capacity"].some(key => before[key] !== item[key]);
    if (moved) card.hall?.refresh();
  }
  if (before) for (const entry of mine) {
    // My order may be what moved it.
    if (entry.item === item.item_id && entry.status === "held") entry.look = Math.min(entry.look ?? 0, now() + 1500);
  }
}

function span(seconds) {
  if (seconds % 3600 === 0) return units(seconds / 3600, "hour");
  return seconds % 60 === 0 ? units(seconds / 60, "minute") : units(seconds, "second");
}

function showState({ item, badge }) {
  let text = STATES[item.state] ?? item.state;
  if (item.state === "scheduled") {
    const seconds = Math.max(0, Math.ceil((Date.parse(item.opens_at) - now()) / 1000));
    const two = count => String(count).padStart(2, "0");
    text = seconds < 86_400
      ? `Opens in ${seconds < 3600 ? "" : `${Math.floor(seconds / 3600)}:`}${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`
      : `Opens ${new Date(item.opens_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}`;
  }
  write(badge, text);
}

function showQuantity(card) {
  const { state } = card.item;
  const text = state === "open" ? `Buy ${card.quantity.value || 1}` : state === "scheduled" ? "Not open yet" : STATES[state];
  write(card.buy, text);
}

let opening;

/** A hall that is all there is may as well stand open; it moves nothing away. */
function openOnlyHall() {
  const [card] = cards.values();
  if (cards.size === 1 && !card.hall) toggleHall(card);
}

function newCard(item) {
  const card = copy("item-t");
  if (item.kind === "pool") {
    card.quantity.setAttribute("aria-label", `How many of ${item.name ?? item.item_id}`);
    const step = by => {
      const most = Number(card.quantity.max);
      card.quantity.value = Math.min(most, Math.max(1, (Number(card.quantity.value) || 1) + by));
      showQuantity(card);
    };
    card.less.addEventListener("click", () => step(-1));
    card.more.addEventListener("click", () => step(1));
    card.quantity.addEventListener("input", () => showQuantity(card));
    card.form.addEventListener("submit", event => {
      event.preventDefault();
      buy(card.item, { quantity: Number(card.quantity.value) });
    });
  } else {
    card.count.remove();
    write(card.buy, "Choose seats");
    card.buy.type = "button";
    card.buy.className = "";
    card.buy.setAttribute("aria-expanded", "false");
    card.buy.addEventListener("click", () => toggleHall(card));
    clearTimeout(opening);
    opening = setTimeout(openOnlyHall, 300);
  }
  return card;
}

function sift({ root, item }) {
  const sought = $("filter").value.toLowerCase();
  root.hidden = !`${item.item_id} ${item.name ?? ""}`.toLowerCase().includes(sought);
}

$("filter").addEventListener("input", () => cards.forEach(sift));
