"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const rows = new Map(page.rows.map((row) => [String(row.id), row]));
const get = (id) => document.getElementById(id);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const about = new Map(all("#words dt").map((dt) => [dt.textContent, dt.nextElementSibling.textContent]));

const splitOf = (id) => get("split").value || page.split[id];
const numberOf = (id, metric) => rows.get(id).numbers[get("rule").value]?.[splitOf(id)]?.[metric] ?? [null, null];
const goodness = (metric, value) => (page.errors.includes(metric) ? -Math.abs(value) : value);

function fill() {
  for (const table of all("table.results")) {
    const lines = all("tbody tr", table);
    for (const metric of all("thead [data-metric]", table).map((head) => head.dataset.metric)) {
      const known = lines.map((line) => numberOf(line.dataset.row, metric)[0]).filter((value) => value !== null);
      const ranked = [...new Set(known.map((value) => goodness(metric, value)))].sort((a, b) => b - a);
      for (const line of lines) {
        const [mean, spread] = numberOf(line.dataset.row, metric);
        const cell = line.querySelector(`td[data-metric="${metric}"]`);
        const rank = mean === null || known.length < 2 ? -1 : ranked.indexOf(goodness(metric, mean));
        cell.className = "number" + (rank === 0 ? " best" : rank === 1 ? " second" : "");
        cell.textContent = mean === null ? "–" : mean.toFixed(2);
        if (spread !== null) {
          const span = document.createElement("span");
          span.className = "spread";
          span.textContent = `\u00a0± ${spread.toFixed(2)}`;
          cell.append(span);
        }
      }
    }
  }
  const rule = get("rule").value;
  get("rule-about").textContent = `${rule}: ${about.get(rule)}.`;
}

function filter() {
  const words = get("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const line of all("table.results tbody tr")) {
    const row = rows.get(line.dataset.row);
    const text = [row.name, row.level, row.config.dataset, JSON.stringify(row.config.params)].join(" ").toLowerCase();
    line.hidden = !words.every((word) => text.includes(word));
    shown += line.hidden ? 0 : 1;
  }
  get("said").textContent = words.length ? `${shown} of ${rows.size} rows` : "";
}

function keyOf(line, by) {
  const row = rows.get(line.dataset.row);
  if (by === "seconds") return row.seconds;
  return by === "name" || by === "level" ? row[by] : numberOf(line.dataset.row, by)[0];
}

function sort(button) {
  const head = button.closest("th");
  const table = button.closest("table");
  const by = button.dataset.sort;
  const text = by === "name" || by === "level";
  const first = text || by === "seconds" || page.errors.includes(by) ? "ascending" : "descending";
  const other = first === "ascending" ? "descending" : "ascending";
  const direction = head.getAttribute("aria-sort") === first ? other : first;
  all("thead th", table).forEach((cell) => cell.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const lines = all("tr", body).map((line) => [keyOf(line, by), line]);
  lines.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (text ? a.localeCompare(b) : a - b);
  });
  body.append(...lines.map(([, line]) => line));
  get("said").textContent = `sorted by ${button.textContent}, ${direction}`;
}

function element(tag, text = "", options = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, options);
}

function grid(head, lines) {
  const table = element("table");
  const top = table.createTHead().insertRow();
  head.forEach((title) => top.append(element("th", title, { scope: "col" })));
  const body = table.createTBody();
  for (const line of lines) {
    const row = body.insertRow();
    line.forEach((text) => row.append(element("td", text)));
  }
  const scroll = element("div", "", { className: "scroll" });
  scroll.append(table);
  return scroll;
}

function open(id) {
  const row = rows.get(id);
  const metrics = all('input[name="metric"]:checked').map((box) => [box.value, box.parentElement.textContent.trim()]);
  const number = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));
  get("detail-title").textContent = `${row.name} on ${row.config.dataset}`;
  get("detail-command").textContent = row.command;
  get("detail-told").textContent = row.told;
  const body = get("detail-body");
  body.replaceChildren(
    element("h3", `Under every rule, on ${splitOf(id)}`),
    grid(
      ["Rule", "Epochs", ...metrics.map(([, title]) => title)],
      Object.entries(row.numbers).map(([rule, splits]) => [
        rule,
        (row.epochs[rule] ?? []).join(", "),
        ...metrics.map(([metric]) => {
          const regret = rule === "oracle" ? undefined : row.regrets[rule]?.[metric];
          const shown = number(splits[splitOf(id)]?.[metric]?.[0]);
          return splitOf(id) !== page.split[id] || regret === undefined ? shown : `${shown} (regret ${number(regret)})`;
        }),
      ]),
    ),
    element("h3", "Every seed, as its run ended"),
    grid(
      ["Seed", "Identity", ...metrics.map(([, title]) => title), "Commit", "Device", "torch", "Date"],
      row.seeds.map((seed) => [
        seed.seed,
        seed.identity,
        ...metrics.map(([metric]) => number(seed.metrics[metric])),
        seed.environment.commit ?? "",
        `${seed.environment.processor ?? ""} ${seed.environment.device ?? ""}`,
        seed.environment.torch ?? "",
        seed.environment.date ?? "",
      ]),
    ),
    ...row.seeds.flatMap((seed) => seed.notes.map((note) => element("p", `Seed ${seed.seed}: ${note}`))),
    element("h3", "Configuration"),
    element("pre", JSON.stringify(row.config, null, 1)),
  );
  get("detail").showModal();
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

get("controls").addEventListener("submit", (event) => event.preventDefault());
get("filter").addEventListener("input", filter);
get("rule").addEventListener("change", fill);
get("split").addEventListener("change", fill);
get("theme").addEventListener("click", theme);
get("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(get("detail-command").textContent);
    get("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(get("detail-command"));
  }
});
for (const box of all('input[name="metric"]')) {
  box.addEventListener("change", () => {
    all(`table.results [data-metric="${box.value}"]`).forEach((cell) => (cell.hidden = !box.checked));
  });
}
all("thead button[data-sort]").forEach((button) => button.addEventListener("click", () => sort(button)));
all("button.open").forEach((button) => button.addEventListener("click", () => open(button.closest("tr").dataset.row)));
fill();
