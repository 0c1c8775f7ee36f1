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
  const input = { kind: x.kind, label: x.label, hard: null, box: null, informative: null, difficulty: [] };
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
  if (x.informative != null) {
    const parts = input.words ? input.words.length : input.pixels ? input.pixels.t : undefined;
    input.informative = list(x.informative, `${at}.informative`, parts);
    for (const [i, v] of x.informative.entries()) number(v, `${at}.informative[${i}]`, 0, 1);
  }
  return input;
}

// Kinds whose units follow each other in time: they are played one by one.
const IN_TIME = new Set(["step", "frame", "place"]);

// The grid a decision is drawn on: rows, columns, place(unit) -> [x, y] of its cell, and unit(x, y) -> its unit or -1.
function gridOf(kind, units, shape, n, pictured) {
  const across = (rows, cols) => ({
    rows, cols, apart: 0,
    place: (k) => [k % cols, Math.floor(k / cols)],
    unit: (x, y) => Math.floor(y) * cols + Math.floor(x),
  });
  const down = (rows, cols, up) => ({ // units run down the columns first, or up them
    rows, cols, apart: 0,
    place: (k) => [Math.floor(k / rows), up ? rows - 1 - (k % rows) : k % rows],
    unit: (x, y) => Math.floor(x) * rows + (up ? rows - 1 - Math.floor(y) : Math.floor(y)),
  });
  const beside = (rows, cols, apart) => ({ // the first `apart` units (a class token) stand to the left of the grid
    rows: Math.max(rows, apart), cols: cols + 1.5, apart,
    place: (k) => (k < apart ? [0, k] : [1.5 + ((k - apart) % cols), Math.floor((k - apart) / cols)]),
    unit: (x, y) => (x < 1 ? (y < apart ? Math.floor(y) : -1) : x < 1.5 ? -1 : apart + Math.floor(y) * cols + Math.floor(x - 1.5)),
  });
  const wide = units.filter((u) => u > 1);
  const last = wide[wide.length - 1] || 1;
  if (kind === "expert" && wide.length > 1) return down(last, n / last, false);
  if (kind === "step" && wide.length > 1) return down(last, n / last, true);
  const side = (m) => Number.isInteger(Math.sqrt(m)) && m > 3 && [Math.sqrt(m), Math.sqrt(m)];
  const patches = kind === "token" && pictured && wide.length < 2 ? side(n) || side(n - 1) : null;
  const given = shape && shape.length > 1 && kind !== "expert" ? [product(shape.slice(0, -1)), shape[shape.length - 1]] : patches;
  if (given) {
    const apart = n - product(given);
    if (apart === 0) return across(...given);
    if (apart > 0 && kind === "token") return beside(...given, apart);
  }
  if (wide.length > 1) return across(n / last, last);
  if (kind === "token" || kind === "weights" || IN_TIME.has(kind) || n <= 16) return across(1, n);
  const rows = Math.ceil(n / (n <= 128 ? 16 : 32));
  return across(rows, Math.ceil(n / rows));
}

function readDecision(x, at, V, B, pictured) {
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
  const beats = IN_TIME.has(kind) ? units.find((u) => u > 1) || 1 : 1;
  const grid = gridOf(kind, units, shape, n, pictured);
  return { name, kind, units, n, price, total, where, grid, beats, each: n / beats, hard: gate.hard, value: (v, b, i) => gate.get((v * B + b) * n + i) };
}

// Trace file -> show: the same facts, checked and decoded, with the bill of every sample. Throws TraceError.
export function read(trace) {
  object(trace, "trace");
  text(trace.format, "format");
  const version = /^dynnotes\.trace\/(\d+)(\.\d+)?$/.exec(trace.format);
  need(version, "format", `should be ${FORMAT}, is ${say(trace.format)}`);
  need(version[1] === "1", "format", `this file is ${trace.format}, this viewer reads ${FORMAT}: use a viewer of the same version as the file`);
  const show = { method: text(trace.method, "method"), task: text(trace.task, "task"), paper: text(trace.paper, "paper") };
  show.knob = null; // a paper without a knob has one setting
  if (trace.budget !== null) {
    object(trace.budget, "budget");
    show.knob = text(trace.budget.name, "budget.name");
    need(["lower", "higher"].includes(trace.budget.cheaper), "budget.cheaper", `should be "lower" or "higher", is ${say(trace.budget.cheaper)}`);
  }
  show.full = number(trace.full, "full", 0);
  need(show.full > 0, "full", "should be more than 0");
  show.labels = trace.labels === undefined ? null : list(trace.labels, "labels").map((l, i) => text(l, `labels[${i}]`));
  show.inputs = list(trace.inputs, "inputs").map((x, i) => readInput(x, `inputs[${i}]`));
  const B = show.inputs.length;
  need(B > 0, "inputs", "is empty: a trace needs at least one input");
  show.budgets = list(trace.budgets, "budgets").map((x, i) => {
    const at = `budgets[${i}]`;
    object(x, at);
    if (show.knob === null) need(x.value === null, `${at}.value`, `should be null where there is no budget, is ${say(x.value)}`);
    else need(typeof x.value === "number" ? Number.isFinite(x.value) : typeof x.value === "string", `${at}.value`, `should be a finite number or a word, is ${say(x.value)}`);
    const spent = list(x.spent, `${at}.spent`, B).map((s, j) => number(s, `${at}.spent[${j}]`, 0));
    const correct = list(x.correct, `${at}.correct`, B).map((c, j) => number(Number(c), `${at}.correct[${j}]`, 0, 1));
    const predicted = list(x.predicted, `${at}.predicted`, B);
    const mean = (xs) => xs.reduce((a, b) => a + b, 0) / B;
    return { value: x.value, spent, correct, predicted, meanSpent: mean(spent), accuracy: mean(correct) };
  });
  const V = show.budgets.length;
  need(V > 0, "budgets", "is empty: a trace needs at least one budget");
  need(show.knob !== null || V === 1, "budgets", `should be one where there is no budget, are ${V}`);
  const pictured = show.inputs.every((x) => x.pixels);
  show.decisions = list(trace.decisions, "decisions").map((x, i) => readDecision(x, `decisions[${i}]`, V, B, pictured));
  show.beats = 0; // a decision is one beat of the play; where its units follow each other in time, each is
  for (const d of show.decisions) {
    d.start = show.beats;
    show.beats += d.beats;
  }
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

// Whether a decision's units are the words of this input, one beat each: a sequence, or tokens of a text.
function spoken(show, d, b) {
  const words = show.inputs[b].words;
  if (!words || !words.length || d.kind === "channel" || d.kind === "weights") return false;
  return (d.kind === "token" ? d.n : d.kind === "step" && d.beats > 1 && d.units.find((u) => u > 0) === d.beats ? d.beats : 0) >= words.length;
}

// How many units this input has: sentences are padded to the longest of the batch, and padding is nothing to look at.
function present(show, d, b) {
  const words = show.inputs[b].words;
  if (words && d.kind === "expert") return Math.min(d.n, words.length * (d.grid.rows > 1 ? d.grid.rows : d.n));
  return !spoken(show, d, b) ? d.n : d.kind === "token" ? words.length : words.length * d.each;
}

// How far a decision was played when `beat` beats of the whole were.
const played = (d, beat) => Math.min(d.beats, Math.max(0, beat - d.start));

// What one sample ran at one budget: per decision its cost, and the sum so far at every beat; `fixed` is the rest (stem and
// head), `end` the beat at which the sample is done.
function bill(show, v, b) {
  const spent = show.budgets[v].spent[b];
  const left = show.decisions.findIndex((d) => d.kind === "exit" && d.value(v, b, 0) >= 0.5);
  const steps = []; // cost of every beat
  for (const [i, d] of show.decisions.entries())
    for (let t = 0; t < d.beats; t++) {
      let sum = 0;
      if (d.kind === "exit") sum = d.stage;
      else if (d.kind === "weights") sum = d.total; // mixing skips nothing
      else for (let k = t * d.each; k < (t + 1) * d.each; k++) sum += d.value(v, b, k) * d.price(k);
      steps.push(left >= 0 && i > left ? 0 : sum);
    }
  let end = left >= 0 ? show.decisions[left].start + 1 : show.beats;
  const last = show.decisions[show.decisions.length - 1];
  if (left < 0 && last && IN_TIME.has(last.kind)) while (end > last.start + 1 && !ran(last, v, b, end - 1 - last.start)) end--;
  const sum = steps.reduce((a, c) => a + c, 0);
  // Prices of units interact (a channel that is off also cheapens the next layer), so they may exceed the bill; the bill is right.
  const scaled = spent - sum < -1e-6 * Math.max(1, spent);
  const scale = scaled ? spent / sum : 1;
  const fixed = scaled ? 0 : Math.max(0, spent - sum);
  const upto = [fixed];
  for (const c of steps) upto.push(upto[upto.length - 1] + c * scale);
  upto.fill(spent, end); // the bill itself, without rounding
  const costs = show.decisions.map((d) => steps.slice(d.start, d.start + d.beats).reduce((a, c) => a + c * scale, 0));
  return { spent, fixed, scaled, left, end, costs, upto };
}

// Whether anything ran at one beat of a decision.
function ran(d, v, b, t) {
  for (let k = t * d.each; k < (t + 1) * d.each; k++) if (d.value(v, b, k) >= 0.5) return true;
  return false;
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
const plural = (n, word) => `${n} ${word}${n === 1 || word.endsWith("s") ? "" : "s"}`;
const tidy = (x) => (typeof x === "number" ? String(Number(x.toPrecision(3))) : x);
const some = (words, most) => words.slice(0, most).join(", ") + (words.length > most ? ` and ${words.length - most} more` : "");

const NOUN = { channel: "channel", pixel: "pixel", token: "token", frame: "frame", step: "step", place: "glimpse", weights: "set of weights" };
const nounOf = (d) => NOUN[d.kind] || "unit";

// Where a box lies on the picture, in words.
function spot([x0, y0, x1, y1]) {
  const [x, y] = [(x0 + x1) / 2, (y0 + y1) / 2];
  const row = y < 1 / 3 ? "upper" : y < 2 / 3 ? "" : "lower";
  const column = x < 1 / 3 ? "left" : x < 2 / 3 ? "" : "right";
  return [row, column].filter(Boolean).join(" ") || "centre";
}

// Which frame of the video a unit looked at: where `at` says so the one in the middle of its box, else frame k.
function frameOf(show, d, v, b, k) {
  const { t } = show.inputs[b].pixels || { t: 1 };
  if (!d.where) return k < t ? k : -1;
  const [x0, , x1] = d.where(v, b, k);
  return Math.min(t - 1, Math.floor(((x0 + x1) / 2) * t));
}

// Units that ran, in their order.
const onUnits = (d, v, b, upto = d.n) => Array.from({ length: upto }, (_, k) => k).filter((k) => d.value(v, b, k) >= 0.5);

// One decision on one sample, kind by kind: {state, short, long}; state is one of on, off, part. `n` units are there, the
// values of which add up to `sum`.
const TELL = {
  expert(show, d, v, b, { n, sum }) {
    const experts = d.grid.rows > 1 ? d.grid.rows : d.n;
    const tokens = n / experts;
    const per = tidy(sum / tokens);
    const load = Array.from({ length: experts }, (_, e) => {
      let s = 0;
      for (let t = 0; t < tokens; t++) s += d.value(v, b, t * experts + e);
      return s;
    });
    const chosen = load.flatMap((s, e) => (s >= 0.5 ? [e + 1] : []));
    const who = tokens > 1 ? `busiest is expert ${load.indexOf(Math.max(...load)) + 1}` : `expert${chosen.length === 1 ? "" : "s"} ${chosen.join(", ") || "none"}`;
    return { state: "part", short: `${per} of ${experts}`, long: `${per} of ${experts} experts${tokens > 1 ? " per token" : ""}, ${who}` };
  },
  weights(show, d, v, b, { n, sum }) {
    const values = Array.from({ length: n }, (_, k) => d.value(v, b, k));
    const most = values.indexOf(Math.max(...values));
    const shown = n > 8 ? "" : `: ${values.map((x) => x.toFixed(2)).join(", ")}`;
    return { state: "part", short: `most ${most + 1}: ${percent(values[most] / sum)}`, long: `mixes ${n} sets of weights${shown}; most of number ${most + 1}` };
  },
  place(show, d, v, b, { n }) {
    const on = onUnits(d, v, b);
    const where = d.where && on.length ? `: ${some(on.map((k) => spot(d.where(v, b, k))), 8)}` : "";
    return { state: "part", short: `${on.length} of ${n}`, long: `${on.length} of ${plural(n, "glimpse")}${where}` };
  },
  frame(show, d, v, b, { n }) {
    const on = onUnits(d, v, b);
    const frames = on.map((k) => frameOf(show, d, v, b, k) + 1);
    return { state: "part", short: `${on.length} of ${n}`, long: `looked at ${on.length} of ${plural(n, "frame")}${on.length ? `, in this order: ${some(frames, 12)}` : ""}` };
  },
  step(show, d, v, b, { n, sum }) {
    const words = spoken(show, d, b) ? show.inputs[b].words : null;
    if (d.each > 1) {
      const count = (t) => onUnits(d, v, b).filter((k) => Math.floor(k / d.each) === t).length;
      const counts = Array.from({ length: n / d.each }, (_, t) => count(t));
      const top = counts.indexOf(Math.max(...counts));
      const mean = tidy(sum / counts.length);
      return { state: "part", short: `${mean} of ${d.each}`, long: `${mean} of ${d.each} steps on average, most (${counts[top]}) at ${words ? `“${words[top]}”` : `place ${top + 1}`}` };
    }
    const read = onUnits(d, v, b, n);
    if (words) return { state: "part", short: `${read.length} of ${n}`, long: `read ${read.length} of ${plural(n, "word")}: ${some(read.map((k) => words[k]), 8) || "none"}` };
    return { state: "part", short: `${read.length} of ${n}`, long: `${read.length} of ${plural(n, "step")}` };
  },
  token(show, d, v, b, { n, sum }) {
    const { apart } = d.grid;
    if (!apart) return { short: `${Math.round(sum)} of ${n}`, long: `${Math.round(sum)} of ${plural(n, "token")} kept (${percent(sum / n)})` };
    const kept = onUnits(d, v, b).filter((k) => k >= apart).length;
    const classToken = d.value(v, b, 0) >= 0.5 ? "kept" : "halted";
    return { short: `${kept} of ${n - apart}`, long: `${kept} of ${n - apart} patches kept (${percent(kept / (n - apart))}), class token ${classToken}` };
  },
  pixel: (show, d, v, b, { n, sum }) => ({ short: percent(sum / n), long: `${Math.round(sum)} of ${plural(n, "pixel")} on (${percent(sum / n)})` }),
};

// One decision on one sample, with its price. States: on, off, part; left, passed, ghost for what exits do to the path.
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
  if (d.n === 1 && d.hard && !TELL[d.kind]) {
    const on = sum >= 0.5;
    return { state: on ? "on" : "off", short: on ? "ran" : "skipped", long: on ? `ran, ${macs(costs[i])} MACs` : `skipped, saves ${macs(d.total)} MACs` };
  }
  const cost = total > 0 ? `${macs(costs[i])} of ${macs(total)} MACs` : "deciding costs nothing";
  const soft = !d.hard && d.kind !== "weights";
  const told = soft
    ? { state: "part", short: `mean ${(sum / n).toFixed(2)}`, long: `mean weight ${(sum / n).toFixed(2)} over ${plural(n, nounOf(d))}` }
    : TELL[d.kind]
      ? TELL[d.kind](show, d, v, b, { n, sum })
      : { short: `${Math.round(sum)} of ${n}`, long: `${Math.round(sum)} of ${plural(n, nounOf(d))} on (${percent(sum / n)})` };
  const state = told.state || (sum === 0 ? "off" : sum === n ? "on" : "part");
  return { state, short: told.short, long: `${told.long}${d.kind === "pixel" || d.kind === "token" || !TELL[d.kind] ? ", " : "; "}${cost}` };
}

// One unit of a decision, for the pointer.
function tellUnit(show, v, b, i, k) {
  const d = show.decisions[i];
  if (k < 0 || k >= present(show, d, b)) return "";
  const on = d.hard ? (d.value(v, b, k) ? "on" : "off") : d.value(v, b, k).toFixed(2);
  const words = show.inputs[b].words;
  if (d.kind === "expert") {
    if (d.grid.rows === 1) return `expert ${k + 1}: ${on}`;
    const t = Math.floor(k / d.grid.rows);
    return `token ${t + 1}${words && words[t] !== undefined ? ` “${words[t]}”` : ""}, expert ${(k % d.grid.rows) + 1}: ${on}`;
  }
  if (d.kind === "step") {
    const t = Math.floor(k / d.each);
    const word = spoken(show, d, b) ? ` “${words[t]}”` : "";
    if (d.each > 1) return `place ${t + 1}${word}: ${onUnits(d, v, b).filter((j) => Math.floor(j / d.each) === t).length} of ${d.each} steps`;
    return `step ${t + 1}${word}: ${on === "on" ? "read" : on === "off" ? "skipped" : on}`;
  }
  if (d.kind === "token") {
    const what = spoken(show, d, b) ? `“${words[k]}”` : k < d.grid.apart ? "class token" : d.grid.apart ? `patch ${k - d.grid.apart + 1}` : `token ${k + 1}`;
    return `${what}: ${on === "on" ? "kept" : on === "off" ? "dropped" : on}`;
  }
  if (d.kind === "place") return `glimpse ${k + 1}: ${on === "off" ? "not taken" : d.where ? spot(d.where(v, b, k)) : on}`;
  if (d.kind === "frame") return `look ${k + 1}, frame ${frameOf(show, d, v, b, k) + 1}: ${on === "off" ? "not looked at" : "looked at"}`;
  if (d.kind === "pixel") {
    const [x, y] = d.grid.place(k);
    return `row ${y + 1}, column ${x + 1}: ${on}`;
  }
  return `${nounOf(d)} ${k + 1}: ${on}`;
}

// The moment after `beat` beats, in words.
function moment(show, beat) {
  if (!beat) return "before the first decision";
  const i = show.decisions.findIndex((d) => beat <= d.start + d.beats);
  const d = show.decisions[i];
  if (d.beats === 1) return `after ${d.name}, ${i + 1} of ${show.decisions.length}`;
  return `after ${nounOf(d)} ${beat - d.start} of ${d.beats}${show.decisions.length > 1 ? ` of ${d.name}` : ""}`;
}

// How much of all decisions of a kind ran, for the sentence.
const DID = {
  exit: () => "no exit taken",
  layer: (on, all) => `ran ${Math.round(on)} of ${plural(all, "layer")}`,
  expert: (on, all) => `ran ${percent(on / all)} of expert calls`,
  pixel: (on, all) => `computed ${percent(on / all)} of pixels`,
  weights: (on, all) => `mixed ${all} sets of weights`,
  token: (on, all) => `kept ${percent(on / all)} of tokens`,
  place: (on, all) => `took ${Math.round(on)} of ${plural(all, "glimpse")}`,
  frame: (on, all) => `looked at ${Math.round(on)} of ${plural(all, "frame")}`,
  step: (on, all, words) => `${words ? "read" : "took"} ${Math.round(on)} of ${plural(all, words ? "word" : "step")}`,
};

// The sentence a screen reader gets for one sample at one budget.
export function summary(show, v, b) {
  const { left, spent } = show.bill(v, b);
  const cost = `${macs(spent)} MACs, ${percent(spent / show.full)} of full`;
  if (left >= 0) return `Left at exit ${show.decisions[left].exit} of ${show.exits} after ${cost}.`;
  const parts = [...new Set(show.decisions.map((d) => d.kind))].map((kind) => {
    let on = 0;
    let all = 0;
    let words = false;
    for (const d of show.decisions) {
      if (d.kind !== kind) continue;
      words = spoken(show, d, b) && d.each === 1;
      const n = present(show, d, b);
      all += n;
      for (let k = 0; k < n; k++) on += d.value(v, b, k);
    }
    return DID[kind] ? DID[kind](on, all, words) : `used ${percent(on / all)} of ${NOUN[kind] || kind + " unit"}s`;
  });
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

// Frames [from, to) of the pixels side by side on one canvas.
function picture({ c, h, w, data }, frame = 0) {
  const canvas = make("canvas", "dt-canvas");
  canvas.width = w;
  canvas.height = h;
  const context = canvas.getContext("2d");
  const image = context.createImageData(w, h);
  for (let p = 0; p < h * w; p++) {
    for (let k = 0; k < 3; k++) image.data[4 * p + k] = data[(frame * c + (c === 3 ? k : 0)) * h * w + p];
    image.data[4 * p + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// ---- a row of the path: every drawing is {node, update(v, b, beat), fit(width, height), unitAt(x, y)}, x and y in [0, 1]

const LEVELS = 4; // soft gates are drawn in four strengths
const strength = (value) => (value <= 0 ? 0 : Math.max(1, Math.round(value * LEVELS)));

// An SVG whose paths are coloured by CSS alone: off, four strengths of on, and what is still to come.
function layersOf(width, height) {
  const node = svg("svg", { class: "dt-grid", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", focusable: "false" });
  const levels = Array.from({ length: LEVELS + 1 }, (_, s) => node.appendChild(svg("path", { class: s ? `dt-cell-on dt-level-${s}` : "dt-cell-off" })));
  const later = node.appendChild(svg("path", { class: "dt-cell-later" }));
  return {
    node, LATER: levels.length,
    draw(pieces) { [...levels, later].forEach((path, s) => path.setAttribute("d", (pieces[s] || []).join(""))); },
  };
}

const empty = () => Array.from({ length: LEVELS + 2 }, () => []);

// Any units as cells of a grid; steps with several updates each stand up as columns.
function cells(show, d) {
  const { rows, cols } = d.grid;
  const gap = cols > 40 || rows > 10 ? 0 : 0.08;
  const paper = layersOf(cols, rows);
  const side = (1 - 2 * gap).toFixed(2);
  if (!gap) paper.node.classList.add("dt-crisp");
  const update = (v, b, beat) => {
    const pieces = empty();
    const n = present(show, d, b);
    const upto = d.beats > 1 ? played(d, beat) * d.each : n;
    for (let k = 0; k < n; k++) {
      const [x, y] = d.grid.place(k);
      pieces[k < upto ? strength(d.value(v, b, k)) : paper.LATER].push(`M${(x + gap).toFixed(2)} ${(y + gap).toFixed(2)}h${side}v${side}h-${side}z`);
    }
    paper.draw(pieces);
  };
  const fit = (width, height, most) => {
    const cell = Math.min(width / cols, height / rows, most);
    const size = cell >= 3 ? Math.floor(cell) : cell >= 1 ? Math.floor(2 * cell) / 2 : cell;
    const tall = IN_TIME.has(d.kind) && size < 7 ? Math.min(height, Math.max(14, 5 * rows)) : 0; // many steps: higher than wide
    if (tall) paper.node.setAttribute("preserveAspectRatio", "none");
    paper.node.setAttribute("width", tall ? Math.min(width, 11 * cols) : size * cols);
    paper.node.setAttribute("height", tall || size * rows);
  };
  return { node: paper.node, update, fit, unitAt: (x, y) => d.grid.unit(x * cols, y * rows) };
}

// Mixed weights as bars, each in a frame of the full height.
function bars(show, d) {
  const paper = layersOf(d.n, 1);
  paper.node.setAttribute("preserveAspectRatio", "none");
  const bar = (x, value) => `M${x + 0.1} 1h0.8V${(1 - value).toFixed(3)}h-0.8z`;
  const update = (v, b) => {
    const pieces = empty();
    for (let k = 0; k < d.n; k++) {
      pieces[0].push(bar(k, 1));
      pieces[LEVELS].push(bar(k, d.value(v, b, k)));
    }
    paper.draw(pieces);
  };
  const fit = (width, height, most) => {
    paper.node.setAttribute("width", Math.min(width, 1.6 * most * d.n));
    paper.node.setAttribute("height", Math.min(height, 40));
  };
  return { node: paper.node, update, fit, unitAt: (x) => Math.floor(x * d.n) };
}

// Channels as one strip; where there are many, each piece is the share of its channels that is on.
function strip(show, d) {
  const pieces = Math.min(d.n, 64);
  const paper = layersOf(pieces, 1);
  paper.node.setAttribute("preserveAspectRatio", "none");
  paper.node.classList.add("dt-crisp");
  const first = (p) => Math.floor((p * d.n) / pieces);
  const update = (v, b) => {
    const found = empty();
    for (let p = 0; p < pieces; p++) {
      let sum = 0;
      for (let k = first(p); k < first(p + 1); k++) sum += d.value(v, b, k);
      found[strength(sum / (first(p + 1) - first(p)))].push(`M${p} 0h1v1h-1z`);
    }
    paper.draw(found);
  };
  const fit = (width, height) => {
    paper.node.setAttribute("width", width);
    paper.node.setAttribute("height", Math.min(height, 14));
  };
  return { node: paper.node, update, fit, unitAt: (x) => first(Math.floor(x * pieces)) };
}

const isGrid = (d) => !(d.kind === "exit" || (d.n === 1 && d.hard && !TELL[d.kind]));
const drawingOf = (show, d) => ({ weights: d.units.filter((u) => u > 1).length < 2 ? bars : cells, channel: strip }[d.kind] || cells)(show, d);

function door() {
  return svg(
    "svg", { class: "dt-door", viewBox: "0 0 22 18", width: 22, height: 18, "aria-hidden": "true", focusable: "false" },
    svg("path", { class: "dt-frame", d: "M2 17V1.5h9.5V17" }),
    svg("path", { class: "dt-leaf", d: "M2 1.5l6 2.5v13l-6 0z" }),
    svg("path", { class: "dt-shut", d: "M2 1.5h9.5V17H2zM9 9.2v1.4" }),
    svg("path", { class: "dt-arrow", d: "M10.5 10h9.5M16.5 6.2L20.3 10l-3.8 3.8" }),
  );
}

// ---- the scene: the input, with what was decided laid over it. Every scene is {node, cover(v, b, beat, pointed)}; cover
// draws the decisions played so far, or up to the one pointed at, and returns a caption.

const OVER = {
  image: (d) => d.kind === "pixel" || d.kind === "place" || (d.kind === "token" && d.n > 1),
  video: (d) => d.kind === "frame",
};

// The decision to lay over the scene: the one pointed at, else the last that was played, and how much of it.
function shownOver(show, fits, v, b, beat, pointed) {
  const chosen = show.decisions[pointed];
  if (chosen && fits(chosen)) return { i: pointed, upto: chosen.beats };
  const { left, end } = show.bill(v, b);
  const until = left >= 0 ? Math.min(beat, end) : beat;
  for (let i = show.decisions.length - 1; i >= 0; i--) {
    const d = show.decisions[i];
    if (fits(d) && played(d, until) > 0) return { i, upto: played(d, until) };
  }
  return null;
}

function pictureScene(show, input) {
  const { h, w } = input.pixels;
  const veils = svg("svg", { class: "dt-overlay", preserveAspectRatio: "none" });
  const marks = svg("svg", { class: "dt-overlay", viewBox: `0 0 ${w} ${h}` });
  const places = svg("g");
  if (input.box) {
    const [x0, y0, x1, y1] = input.box;
    for (const c of ["dt-box dt-box-under", "dt-box"]) marks.append(svg("rect", { class: c, x: x0 * w, y: y0 * h, width: Math.max(0, x1 - x0) * w, height: Math.max(0, y1 - y0) * h }));
  }
  marks.append(places);
  const node = make("div", "dt-scene", picture(input.pixels), veils, marks);
  node.style.aspectRatio = `${w} / ${h}`;
  const cover = (v, b, beat, pointed) => {
    veils.replaceChildren();
    places.replaceChildren();
    const over = shownOver(show, OVER.image, v, b, beat, pointed);
    if (!over) return "";
    const d = show.decisions[over.i];
    if (d.kind === "place") return glimpses(d, v, b, over.upto, places, w, h);
    if (d.kind === "token") return patches(show, over.i, v, b, veils);
    mask(d, v, b, veils);
    return `mask of ${d.name}`;
  };
  return { node, cover };
}

// What a grid left out, under a veil, and the outline of what it kept. gone(k): 0 where unit k was kept, else how long ago
// it went, 0 to 1.
function veil(d, layer, gone) {
  const { rows, cols, apart } = d.grid;
  const shift = apart ? 1.5 : 0;
  const width = cols - shift;
  const paths = Array.from({ length: LEVELS }, () => "");
  let edge = "";
  const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= rows ? 1 : gone(d.grid.unit(x + shift, y)));
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < width; x++) {
      const g = at(x, y);
      if (g > 0) paths[strength(g) - 1] += `M${x} ${y}h1v1h-1z`;
      else {
        if (at(x, y - 1)) edge += `M${x} ${y}h1`;
        if (at(x, y + 1)) edge += `M${x} ${y + 1}h1`;
        if (at(x - 1, y)) edge += `M${x} ${y}v1`;
        if (at(x + 1, y)) edge += `M${x + 1} ${y}v1`;
      }
    }
  layer.setAttribute("viewBox", `0 0 ${width} ${rows}`);
  paths.forEach((path, s) => { if (path) layer.append(svg("path", { class: `dt-veil dt-veil-${s + 1}`, d: path })); });
  layer.append(svg("path", { class: "dt-edge", d: edge }));
}

function mask(d, v, b, layer) {
  veil(d, layer, (k) => (k < d.n && d.value(v, b, k) >= 0.5 ? 0 : 1));
}

// Tokens of a picture fade: the more layers went by without a patch, the darker it lies.
function patches(show, i, v, b, layer) {
  const d = show.decisions[i];
  const alike = show.decisions.filter((o) => o.kind === "token" && o.n === d.n);
  const upto = alike.slice(0, alike.indexOf(d) + 1);
  veil(d, layer, (k) => (d.value(v, b, k) >= 0.5 ? 0 : upto.filter((o) => o.value(v, b, k) < 0.5).length / alike.length));
  const { apart } = d.grid;
  const kept = onUnits(d, v, b).filter((k) => k >= apart).length;
  const told = apart ? `, class token ${d.value(v, b, 0) >= 0.5 ? "on" : "off"}` : "";
  return `${d.name}: ${kept} of ${d.n - apart}${told}`;
}

// Numbered boxes in the order of looking, and the way between their centres.
function glimpses(d, v, b, upto, layer, w, h) {
  const seen = d.where ? onUnits(d, v, b, upto * d.each) : [];
  const boxes = seen.map((k) => d.where(v, b, k).map((x, axis) => x * (axis % 2 ? h : w)));
  const centre = ([x0, y0, x1, y1]) => [(x0 + x1) / 2, (y0 + y1) / 2];
  const way = boxes.map(centre).map((p) => p.map((x) => x.toFixed(2)).join(",")).join(" ");
  layer.append(svg("polyline", { class: "dt-way dt-way-under", points: way }), svg("polyline", { class: "dt-way", points: way }));
  const r = 0.052 * w;
  boxes.forEach((box, order) => {
    const [x0, y0, x1, y1] = box;
    const now = order === boxes.length - 1 ? " dt-place-now" : "";
    layer.append(svg("rect", { class: `dt-place${now}`, x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) }));
  });
  boxes.forEach(([x0, y0, x1, y1], order) => { // each at another corner: the same place may be looked at again
    const x = Math.min(w - r, Math.max(r, [x0, x1, x1, x0][order % 4]));
    const y = Math.min(h - r, Math.max(r, [y0, y0, y1, y1][order % 4]));
    layer.append(svg("circle", { class: "dt-order", cx: x, cy: y, r }), svg("text", { class: "dt-order-text", x, y, "font-size": 1.5 * r }, String(order + 1)));
  });
  return `glimpses: ${seen.length} of ${d.n}`;
}

// A video as a timeline; frames that were looked at are bright and carry their place in the order.
function filmScene(show, input) {
  const frames = Array.from({ length: input.pixels.t }, (_, t) => {
    const order = make("span", "dt-frame-order");
    const node = make("span", "dt-frame-cell", picture(input.pixels, t), order, make("span", "dt-frame-number", `${t + 1}`));
    if (input.informative) node.style.setProperty("--dt-informs", input.informative[t]);
    return { node, order };
  });
  const node = make("div", "dt-scene dt-film", ...frames.map((f) => f.node));
  node.style.setProperty("--dt-frames", Math.ceil(frames.length / Math.ceil(frames.length / 8))); // rows of equal length
  const cover = (v, b, beat, pointed) => {
    const over = shownOver(show, OVER.video, v, b, beat, pointed);
    const d = over && show.decisions[over.i];
    const seen = d ? onUnits(d, v, b, over.upto * d.each).map((k) => frameOf(show, d, v, b, k)) : [];
    frames.forEach(({ node: cell, order }, t) => {
      const turns = seen.flatMap((frame, turn) => (frame === t ? [turn + 1] : []));
      order.textContent = turns.join(" ");
      cell.classList.toggle("dt-seen", turns.length > 0);
      cell.classList.toggle("dt-seen-now", seen.length > 0 && seen[seen.length - 1] === t);
    });
    return d ? `${seen.length} of ${frames.length} frames looked at` : "";
  };
  return { node, cover };
}

// Words, wrapped. Steps read them or pass them by, or think about each for a while (bars); tokens drop out for good.
function wordsScene(show, input, b) {
  const inTimeAtAll = show.decisions.some((d) => d.kind === "step" && spoken(show, d, b));
  const pondered = show.decisions.some((d) => d.kind === "step" && d.each > 1 && spoken(show, d, b));
  const words = input.words.map((word, t) => {
    const bar = make("span", "dt-ponder");
    const node = make("span", "dt-token", word || " ", ...(pondered ? [bar] : []));
    if (input.informative) node.style.setProperty("--dt-informs", input.informative[t]);
    return { node, bar };
  });
  const node = make("div", `dt-scene dt-words${pondered ? " dt-pondered" : ""}`, ...words.flatMap((w) => [w.node, " "]));
  const cover = (v, who, beat, pointed) => {
    const fits = (d) => spoken(show, d, who);
    const over = shownOver(show, fits, v, who, beat, pointed);
    const d = over && show.decisions[over.i];
    const inTime = d && d.kind === "step";
    words.forEach(({ node: word, bar }, t) => {
      const gone = d ? show.decisions.filter((o, i) => i <= over.i && o.kind === "token" && fits(o) && o.value(v, who, t) < 0.5).length : 0;
      const reached = Boolean(inTime) && t < over.upto;
      const level = reached ? onUnits(d, v, who).filter((k) => Math.floor(k / d.each) === t).length / d.each : 0;
      word.classList.toggle("dt-gone", gone > 0);
      word.classList.toggle("dt-long-gone", gone > 1);
      word.classList.toggle("dt-read", reached && level > 0);
      word.classList.toggle("dt-passed", reached && level === 0);
      word.classList.toggle("dt-later", inTimeAtAll && !reached);
      word.classList.toggle("dt-reading", reached && t === over.upto - 1 && over.upto < words.length);
      bar.style.height = `${Math.round(100 * level)}%`;
    });
    if (!inTime) return "";
    const upto = Math.min(words.length, over.upto);
    if (upto < words.length) follow(node, words[upto - 1].node);
    return TELL.step(show, d, v, who, { n: upto * d.each, sum: onUnits(d, v, who, upto * d.each).length }).long;
  };
  return { node, cover };
}

// Scroll `inside` so that `part` is seen, without moving the page.
function follow(inside, part) {
  const slack = 4;
  const [top, bottom] = [part.offsetTop - slack, part.offsetTop + part.offsetHeight + slack];
  if (top < inside.scrollTop) inside.scrollTop = top;
  else if (bottom > inside.scrollTop + inside.clientHeight) inside.scrollTop = bottom - inside.clientHeight;
}

// What overflows can be scrolled by keyboard, too.
function scrollable(node, name) {
  const over = node.scrollHeight > node.clientHeight + 1;
  for (const [key, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", name]])
    if (over) node.setAttribute(key, value);
    else node.removeAttribute(key);
}

const noScene = (show, input) => ({ node: make("div", "dt-scene dt-words", `No picture for an input of kind “${input.kind}”.`), cover: () => "" });

function sceneOf(show, b) {
  const input = show.inputs[b];
  const draw = input.words ? wordsScene : !input.pixels ? noScene : input.kind === "video" ? filmScene : pictureScene;
  return draw(show, input, b);
}

// What a strip of choices shows of an input: the picture, the middle frame of a video, the first words.
function faceOf(input, b) {
  const face = input.pixels ? picture(input.pixels, input.pixels.t >> 1) : make("span", "dt-word", (input.words ? input.words.slice(0, 3).join(" ") : `${b + 1}`) || "–");
  face.setAttribute("aria-hidden", "true");
  return face;
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
    strip.append(make("label", "dt-thumb", radio, faceOf(input, b)));
    return radio;
  });

  const stand = make("div", "dt-stand");
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
  const cost = make("div", "dt-cost", make("div", "dt-cost-line", spentNow, shareNow), bar, legend, sentence);
  // Words and films want the width: the scene stands above the path; else beside it.
  const long = show.inputs.some((x) => x.words && (x.words.length > 12 || show.decisions.length < 3));
  const wide = long || show.inputs.some((x) => x.kind === "video") || show.decisions.some((d) => d.kind === "step" && spoken(show, d, 0));
  const big = show.decisions.some((d) => d.kind === "place" || (d.kind === "token" && d.grid.rows > 1));
  root.append(
    head,
    wide
      ? make("div", "dt-body dt-wide", make("div", "dt-above", stand, mask), make("div", "dt-below", make("div", "dt-left", verdict, traits), path))
      : make("div", `dt-body${big ? " dt-big" : ""}`, make("div", "dt-left", stand, mask, verdict, traits), path),
    cost);

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
      grid = drawingOf(show, d);
      if (rowsFit) grid.fit(big ? 92 : 126, Math.min(wide ? 56 : 84, Math.max(22, Math.floor((wide ? 90 : 244) / show.decisions.length) - 3)), 11);
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
    button.addEventListener("click", () => hooks.step(d.start + d.beats));
    const cellAt = (event) => {
      if (!grid) return null;
      const r = grid.node.getBoundingClientRect();
      const [x, y] = [(event.clientX - r.left) / r.width, (event.clientY - r.top) / r.height];
      return x >= 0 && y >= 0 && x < 1 && y < 1 ? grid.unitAt(x, y) : null;
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

  let scene = null;
  let painted = -1; // input on the scene
  let drawn = -1; // budget and input in the path
  let tells = [];
  function paint(b) {
    if (painted === b) return;
    painted = b;
    const input = show.inputs[b];
    scene = sceneOf(show, b);
    stand.replaceChildren(scene.node);
    if (input.pixels) scene.node.setAttribute("role", "img");
    traits.replaceChildren(...input.difficulty.slice(0, 4).map(([k, v]) => make("span", "dt-trait", `${k} ${tidy(v)}`)));
  }

  function update(state, other, pointed) {
    const { budget: v, step: depth } = state;
    const b = state[role];
    const input = show.inputs[b];
    const rival = show.inputs[state[other]];
    const bill = show.bill(v, b);
    paint(b);
    radios.forEach((r, i) => { r.checked = i === b; });
    const compare = input.hard === null || rival.hard === null ? 0 : Math.sign(input.hard - rival.hard);
    title.textContent = compare < 0 ? "Easier input" : compare > 0 ? "Harder input" : role === "left" ? "Left input" : "Right input";
    const thumb = radios[b].parentNode; // the one chosen is in view
    if (thumb.offsetLeft < strip.scrollLeft || thumb.offsetLeft + thumb.offsetWidth > strip.scrollLeft + strip.clientWidth)
      strip.scrollLeft = thumb.offsetLeft - (strip.clientWidth - thumb.offsetWidth) / 2;
    if (drawn !== v * show.inputs.length + b) {
      drawn = v * show.inputs.length + b;
      tells = units.map((_, i) => tell(show, v, b, i));
      const around = (i) => tells[i] !== undefined && tells[i].state === "off";
      for (const [i, u] of units.entries()) {
        u.state.textContent = tells[i].short;
        u.price.textContent = macs(bill.costs[i]);
        u.button.setAttribute("aria-label", `${show.decisions[i].name}: ${tells[i].long}`);
        // the line runs through what was computed and bends around what was skipped
        const [x0, x1] = [around(i - 1) ? 3 : 9, around(i + 1) ? 3 : 9];
        u.flow.setAttribute("d", around(i) ? `M${x0} 0C${x0} 22 3 18 3 42V58C3 82 ${x1} 78 ${x1} 100` : tells[i].state === "left" ? "M9 0V50" : "M9 0V100");
      }
    }
    for (const [i, u] of units.entries()) {
      const { state: how } = tells[i];
      const d = show.decisions[i];
      const progress = played(d, depth);
      if (u.grid && u.drawn !== `${drawn} ${progress}`) {
        u.drawn = `${drawn} ${progress}`;
        u.grid.update(v, b, depth);
      }
      const shown = progress > 0 || (how === "ghost" && depth > show.decisions[bill.left].start);
      const now = progress > 0 && depth <= d.start + d.beats && depth < show.beats;
      const name = `${u.kind} dt-is-${how}${shown ? "" : " dt-future"}${progress < d.beats ? " dt-begun" : ""}${now ? " dt-now" : ""}`;
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
      ...(bill.fixed > 0 ? [make("span", "dt-key dt-key-fixed", `stem and head ${macs(bill.fixed)}`)] : []),
      ...(units.length ? [make("span", "dt-key dt-key-gated", `decided ${macs(now - bill.fixed)}${bill.scaled ? " (prices interact: scaled to the bill)" : ""}`)] : []),
    );
    const share = show.budgets[v].correct[b];
    const right = share >= 1;
    const judged = right ? "✓ correct" : share > 0 ? `${percent(share)} correct` : "✗ wrong"; // an answer may have parts
    const guess = show.name(show.budgets[v].predicted[b]);
    const truth = input.label === undefined ? "" : show.name(input.label);
    verdict.className = `dt-verdict ${done ? (right ? "dt-right" : "dt-wrong") : "dt-open"}`;
    verdict.replaceChildren(
      make("span", `dt-guess${guess.length > 2 ? " dt-guess-word" : ""}`, done ? guess : "…"),
      make("span", "dt-judged", done ? judged : "computing", ...(done && !right && truth ? [make("span", "dt-truth", `it is ${truth}`)] : [])),
    );
    const when = moment(show, depth);
    sentence.textContent = done ? summary(show, v, b) : `${when[0].toUpperCase()}${when.slice(1)}.`;
    mask.textContent = scene.cover(v, b, depth, pointed);
    if (input.words) scrollable(scene.node, `Words of input ${b + 1}`);
    if (input.pixels) scene.node.setAttribute("aria-label", [`Input ${b + 1}${truth ? `: ${truth}` : ""}`, mask.textContent].filter(Boolean).join(", "));
  }

  const toPlayed = (beat) => { // keep the unit being played in view
    const unit = units[show.decisions.findIndex((d) => beat <= d.start + d.beats)];
    if (unit) follow(path, unit.item);
  };
  return { root, update, follow: toPlayed, title: () => title.textContent };
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
  const D = show.beats;
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
  const inTime = D > 0 && show.decisions.every((d) => d.beats > 1);
  const depth = range("step", D, inTime ? "Time" : "Depth");
  const budget = range("budget", V - 1, `Budget: ${show.knob}`);
  budget.root.hidden = show.knob === null;
  depth.root.hidden = D === 0;
  const stats = make("div", "dt-stats");
  const plot = curve(show);
  const boxes = show.inputs.some((x) => x.box || x.informative);
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
      const here = cell !== null ? tellUnit(show, state.budget, state[side_], i, cell) : "";
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

  const told = inTime && show.decisions.length === 1 ? plural(D, nounOf(show.decisions[0])) : plural(show.decisions.length, "decision");
  root.append(
    make("div", "dt-head",
      make("div", "dt-titles", make("div", "dt-title", show.method),
        make("div", "dt-sub", `${show.task} · ${told} · full ${macs(show.full)} MACs`)),
      stats, ...(V > 1 ? [plot.node] : [])),
    make("div", "dt-controls", make("div", "dt-buttons", play, reset), depth.root, budget.root),
    make("div", "dt-stage", sides.left.root, sides.right.root),
    make("div", "dt-foot", status, ...(boxes ? [boxLabel] : [])), tip);

  function draw() {
    const now = show.budgets[state.budget];
        depth.input.value = String(state.step);
    depth.value.textContent = `${state.step} of ${D}`;
    depth.input.setAttribute("aria-valuetext", moment(show, state.step));
    budget.input.value = String(state.budget);
    budget.value.textContent = `${tidy(now.value)}`;
    const means = `mean ${macs(now.meanSpent)} MACs, ${percent(now.meanSpent / show.full)} of full, accuracy ${percent(now.accuracy)}`;
    budget.input.setAttribute("aria-valuetext", `${show.knob} ${tidy(now.value)}: ${means}`);
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
