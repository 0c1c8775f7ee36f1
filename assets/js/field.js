// The field on one plot: every measured method at its budgets, against MACs, milliseconds or parameters, beside static
// nets; and time against MACs of receipts.
(() => {
  const { el, plural, begin, address, rove } = drawing;
  const found = begin('dyn-field');
  if (!found) return;
  const [box, { tasks, methods, facets, batches }] = found;
  const BY = { macs: 'MACs', ms: 'Time', params: 'Parameters', time: 'Receipts' };
  const BATCHED = new Set(['ms', 'time']);
  const ABOUT = { unit: 'what is skipped', decision: 'who decides', training: 'how it is learned', adapts: 'what follows what', verdict: 'of the claims, here' };
  const names = Object.keys(ABOUT).filter((f) => Object.keys(facets[f] ?? {}).length);
  const SHAPES = ['M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0Z', 'M-4.5,-4.5h9v9h-9Z', 'M0,-6.5L6,4.5H-6Z', 'M0,-6.2L6.2,0L0,6.2L-6.2,0Z', 'M0,6.5L6,-4.5H-6Z', 'M-2,-6h4v4h4v4h-4v4h-4v-4h-4v-4h4Z'];

  // ---- figures for a reader; nothing is a dash
  const digits = (v) => String(+v.toPrecision(3));
  const number = (v) => (v == null ? '–' : v >= 1e9 ? digits(v / 1e9) + ' G' : v >= 1e6 ? digits(v / 1e6) + ' M' : v >= 1e3 ? digits(v / 1e3) + ' k' : digits(v));
  const percent = (v) => (v == null ? '–' : (100 * v).toFixed(1) + ' %');
  const bare = (text) => text.replace(' %', '');
  const ratio = (v) => v.toFixed(2);
  const points = (v) => (v < 0 ? '−' : '+') + Math.abs(100 * v).toFixed(1);
  const interval = ([mean, low, high], form) => (low == null ? form(mean) : `${form(mean)} (${bare(form(low))} to ${bare(form(high))})`);
  const setting = (m, p) => (p.budget == null ? 'the only setting' : `${m.knob} ${p.budget}`);
  const share = (m, p) => p.macs[0] / m.full;
  const receipt = (m, batch) => m.receipts.find((r) => r.batch === batch);
  const at = (x, batch) => x?.times?.find((t) => t.batch === batch);     // how long a point, or a static net, takes
  const clocked = (t, unit = ' ms') => `${digits(t.ms[0])}${unit} (quartiles ${digits(t.ms[1])} to ${digits(t.ms[2])})`;
  const reference = (m) => tasks.find((t) => t.name === m.task)?.static.find((line) => line.reference)?.reference ?? '';
  const noise = (t) => `noise ${ratio(t.noise)}`;
  const timed = (r) => (!r ? 'no receipt' : r.void ? 'void: the machine was not quiet' : interval(r.time, ratio));

  // ---- state <-> address
  const columns = {                   // of the table: [heading, what it sorts by, what it shows]
    method: ['Paper', (r) => r.name.toLowerCase()], budget: ['Budget', (r) => r.p?.budget], accuracy: ['Accuracy', (r) => r.accuracy[0], (r) => interval(r.accuracy, percent)],
    macs: ['Executed MACs', (r) => r.macs, (r) => number(r.macs)], share: ['Of everything on', (r) => (r.m ? share(r.m, r.p) : 1), (r) => percent(r.m ? share(r.m, r.p) : 1)],
    params: ['Parameters', (r) => r.params, (r) => number(r.params)],
    ...Object.fromEntries(batches.map((b) => ['ms' + b, [`Ms, batch ${b}`, (r) => { const t = at(r.p ?? r.n, b); return t && !t.void ? t.ms[0] : null; },
      (r) => { const t = at(r.p ?? r.n, b); return !t ? '–' : t.void ? `void (${noise(t)})` : `${digits(t.ms[0])} (${t.dense ? `dense ${digits(t.dense)}, ` : ''}${noise(t)})`; }]])),
    ...Object.fromEntries(batches.map((b) => ['time' + b, [`Receipt, batch ${b}`, (r) => { const x = r.m && receipt(r.m, b); return x && !x.void ? x.time[0] : null; },
      (r) => { const x = r.m && receipt(r.m, b); return !x ? '–' : x.void ? 'void' : ratio(x.time[0]); }]])),
    gain: ['Above static', (r) => r.p?.gain?.[0], (r) => (r.p?.gain ? interval(r.p.gain, points) : '–')],
    verdict: ['Verdict', (r) => r.m?.verdict ?? 'static', (r) => (r.m ? r.m.verdict + (r.m.stale ? ', stale' : '') : 'static')] };
  let state;
  function read() {
    const query = new URLSearchParams(location.search), one = (name, known, other) => (known.includes(query.get(name)) ? query.get(name) : other);
    const task = query.get('task') === 'all' ? '' : one('task', tasks.map((t) => t.name), tasks[0].name);
    const sort = query.get('sort') || '-accuracy', down = sort.startsWith('-'), known = Object.hasOwn(columns, sort.replace(/^-/, ''));
    const m = methods.find((x) => x.id === query.get('method') && (!task || x.task === task));
    const p = m?.points.findIndex((x) => String(x.budget) === query.get('budget')) ?? -1;
    state = { task, by: task ? one('by', Object.keys(BY), 'macs') : 'time', batch: Number(one('batch', batches.map(String), batches[0])), statics: query.get('static') !== '0',
      method: m?.id ?? null, point: p, sort: known ? sort.replace(/^-/, '') : 'accuracy', down: known ? down : true,
      words: Object.fromEntries(names.map((f) => [f, new Set((query.get(f) || '').split(',').filter((w) => Object.hasOwn(facets[f], w)))])) };
  }
  function change(more, step = false) {
    state = { ...state, ...more };
    if (!state.task) state.by = 'time';
    const m = methods.find((x) => x.id === state.method);
    if (m && state.task && m.task !== state.task) { state.method = null; state.point = -1; }
    const sort = (state.down ? '-' : '') + state.sort, budget = methods.find((x) => x.id === state.method)?.points[state.point]?.budget;
    address({ task: state.task !== tasks[0].name && (state.task || 'all'), by: state.by !== 'macs' && state.task && state.by, batch: BATCHED.has(state.by) && state.batch !== batches[0] && String(state.batch),
      static: !state.statics && '0', ...Object.fromEntries(names.map((f) => [f, [...state.words[f]].join(',')])), method: state.method, budget: budget != null && String(budget), sort: sort !== '-accuracy' && sort }, step);
    draw();
  }
  function choose(id, point = -1) {
    change({ method: id, point: id ? point : -1 }, true);
    const under = detail.getBoundingClientRect().top - innerHeight + 160;
    if (id && under > 0) scrollBy(0, under);   // so that what was opened is seen to open
  }

  // ---- what is shown: words of one facet widen, facets narrow
  const here = () => methods.filter((m) => !state.task || m.task === state.task);
  const fits = (m, but) => names.every((f) => f === but || !state.words[f].size || m.facets[f].some((w) => state.words[f].has(w)));
  const lines = () => (state.statics && state.by !== 'time' ? tasks.find((t) => t.name === state.task)?.static ?? [] : []);
  const price = (n) => (state.by === 'ms' ? at(n, state.batch)?.ms[0] : state.by === 'macs' ? n.macs : n.params);   // of a static net
  const title = (m) => (here().some((x) => x !== m && x.method === m.method) ? `${m.method} (${m.task})` : m.method);
  // The points that the view has of a method: where, with intervals, and in words.
  function spots(m) {
    if (state.by === 'time') {
      const r = receipt(m, state.batch);
      return r ? [{ m, i: -1, x: r.share, y: r.time, open: r.void, says: `${title(m)}, batch ${r.batch}: ${percent(r.share)} of the MACs, time ratio ${timed(r)}` }] : [];
    }
    if (state.by === 'ms') {
      return m.points.flatMap((p, i) => {
        const t = at(p, state.batch);
        return t ? [{ m, i, x: t.ms[0], y: p.accuracy, wide: t.ms.slice(1), seen: true, open: t.void,
          says: `${title(m)}, ${setting(m, p)}, batch ${t.batch}: accuracy ${interval(p.accuracy, percent)}, ${t.void ? 'void, the machine was not quiet: ' : ''}${clocked(t)} per input, dense ${digits(t.dense)} ms, ${digits(t.ratio)} of the time of ${reference(m)}, ${noise(t)}` }] : [];
      });
    }
    return m.points.map((p, i) => ({ m, i, x: state.by === 'macs' ? p.macs[0] : m.params, y: p.accuracy, wide: state.by === 'macs' && p.macs[1] != null ? p.macs.slice(1) : null,
      says: `${title(m)}, ${setting(m, p)}: accuracy ${interval(p.accuracy, percent)}, ${number(p.macs[0])} MACs, ${percent(share(m, p))} of everything on, ${number(m.params)} parameters` }));
  }

  // ---- the frame
  const radios = (legend, name, options, pick) => {
    const all = Object.entries(options).map(([value, label]) => el('label', {}, el('input', { type: 'radio', name, value, onchange: () => pick(value) }), el('span', {}, label)));
    return [el('fieldset', { class: 'dyn-views' }, el('legend', {}, legend), ...all), (value) => { for (const l of all) l.firstChild.checked = l.firstChild.value === value; }];
  };
  const task = el('select', { id: 'dyn-field-task', onchange: () => change({ task: task.value }, true) },
    ...tasks.map((t) => el('option', { value: t.name }, `${t.name}: ${plural(methods.filter((m) => m.task === t.name).length, 'method')}`)),
    batches.length ? el('option', { value: '' }, 'every task: receipts only') : null);
  const [by, setBy] = radios('Against', 'dyn-field-by', BY, (value) => change({ by: value, task: state.task || (value === 'time' ? '' : tasks[0].name) }, true));
  const [batch, setBatch] = radios('Batch', 'dyn-field-batch', Object.fromEntries(batches.map((b) => [b, `batch ${b}`])), (value) => change({ batch: Number(value) }, true));
  const statics = el('input', { type: 'checkbox', onchange: () => change({ statics: statics.checked }) });
  const tick = el('label', { class: 'dyn-tick' }, statics, 'static nets');
  const status = el('p', { class: 'dyn-sum', role: 'status' });
  const chips = [];
  const filters = el('details', { class: 'dyn-plot-filters', open: matchMedia('(min-width: 60rem)').matches }, el('summary', {}, 'Filters'), ...names.map((f) => el('div', { class: 'dyn-facet', role: 'group', 'aria-label': f },
    el('p', {}, f[0].toUpperCase() + f.slice(1), ' ', el('small', {}, ABOUT[f])),
    el('div', { class: 'dyn-words' }, ...Object.entries(facets[f]).map(([w, about]) => {
      const count = el('b', {}), chip = el('button', { type: 'button', class: 'dyn-chip dyn-word', title: about, 'data-word': `${f}:${w}`, onclick: () => {
        const words = new Set(state.words[f]);
        if (!words.delete(w)) words.add(w);
        change({ words: { ...state.words, [f]: words } });
      } }, el('span', {}, w), ' ', count);
      chips.push({ f, w, chip, count });
      return chip;
    })))));
  const summary = filters.querySelector('summary');
  const clear = el('button', { type: 'button', class: 'dyn-press', onclick: () => { change({ words: Object.fromEntries(names.map((f) => [f, new Set()])) }); summary.focus(); } }, 'Clear filters');
  filters.append(clear);
  const readout = el('p', { class: 'dyn-readout', 'aria-hidden': 'true', hidden: true });
  const chart = el('div', { class: 'dyn-plot' });
  const legend = el('ul', { class: 'dyn-legend dyn-plot-legend' });
  const about = el('p', { class: 'dyn-small dyn-muted dyn-plot-about' });
  const detail = el('section', { class: 'dyn-detail', 'aria-label': 'The chosen method', 'aria-live': 'polite' });
  const beside = el('div', { class: 'dyn-plot-beside' }, el('div', {}, chart, legend), detail);
  const scroll = el('div', { class: 'dyn-scroll', tabindex: 0, role: 'region', 'aria-label': 'All values' });
  const meaning = el('p', { class: 'dyn-small dyn-muted dyn-plot-about' }, 'Means over seeds, in brackets the 95% interval. Above static: points of accuracy above the static frontier at the same executed MACs. Ms: milliseconds per input of the trained net, then of its dense form, and the noise of the clock, 1 on a quiet machine. Receipt: time, sparse over dense, of a larger net. A click on a column’s name sorts.');
  const download = el('button', { type: 'button', class: 'dyn-press', onclick: () => {
    const url = URL.createObjectURL(new Blob([csv()], { type: 'text/csv;charset=utf-8' }));
    el('a', { href: url, download: `dynnotes-${state.task || 'time'}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  } }, 'Download CSV');
  box.append(el('div', { class: 'dyn-tools' }, el('div', { class: 'dyn-ask' }, el('label', { for: 'dyn-field-task' }, 'Task'), task), by, batch, tick), filters, status, beside, about, meaning, scroll, download);
  box.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || !state.method) return;
    const held = chart.contains(document.activeElement);
    choose(null);
    if (!held) chart.querySelector('.dyn-spot[tabindex="0"]')?.focus();
  });

  // ---- scales and ticks
  const linear = (low, high, from, to) => (v) => from + ((v - low) / (high - low)) * (to - from);
  function steps(low, high, most) {   // round figures from low to high
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough)), step = power * [1, 2, 5, 10].find((s) => s * power >= rough * 0.999);
    return Array.from({ length: Math.floor(high / step + 1e-9) - Math.ceil(low / step - 1e-9) + 1 }, (_, i) => (Math.ceil(low / step - 1e-9) + i) * step);
  }
  function decades(low, high, most) { // of each power of ten all multiples, or 1, 2 and 5, or 1 alone: as many as fit
    const some = (multiples) => {
      const all = [];
      for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10) all.push(...multiples.map((s) => s * power).filter((v) => v >= low && v <= high));
      return all;
    };
    const few = some([1, 2, 5]), powers = some([1]);
    if (few.length < 4) return some([1, 2, 3, 4, 5, 6, 8]);
    return few.length <= most || powers.length < 2 ? few : powers;
  }

  // ---- the plot, drawn for the width that it has
  const stop = rove(chart, '.dyn-spot', (e, key) => {
    const all = [...chart.querySelectorAll('.dyn-spot')], at = (s) => s.dataset.at.split(',').map(Number), [x, y] = at(e);
    const own = all.filter((s) => s.dataset.method === e.dataset.method), other = all.filter((s) => s.dataset.method !== e.dataset.method);
    const near = (some) => some.sort((a, b) => Math.hypot(at(a)[0] - x, at(a)[1] - y) - Math.hypot(at(b)[0] - x, at(b)[1] - y))[0];
    if (key === 'ArrowLeft' || key === 'ArrowRight') {
      const side = key === 'ArrowLeft' ? -1 : 1;
      if (own.length > 1) return own[own.indexOf(e) + side];
      const order = all.sort((a, b) => at(a)[0] - at(b)[0] || at(a)[1] - at(b)[1]);
      return order[order.indexOf(e) + side];
    }
    return near(other.filter((s) => (key === 'ArrowUp' ? at(s)[1] < y : at(s)[1] > y)));
  });
  let measure;                        // the width of a name
  function width(name) {
    measure ??= document.createElement('canvas').getContext('2d');
    measure.font = `12px ${getComputedStyle(box).fontFamily}`;
    return measure.measureText(name).width;
  }
  function plot() {
    const time = state.by === 'time', W = Math.max(280, Math.floor(chart.clientWidth)), H = Math.round(Math.min(620, Math.max(360, W * 0.6)));
    const left = 50, right = W - 14, top = 28, bottom = H - 48;
    const shown = here().filter((m) => fits(m)), all = shown.flatMap(spots), nets = lines().flatMap((line) => line.nets.map((n) => ({ ...n, x: price(n) })).filter((n) => n.x != null));
    const hue = new Map(here().map((m, i, list) => [m.id, [Math.round(25 + (360 / list.length) * i) % 360, SHAPES[i % SHAPES.length]]]));
    if (!all.length) { chart.replaceChildren(el('p', { class: 'dyn-note' }, shown.length ? `None of these methods ${time ? 'has a receipt' : 'was timed'} at this batch size.` : 'No method matches all of this. Press a word of the filters again to let it go.')); legend.replaceChildren(); return; }
    const xs = [...all.flatMap((s) => (s.seen ? [s.x, ...s.wide] : [s.x])), ...nets.map((n) => n.x)], ys = [...all.flatMap((s) => s.y), ...nets.flatMap((n) => n.accuracy)].filter((v) => v != null);
    const ends = time ? [0, Math.max(1, ...xs) * 1.06] : [Math.min(...xs) / 1.25, Math.max(...xs) * 1.25];
    const [floor, ceiling] = time ? [0, Math.max(1.1, ...ys) * 1.05] : [Math.max(0, Math.min(...ys) - 0.02), Math.min(1, Math.max(...ys) + 0.02)];
    const X = time ? linear(...ends, left, right) : (v) => linear(...ends.map(Math.log), left, right)(Math.log(v)), Y = linear(floor, ceiling, bottom, top);
    const held = (v, a, b) => Math.min(Math.max(v, Math.min(a, b)), Math.max(a, b));
    const path = (list) => list.map(([x, y], i) => `${i ? 'L' : 'M'}${X(x).toFixed(1)},${held(Y(y), top, bottom).toFixed(1)}`).join('');
    const marks = [];
    for (const v of time ? steps(...ends, W / 90) : decades(...ends, W / 56)) {
      marks.push(el('path', { class: 'dyn-rule', d: `M${X(v).toFixed(1)},${top}V${bottom}` }), el('text', { class: 'dyn-axis', x: X(v).toFixed(1), y: bottom + 16, 'text-anchor': 'middle' }, time ? Math.round(100 * v) + ' %' : number(v)));
    }
    for (const v of steps(floor, ceiling, 7)) {
      marks.push(el('path', { class: 'dyn-rule', d: `M${left},${Y(v).toFixed(1)}H${right}` }), el('text', { class: 'dyn-axis', x: left - 6, y: (Y(v) + 4).toFixed(1), 'text-anchor': 'end' }, time ? digits(v) : Math.round(100 * v) + ' %'));
    }
    marks.push(el('text', { class: 'dyn-axis', x: 0, y: 14 }, time ? 'time, sparse over dense' : 'accuracy'),
      el('text', { class: 'dyn-axis', x: right, y: H - 8, 'text-anchor': 'end' }, { macs: 'executed MACs per input', ms: `milliseconds per input, batch ${state.batch}`, params: 'parameters', time: 'executed MACs, of everything on' }[state.by] + (time ? '' : ' (logarithmic)')));
    // what it is measured against
    const taken = [];                 // boxes where no name may stand
    if (time) {
      const most = Math.min(ends[1], ceiling);
      marks.push(el('path', { class: 'dyn-even', d: path([[0, 1], [ends[1], 1]]) }), el('path', { class: 'dyn-even', d: path([[0, 0], [most, most]]) }),
        el('text', { class: 'dyn-axis', x: left + 6, y: (Y(1) - 6).toFixed(1) }, 'no time saved'),
        el('text', { class: 'dyn-axis', x: (X(0.12) + 10).toFixed(1), y: (Y(0.12) + 12).toFixed(1) }, 'as much time saved as MACs'));
      taken.push([left, Y(1) - 18, left + 90, Y(1)]);
    }
    for (const line of lines()) {
      const rows = (state.by === 'ms' ? line.ms[state.batch] : line[state.by]) ?? [], last = Math.max(...line.nets.filter((n) => state.by !== 'ms' || at(n, state.batch)?.void === false).map(price)), drawn = rows.filter((r) => r[0] <= last), wide = rows.filter((r) => r[2] != null);
      marks.push(el('path', { class: 'dyn-band', d: wide.length > 1 ? path([...wide.map((r) => [r[0], r[3]]), ...wide.toReversed().map((r) => [r[0], r[2]])]) + 'Z' : '' }),
        el('path', { class: 'dyn-static-line', d: path(drawn) }), el('path', { class: 'dyn-static-line dyn-beyond', d: path(rows.filter((r) => r[0] >= last)) }),
        ...line.nets.filter((n) => price(n) != null).map((n) => { const x = X(price(n)).toFixed(1), y = Y(n.accuracy[0]).toFixed(1), t = state.by === 'ms' && at(n, state.batch);
          const told = !t ? '' : `, ${t.void ? 'void: ' : ''}${clocked(t)} at batch ${t.batch}, ${digits(t.ratio)} of the time of ${line.reference}, ${noise(t)}`;
          return el('path', { class: 'dyn-net', 'stroke-dasharray': t?.void ? '2 2' : null, transform: `translate(${x},${y})`, d: 'M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0Z' }, el('title', {}, `static: ${n.net}, ${interval(n.accuracy, percent)}, ${number(n.macs)} MACs, ${number(n.params)} parameters${told}`)); }));
    }
    // curves, their intervals and their points
    const series = shown.map((m) => ({ m, list: spots(m) })).filter((s) => s.list.length), curves = [], places = [];
    for (const { m, list } of series) {
      const [turn, shape] = hue.get(m.id), look = { 'data-method': m.id, style: { '--hue': turn } };
      const bars = list.flatMap((s) => (s.y[1] == null ? [] : [el('path', { class: 'dyn-whisker', d: path([[s.x, s.y[1]], [s.x, s.y[2]]]) })]).concat(s.wide ? [el('path', { class: s.seen ? 'dyn-whisker' : 'dyn-whisker dyn-across', d: `M${held(X(Math.max(s.wide[0], ends[0])), left, right).toFixed(1)},${Y(s.y[0]).toFixed(1)}H${held(X(s.wide[1]), left, right).toFixed(1)}` })] : []));
      const on = m.id === state.method, buttons = list.map((s) => {
        const x = X(s.x), y = Y(s.y[0]);
        places.push([x - 7, y - 7, x + 7, y + 7]);
        const tell = () => say(s, x, y);
        return el('g', { class: 'dyn-spot' + (s.open ? ' dyn-void' : ''), role: 'button', tabindex: '-1', 'data-method': m.id, 'data-point': s.i, 'data-at': `${x.toFixed(1)},${y.toFixed(1)}`, 'aria-label': s.says, 'aria-pressed': String(on && (s.i === state.point || state.by === 'time')),
          transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`, onpointerenter: tell, onfocus: tell, onpointerleave: hush, onblur: hush,
          onclick: () => choose(on && (s.i === state.point || state.by === 'time') ? null : m.id, s.i),
          onkeydown: (event) => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); event.currentTarget.dispatchEvent(new Event('click')); } } },
        el('path', { class: 'dyn-reach-spot', d: 'M-12,-12h24v24h-24Z' }), el('path', { class: 'dyn-shape', d: shape }));
      });
      curves.push(el('g', { class: 'dyn-curve', ...look }, el('path', { class: 'dyn-curve-line', d: path(list.map((s) => [s.x, s.y[0]])) }), ...bars, ...buttons));
    }
    // names: the first place beside the end of a curve where one fits; the legend has them all
    const labels = [];
    for (const { m, list } of series.toSorted((a, b) => (b.m.id === state.method) - (a.m.id === state.method))) {   // the chosen one first
      const name = title(m), w = width(name), clear = ([a, b, c, d]) => a >= left && c <= W && b >= top - 12 && d <= bottom && [...taken, ...places].every(([e, f, g, h]) => c <= e || a >= g || d <= f || b >= h);
      const spot = [list.at(-1), list[0]].flatMap((s) => { const x = X(s.x), y = Y(s.y[0]);
        return [[x + 9, y - 7, 0], [x - 9 - w, y - 7, 0], [x - w / 2, y - 23, 0], [x - w / 2, y + 9, 0]].map(([a, b]) => [a, b, a + w, b + 14]); }).find(clear);
      if (!spot) continue;
      taken.push(spot);
      labels.push(el('text', { class: 'dyn-plot-name', 'data-method': m.id, x: spot[0].toFixed(1), y: (spot[1] + 11).toFixed(1) }, name));
    }
    const focus = document.activeElement?.closest?.('.dyn-spot')?.dataset;
    const svg = el('svg', { width: W, height: H, viewBox: `0 0 ${W} ${H}`, role: 'group', 'aria-label': alt(series, nets) }, ...marks, ...curves, ...labels);
    svg.classList.toggle('dyn-lit-one', series.some((s) => s.m.id === state.method));
    chart.replaceChildren(svg, readout);
    hush();
    const by = (m, i) => (m ? svg.querySelector(`.dyn-spot[data-method="${CSS.escape(m)}"][data-point="${i}"]`) ?? svg.querySelector(`.dyn-spot[data-method="${CSS.escape(m)}"]`) : null);
    const first = by(focus?.method, focus?.point) ?? by(state.method, state.point) ?? svg.querySelector('.dyn-spot');
    if (first) stop(first);
    if (focus) by(focus.method, focus.point)?.focus({ preventScroll: true });
    legend.replaceChildren(...series.map(({ m }) => { const [turn, shape] = hue.get(m.id);
      return el('li', {}, el('button', { type: 'button', class: 'dyn-plot-key', 'data-method': m.id, 'aria-pressed': String(m.id === state.method), onclick: () => choose(m.id === state.method ? null : m.id),
        onpointerenter: () => light(m.id), onpointerleave: () => light(), onfocus: () => light(m.id), onblur: () => light() },
      el('svg', { width: 16, height: 16, viewBox: '-8 -8 16 16', 'aria-hidden': 'true', style: { '--hue': turn } }, el('path', { class: 'dyn-shape', d: shape })), title(m))); }),
    ...(lines().length ? [el('li', {}, el('svg', { width: 26, height: 14, viewBox: '0 0 26 14', 'aria-hidden': 'true' }, el('path', { class: 'dyn-band', d: 'M0,1H26V13H0Z' }), el('path', { class: 'dyn-static-line', d: 'M0,7H26' })), 'static frontier')] : []));
    light();
  }
  function alt(series, nets) {
    const count = series.reduce((n, s) => n + s.list.length, 0);
    if (state.by === 'time') return `Time against executed MACs at batch ${state.batch}${state.task ? ` on ${state.task}` : ''}: ${plural(count, 'method')}. The table below holds every value.`;
    const range = nets.length ? ` Static nets reach from ${percent(Math.min(...nets.map((n) => n.accuracy[0])))} to ${percent(Math.max(...nets.map((n) => n.accuracy[0])))}.` : '';
    return `Accuracy against ${{ macs: 'executed MACs', ms: `milliseconds at batch ${state.batch}`, params: 'parameters' }[state.by]} on ${state.task}: ${plural(series.length, 'method')}, ${plural(count, 'point')}.${range} The table below holds every value.`;
  }
  function light(id = state.method) { // one method before the others
    const svg = chart.querySelector('svg'), some = svg && id && svg.querySelector(`.dyn-curve[data-method="${CSS.escape(id)}"]`);
    svg?.classList.toggle('dyn-lit-one', Boolean(some));
    for (const e of svg?.querySelectorAll('.dyn-curve, .dyn-plot-name') ?? []) e.classList.toggle('dyn-lit', Boolean(some) && e.dataset.method === id);
  }
  function say(s, x, y) {
    light(s.m.id);
    readout.textContent = s.says;
    readout.hidden = false;
    const W = chart.clientWidth, w = readout.offsetWidth, below = y < readout.offsetHeight + 24;
    readout.style.left = `${Math.max(0, Math.min(x - w / 2, W - w))}px`;
    readout.style.top = `${below ? y + 14 : y - 14 - readout.offsetHeight}px`;
  }
  function hush() { readout.hidden = true; light(); }

  // ---- the chosen method in words
  function describe() {
    const m = here().find((x) => x.id === state.method && fits(x));
    beside.classList.toggle('dyn-told', Boolean(m));
    if (!m) { detail.replaceChildren(); return; }
    const p = m.points[state.point], facts = (...pairs) => el('dl', { class: 'dyn-plot-facts' }, ...pairs.filter(Boolean).map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value))));
    const close = el('button', { type: 'button', class: 'dyn-clear', onclick: () => { choose(null); chart.querySelector('.dyn-spot[tabindex="0"]')?.focus(); } }, 'Choose none');
    detail.replaceChildren(el('h2', { class: 'dyn-name' }, `${m.method} (${m.year})`), el('p', { class: 'dyn-titled' }, m.title),
      el('p', { class: 'dyn-badges' }, el('span', { class: 'dyn-badge ' + m.tone }, m.verdict), m.stale ? el('span', { class: 'dyn-badge dyn-doubt' }, 'stale: the code changed since this was measured') : null),
      el('p', { class: 'dyn-small' }, m.said.join(' ')),
      p ? el('h3', {}, `${m.net} on ${m.task}, ${setting(m, p)}`) : el('h3', {}, `${m.net} on ${m.task}, ${plural(m.points.length, 'setting')}`),
      p ? facts([`accuracy, ${plural(p.seeds, 'seed')}`, interval(p.accuracy, percent)], ['executed MACs', number(p.macs[0])], ['of everything on', percent(share(m, p))], ['points above static', p.gain ? interval(p.gain, points) : 'no static net as cheap'], ['parameters', number(m.params)],
        ...p.times.flatMap((t) => [[`ms, batch ${t.batch}`, t.void ? `void, ${noise(t)}` : clocked(t, '')], [`ms dense, batch ${t.batch}`, t.void ? 'void' : `${digits(t.dense)}, ${noise(t)}`], [`ratio to ${reference(m)}, batch ${t.batch}`, t.void ? 'void' : digits(t.ratio)]]))
        : facts(['parameters', number(m.params)], ['everything on', number(m.full) + ' MACs'], ...m.points.map((x) => [setting(m, x), `${percent(x.accuracy[0])}, ${number(x.macs[0])} MACs`])),
      ...m.receipts.flatMap((r) => [el('h3', {}, `Receipt of a larger net, batch ${r.batch}`),
        facts(['MACs, of everything on', percent(r.share)], ['time, sparse over dense', timed(r)], ['ms, dense and sparse', `${digits(r.ms[0])} and ${digits(r.ms[1])}`])]),
      el('p', { class: 'dyn-links' }, el('a', { class: 'dyn-out', href: m.url }, 'Its page'), el('a', { class: 'dyn-out', href: m.receipt }, 'Its results and receipt'), m.trace ? el('a', { class: 'dyn-out', href: m.trace }, 'Watch it decide') : null, close));
  }

  // ---- the table, and the same as CSV
  function rows() {
    const all = here().filter((m) => fits(m)).flatMap((m) => m.points.map((p, i) => ({ m, p, i, name: title(m), accuracy: p.accuracy, macs: p.macs[0], params: m.params })));
    if (state.statics) for (const line of tasks.find((t) => t.name === state.task)?.static ?? []) all.push(...line.nets.map((n) => ({ n, name: `static: ${n.net}`, accuracy: n.accuracy, macs: n.macs, params: n.params })));
    const value = columns[state.sort][1], side = state.down ? -1 : 1;
    return all.sort((a, b) => {       // what has no value stands last, whatever the direction
      const x = value(a) ?? null, y = value(b) ?? null;
      return x === y ? 0 : x === null ? 1 : y === null ? -1 : x < y ? -side : side;
    });
  }
  function draw_table() {
    const focus = document.activeElement, sorted = scroll.contains(focus) && focus.dataset.sort, held = scroll.contains(focus) && focus.dataset.row;
    const head = Object.entries(columns).map(([name, [label]]) => el('th', { scope: 'col', 'aria-sort': state.sort === name ? (state.down ? 'descending' : 'ascending') : null },
      el('button', { type: 'button', 'data-sort': name, onclick: () => change(state.sort === name ? { down: !state.down } : { sort: name, down: !['method', 'budget', 'verdict'].includes(name) }) }, label)));
    const body = rows().map((r) => {
      const on = r.m && r.m.id === state.method && r.i === state.point;
      return el('tr', { class: on ? 'dyn-on' : r.n ? 'dyn-muted' : null }, el('th', { scope: 'row' }, r.m ? el('a', { href: r.m.url, title: r.m.title }, r.name) : r.name),
        el('td', {}, r.m ? el('button', { type: 'button', class: 'dyn-go', 'data-row': `${r.m.id}:${r.i}`, 'aria-pressed': String(on), onclick: () => choose(on ? null : r.m.id, r.i) }, setting(r.m, r.p)) : '–'),
        ...Object.values(columns).slice(2).map(([, , show]) => el('td', {}, show(r))));
    });
    scroll.replaceChildren(el('table', { class: 'dyn-table dyn-plot-table' }, el('caption', {}, state.task ? `All values on ${state.task}` : 'All values'),
      el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...body)));
    if (sorted) scroll.querySelector(`[data-sort="${CSS.escape(sorted)}"]`)?.focus({ preventScroll: true });
    else if (held) scroll.querySelector(`[data-row="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
  }
  function csv() {
    const sheet = [['task', 'key', 'method', 'knob', 'budget', 'seeds', 'accuracy', 'accuracy_low', 'accuracy_high', 'executed_macs', 'share_of_full', 'parameters', 'above_static', ...batches.flatMap((b) => ['ms', 'ms_low', 'ms_high', 'ms_dense', 'over_reference', 'noise', 'void'].map((c) => `${c}_batch_${b}`)), ...batches.map((b) => `time_ratio_batch_${b}`), 'verdict', 'stale', ...names.filter((f) => f !== 'verdict')]];
    const milliseconds = (x) => batches.flatMap((b) => { const t = at(x, b); return !t ? Array(7).fill('') : t.void ? ['', '', '', '', '', t.noise, 'void'] : [...t.ms, t.dense ?? '', t.ratio, t.noise, '']; });
    for (const { m, p, n, accuracy, macs, params } of rows()) {
      if (n) sheet.push([state.task, '', `static: ${n.net}`, '', '', n.seeds, ...accuracy, macs, 1, params, '', ...milliseconds(n), ...batches.map(() => ''), 'static', '', ...names.slice(1).map(() => '')]);
      else sheet.push([m.task, m.key, m.method, m.knob, p.budget, p.seeds, ...accuracy, macs, share(m, p), params, p.gain?.[0], ...milliseconds(p), ...batches.map((b) => { const r = receipt(m, b); return r && !r.void ? r.time[0] : null; }), m.verdict, m.stale ? 'stale' : '',
        ...names.filter((f) => f !== 'verdict').map((f) => m.facets[f].join('; '))]);
    }
    // numbers as they are; no spreadsheet takes a word for a formula
    const field = (value) => (typeof value === 'number' ? String(value) : `"${String(value ?? '').replace(/^\s*[=+@-]|^[\t\r\n]/, "'$&").replaceAll('"', '""')}"`);
    return '\ufeff' + sheet.map((row) => row.map(field).join(',') + '\r\n').join('');                  // the mark tells spreadsheets it is UTF-8
  }

  // ---- all together
  const TELLS = {
    macs: 'Each curve is one method over its budgets: means over seeds, bars are 95% intervals. The band is the static frontier: the best static net so far, interpolated over log MACs for each seed, its mean and 95% interval over seeds; dashed beyond the dearest net that was trained. A method earns its gates above the band.',
    ms: 'Milliseconds per input on one core: each net, trained with seed 0, timed as a ratio to one static net of its task in the same rounds, times that net’s own milliseconds; so the axis compares across processes. Bars across are quartiles over rounds, bars upright the 95% interval of the accuracy. The band is the static frontier over the same axis, its nets timed alike. A hollow point, or a dashed static net, is void: the machine was not quiet. No claim is judged here: on nets this small overhead outweighs arithmetic.',
    params: 'All parameters of the trained net count, whatever the budget leaves on: they must be kept in memory. The band is the best static net with as many parameters or fewer, its mean and 95% interval over seeds.',
    time: 'Times come from receipts: a larger net of the same method on one core, its weights random and, where its budget allows, its gates on about as often as those of the trained net. It has no accuracy, so its time is drawn against its MACs: the median of sparse over dense, bars are quartiles. The small trained nets stand under Time.' };
  function draw() {
    const shown = here().filter((m) => fits(m)), count = names.reduce((n, f) => n + state.words[f].size, 0);
    task.value = state.task; setBy(state.by); setBatch(String(state.batch)); statics.checked = state.statics;
    batch.hidden = !BATCHED.has(state.by); tick.hidden = !state.task; clear.hidden = !count;
    const none = BATCHED.has(state.by) ? shown.filter((m) => !spots(m).length).length : 0, open = BATCHED.has(state.by) ? shown.flatMap(spots).filter((s) => s.open).length : 0;
    const word = state.task ? 'method' : 'result';
    status.textContent = (shown.length === here().length ? plural(shown.length, word) : `${shown.length} of ${plural(here().length, word)}`) + (state.task ? ` on ${state.task}` : ' on every task') + (none ? `, ${none} ${state.by === 'ms' ? 'not timed' : 'without a receipt'}` : '') + (open ? `, ${plural(open, 'void point')}` : '');
    summary.textContent = count ? `Filters: ${[...names.flatMap((f) => [...state.words[f]])].join(', ')}` : 'Filters';
    for (const { f, w, chip, count: number } of chips) {
      const n = here().filter((m) => fits(m, f) && m.facets[f].includes(w)).length, on = state.words[f].has(w);
      number.textContent = n;
      chip.setAttribute('aria-pressed', String(on));
      chip.classList.toggle('dyn-none', !n);
    }
    about.textContent = `${TELLS[state.by]} Arrow keys go from point to point; Enter tells more.`;
    describe();                       // first: it takes some of the width
    plot();
    draw_table();
  }
  let before = 0;
  new ResizeObserver(() => { if (chart.clientWidth !== before) { before = chart.clientWidth; plot(); } }).observe(chart);
  addEventListener('popstate', () => { read(); draw(); });
  read(); draw();
  before = chart.clientWidth;
  box.dataset.ready = 'yes';
})();
