// The gate theatre: plays one `dynnotes.trace/1` file (trace.schema.json beside this file says what is in it).
// One ES module, no dependencies, no network. Used unchanged as an anywidget (`default.render`) and on a static page (`mount`).
// Three parts: read (trace file -> show, with every complaint naming its field), tell (words), draw (DOM and SVG).

const FORMAT = "dynnotes.trace/1";
const SVG = "http://www.w3.org/2000/svg";
let theatres = 0; // ids and radio names differ between theatres on one page

// ---------------------------------------------------------------------------------------------------- read

export class TraceError extends Error {
  constructor(field, problem) {
    super(`${field}: ${problem}`);
    this.field = field;
  }
}

const say = (x) => (typeof x === "string" ? JSON.stringify(x) : Array.isArray(x) ? "a list" : x === undefined ? "missing" : String(x));

function need(ok, field, problem) {
  if (!ok) throw new TraceError(field, problem);
}

function list(x, field, length) {
  need(Array.isArray(x), field, `should be a list, is ${say(x)}`);
  if (length !== undefined) need(x.length === length, field, `should have ${length} values, has ${x.length}`);
  return x;
}

function number(x, field, low = -Infinity, high = Infinity) {
  need(typeof x === "number" && Number.isFinite(x), field, `should be a finite number, is ${say(x)}`);
  need(x >= low && x <= high, field, `should lie in [${low}, ${high}], is ${x}`);
  return x;
}

function text(x, field) {
  need(typeof x === "string", field, `should be a string, is ${say(x)}`);
  return x;
}

function object(x, field) {
  need(x !== null && typeof x === "object" && !Array.isArray(x), field, `should be an object, is ${say(x)}`);
  return x;
}

function sizes(x, field) {
  for (const [i, n] of list(x, field).entries()) need(Number.isInteger(n) && n > 0, `${field}[${i}]`, `should be a positive integer, is ${say(n)}`);
  return x;
}

const product = (xs) => xs.reduce((a, b) => a * b, 1);

function bytes(x, field) {
  text(x, field);
  let raw;
  try {
    raw = atob(x);
  } catch {
    throw new TraceError(field, "is not base64");
  }
  return Uint8Array.from(raw, (c) => c.charCodeAt(0));
}

// {dtype, shape, data} -> {shape, get(flat index) in [0, 1]}
function packed(x, field) {
  object(x, field);
  need(x.dtype === "bit" || x.dtype === "uint8", `${field}.dtype`, `should be "bit" or "uint8", is ${say(x.dtype)}`);
  const n = product(sizes(x.shape, `${field}.shape`));
  const data = bytes(x.data, `${field}.data`);
  const expected = x.dtype === "bit" ? Math.ceil(n / 8) : n;
  need(data.length === expected, `${field}.data`, `should hold ${expected} bytes for shape [${x.shape.join(", ")}], holds ${data.length}`);
  const get = x.dtype === "bit" ? (i) => (data[i >> 3] >> (7 - (i & 7))) & 1 : (i) => data[i] / 255;
  return { shape: x.shape, get, hard: x.dtype === "bit" };
}

function readInput(x, at) {
  object(x, at);
  text(x.kind, `${at}.kind`);
  const input = { kind: x.kind, label: x.label, hard: null, box: null, difficulty: [] };
  if (x.hard !== undefined) input.hard = number(x.hard, `${at}.hard`, 0, 1);
  if (x.box != null) {
    input.box = list(x.box, `${at}.box`, 4);
    for (const [i, v] of x.box.entries()) number(v, `${at}.box[${i}]`, 0, 1);
  }
  if (x.difficulty !== undefined) {
    input.difficulty = Object.entries(object(x.difficulty, `${at}.difficulty`));
    for (const [k, v] of input.difficulty) number(v, `${at}.difficulty.${k}`);
  }
  if (x.kind === "tokens") {
    input.words = list(x.data, `${at}.data`).map((w, i) => text(w, `${at}.data[${i}]`));
  } else if (x.kind === "image" || x.kind === "video") {
    const shape = sizes(x.shape, `${at}.shape`);
    const rank = x.kind === "image" ? 3 : 4;
    need(shape.length === rank, `${at}.shape`, `should be ${rank === 3 ? "[C, H, W]" : "[T, C, H, W]"}, is [${shape.join(", ")}]`);
    const [t, c, h, w] = rank === 3 ? [1, ...shape] : shape;
    need(c === 1 || c === 3, `${at}.shape`, `should have 1 or 3 channels, has ${c}`);
    const data = bytes(x.data, `${at}.data`);
    need(data.length === product(shape), `${at}.data`, `should hold ${product(shape)} bytes for shape [${shape.join(", ")}], holds ${data.length}`);
    input.pixels = { t, c, h, w, data };
  }
  return input;
}

// The grid a decision is drawn on: [rows, columns], and whether units run down the columns first.
function gridOf(kind, units, shape, n) {
  if (shape && shape.length && product(shape) === n) {
    const rows = product(shape.slice(0, -1));
    if (shape.length > 1 && kind !== "expert") return { rows, cols: shape[shape.length - 1], turned: false };
  }
  const wide = units.filter((u, i) => u > 1 || i === units.length - 1);
  if (wide.length > 1) {
    const cols = wide[wide.length - 1];
    const rows = n / cols;
    return kind === "expert" ? { rows: cols, cols: rows, turned: true } : { rows, cols, turned: false };
  }
  if (kind === "token" || kind === "frame" || kind === "step" || n <= 16) return { rows: 1, cols: n, turned: false };
  const rows = Math.ceil(n / (n <= 128 ? 16 : 32));
  return { rows, cols: Math.ceil(n / rows), turned: false };
}

function readDecision(x, at, V, B) {
  object(x, at);
  const name = text(x.name, `${at}.name`);
  const kind = text(x.kind, `${at}.kind`);
  const gate = packed(x.gate, `${at}.gate`);
  need(gate.shape.length >= 2 && gate.shape[0] === V, `${at}.gate.shape`, `should start with ${V}, the number of budgets, is [${gate.shape.join(", ")}]`);
  need(gate.shape[1] === B, `${at}.gate.shape`, `should have ${B}, the number of inputs, second, is [${gate.shape.join(", ")}]`);
  const units = gate.shape.slice(2);
  const n = product(units);
  const shape = x.shape === undefined ? null : sizes(x.shape, `${at}.shape`);
  let price;
  if (Array.isArray(x.macs)) {
    const m = x.macs;
    const last = units.length ? units[units.length - 1] : 1;
    need(m.length === n || m.length === last, `${at}.macs`, `should have ${n} prices, one per unit, has ${m.length}`);
    m.forEach((v, i) => number(v, `${at}.macs[${i}]`, 0));
    price = (i) => m[i % m.length];
  } else {
    number(x.macs, `${at}.macs`, 0);
    price = () => x.macs;
  }
  let where = null;
  if (x.at != null) {
    const boxes = packed(x.at, `${at}.at`);
    const wanted = [V, B, ...units, 4];
    need(boxes.shape.join() === wanted.join(), `${at}.at.shape`, `should be [${wanted.join(", ")}], is [${boxes.shape.join(", ")}]`);
    where = (v, b, i) => [0, 1, 2, 3].map((k) => boxes.get(((v * B + b) * n + i) * 4 + k));
  }
  let total = 0;
  for (let i = 0; i < n; i++) total += price(i);
  const grid = gridOf(kind, units, shape, n);
  return { name, kind, units, n, price, total, where, grid, hard: gate.hard, value: (v, b, i) => gate.get((v * B + b) * n + i) };
}

// Trace file -> show: the same facts, checked and decoded, with the bill of every sample. Throws TraceError.
export function read(trace) {
  object(trace, "trace");
  text(trace.format, "format");
  const version = /^dynnotes\.trace\/(\d+)(\.\d+)?$/.exec(trace.format);
  need(version, "format", `should be ${FORMAT}, is ${say(trace.format)}`);
  need(version[1] === "1", "format", `this file is ${trace.format}, this viewer reads ${FORMAT}: use a viewer of the same version as the file`);
  const show = { method: text(trace.method, "method"), task: text(trace.task, "task"), paper: text(trace.paper, "paper") };
  object(trace.budget, "budget");
  show.knob = text(trace.budget.name, "budget.name");
  need(["lower", "higher"].includes(trace.budget.cheaper), "budget.cheaper", `should be "lower" or "higher", is ${say(trace.budget.cheaper)}`);
  show.cheaper = trace.budget.cheaper;
  show.full = number(trace.full, "full", 0);
  need(show.full > 0, "full", "should be more than 0");
  show.labels = trace.labels === undefined ? null : list(trace.labels, "labels").map((l, i) => text(l, `labels[${i}]`));
  show.inputs = list(trace.inputs, "inputs").map((x, i) => readInput(x, `inputs[${i}]`));
  const B = show.inputs.length;
  need(B > 0, "inputs", "is empty: a trace needs at least one input");
  show.budgets = list(trace.budgets, "budgets").map((x, i) => {
    const at = `budgets[${i}]`;
    object(x, at);
    need(typeof x.value === "number" ? Number.isFinite(x.value) : typeof x.value === "string", `${at}.value`, `should be a finite number or a word, is ${say(x.value)}`);
    const spent = list(x.spent, `${at}.spent`, B).map((s, j) => number(s, `${at}.spent[${j}]`, 0));
    const correct = list(x.correct, `${at}.correct`, B).map((c, j) => number(Number(c), `${at}.correct[${j}]`, 0, 1));
    const predicted = list(x.predicted, `${at}.predicted`, B);
    const mean = (xs) => xs.reduce((a, b) => a + b, 0) / B;
    return { value: x.value, spent, correct, predicted, meanSpent: mean(spent), accuracy: mean(correct) };
  });
  const V = show.budgets.length;
  need(V > 0, "budgets", "is empty: a trace needs at least one budget");
  show.decisions = list(trace.decisions, "decisions").map((x, i) => readDecision(x, `decisions[${i}]`, V, B));
  // An exit's price is that of all stages a sample that leaves there has run; drawing needs each stage's own.
  let before = 0;
  show.exits = 0;
  for (const d of show.decisions) {
    if (d.kind !== "exit") continue;
    d.stage = Math.max(0, d.total - before);
    before = d.total;
    d.exit = ++show.exits;
  }
  const bills = new Map();
  show.bill = (v, b) => {
    const key = v * B + b;
    if (!bills.has(key)) bills.set(key, bill(show, v, b));
    return bills.get(key);
  };
  show.name = (y) => (show.labels && Number.isInteger(y) && show.labels[y] !== undefined ? show.labels[y] : y == null ? "?" : String(y));
  return show;
}

// How many units this input has: sentences are padded to the longest of the batch, and padding is nothing to look at.
function present(show, d, b) {
  const words = show.inputs[b].words;
  if (!words || (d.kind !== "token" && d.kind !== "expert")) return d.n;
  const each = d.kind === "expert" ? (d.grid.turned ? d.grid.rows : d.n) : 1;
  return Math.min(d.n, words.length * each);
}

// What one sample ran at one budget: per decision the share that ran and its cost; `fixed` is the rest (stem and head).
function bill(show, v, b) {
  const spent = show.budgets[v].spent[b];
  let left = show.decisions.findIndex((d) => d.kind === "exit" && d.value(v, b, 0) >= 0.5);
  const end = left < 0 ? show.decisions.length : left + 1; // depth at which the sample is done
  let costs = show.decisions.map((d, i) => {
    if (i >= end) return 0;
    if (d.kind === "exit") return d.stage;
    let sum = 0;
    for (let k = 0; k < d.n; k++) sum += d.value(v, b, k) * d.price(k);
    return sum;
  });
  const sum = costs.reduce((a, c) => a + c, 0);
  let fixed = spent - sum;
  let scaled = false;
  if (fixed < -1e-6 * Math.max(1, spent)) {
    // Prices of units interact (a channel that is off also cheapens the next layer), so they may exceed the bill; the bill is right.
    costs = costs.map((c) => (c * spent) / sum);
    scaled = true;
  }
  fixed = scaled ? 0 : Math.max(0, fixed);
  const upto = [fixed];
  for (const c of costs) upto.push(upto[upto.length - 1] + c);
  upto[upto.length - 1] = spent; // the bill itself, without rounding
  if (left >= 0) upto.fill(spent, end);
  return { spent, fixed, scaled, left, end, costs, upto };
}

// ---------------------------------------------------------------------------------------------------- tell

export function macs(x) {
  const steps = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const [by, unit] = steps.find(([s]) => Math.abs(x) >= s * 0.9995) || [1, ""];
  const y = x / by;
  const digits = by === 1 ? 0 : y >= 99.95 ? 0 : y >= 9.995 ? 1 : 2;
  return `${y.toFixed(digits)}${unit ? " " + unit : ""}`;
}

const percent = (x) => (Number.isFinite(x) ? `${x > 0 && x < 0.01 ? (100 * x).toFixed(1) : Math.round(100 * x)}%` : "?");
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
const tidy = (x) => (typeof x === "number" ? String(Number(x.toPrecision(3))) : x);

const NOUN = { channel: "channel", pixel: "pixel", token: "token", frame: "frame", step: "step", place: "place", weights: "weight" };

// One decision on one sample: {state, short, long}. state is one of on, off, part, left, passed, ghost.
function tell(show, v, b, i) {
  const d = show.decisions[i];
  const { left, costs } = show.bill(v, b);
  if (left >= 0 && i > left) return { state: "ghost", short: "not reached", long: "not reached, costs nothing" };
  if (d.kind === "exit") {
    const cost = `its stage cost ${macs(costs[i])} MACs`;
    return i === left ? { state: "left", short: "left here", long: `left here; ${cost}` } : { state: "passed", short: "went on", long: `went on; ${cost}` };
  }
  const n = present(show, d, b);
  let sum = 0;
  let total = 0;
  for (let k = 0; k < n; k++) {
    sum += d.value(v, b, k);
    total += d.price(k);
  }
  const cost = `${macs(costs[i])} of ${macs(total)} MACs`;
  if (d.n === 1 && d.hard) {
    const on = sum >= 0.5;
    return { state: on ? "on" : "off", short: on ? "ran" : "skipped", long: on ? `ran, ${macs(costs[i])} MACs` : `skipped, saves ${macs(d.total)} MACs` };
  }
  if (d.kind === "expert") {
    const experts = d.grid.turned ? d.grid.rows : d.n;
    const tokens = n / experts;
    const per = tidy(sum / tokens);
    let busiest = 0;
    const load = Array.from({ length: experts }, (_, e) => {
      let s = 0;
      for (let t = 0; t < tokens; t++) s += d.value(v, b, t * experts + e);
      return s;
    });
    load.forEach((s, e) => { if (s > load[busiest]) busiest = e; });
    const chosen = load.flatMap((s, e) => (s >= 0.5 ? [e + 1] : []));
    const who = tokens > 1 ? `busiest is expert ${busiest + 1}` : `expert${chosen.length === 1 ? "" : "s"} ${chosen.join(", ") || "none"}`;
    return { state: "part", short: `${per} of ${experts}`, long: `${per} of ${experts} experts${tokens > 1 ? " per token" : ""}, ${who}; ${cost}` };
  }
  if (!d.hard) return { state: "part", short: `mean ${(sum / n).toFixed(2)}`, long: `mean weight ${(sum / n).toFixed(2)} over ${plural(n, NOUN[d.kind] || "unit")}; ${cost}` };
  const state = sum === 0 ? "off" : sum === n ? "on" : "part";
  const noun = NOUN[d.kind] || "unit";
  const share = d.kind === "pixel" ? percent(sum / n) : `${Math.round(sum)} of ${n}`;
  return { state, short: share, long: `${Math.round(sum)} of ${plural(n, noun)} ${d.kind === "token" ? "kept" : "on"} (${percent(sum / n)}), ${cost}` };
}

// One cell of a decision, for the pointer.
function tellCell(show, v, b, i, row, col) {
  const d = show.decisions[i];
  const k = d.grid.turned ? col * d.grid.rows + row : row * d.grid.cols + col;
  if (k < 0 || k >= present(show, d, b)) return "";
  const on = d.hard ? (d.value(v, b, k) ? "on" : "off") : d.value(v, b, k).toFixed(2);
  const words = show.inputs[b].words;
  if (d.kind === "expert" && d.grid.turned) return `token ${col + 1}${words && words[col] !== undefined ? ` “${words[col]}”` : ""}, expert ${row + 1}: ${on}`;
  if (d.kind === "expert") return `expert ${k + 1}: ${on}`;
  if (d.kind === "token" && words && words[k] !== undefined) return `“${words[k]}”: ${on === "on" ? "kept" : on === "off" ? "dropped" : on}`;
  if (d.kind === "pixel") return `row ${row + 1}, column ${col + 1}: ${on}`;
  return `${NOUN[d.kind] || "unit"} ${k + 1}: ${on}`;
}

// The sentence a screen reader gets for one sample at one budget.
export function summary(show, v, b) {
  const { left, spent, end } = show.bill(v, b);
  const cost = `${macs(spent)} MACs, ${percent(spent / show.full)} of full`;
  if (left >= 0) return `Left at exit ${show.decisions[left].exit} of ${show.exits} after ${cost}.`;
  const parts = [];
  const kinds = [...new Set(show.decisions.slice(0, end).map((d) => d.kind))];
  for (const kind of kinds) {
    let on = 0;
    let all = 0;
    for (const d of show.decisions) {
      if (d.kind !== kind) continue;
      const n = present(show, d, b);
      all += n;
      for (let k = 0; k < n; k++) on += d.value(v, b, k);
    }
    if (kind === "exit") parts.push("no exit taken");
    else if (kind === "layer") parts.push(`ran ${Math.round(on)} of ${plural(all, "layer")}`);
    else if (kind === "expert") parts.push(`ran ${percent(on / all)} of expert calls`);
    else if (kind === "pixel") parts.push(`computed ${percent(on / all)} of pixels`);
    else if (kind === "weights") parts.push(`mixed ${plural(all, "weight")}`);
    else if (kind === "token") parts.push(`kept ${percent(on / all)} of tokens`);
    else parts.push(`used ${percent(on / all)} of ${NOUN[kind] ? NOUN[kind].replace(/s$/, "") + "s" : kind + " units"}`);
  }
  const what = parts.join(", ") || "Nothing to decide";
  return `${what[0].toUpperCase()}${what.slice(1)}: ${cost}.`;
}

// ---------------------------------------------------------------------------------------------------- draw

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children); // strings become text nodes, never markup
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
  node.append(...children);
  return node;
}

function picture(pixels) {
  const { t, c, h, w, data } = pixels;
  const cols = Math.ceil(Math.sqrt(t)); // a video is drawn as a contact sheet
  const rows = Math.ceil(t / cols);
  const canvas = make("canvas", "dt-canvas");
  canvas.width = cols * w;
  canvas.height = rows * h;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let f = 0; f < t; f++)
    for (let y = 0; y < h; y++)
      for (let x = 0; x < w; x++) {
        const to = 4 * ((Math.floor(f / cols) * h + y) * canvas.width + (f % cols) * w + x);
        for (let k = 0; k < 3; k++) image.data[to + k] = data[((f * c + (c === 3 ? k : 0)) * h + y) * w + x];
        image.data[to + 3] = 255;
      }
  context.putImageData(image, 0, 0);
  return canvas;
}

const LEVELS = 4; // soft gates are drawn in four strengths

// A grid of cells as one path per strength: crisp at any size and coloured by CSS alone.
function cells(show, d) {
  const { rows, cols } = d.grid;
  const gap = cols > 40 || rows > 10 ? 0 : 0.08;
  const levels = [];
  const node = svg("svg", { class: "dt-grid", viewBox: `0 0 ${cols} ${rows}`, "aria-hidden": "true", focusable: "false" });
  for (let s = 0; s <= LEVELS; s++) levels.push(node.appendChild(svg("path", { class: s ? `dt-cell-on dt-level-${s}` : "dt-cell-off" })));
  // weights are bars: the same cell, as high as the weight
  const bars = d.kind === "weights" && rows === 1;
  if (bars) node.setAttribute("preserveAspectRatio", "none");
  const barOf = (x, value) => `M${x + 0.1} 1h0.8V${(1 - value).toFixed(3)}h-0.8z`;
  const box = (x, y) => `M${(x + gap).toFixed(2)} ${(y + gap).toFixed(2)}h${(1 - 2 * gap).toFixed(2)}v${(1 - 2 * gap).toFixed(2)}h-${(1 - 2 * gap).toFixed(2)}z`;
  if (!gap) node.classList.add("dt-crisp");
  const update = (v, b) => {
    const paths = levels.map(() => []);
    const n = present(show, d, b);
    for (let k = 0; k < n; k++) {
      const [row, col] = d.grid.turned ? [k % rows, Math.floor(k / rows)] : [Math.floor(k / cols), k % cols];
      const value = d.value(v, b, k);
      if (bars) {
        paths[0].push(barOf(col, 1));
        paths[LEVELS].push(barOf(col, value));
      } else paths[value <= 0 ? 0 : Math.max(1, Math.round(value * LEVELS))].push(box(col, row));
    }
    paths.forEach((p, s) => levels[s].setAttribute("d", p.join("")));
  };
  const fit = (width, height, most) => {
    const cell = Math.min(width / cols, height / rows, most);
    const size = cell >= 3 ? Math.floor(cell) : cell >= 1 ? Math.floor(2 * cell) / 2 : cell;
    node.setAttribute("width", size * cols);
    node.setAttribute("height", bars ? Math.min(height, 40) : size * rows);
  };
  return { node, update, fit };
}

const isGrid = (d) => !(d.kind === "exit" || (d.n === 1 && d.hard && d.kind !== "place"));

function door() {
  return svg(
    "svg", { class: "dt-door", viewBox: "0 0 22 18", width: 22, height: 18, "aria-hidden": "true", focusable: "false" },
    svg("path", { class: "dt-frame", d: "M2 17V1.5h9.5V17" }),
    svg("path", { class: "dt-leaf", d: "M2 1.5l6 2.5v13l-6 0z" }),
    svg("path", { class: "dt-shut", d: "M2 1.5h9.5V17H2zM9 9.2v1.4" }),
    svg("path", { class: "dt-arrow", d: "M10.5 10h9.5M16.5 6.2L20.3 10l-3.8 3.8" }),
  );
}

// One side of the stage: an input, its strip of choices, its path and its bill.
function side(show, id, role, hooks) {
  const root = make("div", "dt-side");
  root.setAttribute("role", "group");
  const title = make("div", "dt-side-title");
  title.id = `${id}-${role}-title`;
  root.setAttribute("aria-labelledby", title.id);

  const strip = make("div", "dt-strip");
  strip.setAttribute("role", "radiogroup");
  strip.setAttribute("aria-label", `Choose the ${role} input`);
  const radios = show.inputs.map((input, b) => {
    const radio = make("input");
    radio.type = "radio";
    radio.name = `${id}-${role}`;
    radio.value = String(b);
    const hard = input.hard === null ? "" : `, difficulty ${percent(input.hard)}`;
    radio.setAttribute("aria-label", `Input ${b + 1}${input.label === undefined ? "" : `, ${show.name(input.label)}`}${hard}`);
    radio.addEventListener("change", () => hooks.choose(b));
    const face = input.pixels ? picture(input.pixels) : make("span", "dt-word", (input.words ? input.words.slice(0, 3).join(" ") : `${b + 1}`) || "–");
    face.setAttribute("aria-hidden", "true");
    const label = make("label", "dt-thumb", radio, face);
    strip.append(label);
    return radio;
  });

  const scene = make("div", "dt-scene");
  const mask = make("div", "dt-mask-name");
  const verdict = make("div", "dt-verdict");
  const traits = make("div", "dt-traits");
  const path = make("ol", "dt-path");
  path.setAttribute("aria-labelledby", title.id);
  const spentNow = make("span", "dt-spent");
  const shareNow = make("span", "dt-share");
  const fixedBar = make("div", "dt-bar-fixed");
  const gatedBar = make("div", "dt-bar-gated");
  const bar = make("div", "dt-bar", fixedBar, gatedBar);
  bar.setAttribute("aria-hidden", "true");
  const legend = make("div", "dt-legend");
  const sentence = make("p", "dt-summary");
  const head = make("div", "dt-side-head", title, strip);
  const left = make("div", "dt-left", scene, mask, verdict, traits);
  const cost = make("div", "dt-cost", make("div", "dt-cost-line", spentNow, shareNow), bar, legend, sentence);
  root.append(head, make("div", "dt-body", left, path), cost);

  const rowsFit = show.decisions.reduce((sum, d) => sum + (isGrid(d) ? Math.max(26, Math.min(60, d.grid.rows * 8)) : 22), 0) <= 900 && show.decisions.length <= 24;
  path.classList.add(rowsFit ? "dt-rows" : "dt-tiles");
  const longest = Math.max(0, ...show.decisions.map((d) => d.name.length));
  path.style.setProperty("--dt-name", `${Math.min(106, Math.max(68, Math.ceil(7.4 * longest)))}px`);
  path.style.setProperty("--dt-tile", `${Math.min(26, Math.max(8, Math.floor(250 / Math.sqrt(show.decisions.length || 1)) - 4))}px`);
  const dearest = Math.max(1, ...show.decisions.map((d) => (d.kind === "exit" ? d.stage : d.total)));
  const units = show.decisions.map((d, i) => {
    const button = make("button", "dt-unit");
    button.type = "button";
    button.tabIndex = i === 0 ? 0 : -1;
    const flow = svg("path", { class: "dt-flow" });
    const spine = make("span", "dt-spine", svg("svg", { viewBox: "0 0 18 100", preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" }, flow), make("span", "dt-dot"));
    const name = make("span", "dt-name", d.name);
    const state = make("span", "dt-state");
    const drawing = make("span", "dt-drawing");
    const price = make("span", "dt-price");
    let grid = null;
    if (isGrid(d)) {
      grid = cells(show, d);
      if (rowsFit) grid.fit(126, Math.min(84, Math.max(22, Math.floor(244 / show.decisions.length) - 3)), 11);
      else grid.fit(44, 44, 8);
      drawing.append(grid.node);
    } else {
      const block = make("span", "dt-block");
      if (rowsFit) block.style.width = `${18 + 60 * Math.sqrt((d.kind === "exit" ? d.stage : d.total) / dearest)}%`;
      drawing.append(block);
      if (d.kind === "exit") drawing.append(door());
    }
    button.append(spine, make("span", "dt-label", name, state), drawing, price);
    button.addEventListener("pointerenter", (event) => hooks.point(role, i, button, cellAt(event)));
    button.addEventListener("pointermove", (event) => hooks.point(role, i, button, cellAt(event)));
    button.addEventListener("pointerleave", () => hooks.leave(role));
    button.addEventListener("focus", () => hooks.point(role, i, button, null));
    button.addEventListener("blur", () => hooks.leave(role));
    button.addEventListener("click", () => hooks.step(i + 1));
    const cellAt = (event) => {
      if (!grid) return null;
      const r = grid.node.getBoundingClientRect();
      const col = Math.floor(((event.clientX - r.left) / r.width) * d.grid.cols);
      const row = Math.floor(((event.clientY - r.top) / r.height) * d.grid.rows);
      return col >= 0 && row >= 0 && col < d.grid.cols && row < d.grid.rows ? [row, col] : null;
    };
    const kind = `dt-item dt-kind-${/^[a-z]+$/.test(d.kind) ? d.kind : "other"}`;
    const item = make("li", kind, button);
    path.append(item);
    return { item, kind, button, state, price, grid, flow };
  });
  if (!units.length) path.replaceWith(make("p", "dt-empty", "This trace has no decisions: every input runs the whole network."));
  path.addEventListener("keydown", (event) => {
    const now = units.findIndex((u) => u.button === document.activeElement);
    const to = { ArrowDown: now + 1, ArrowRight: now + 1, ArrowUp: now - 1, ArrowLeft: now - 1, Home: 0, End: units.length - 1 }[event.key];
    if (now < 0 || to === undefined) return;
    event.preventDefault();
    const next = units[Math.min(units.length - 1, Math.max(0, to))].button;
    for (const u of units) u.button.tabIndex = u.button === next ? 0 : -1;
    next.focus();
  });

  let overlay = null; // {mask, edge, boxes}
  let words = [];
  let painted = -1; // input on the scene
  let drawn = -1; // budget and input in the path
  let tells = [];
  function paint(b) {
    if (painted === b) return;
    painted = b;
    const input = show.inputs[b];
    words = [];
    overlay = null;
    scene.className = "dt-scene";
    if (input.pixels) {
      const veil = svg("path", { class: "dt-veil" });
      const edge = svg("path", { class: "dt-edge" });
      const maskLayer = svg("svg", { class: "dt-overlay", preserveAspectRatio: "none" }, veil, edge);
      const boxes = svg("svg", { class: "dt-overlay", viewBox: "0 0 1 1", preserveAspectRatio: "none" });
      if (input.box && input.pixels.t === 1) {
        const [x0, y0, x1, y1] = input.box;
        for (const c of ["dt-box dt-box-under", "dt-box"]) boxes.append(svg("rect", { class: c, x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) }));
      }
      const places = svg("g");
      boxes.append(places);
      const canvas = picture(input.pixels);
      overlay = { maskLayer, veil, edge, places, cols: canvas.width / input.pixels.w, rows: canvas.height / input.pixels.h, t: input.pixels.t };
      scene.style.aspectRatio = `${canvas.width} / ${canvas.height}`;
      scene.setAttribute("role", "img");
      scene.replaceChildren(canvas, maskLayer, boxes);
    } else if (input.words) {
      scene.classList.add("dt-words");
      scene.style.aspectRatio = "";
      scene.removeAttribute("role");
      scene.removeAttribute("aria-label");
      words = input.words.map((w) => make("span", "dt-token", w));
      scene.replaceChildren(...words.flatMap((w) => [w, " "]));
    } else {
      scene.classList.add("dt-words");
      scene.removeAttribute("role");
      scene.removeAttribute("aria-label");
      scene.replaceChildren(`No picture for an input of kind “${input.kind}”.`);
    }
    traits.replaceChildren(...input.difficulty.slice(0, 4).map(([k, v]) => make("span", "dt-trait", `${k} ${tidy(v)}`)));
  }

  // Which decision lies over the picture: the one pointed at, else the last that was played and can lie there.
  function layered(v, b, depth, pointed) {
    const fits = (d) => d && (d.kind === "pixel" || d.kind === "place" || ((d.kind === "token" || d.kind === "frame") && !words.length && d.n > 1));
    if (pointed !== null && fits(show.decisions[pointed])) return pointed;
    const end = Math.min(depth, show.bill(v, b).end);
    for (let i = end - 1; i >= 0; i--) if (fits(show.decisions[i])) return i;
    return -1;
  }

  function cover(v, b, depth, pointed) {
    const i = layered(v, b, depth, pointed);
    const d = show.decisions[i];
    mask.textContent = d && overlay ? `${d.kind === "place" ? "glimpses" : "mask"} of ${d.name}` : "";
    if (overlay) {
      let veil = "";
      let edge = "";
      overlay.places.replaceChildren();
      if (d && d.kind === "place") {
        for (let k = 0; k < d.n; k++)
          if (d.where && d.value(v, b, k) > 0) {
            const [x0, y0, x1, y1] = d.where(v, b, k);
            overlay.places.append(svg("rect", { class: "dt-place", x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) }));
          }
      } else if (d) {
        const sheet = d.kind === "frame" && overlay.t === d.n;
        const rows = sheet ? overlay.rows : d.grid.rows;
        const cols = sheet ? overlay.cols : d.grid.cols;
        const on = (y, x) => y >= 0 && x >= 0 && y < rows && x < cols && y * cols + x < d.n && d.value(v, b, y * cols + x) >= 0.5;
        overlay.maskLayer.setAttribute("viewBox", `0 0 ${cols} ${rows}`);
        for (let y = 0; y < rows; y++)
          for (let x = 0; x < cols; x++) {
            if (!on(y, x)) veil += `M${x} ${y}h1v1h-1z`;
            else {
              if (!on(y - 1, x)) edge += `M${x} ${y}h1`;
              if (!on(y + 1, x)) edge += `M${x} ${y + 1}h1`;
              if (!on(y, x - 1)) edge += `M${x} ${y}v1`;
              if (!on(y, x + 1)) edge += `M${x + 1} ${y}v1`;
            }
          }
      }
      overlay.veil.setAttribute("d", veil);
      overlay.edge.setAttribute("d", edge);
    }
    if (words.length) {
      const end = Math.min(depth, show.bill(v, b).end);
      words.forEach((word, k) => {
        let gone = 0;
        for (let j = 0; j < end; j++) {
          const t = show.decisions[j];
          if ((t.kind === "token" || t.kind === "step") && k < t.n && t.value(v, b, k) < 0.5) gone++;
        }
        word.classList.toggle("dt-gone", gone > 0);
        word.classList.toggle("dt-long-gone", gone > 1);
      });
    }
  }

  function update(state, other, pointed) {
    const { budget: v, step: depth } = state;
    const b = state[role];
    const input = show.inputs[b];
    const rival = show.inputs[state[other]];
    const bill = show.bill(v, b);
    paint(b);
    radios.forEach((r, i) => { r.checked = i === b; });
    const thumb = radios[b].parentNode;
    if (thumb.offsetLeft < strip.scrollLeft || thumb.offsetLeft + thumb.offsetWidth > strip.scrollLeft + strip.clientWidth)
      strip.scrollLeft = thumb.offsetLeft - (strip.clientWidth - thumb.offsetWidth) / 2;
    const compare = input.hard === null || rival.hard === null ? 0 : Math.sign(input.hard - rival.hard);
    title.textContent = compare < 0 ? "Easier input" : compare > 0 ? "Harder input" : role === "left" ? "Left input" : "Right input";
    if (drawn !== v * show.inputs.length + b) {
      drawn = v * show.inputs.length + b;
      tells = units.map((_, i) => tell(show, v, b, i));
      const around = (i) => tells[i] !== undefined && tells[i].state === "off";
      for (const [i, u] of units.entries()) {
        u.state.textContent = tells[i].short;
        u.price.textContent = macs(bill.costs[i]);
        u.button.setAttribute("aria-label", `${show.decisions[i].name}: ${tells[i].long}`);
        if (u.grid) u.grid.update(v, b);
        // the line runs through what was computed and bends around what was skipped
        const [x0, x1] = [around(i - 1) ? 3 : 9, around(i + 1) ? 3 : 9];
        u.flow.setAttribute("d", around(i) ? `M${x0} 0C${x0} 22 3 18 3 42V58C3 82 ${x1} 78 ${x1} 100` : tells[i].state === "left" ? "M9 0V50" : "M9 0V100");
      }
    }
    for (const [i, u] of units.entries()) {
      const { state: how } = tells[i];
      const shown = i < depth || (how === "ghost" && depth > bill.left);
      const name = `${u.kind} dt-is-${how}${shown ? "" : " dt-future"}${i === depth - 1 && depth < units.length ? " dt-now" : ""}`;
      if (u.item.className !== name) u.item.className = name; // most units stay as they are from step to step
    }
    const now = bill.upto[Math.min(depth, bill.upto.length - 1)];
    const done = depth >= bill.end;
    spentNow.replaceChildren(make("strong", "", macs(now)), " MACs");
    shareNow.textContent = `${percent(now / show.full)} of full`;
    const scale = 100 / Math.max(show.full, bill.spent, 1);
    fixedBar.style.width = `${bill.fixed * scale}%`;
    gatedBar.style.width = `${(now - bill.fixed) * scale}%`;
    legend.replaceChildren(
      make("span", "dt-key dt-key-fixed", `stem and head ${macs(bill.fixed)}`),
      make("span", "dt-key dt-key-gated", `decided ${macs(now - bill.fixed)}${bill.scaled ? " (prices interact: scaled to the bill)" : ""}`),
    );
    const right = show.budgets[v].correct[b] >= 0.5;
    const guess = show.name(show.budgets[v].predicted[b]);
    const truth = input.label === undefined ? "" : show.name(input.label);
    verdict.className = `dt-verdict ${done ? (right ? "dt-right" : "dt-wrong") : "dt-open"}`;
    verdict.replaceChildren(
      make("span", `dt-guess${guess.length > 2 ? " dt-guess-word" : ""}`, done ? guess : "…"),
      make("span", "dt-judged", done ? (right ? "✓ correct" : "✗ wrong") : "computing", ...(done && !right && truth ? [make("span", "dt-truth", `it is ${truth}`)] : [])),
    );
    sentence.textContent = done ? summary(show, v, b) : `After ${plural(depth, "decision")} of ${units.length}.`;
    if (input.pixels) scene.setAttribute("aria-label", `Input ${b + 1}${truth ? `: ${truth}` : ""}`);
    cover(v, b, depth, pointed);
  }

  const show1 = (i) => {
    // keep the unit being played in view, without moving the page
    const u = units[Math.min(units.length, Math.max(1, i)) - 1];
    if (!u) return;
    const top = u.item.offsetTop - path.offsetTop;
    if (top < path.scrollTop) path.scrollTop = top;
    else if (top + u.item.offsetHeight > path.scrollTop + path.clientHeight) path.scrollTop = top + u.item.offsetHeight - path.clientHeight;
  };
  return { root, update, follow: show1, title: () => title.textContent };
}

function curve(show) {
  const W = 132;
  const H = 46;
  const xs = show.budgets.map((x) => x.meanSpent / (show.full || 1));
  const ys = show.budgets.map((x) => x.accuracy);
  const scale = (values, low, high) => {
    const a = Math.min(...values);
    const z = Math.max(...values);
    return (v) => (z > a ? low + ((v - a) / (z - a)) * (high - low) : (low + high) / 2);
  };
  const sx = scale(xs, 8, W - 8);
  const sy = scale(ys, H - 7, 17);
  const node = svg("svg", { class: "dt-curve", viewBox: `0 0 ${W} ${H}`, width: W, height: H, "aria-hidden": "true", focusable: "false" });
  node.append(svg("path", { class: "dt-axis", d: `M1 1V${H - 1}H${W - 1}` }));
  node.append(svg("text", { x: 5, y: 8 }, "accuracy"), svg("text", { x: W - 2, y: H - 5, "text-anchor": "end" }, "MACs"));
  const order = xs.map((_, i) => i).sort((a, b) => xs[a] - xs[b]);
  node.append(svg("polyline", { class: "dt-line", points: order.map((i) => `${sx(xs[i]).toFixed(1)},${sy(ys[i]).toFixed(1)}`).join(" ") }));
  for (const i of order) node.append(svg("circle", { class: "dt-spot", cx: sx(xs[i]), cy: sy(ys[i]), r: 2 }));
  const here = node.appendChild(svg("circle", { class: "dt-here", r: 5 }));
  return { node, update: (v) => { here.setAttribute("cx", sx(xs[v])); here.setAttribute("cy", sy(ys[v])); } };
}

function refuse(el, error) {
  const box = make("div", "dt dt-refused", make("strong", "", "This trace cannot be played."), " ", make("span", "dt-why", error.message));
  box.setAttribute("role", "alert");
  el.replaceChildren(box);
  return { state: {}, set() {}, destroy() { box.remove(); }, error };
}

// Plays `trace` in `el`. options: {budget, step, left, right, change(state)}. Returns {state, set(part), destroy(), error}.
export function mount(el, trace, options = {}) {
  let show;
  try {
    show = read(trace);
  } catch (error) {
    if (!(error instanceof TraceError)) throw error;
    return refuse(el, error);
  }
  const id = `dt${++theatres}`;
  const D = show.decisions.length;
  const V = show.budgets.length;
  const B = show.inputs.length;
  const hardness = show.inputs.map((x, b) => (x.hard === null ? show.budgets[V >> 1].spent[b] : x.hard));
  const easiest = hardness.indexOf(Math.min(...hardness));
  const hardest = hardness.lastIndexOf(Math.max(...hardness));
  const within = (x, high, other) => (Number.isInteger(x) && x >= 0 && x <= high ? x : other);
  const start = { budget: within(options.budget, V - 1, V >> 1), step: within(options.step, D, D), left: within(options.left, B - 1, easiest), right: within(options.right, B - 1, hardest) };
  const state = { ...start };
  const pointed = { left: null, right: null };
  let timer = null;

  const root = make("div", "dt");
  // JupyterLab would take the arrow keys to move between cells, unless the focused element itself says no.
  root.addEventListener("focusin", (event) => { event.target.dataset.lmSuppressShortcuts = "true"; });
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", `Gate theatre ${theatres}: ${show.method} on ${show.task}`);
  const play = make("button", "dt-button dt-play");
  play.type = "button";
  const reset = make("button", "dt-button", "Reset");
  reset.type = "button";

  const range = (name, max, label) => {
    const input = make("input", "dt-range");
    input.type = "range";
    input.min = "0";
    input.max = String(max);
    input.step = "1";
    input.id = `${id}-${name}`;
    input.disabled = max < 1;
    const caption = make("label", "dt-range-name", label);
    caption.htmlFor = input.id;
    const value = make("span", "dt-range-value"); // for the eye: the slider itself speaks its value
    return { input, value, root: make("div", "dt-control", make("div", "dt-control-line", caption, value), input) };
  };
  const depth = range("step", D, "Depth");
  const budget = range("budget", V - 1, `Budget: ${show.knob}`);
  const stats = make("div", "dt-stats");
  const plot = curve(show);
  const boxes = show.inputs.some((x) => x.box);
  const boxToggle = make("input");
  boxToggle.type = "checkbox";
  boxToggle.checked = true;
  const boxLabel = make("label", "dt-check", boxToggle, " show where the information is");

  const status = make("div", "dt-status");
  status.setAttribute("role", "status");
  const tip = make("div", "dt-tip");
  tip.setAttribute("aria-hidden", "true");
  tip.hidden = true;

  const hint = D ? "Point at a unit, or Tab to the path and use the arrow keys, to read its price." : "Nothing to decide in this trace.";
  const hooks = (role) => ({
    choose: (b) => set({ [role]: b }, true),
    step: (i) => { stop(); set({ step: i }, true); },
    point: (side_, i, node, cell) => {
      const changed = pointed[side_] !== i;
      pointed[side_] = i;
      const told = tell(show, state.budget, state[side_], i);
      const here = cell ? tellCell(show, state.budget, state[side_], i, cell[0], cell[1]) : "";
      const d = show.decisions[i];
      if (changed) {
        status.textContent = `${sides[side_].title()}, ${d.name}: ${told.long}.`;
        sides[side_].update(state, side_ === "left" ? "right" : "left", i);
      }
      tip.replaceChildren(make("strong", "", d.name), ` ${told.long}`, ...(here ? [make("span", "dt-tip-cell", here)] : []));
      tip.hidden = false;
      const r = node.getBoundingClientRect();
      const o = root.getBoundingClientRect();
      const x = Math.min(Math.max(8, r.left - o.left + r.width / 2 - tip.offsetWidth / 2), o.width - tip.offsetWidth - 8);
      const above = r.top - o.top - tip.offsetHeight - 6;
      tip.style.left = `${x}px`;
      tip.style.top = `${above > 0 ? above : r.bottom - o.top + 6}px`;
    },
    leave: (side_) => {
      pointed[side_] = null;
      tip.hidden = true;
      sides[side_].update(state, side_ === "left" ? "right" : "left", null);
    },
  });
  const sides = { left: side(show, id, "left", hooks("left")), right: side(show, id, "right", hooks("right")) };

  root.append(
    make("div", "dt-head",
      make("div", "dt-titles", make("div", "dt-title", show.method),
        make("div", "dt-sub", `${show.task} · ${plural(D, "decision")} · full network ${macs(show.full)} MACs`)),
      stats, plot.node),
    make("div", "dt-controls", make("div", "dt-buttons", play, reset), depth.root, budget.root),
    make("div", "dt-stage", sides.left.root, sides.right.root),
    make("div", "dt-foot", status, ...(boxes ? [boxLabel] : [])), tip);

  function draw() {
    const now = show.budgets[state.budget];
    const value = `${show.knob} ${tidy(now.value)}`;
    depth.input.value = String(state.step);
    depth.value.textContent = `${state.step} of ${D}`;
    depth.input.setAttribute("aria-valuetext", state.step ? `after ${show.decisions[state.step - 1].name}, ${state.step} of ${D}` : "before the first decision");
    budget.input.value = String(state.budget);
    budget.value.textContent = `${tidy(now.value)}`;
    const means = `mean ${macs(now.meanSpent)} MACs, ${percent(now.meanSpent / show.full)} of full, accuracy ${percent(now.accuracy)}`;
    budget.input.setAttribute("aria-valuetext", `${value}: ${means}`);
    stats.replaceChildren(
      make("div", "dt-stat", make("strong", "", macs(now.meanSpent)), make("span", "", `mean MACs, ${percent(now.meanSpent / show.full)} of full`)),
      make("div", "dt-stat", make("strong", "", percent(now.accuracy)), make("span", "", `accuracy on ${B === 1 ? "this input" : `these ${B} inputs`}`)));
    plot.update(state.budget);
    play.textContent = timer ? "❚❚ Pause" : "▶ Play";
    play.disabled = D === 0;
    root.classList.toggle("dt-boxless", !boxToggle.checked);
    root.dataset.budget = state.budget;
    root.dataset.step = state.step;
    sides.left.update(state, "right", pointed.left);
    sides.right.update(state, "left", pointed.right);
  }

  const announce = () => {
    const part = (role) => `${sides[role].title()}: ${summary(show, state.budget, state[role])}`;
    status.textContent = state.step >= D ? `${part("left")} ${part("right")}` : hint;
  };

  function set(part, mine = false) {
    const before = JSON.stringify(state);
    const high = { budget: V - 1, step: D, left: B - 1, right: B - 1 };
    for (const k of Object.keys(high)) if (k in part) state[k] = within(part[k], high[k], state[k]);
    if (JSON.stringify(state) === before) return;
    draw();
    if (!timer) announce();
    if (mine && options.change) options.change({ ...state });
  }

  function stop() {
    clearTimeout(timer);
    timer = null;
    draw();
  }

  function tick() {
    if (!root.isConnected) return void clearTimeout(timer);
    if (state.step >= D) {
      stop();
      announce();
      return;
    }
    const stride = Math.ceil(D / 100); // about six seconds at most, however deep the network
    timer = setTimeout(tick, Math.min(600, Math.max(60, 6000 / D)));
    set({ step: Math.min(D, state.step + stride) }, true);
    sides.left.follow(state.step);
    sides.right.follow(state.step);
  }

  play.addEventListener("click", () => {
    if (timer) return void (stop(), announce());
    if (state.step >= D) set({ step: 0 }, true);
    timer = setTimeout(tick, 150);
    draw();
  });
  reset.addEventListener("click", () => { stop(); set(start, true); announce(); });
  depth.input.addEventListener("input", () => { if (timer) stop(); set({ step: Number(depth.input.value) }, true); });
  budget.input.addEventListener("input", () => set({ budget: Number(budget.input.value) }, true));
  boxToggle.addEventListener("change", draw);
  const escape = (event) => { if (event.key === "Escape") tip.hidden = true; };
  document.addEventListener("keydown", escape); // the pointer may rest on a unit while the focus is elsewhere

  el.replaceChildren(root);
  status.textContent = hint;
  draw();
  return { state, set: (part) => set(part), destroy() { clearTimeout(timer); document.removeEventListener("keydown", escape); root.remove(); }, error: null };
}

// anywidget: the traits `trace`, `budget`, `step`, `left`, `right` are synced both ways; -1 means "let the theatre choose".
function render({ model, el }) {
  const keys = ["budget", "step", "left", "right"];
  let theatre = null;
  const raise = () => {
    theatre?.destroy();
    const options = Object.fromEntries(keys.map((k) => [k, model.get(k)]));
    options.change = (state) => {
      for (const k of keys) model.set(k, state[k]);
      model.save_changes();
    };
    theatre = mount(el, model.get("trace"), options);
    if (!theatre.error) options.change(theatre.state); // say what was chosen
  };
  const follow = () => theatre.set(Object.fromEntries(keys.map((k) => [k, model.get(k)])));
  raise();
  model.on("change:trace", raise);
  for (const k of keys) model.on(`change:${k}`, follow);
  return () => {
    model.off("change:trace", raise);
    for (const k of keys) model.off(`change:${k}`, follow);
    theatre.destroy();
  };
}

export default { render };
