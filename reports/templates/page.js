"use strict";
// The page works on what it carries: payload (page_numbers.py) and the cells that were written with it.

const payload = JSON.parse(document.getElementById("data").textContent);
const rows = payload.rows; // the place of a row in the table is its index
const NOTHING = "–";
const get = (id) => document.getElementById(id);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const rowOf = (line) => rows[Number(line.dataset.row)];

/* What is shown */

const splitOf = (row) => get("split").value || row.split;
const choiceOf = (row, rule = get("rule").value) => row.choices[rule];
const entryOf = (row, key, rule) => choiceOf(row, rule)?.numbers[splitOf(row)]?.[key];
const levelOf = (row) => row.levels[get("rule").value];
const shown = (value) => (typeof value === "number" ? value.toFixed(2) : NOTHING);

function element(tag, text = "", options = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, options);
}

function write(cell, entry) {
  if (cell.dataset.key === "interval") {
    cell.textContent = entry ? entry.map((end) => end.toFixed(1)).join("–") : NOTHING;
    return;
  }
  const [mean, std, rank] = entry ?? [];
  cell.className = ["number", "best", "second"].filter((name, place) => place === 0 || place === rank).join(" ");
  const spread = element("span", typeof std === "number" ? ` ± ${std.toFixed(2)}` : "", { className: "spread" });
  cell.replaceChildren(shown(mean), spread);
}

function fill() {
  for (const line of all("table.results tbody tr")) {
    const row = rowOf(line);
    all("td[data-key]", line).forEach((cell) => write(cell, entryOf(row, cell.dataset.key)));
    line.querySelector(".level").textContent = levelOf(row);
    all("td.published", line).forEach((cell) => {
      cell.dataset.text ??= cell.textContent;
      cell.textContent = splitOf(row) === row.split ? cell.dataset.text : NOTHING; // it is of the table's split
    });
  }
  const rule = get("rule").value;
  const other = get("split").value && rows.some((row) => row.split !== get("split").value);
  get("rule-about").textContent = payload.rules[rule];
  get("split-about").textContent = other ? `Split: ${get("split").value}, not that of the captions.` : "";
  all("table.results").forEach(arrange);
}

/* Filter and order */

function filter() {
  const words = get("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const block of all("section.block")) {
    let found = 0;
    for (const line of all("tbody tr", block)) {
      const { name, config } = rowOf(line);
      const { dataset, params, protocol } = config;
      const text = [name, levelOf(rowOf(line)), dataset, protocol, JSON.stringify(params)].join(" ");
      line.hidden = !words.every((word) => text.toLowerCase().includes(word));
      found += line.hidden ? 0 : 1;
    }
    block.hidden = found === 0 && words.length > 0;
    count += found;
  }
  get("said").textContent = words.length ? `${count} of ${rows.length} rows` : "";
}

const isText = (key) => key === "name" || key === "level";
const rising = (key) => isText(key) || key === "seconds" || payload.errors.includes(key);

function keyOf(row, key) {
  if (key === "level") return payload.levels.indexOf(levelOf(row));
  if (key === "name" || key === "seconds" || key === "published") return row[key];
  return entryOf(row, key)?.[0] ?? null;
}

function compare(a, b) {
  return typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
}

/** Put the lines in the order that the table's head says; what is not known comes last. */
function arrange(table) {
  const head = table.querySelector("th[aria-sort]");
  if (!head) return;
  const key = head.querySelector("button").dataset.sort;
  const sign = head.getAttribute("aria-sort") === "ascending" ? 1 : -1;
  const lines = all("tbody tr", table).map((line) => [keyOf(rowOf(line), key), Number(line.dataset.row), line]);
  lines.sort(([a, first], [b, second]) => {
    if (a === null || b === null) return (a === null) - (b === null) || first - second;
    return sign * compare(a, b) || first - second;
  });
  table.tBodies[0].append(...lines.map(([, , line]) => line));
}

function sort(button) {
  const head = button.closest("th");
  const table = button.closest("table");
  const [first, other] = rising(button.dataset.sort) ? ["ascending", "descending"] : ["descending", "ascending"];
  const direction = head.getAttribute("aria-sort") === first ? other : first;
  all("thead th", table).forEach((cell) => cell.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", direction);
  arrange(table);
  get("said").textContent = `Sorted by ${button.textContent}, ${direction}.`;
}

/* The source of a row */

function grid(label, head, lines) {
  const table = element("table");
  const top = table.createTHead().insertRow();
  head.forEach(([title, kind]) => top.append(element("th", title, { scope: "col", className: kind })));
  const body = table.createTBody();
  for (const [first, ...rest] of lines) {
    const line = body.insertRow();
    line.append(element("th", first, { scope: "row", className: head[0][1] }));
    rest.forEach((text, place) => line.append(element("td", text, { className: head[place + 1][1] })));
  }
  const scroll = element("div", "", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: label });
  scroll.append(table);
  return scroll;
}

function byRule(row, metrics) {
  const head = [["Rule", "word"], ["Epochs", "number"], ...metrics.map(([, title]) => [title, "number"])];
  const lines = Object.entries(row.choices).map(([rule, choice]) => [
    rule,
    choice.epochs.join(", "),
    ...metrics.map(([metric]) => {
      const [mean] = entryOf(row, metric, rule) ?? [];
      const regret = splitOf(row) === row.split ? choice.regrets[metric] : undefined;
      return regret === undefined ? shown(mean) : `${shown(mean)} (${shown(regret)})`;
    }),
  ]);
  return grid("Every rule", head, lines);
}

function bySeed(row, metrics) {
  const head = [["Seed", "word"], ["Epoch", "number"], ...metrics.map(([, title]) => [title, "number"])];
  head.push(...["Commit", "Device", "torch", "Date", "Identity"].map((title) => [title, "word"]));
  const lines = row.seeds.map((seed, place) => {
    const made = seed.environment;
    const numbers = metrics.map(([metric]) => {
      const entry = entryOf(row, metric);
      return shown(row.seeds.length > 1 ? entry?.[3]?.[place] : entry?.[0]);
    });
    const device = [made.processor, made.device].filter(Boolean).join(", ");
    const sources = [made.commit, device, made.torch, made.date, seed.identity].map((text) => text ?? "");
    return [seed.seed, choiceOf(row)?.epochs[place] ?? "", ...numbers, ...sources];
  });
  return grid("Every seed", head, lines);
}

function open(row) {
  const boxes = all('input[name="metric"]:checked');
  const metrics = boxes.map((box) => [box.value, box.parentElement.textContent.trim()]);
  const notes = row.seeds.flatMap((seed) => seed.notes.map((note) => element("p", `Seed ${seed.seed}: ${note}`)));
  get("detail-title").textContent = `${row.name} on ${row.config.dataset}`;
  get("detail-about").textContent = row.told;
  get("detail-command").textContent = row.command;
  get("detail-body").replaceChildren(
    element("h3", `Every seed, rule ${get("rule").value}, split ${splitOf(row)}`),
    bySeed(row, metrics),
    ...notes,
    element("h3", `Every rule, split ${splitOf(row)}`),
    byRule(row, metrics),
    element("p", "In brackets the regret: how many points the best epoch that may be chosen has more.", {
      className: "caption",
    }),
    element("h3", "Configuration"),
    element("pre", JSON.stringify(row.config, null, 1), { tabIndex: 0 }),
  );
  get("detail").showModal();
  get("detail").firstElementChild.scrollTop = 0;
}

/* Colours, copies */

function theme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  get("theme").setAttribute("aria-pressed", String(dark));
}

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  } catch {
    getSelection().selectAllChildren(code);
  }
}

document.documentElement.classList.add("scripts");
get("theme").setAttribute("aria-pressed", String(matchMedia("(prefers-color-scheme: dark)").matches));
get("theme").addEventListener("click", () => theme(get("theme").getAttribute("aria-pressed") === "false"));
get("controls").addEventListener("submit", (event) => event.preventDefault());
get("filter").addEventListener("input", filter);
get("rule").addEventListener("change", fill);
get("split").addEventListener("change", fill);
for (const box of all('input[name="metric"]')) {
  box.addEventListener("change", () => {
    all(`table.results [data-metric="${box.value}"]`).forEach((cell) => (cell.hidden = !box.checked));
  });
}
get("detail").addEventListener("click", (event) => {
  if (event.target === get("detail")) get("detail").close(); // beside it, where closedby is not known
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.sort) sort(button);
  if (button?.classList.contains("open")) open(rowOf(button.closest("tr")));
  if (button?.classList.contains("copy")) copy(button);
});
