// The seats of a hall: buttons for a small one, a drawing for a big one.

const BUTTONS_MAX = 600;
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** Where seats stand: by row and number if their names say so, else in the order given. */
function plan(names) {
  const rows = new Map();
  let [low, high] = [Infinity, 0];
  for (const [seat, name] of names.entries()) {
    const found = /^(.*?)[-_.:]?(\d{1,6})$/.exec(name);
    if (!found) return flow(names);
    const place = Number(found[2]);
    [low, high] = [Math.min(low, place), Math.max(high, place)];
    if (!rows.has(found[1])) rows.set(found[1], []);
    rows.get(found[1]).push([place, seat]);
  }
  const columns = high - low + 1;
  if (columns * rows.size > 3 * names.length + 30 || (rows.size === 1 && columns > 40)) return flow(names);
  const grid = new Int32Array(rows.size * columns).fill(-1);
  for (const [row, seats] of [...rows.values()].entries()) {
    for (const [place, seat] of seats) {
      const at = row * columns + place - low;
      if (grid[at] >= 0) return flow(names);
      grid[at] = seat;
    }
  }
  return settle(names, grid, columns, [...rows.keys()], seat => /\d+$/.exec(names[seat])[0]);
}

function flow(names) {
  const columns = Math.max(1, Math.min(names.length, Math.round(Math.sqrt(names.length) * 1.5)));
  const grid = new Int32Array(Math.ceil(names.length / columns) * columns).fill(-1);
  names.forEach((_, seat) => { grid[seat] = seat; });
  return settle(names, grid, columns, [], seat => names[seat]);
}

function settle(names, grid, columns, labels, short) {
  const at = new Int32Array(names.length);
  grid.forEach((seat, cell) => { if (seat >= 0) at[seat] = cell; });
  return { names, grid, columns, labels, short, at, rows: grid.length / columns };
}

/** The seat a key leads to from `seat`. */
function step({ grid, columns, rows, at }, seat, key) {
  const row = Math.floor(at[seat] / columns);
  if (key === "Home" || key === "End") {
    const line = grid.subarray(row * columns, (row + 1) * columns);
    return key === "Home" ? line.find(other => other >= 0) : line.findLast(other => other >= 0);
  }
  const [down, right] = STEPS[key];
  let [y, x] = [row + down, at[seat] % columns + right];
  for (; y >= 0 && y < rows && x >= 0 && x < columns; y += down, x += right) {
    if (grid[y * columns + x] >= 0) return grid[y * columns + x];
  }
  return seat;
}

class Hall {
  chosen = new Set();
  cursor = 0;
  names = [];
  mayReadAt = 0;

  constructor(card) {
    this.card = card;
    this.ui = copy("hall-t");
    this.ui.buy.addEventListener("click", () => this.buy());
    this.ui.clear.addEventListener("click", () => { this.chosen.clear(); this.show(); this.face.focus(); });
    this.ui.find.addEventListener("change", () => this.find(this.ui.find.value.trim()));
    this.ui.view.addEventListener("keydown", event => this.press(event));
  }

  get title() {
    return this.card.item.name ?? this.card.item.item_id;
  }

  get isOpen() {
    return this.ui.root.isConnected && !this.ui.root.hidden;
  }

  /** Reads the seats, now or as soon as it may: a big hall less often. */
  async refresh() {
    this.stale = true;
    if (this.reading) return;
    this.reading = true;
    while (this.stale && this.isOpen) {
      await pause(this.mayReadAt - performance.now());
      this.stale = false;
      const begun = performance.now();
      try {
        const { status, content } = await call("GET", `/v1/items/${encodeURIComponent(this.card.item.item_id)}/seats`);
        if (status === 200) this.take(content);
        else write(this.ui.note, `The seats could not be read: ${content.detail}`);
      } catch {
        write(this.ui.note, "The seats could not be read; trying again…");
        this.stale = true;
        await pause(2000);
      }
      const done = performance.now();
      // Everybody who looks is told at once; they need not all ask at once.
      this.mayReadAt = done + Math.max(400, 6 * (done - begun)) * (1 + Math.random() / 2);
    }
    this.reading = false;
  }

  take(seats) {
    const names = Object.keys(seats);
    if (names.length !== this.names.length || names.some((name, seat) => name !== this.names[seat])) {
      this.names = names;
      this.seatOf = new Map(names.map((name, seat) => [name, seat]));
      this.plan = plan(names);
      this.chosen.clear();
      this.cursor = Math.max(0, this.plan.grid.find(seat => seat >= 0));
      this.ui.view.replaceChildren();
      this.face = names.length <= BUTTONS_MAX ? new Buttons(this) : new Picture(this);
      this.ui.root.querySelector(".stage").hidden = this.plan.labels.length === 0;
    }
    this.taken = Uint8Array.from(names, name => seats[name] === "taken" ? 1 : 0);
    const lost = [...this.chosen].filter(seat => this.taken[seat]);
    for (const seat of lost) this.chosen.delete(seat);
    if (lost.length) say(`Just taken by somebody else: ${lost.map(seat => names[seat]).join(", ")}`);
    this.show();
  }

  state(seat) {
    if (this.mine.has(seat)) return "mine";
    if (this.taken[seat]) return "taken";
    return this.chosen.has(seat) ? "chosen" : "free";
  }

  show() {
    if (!this.plan) return;
    this.mine = new Set();
    for (const { item, seats, status } of mine) {
      if (!seats || item !== this.card.item.item_id || !["sending", "queued", "held", "confirmed"].includes(status)) continue;
      for (const name of seats) if (this.seatOf.has(name)) this.mine.add(this.seatOf.get(name));
    }
    this.face.show();
    this.allow();
  }

  allow() {
    const { state } = this.card.item;
    const names = [...this.chosen].map(seat => this.names[seat]);
    this.ui.buy.disabled = names.length === 0 || state !== "open";
    this.ui.clear.hidden = names.length === 0;
    const several = names.length > 4 ? units(names.length, "seat") : names.join(", ");
    if (state === "open") write(this.ui.buy, names.length ? `Buy ${several}` : "Choose seats to buy");
    else write(this.ui.buy, state === "scheduled" ? "Not open yet" : STATES[state]);
  }

  /** Points at a seat and says what it is. */
  point(seat) {
    this.cursor = seat;
    write(this.ui.note, `Seat ${this.names[seat]}: ${{ mine: "yours", taken: "taken", chosen: "chosen", free: "free" }[this.state(seat)]}`);
  }

  choose(seat) {
    const state = this.state(seat);
    const most = Math.min(100, this.card.item.max_per_buyer ?? 100);
    if (state === "chosen") this.chosen.delete(seat);
    else if (state === "free" && this.chosen.size < most) this.chosen.add(seat);
    this.point(seat);
    if (state === "free" && !this.chosen.has(seat)) write(this.ui.note, `One order may have ${units(most, "seat")} at most.`);
    this.show();
  }

  press(event) {
    if (!this.plan || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in STEPS || event.key === "Home" || event.key === "End") {
      this.point(step(this.plan, this.cursor, event.key));
      this.face.focus();
    } else if (event.key === " " || event.key === "Enter") {
      this.choose(this.cursor);
    } else {
      return;
    }
    event.preventDefault();
  }

  find(name) {
    const seat = this.seatOf?.get(name) ?? this.seatOf?.get(name.toUpperCase());
    if (seat === undefined) {
      write(this.ui.note, name ? `There is no seat ${name}.` : "");
      return;
    }
    if (this.state(seat) === "free") this.choose(seat);
    this.point(seat);
    this.face.reveal();
    this.ui.find.value = "";
  }

  buy() {
    const seats = [...this.chosen].map(seat => this.names[seat]);
    this.chosen.clear();
    buy(this.card.item, { seats });
    this.show();
    this.face.focus();
  }
}

/** Seats as buttons, one of which Tab stops at. */
class Buttons {
  constructor(hall) {
    this.hall = hall;
    const { grid, columns, rows, labels, short, names } = hall.plan;
    const field = document.createElement("div");
    field.className = "seats";
    field.setAttribute("role", "group");
    field.setAttribute("aria-label", `Seats of ${hall.title}`);
    field.style.gridTemplateColumns = `${labels.length ? "auto " : ""}repeat(${columns}, minmax(var(--least), var(--most)))`;
    if (names.some((_, seat) => short(seat).length > 3)) field.classList.add("wide");
    this.buttons = [];
    for (let cell = 0; cell < grid.length; cell++) {
      if (cell % columns === 0 && labels.length) {
        field.append(Object.assign(document.createElement("span"), { textContent: labels[cell / columns] }));
      }
      const seat = grid[cell];
      const node = document.createElement(seat < 0 ? "span" : "button");
      field.append(node);
      if (seat < 0) continue;
      node.type = "button";
      node.tabIndex = -1;
      node.textContent = short(seat);
      node.title = names[seat];
      node.addEventListener("click", () => hall.choose(seat));
      node.addEventListener("focus", () => { hall.cursor = seat; this.stop(); });
      this.buttons[seat] = node;
    }
    hall.ui.big.hidden = true;
    hall.ui.view.append(field);
  }

  stop() {
    if (this.stopAt !== undefined) this.buttons[this.stopAt].tabIndex = -1;
    this.stopAt = this.hall.cursor;
    this.buttons[this.stopAt].tabIndex = 0;
  }

  show() {
    this.stop();
    for (const [seat, button] of this.buttons.entries()) {
      const state = this.hall.state(seat);
      if (button.dataset.state === state) continue;
      button.dataset.state = state;
      button.className = `seat ${state}`;
      button.setAttribute("aria-label", `Seat ${this.hall.names[seat]}, ${state === "mine" ? "yours" : state}`);
      button.setAttribute("aria-pressed", state === "chosen");
      button.setAttribute("aria-disabled", state === "taken" || state === "mine");
    }
  }

  focus() {
    this.buttons[this.hall.cursor].focus();
  }

  reveal() {
    this.focus();
  }
}

/** Seats as a drawing of what is in view. */
class Picture {
  static SIZES = [3, 5, 8, 12, 18, 26, 36];
  static COLOURS = { free: "--free", taken: "--gone", mine: "--held", chosen: "--accent" };

  constructor(hall) {
    this.hall = hall;
    this.view = hall.ui.view;
    this.field = document.createElement("div");
    this.canvas = document.createElement("canvas");
    this.field.append(this.canvas);
    this.view.append(this.field);
    this.gutter = hall.plan.labels.length ? 40 : 0;
    const fits = Picture.SIZES.findLastIndex(size => size * hall.plan.columns + this.gutter <= this.view.clientWidth);
    this.zoom = Math.max(3, Math.min(4, fits));
    Object.assign(this.view, { tabIndex: 0 });
    this.view.setAttribute("role", "application");
    this.view.setAttribute("aria-label", `Seats of ${hall.title}: arrow keys move, space chooses; or name a seat in the field below`);
    this.view.addEventListener("scroll", () => this.show());
    this.view.addEventListener("focus", () => { this.show(); hall.point(hall.cursor); });
    this.view.addEventListener("blur", () => this.show());
    this.canvas.addEventListener("pointermove", event => { const seat = this.under(event); if (seat >= 0) this.hover(seat); });
    this.canvas.addEventListener("click", event => { const seat = this.under(event); if (seat >= 0) hall.choose(seat); });
    hall.ui.out.addEventListener("click", () => this.scale(-1));
    hall.ui.in.addEventListener("click", () => this.scale(1));
    hall.ui.big.hidden = false;
    new ResizeObserver(() => this.show()).observe(this.view);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.show());
    this.scale(0);
  }

  get size() {
    return Picture.SIZES[this.zoom];
  }

  hover(seat) {
    const before = this.hall.cursor;
    this.hall.point(seat);
    this.hall.cursor = before;
  }

  under({ offsetX, offsetY }) {
    const { grid, columns, rows } = this.hall.plan;
    const x = Math.floor((offsetX + this.view.scrollLeft - this.gutter) / this.size);
    const y = Math.floor((offsetY + this.view.scrollTop) / this.size);
    if (offsetX < this.gutter || x < 0 || x >= columns || y >= rows) return -1;
    return grid[y * columns + x];
  }

  scale(by) {
    const { view, hall: { plan: { columns, rows } } } = this;
    const before = this.size;
    this.zoom = Math.min(Picture.SIZES.length - 1, Math.max(0, this.zoom + by));
    const [x, y] = [view.scrollLeft + view.clientWidth / 2, view.scrollTop + view.clientHeight / 2];
    this.field.style.width = `${this.gutter + columns * this.size}px`;
    this.field.style.height = `${rows * this.size}px`;
    view.scrollLeft = x * this.size / before - view.clientWidth / 2;
    view.scrollTop = y * this.size / before - view.clientHeight / 2;
    this.hall.ui.out.disabled = this.zoom === 0;
    this.hall.ui.in.disabled = this.zoom === Picture.SIZES.length - 1;
    this.show();
  }

  show() {
    this.frame ??= requestAnimationFrame(() => { this.frame = undefined; this.draw(); });
  }

  draw() {
    const { hall, view, size, gutter, canvas } = this;
    if (!hall.taken || !hall.isOpen) return;
    const { grid, columns, rows, labels, short } = hall.plan;
    const [width, height] = [Math.min(view.clientWidth - 6, this.field.offsetWidth), Math.min(view.clientHeight - 6, this.field.offsetHeight)];
    const dots = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * dots) || canvas.height !== Math.round(height * dots)) {
      Object.assign(canvas, { width: Math.round(width * dots), height: Math.round(height * dots) });
      Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    }
    const pen = canvas.getContext("2d");
    const colour = name => styles.getPropertyValue(name);
    pen.setTransform(dots, 0, 0, dots, 0, 0);
    pen.clearRect(0, 0, width, height);
    const [left, top] = [view.scrollLeft - gutter, view.scrollTop];
    const [x0, x1] = [Math.max(0, Math.floor(left / size)), Math.min(columns, Math.ceil((left + width) / size))];
    const [y0, y1] = [Math.max(0, Math.floor(top / size)), Math.min(rows, Math.ceil((top + height) / size))];
    const gap = size < 5 ? 0 : size < 12 ? 1 : size < 18 ? 2 : 4;
    const paths = { free: new Path2D(), taken: new Path2D(), mine: new Path2D(), chosen: new Path2D() };
    for (let y = y0; y < y1; y++) {
      for (let x = x0; x < x1; x++) {
        const seat = grid[y * columns + x];
        if (seat < 0) continue;
        const box = [x * size - left + gap / 2, y * size - top + gap / 2, size - gap, size - gap];
        if (size < 12) paths[hall.state(seat)].rect(...box);
        else paths[hall.state(seat)].roundRect(...box, size / 6);
      }
    }
    for (const [state, path] of Object.entries(paths)) {
      // From afar the paler of the two greys would be lost.
      pen.fillStyle = colour(state === "taken" && size < 12 ? "--sold" : Picture.COLOURS[state]);
      pen.fill(path);
    }
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    if (size >= 26) {
      pen.font = `${size / 2.8}px system-ui, sans-serif`;
      for (let y = y0; y < y1; y++) {
        for (let x = x0; x < x1; x++) {
          const seat = grid[y * columns + x];
          if (seat < 0) continue;
          const state = hall.state(seat);
          pen.fillStyle = colour(state === "chosen" ? "--on-accent" : state === "taken" ? "--sold" : "--ink");
          pen.fillText(short(seat), (x + 0.5) * size - left, (y + 0.5) * size - top, size - gap - 2);
        }
      }
    }
    if (document.activeElement === view) {
      const cell = hall.plan.at[hall.cursor];
      pen.strokeStyle = colour("--ink");
      pen.lineWidth = 2;
      pen.strokeRect(cell % columns * size - left, Math.floor(cell / columns) * size - top, size, size);
    }
    if (!gutter) return;
    pen.clearRect(0, 0, gutter - 2, height);
    pen.fillStyle = colour("--muted");
    pen.font = "11px system-ui, sans-serif";
    const every = Math.ceil(14 / size);
    for (let y = Math.ceil(y0 / every) * every; y < y1; y += every) {
      pen.fillText(labels[y], gutter / 2, (y + 0.5) * size - top, gutter - 6);
    }
  }

  focus() {
    this.view.focus({ preventScroll: true });
    this.reveal();
  }

  reveal() {
    const { view, size, gutter, hall: { plan: { at, columns }, cursor } } = this;
    const [x, y] = [at[cursor] % columns * size + gutter, Math.floor(at[cursor] / columns) * size];
    if (x - gutter < view.scrollLeft) view.scrollLeft = x - gutter;
    if (x + size > view.scrollLeft + view.clientWidth - 6) view.scrollLeft = x + size - view.clientWidth + 6;
    if (y < view.scrollTop) view.scrollTop = y;
    if (y + size > view.scrollTop + view.clientHeight - 6) view.scrollTop = y + size - view.clientHeight + 6;
    this.show();
  }
}

function toggleHall(card) {
  card.hall ??= new Hall(card);
  const { root } = card.hall.ui;
  if (!root.isConnected) card.root.append(root);
  else root.hidden = !root.hidden;
  card.buy.setAttribute("aria-expanded", String(!root.hidden));
  write(card.buy, root.hidden ? "Choose seats" : "Hide the seats");
  card.hall.refresh();
}
