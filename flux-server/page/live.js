// What happens, as it happens: the event streams, the last minute, the clock.

/** An event stream that comes back by itself and rests while nobody looks. */
class Live {
  pauseMs = 1000;

  constructor(path, handlers) {
    Object.assign(this, { path, handlers });
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.resting);
      if (!document.hidden) return this.source ?? this.open();
      // Tabs out of sight would use up the browser's connections to the server.
      this.resting = setTimeout(() => this.close(), 5000);
    });
    this.open();
  }

  open() {
    clearTimeout(this.again);
    this.source = new EventSource(this.path);
    const { opened, lost, event } = this.handlers;
    this.source.addEventListener("open", () => { this.pauseMs = 1000; opened(); });
    for (const [name, heard] of Object.entries(event)) {
      this.source.addEventListener(name, ({ data }) => heard(JSON.parse(data)));
    }
    this.source.addEventListener("error", () => {
      lost();
      // The browser tries again only when the stream had been there.
      if (this.source?.readyState !== EventSource.CLOSED) return;
      this.close();
      this.again = setTimeout(() => this.open(), this.pauseMs * (1 + Math.random()));
      this.pauseMs = Math.min(15_000, this.pauseMs * 2);
    });
  }

  close() {
    this.source?.close();
    this.source = undefined;
    clearTimeout(this.again);
  }
}

function showLink(state, text) {
  $("link").className = `link ${state}`;
  write($("link"), text);
}

new Live("/v1/events", {
  opened() {
    showLink("live", "Live");
    write($("blank"), "Nothing is on sale yet. What is put on sale appears here.");
    for (const { hall } of cards.values()) hall?.refresh();
  },
  lost: () => showLink("lost", "Connection lost: figures may be old. Trying again…"),
  event: { item: showItem },
});

const SECONDS = 60;
let pulses = [];

new Live("/pulse", {
  // The last minute is told again.
  opened() { pulses = []; },
  lost() {},
  event: {
    pulse(pulse) {
      pulses = [...pulses, pulse].slice(-SECONDS);
      $("minute").hidden = false;
      drawing ??= requestAnimationFrame(drawPulses);
    },
  },
});

let drawing;
const millis = ms => ms === null ? "–" : ms < 1 ? "1 ms" : ms < 1000 ? `${number(ms)} ms` : `${number(Math.round(ms / 100) / 10)} s`;

function drawPulses() {
  drawing = undefined;
  const last = pulses.at(-1);
  const total = pulse => pulse.held + pulse.rejected + pulse.turned_away;
  const most = Math.max(4, ...pulses.map(total));
  const first = SECONDS - pulses.length;
  const band = (from, to) => {
    const edge = height => pulses.map((pulse, at) => `${first + at} ${100 - 96 * height(pulse) / most}`);
    return `M${[...edge(to), ...edge(from).reverse()].join("L")}Z`;
  };
  const draw = (plot, part, path) => $(plot).querySelector(`.${part}`).setAttribute("d", path);
  const decided = pulse => pulse.held + pulse.rejected;
  draw("rates", "a", band(() => 0, pulse => pulse.held));
  draw("rates", "h", band(pulse => pulse.held, decided));
  draw("rates", "s", band(decided, total));
  write($("rate"), number(total(last)));
  write($("held"), number(last.held));
  write($("rejected"), number(last.rejected));
  write($("away"), number(last.turned_away));
  $("rates").setAttribute("aria-label", `Orders a second over the last minute: ${number(total(last))} now, ${number(Math.max(...pulses.map(total)))} at most`);

  const longest = Math.max(4, ...pulses.map(pulse => pulse.p99_ms ?? 0));
  const line = part => {
    let pen = "M";
    const points = pulses.map((pulse, at) => {
      if (pulse[part] === null) { pen = "M"; return ""; }
      const point = `${pen}${first + at} ${100 - 96 * pulse[part] / longest}`;
      const dot = pen === "M" ? "h.01" : "";
      pen = "L";
      return point + dot;
    });
    return points.join("");
  };
  draw("waits", "p99", line("p99_ms"));
  draw("waits", "p50", line("p50_ms"));
  // A second without orders has no wait; the last one that had is shown.
  const busy = pulses.findLast(pulse => pulse.p50_ms !== null);
  write($("wait"), millis(busy?.p50_ms ?? null));
  write($("p50"), millis(busy?.p50_ms ?? null));
  write($("p99"), millis(busy?.p99_ms ?? null));
  $("waits").setAttribute("aria-label", `Time to a decision: half of the orders within ${millis(busy?.p50_ms ?? null)}, 99% within ${millis(busy?.p99_ms ?? null)}`);
}

function tick() {
  if (document.hidden) return;
  showJump();
  for (const card of cards.values()) if (card.item.state === "scheduled") showState(card);
  for (const entry of mine) {
    if (entry.status !== "held" && entry.status !== "queued") continue;
    showTime(entry, shown.get(entry.id));
    const ended = entry.status === "held" ? Date.parse(entry.expires) + 300 : Infinity;
    if (!entry.busy && now() >= Math.min(entry.look ?? 0, ended)) look(entry);
  }
}

for (const entry of [...mine].reverse()) {
  entry.busy = false;
  showOrder(entry);
  // Whether it got there before the page was closed, the server knows.
  if (!["rejected", "refused", "released", "expired", "lost", "token"].includes(entry.status)) look(entry);
  if (entry.status === "token") askToken(false);
}
setInterval(tick, 500);
// A seat may change hands without a change in any number.
setInterval(() => { if (!document.hidden) for (const { hall } of cards.values()) hall?.refresh(); }, 30_000);
