// Buys on the live page as people do, in a headless browser, and holds what
// they see against what the server says. Started by `page` beside it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const { chromium } = createRequire(import.meta.url)("playwright-core");
const [binary, option, picture] = process.argv.slice(2);
const scratch = mkdtempSync(join(tmpdir(), "flux-page-"));
const servers = new Set();

const operator = { authorization: "Bearer operator" };

/** A server of its own; `stop` ends it and keeps its files. */
async function serve(name, { address = "127.0.0.1:0", env = {} } = {}) {
  const flags = ["--listen", address, "--data-dir", join(scratch, name)];
  const child = spawn(binary, flags, { stdio: ["ignore", "pipe", "ignore"], env: { PATH: process.env.PATH, FLUX_OPERATOR_TOKEN: "operator", ...env }, cwd: scratch });
  servers.add(child);
  const ended = new Promise(done => child.on("exit", code => { servers.delete(child); done(code); }));
  let said = "";
  const url = await Promise.race([
    new Promise(done => child.stdout.on("data", data => {
      said += data;
      const found = /listening on (http:\S+)/.exec(said);
      if (found) done(found[1]);
    })),
    ended.then(code => { throw new Error(`the server ended with ${code}: ${said}`); }),
  ]);
  const stop = () => { child.kill("SIGTERM"); return ended; };
  const call = async (method, path, body, headers = {}) => {
    const answer = await fetch(url + path, { method, body: body && JSON.stringify(body), headers: { ...(body && { "content-type": "application/json" }), ...headers } });
    return { status: answer.status, content: await answer.json() };
  };
  const put = async (id, fields) => assert.equal((await call("PUT", `/v1/items/${id}`, fields, operator)).status, 201);
  const pay = (id, ref) => call("POST", `/v1/orders/${id}/confirm`, { payment_ref: ref }, operator);
  const rival = fields => call("POST", "/v1/orders", { buyer_id: "rival", ...fields }, { prefer: "wait=5" });
  return { url, stop, call, put, pay, rival };
}

/** Waits until `look` finds something. */
async function until(what, look, withinMs = 10_000) {
  const deadline = Date.now() + withinMs;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`);
    await pause(30);
  }
}

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

/** A visitor of the page. What it should not do is kept in `faults`. */
async function visit(server, options = {}, prepare = () => {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  await context.addInitScript(prepare);
  const page = await context.newPage();
  const faults = [];
  page.on("request", request => {
    if (!request.url().startsWith(`${server.url}/`) && !request.url().startsWith("data:")) faults.push(`asked for ${request.url()}`);
  });
  page.on("pageerror", error => faults.push(String(error)));
  page.on("console", message => {
    // A browser remarks on every answer above 399; refusals are told that way.
    const refused = /status of (401|404|409)/.test(message.text()) && message.location().url.startsWith(`${server.url}/v1/orders`);
    if (["error", "warning"].includes(message.type()) && !refused) faults.push(message.text());
  });
  await page.goto(server.url);
  await page.getByText("Live", { exact: true }).waitFor();
  const item = name => page.locator(".item", { has: page.getByRole("heading", { name, exact: true }) });
  const orders = page.locator("#mine > li");
  const newest = async text => { await orders.first().filter({ hasText: text }).waitFor(); return orders.first(); };
  const idOf = async order => /[0-9a-f-]{36}/.exec(await order.textContent())[0];
  const seat = (name, state) => page.getByRole("button", { name: `Seat ${name}, ${state}`, exact: true });
  const openSeats = name => item(name).getByRole("button", { name: "Choose seats", exact: true }).click();
  const left = name => item(name).locator(".left strong").textContent();
  const close = async () => { assert.deepEqual(faults, []); await context.close(); };
  return { page, item, orders, newest, idOf, openSeats, seat, left, close, faults };
}

const hall = (rows, columns, gap = "") => rows.flatMap(row => Array.from({ length: columns }, (_, at) => `${row}${gap}${at + 1}`));

async function aSale() {
  const server = await serve("sale");
  await server.put("pass", { name: "Day pass", capacity: 500 });
  await server.put("hall", { name: "Small hall", seats: hall([..."ABCDEF"], 12), max_per_buyer: 8 });
  await server.put("scarce", { name: "Scarce", capacity: 3 });
  await server.put("brief", { name: "Brief", capacity: 4, hold_seconds: 3 });
  await server.put("nasty", { name: "<img src=x onerror=pwned=1>", capacity: 1 });
  return server;
}

const tests = {
  async "units of a pool are held, paid and remembered"(server) {
    const { page, item, newest, idOf, orders, left, close } = await visit(server);
    await page.getByLabel("Buying as").fill("carla");
    await item("Day pass").getByRole("button", { name: "One more" }).click();
    await item("Day pass").getByRole("button", { name: "Buy 2" }).click();
    const order = await newest("Held for you until");
    assert.match(await order.textContent(), /2 × Day pass/);
    const countdown = order.getByRole("timer");
    assert.match(await countdown.textContent(), /^(10:00|9:5\d)$/);
    const before = await countdown.textContent();
    await until("the countdown runs", async () => await countdown.textContent() !== before);
    await until("the bar moves", async () => await left("Day pass") === "498");
    const id = await idOf(order);
    const { content } = await server.call("GET", `/v1/orders/${id}`);
    assert.deepEqual([content.status, content.buyer_id, content.lines], ["held", "carla", [{ item_id: "pass", quantity: 2 }]]);
    assert.equal((await server.pay(id, "p-1")).status, 200);
    await newest("Paid: it is yours.");
    await page.reload();
    await newest("Paid: it is yours.");
    assert.equal(await orders.count(), 1);
    assert.equal(await page.getByLabel("Buying as").inputValue(), "carla");
    // The minute before the reload is told again.
    await until("the plot shows the order", async () => /[1-9] at most/.test(await page.locator("#rates").getAttribute("aria-label")));
    await close();
  },

  async "two seats are bought with clicks"(server) {
    const { page, newest, idOf, openSeats, seat, close } = await visit(server);
    await openSeats("Small hall");
    await seat("B3", "free").click();
    await seat("B4", "free").click();
    await page.getByRole("button", { name: "Buy B3, B4" }).click();
    const order = await newest("Held for you until");
    const { content } = await server.call("GET", `/v1/orders/${await idOf(order)}`);
    assert.deepEqual(content.lines, [{ item_id: "hall", seats: ["B3", "B4"] }]);
    await seat("B3", "yours").waitFor();
    await order.getByRole("button", { name: "Give back" }).click();
    await newest("Given back.");
    await seat("B3", "free").waitFor();
    await close();
  },

  async "a seat is bought with the keyboard alone"(server) {
    const { page, item, newest, idOf, seat, close } = await visit(server);
    await item("Small hall").waitFor();
    const focused = () => page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent);
    const tabTo = async wanted => {
      for (let presses = 0; presses < 40; presses++) {
        await page.keyboard.press("Tab");
        if (wanted.test(await focused())) return;
      }
      throw new Error(`Tab does not lead to ${wanted}`);
    };
    await tabTo(/^Choose seats$/);
    await page.keyboard.press("Enter");
    await seat("A1", "free").waitFor();
    await tabTo(/^Seat /);
    for (const key of ["ArrowDown", "ArrowDown", "ArrowRight", "End", "ArrowLeft"]) await page.keyboard.press(key);
    assert.match(await focused(), /^Seat C11, free/);
    const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(ring, "solid", "what has the focus shows it");
    await page.keyboard.press("Space");
    assert.match(await focused(), /^Seat C11, chosen/);
    await tabTo(/^Buy C11/);
    await page.keyboard.press("Enter");
    const order = await newest("Held for you until");
    assert.deepEqual((await server.call("GET", `/v1/orders/${await idOf(order)}`)).content.lines, [{ item_id: "hall", seats: ["C11"] }]);
    await close();
  },

  async "what others take is seen at once"(server) {
    const { page, item, newest, openSeats, seat, left, close } = await visit(server);
    await openSeats("Small hall");
    await seat("D5", "free").waitFor();
    assert.equal((await server.rival({ item_id: "hall", seats: ["D5"] })).status, 201);
    await seat("D5", "taken").waitFor({ timeout: 10_000 });
    await seat("D6", "free").click();
    assert.equal((await server.rival({ item_id: "hall", seats: ["D6"] })).status, 201);
    await page.locator("#say").getByText("Just taken by somebody else: D6").waitFor({ timeout: 10_000 });
    await page.getByRole("button", { name: "Choose seats to buy" }).waitFor();

    const scarce = item("Scarce");
    for (let presses = 0; presses < 2; presses++) await scarce.getByRole("button", { name: "One more" }).click();
    assert.equal((await server.rival({ item_id: "scarce" })).status, 201);
    await until("the rival's unit is gone", async () => await left("Scarce") === "2");
    await scarce.getByRole("button", { name: "Buy 3" }).click();
    await newest("Sold out: there is less left than you asked for.");
    assert.equal((await server.rival({ item_id: "scarce", quantity: 2 })).status, 201);
    await scarce.locator(".badge", { hasText: "Sold out" }).waitFor();
    assert.ok(await scarce.getByRole("button", { name: "Sold out" }).isDisabled());
    await close();
  },

  async "a seat that was faster is a human's answer"(server) {
    const { page, newest, openSeats, seat, close } = await visit(server);
    await openSeats("Small hall");
    await seat("E1", "free").click();
    // Its own reading of the seats is held up, as on a slow line.
    await page.route("**/seats", () => {});
    assert.equal((await server.rival({ item_id: "hall", seats: ["E1"] })).status, 201);
    await page.getByRole("button", { name: "Buy E1" }).click();
    await newest("Somebody was faster");
    await page.locator("#say").getByText("Somebody was faster").waitFor();
    await close();
  },

  async "an unpaid hold counts down and goes back on sale"(server) {
    const { item, newest, left, close } = await visit(server);
    await item("Brief").getByRole("button", { name: "Buy 1" }).click();
    await newest("Held for you until");
    await until("it is set aside", async () => await left("Brief") === "3");
    await newest("The time ran out before it was paid");
    await until("it is on sale again", async () => await left("Brief") === "4");
    await close();
  },

  async "names are text and a sale opens by itself"(server) {
    const { page, item, close, faults } = await visit(server);
    assert.ok(await item("<img src=x onerror=pwned=1>").isVisible());
    assert.equal(await page.locator(".item img").count(), 0);
    await server.put("later", { name: "Later", capacity: 9, opens_at: new Date(Date.now() + 3000).toISOString() });
    await item("Later").locator(".badge", { hasText: "Opens in 00:0" }).waitFor();
    assert.ok(await item("Later").getByRole("button", { name: "Not open yet" }).isDisabled());
    await item("Later").locator(".badge", { hasText: "On sale" }).waitFor();
    await item("Later").getByRole("button", { name: "Buy 1" }).waitFor();
    // Markup that got in after all would neither run nor load.
    const outcome = await page.evaluate(() => {
      try { document.body.innerHTML += "<p>"; return "markup"; } catch (error) { return error.name; }
    });
    assert.equal(outcome, "TypeError");
    assert.equal(await page.evaluate(() => window.pwned), undefined);
    faults.splice(0, faults.length, ...faults.filter(fault => !/TrustedHTML|Trusted Type/i.test(fault)));
    await close();
  },

  async "a hall of 100,000 seats is no burden"(server) {
    await server.put("arena", { name: "Arena", seats: hall(Array.from({ length: 250 }, (_, row) => `R${row + 1}`), 400, "-") });
    const { page, item, newest, idOf, openSeats, close } = await visit(server);
    const arena = item("Arena");
    await openSeats("Arena");
    await arena.locator("canvas").waitFor();
    await page.evaluate(() => {
      window.longest = 0;
      let last = performance.now();
      const look = () => { const now = performance.now(); window.longest = Math.max(window.longest, now - last); last = now; requestAnimationFrame(look); };
      requestAnimationFrame(look);
    });
    await arena.locator("canvas").click({ position: { x: 300, y: 200 } });
    await arena.getByLabel("Choose a seat by its name").fill("R200-399");
    await page.keyboard.press("Enter");
    const map = arena.getByRole("application");
    for (const key of ["ArrowRight", "Space", "Home", "ArrowDown", "Enter"]) await map.press(key);
    for (const zoom of ["Zoom out", "Zoom in"]) await arena.getByRole("button", { name: zoom }).click();
    await arena.getByRole("button", { name: /^Buy R.*R200-399, R200-400, R201-1$/ }).click();
    const order = await newest("Held for you until");
    const { content } = await server.call("GET", `/v1/orders/${await idOf(order)}`);
    assert.deepEqual(content.lines[0].seats.slice(1), ["R200-399", "R200-400", "R201-1"]);
    const longest = await page.evaluate(() => window.longest);
    assert.ok(longest < 1500, `the page stood still for ${longest} ms`);
    await close();
  },

  async "it serves on a phone, in the dark, without a secure context"(server) {
    const phone = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2, colorScheme: "dark", reducedMotion: "reduce" };
    const bare = () => Object.defineProperty(Crypto.prototype, "randomUUID", { value: undefined });
    const { page, item, newest, openSeats, seat, close } = await visit(server, phone, bare);
    await item("Day pass").getByRole("button", { name: "Buy 1" }).tap();
    await newest("Held for you until");
    await page.getByRole("link", { name: "1 order held" }).tap();
    await openSeats("Small hall");
    await seat("F11", "free").tap();
    await page.getByRole("button", { name: "Buy F11" }).tap();
    await newest("Held for you until");
    const seen = await page.evaluate(() => ({
      width: document.scrollingElement.scrollWidth,
      back: getComputedStyle(document.body).backgroundColor,
      text: getComputedStyle(document.body).color,
      moves: document.getAnimations().length,
    }));
    const dark = colour => /\d+/.exec(colour)[0] < 80;
    assert.deepEqual([seen.width, dark(seen.back), dark(seen.text), seen.moves], [360, true, false, 0]);
    await close();
  },
};

async function aLostConnection() {
  const first = await serve("lost");
  await first.put("pass", { name: "Day pass", capacity: 50 });
  const { page, item, newest, idOf, close, faults } = await visit(first);
  // The list may come after the events have begun.
  await item("Day pass").waitFor();
  assert.equal(await first.stop(), 0);
  await page.getByText("Connection lost").waitFor();
  await item("Day pass").getByRole("button", { name: "Buy 1" }).click();
  await newest("No answer yet. Trying again, under the same order number");
  const again = await serve("lost", { address: new URL(first.url).host });
  const order = await newest("Held for you until");
  await page.getByText("Live", { exact: true }).waitFor({ timeout: 20_000 });
  assert.equal((await again.call("GET", `/v1/orders/${await idOf(order)}`)).content.status, "held");
  assert.equal((await again.call("GET", "/v1/items/pass")).content.held, 1);
  // An answer that is lost on its way is asked for again, and buys nothing twice.
  await page.route("**/v1/orders", async route => { await route.fetch(); await route.abort("connectionreset"); }, { times: 1 });
  await item("Day pass").getByRole("button", { name: "Buy 1" }).click();
  await newest("No answer yet. Trying again");
  await newest("Held for you until");
  assert.equal((await again.call("GET", "/v1/items/pass")).content.held, 2);
  faults.splice(0, faults.length, ...faults.filter(fault => !/ERR_(CONNECTION|INCOMPLETE|EMPTY)/.test(fault)));
  await close();
  assert.equal(await again.stop(), 0);
}

async function aTokenThatIsAskedFor() {
  const secret = "a-secret-of-at-least-thirty-two-bytes";
  const server = await serve("token", { env: { FLUX_BUYER_JWT_SECRET: secret } });
  await server.put("pass", { name: "Day pass", capacity: 50 });
  const { page, item, newest, idOf, close } = await visit(server);
  await item("Day pass").getByRole("button", { name: "Buy 1" }).click();
  await newest("Waiting for your token, above.");
  const part = value => Buffer.from(JSON.stringify(value)).toString("base64url");
  const said = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: "dora", exp: Math.floor(Date.now() / 1000) + 600 })}`;
  const token = `${said}.${createHmac("sha256", secret).update(said).digest("base64url")}`;
  await page.getByLabel("This sale wants to know who buys").fill(token);
  await page.getByRole("button", { name: "Use it" }).click();
  const order = await newest("Held for you until");
  const { content } = await server.call("GET", `/v1/orders/${await idOf(order)}`, undefined, operator);
  assert.equal(content.buyer_id, "dora");
  await order.getByRole("button", { name: "Give back" }).click();
  await newest("Given back.");
  await close();
  assert.equal(await server.stop(), 0);
}

/** The README's picture: a sale that has gone on for a minute. */
async function takePicture(file) {
  const server = await serve("picture");
  await server.put("festival-pass", { name: "Festival pass, all three days", capacity: 30_000, max_per_buyer: 6 });
  await server.put("opening-night", { name: "Opening night, Grand Hall", seats: hall([..."ABCDEFGH"], 20), hold_seconds: 300, max_per_buyer: 8 });
  await server.put("signed-vinyl", { name: "Signed vinyl", capacity: 900, hold_seconds: 120 });
  const { page, item, newest, openSeats, seat, close } = await visit(server, { viewport: { width: 1240, height: 980 } }, () => {
    localStorage.setItem("flux-buyer", "guest-7c41e0");
  });
  const ends = Date.now() + 62_000;
  let buyers = 0;
  const crowd = Array.from({ length: 40 }, async () => {
    while (Date.now() < ends) {
      const wave = 1 + Math.sin(Date.now() / 5000) ** 2;
      const chance = Math.random();
      const buyer = { buyer_id: `buyer-${buyers++}` };
      const row = "ABGHF"[Math.floor(Math.random() * 5)];
      const ask = chance < 0.01 ? { item_id: "opening-night", seats: [`${row}${1 + Math.floor(Math.random() * 20)}`] }
        : chance < 0.25 ? { item_id: "signed-vinyl" } : { item_id: "festival-pass", quantity: 1 + Math.floor(Math.random() * 3) };
      const { status, content } = await server.rival({ ...buyer, ...ask });
      if (status === 201 && Math.random() < 0.7) await server.pay(content.order_id, `pay-${buyers}`);
      await pause(400 * Math.random() / wave);
    }
  });
  await pause(40_000);
  await openSeats("Opening night, Grand Hall");
  await seat("D9", "free").click();
  await seat("D10", "free").click();
  await page.getByRole("button", { name: "Buy D9, D10" }).click();
  await newest("Held for you until");
  await item("Festival pass, all three days").getByRole("button", { name: "Buy 1" }).click();
  await newest("Held for you until");
  await seat("E13", "free").click();
  await seat("E14", "free").click();
  await page.mouse.move(0, 0);
  await pause(ends - Date.now() - 2000);
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: file });
  await Promise.all(crowd);
  await close();
  await server.stop();
}

try {
  if (option === "--screenshot") {
    await takePicture(picture);
  } else {
    const server = await aSale();
    const all = { ...tests, "an order survives a lost connection": aLostConnection, "a token is asked for where one is needed": aTokenThatIsAskedFor };
    for (const [name, test] of Object.entries(all)) {
      const begun = Date.now();
      await test(server).catch(error => { throw new Error(`${name}: ${error.message}`, { cause: error }); });
      console.log(`ok   ${name} (${Date.now() - begun} ms)`);
    }
    assert.equal(await server.stop(), 0);
  }
} finally {
  await browser.close();
  for (const child of servers) child.kill("SIGKILL");
  rmSync(scratch, { recursive: true, force: true });
}
