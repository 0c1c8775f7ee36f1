// The break-even explorer: predicted and measured time over dense, for one layer, map, mask and batch, over density.
(() => {
  const SVG = new Set(['svg', 'g', 'path', 'rect', 'text', 'title', 'defs', 'clipPath']);
  function el(tag, attributes = {}, ...inner) {
    const e = SVG.has(tag) ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
      else if (name === 'style') for (const [k, v] of Object.entries(value)) e.style.setProperty(k, v);
      else if (value === true) e.setAttribute(name, '');
      else if (value !== false && value != null) e.setAttribute(name, value);
    }
    e.append(...inner.filter((x) => x != null));
    return e;
  }
  let made = 0;
  function start(box) {
    box.dataset.ready = 'soon';
    const { machine, methods, masks, terms, layers } = JSON.parse(box.querySelector('script[type="application/json"]').textContent);
    const all = Object.keys(methods), id = `be-${++made}`, unique = (list) => [...new Set(list)];
    const MARKS = { ours: 'M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0Z', torch: 'M-4,-4h8v8h-8Z', 'dense times mask': 'M0,-5.5L5,4H-5Z' };
    const label = (method) => methods[method] ?? method;

    // ---- figures for a reader; nothing is a dash
    const digits = (v) => (v == null ? '–' : String(+v.toPrecision(3)));
    const ratio = (v) => (v == null ? '–' : v.toFixed(2));
    const percent = (v) => (v == null ? '–' : `${Math.round(100 * v)} %`.replace('-', '−'));
    const amount = (v) => (v >= 1e9 ? digits(v / 1e9) + ' G' : v >= 1e6 ? digits(v / 1e6) + ' M' : digits(v / 1e3) + ' k');
    const seconds = (v) => (v < 1e-3 ? digits(v * 1e6) + ' µs' : digits(v * 1e3) + ' ms');

    // ---- the cost model, as dynnotes/show/breakeven.py has it
    function columns(layer, names, m, share) {
      const weights = m.channels * (layer.depthwise ? 1 : m.channels) * layer.kernel ** 2;
      const macs = layer.times * m.batch * m.side ** 2 * weights, map = 2 * m.batch * m.side ** 2 * m.channels * layer.bytes;
      const paid = { fixed: 1e-3, work: (share * macs) / 1e9, map: map / 1e9, moved: (share * map) / 1e9, weights: (weights * layer.bytes) / 1e9 };
      return names.map((name) => paid[name]);
    }
    const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
    const dense = (layer, m) => dot(columns(layer, terms.dense, m, 1), layer.fit.dense);
    const beyond = (layer, m, costs) => 1 + dot(columns(layer, terms.extra, m, 1), costs) / dense(layer, m);
    const line = (layer, m, method, share) => dot(columns(layer, terms.all, m, share), layer.fit.masks[m.mask][method]) / dense(layer, m);
    const predicts = (layer, m, method) => Boolean(layer.fit && (method === 'dense times mask' ? layer.rows.some((r) => method in r.ratios) : layer.fit.masks[m.mask]?.[method]));
    function predicted(layer, m, method, share) {
      if (!predicts(layer, m, method)) return null;
      if (method === 'dense times mask') return beyond(layer, m, layer.fit.extra);
      const own = line(layer, m, method, share);
      return method === 'ours' && share > layer.asked && layer.fit.back ? Math.min(own, beyond(layer, m, layer.fit.back)) : own;
    }
    function meets(layer, m, method) {  // the share where the predicted line rises to 1
      if (method === 'dense times mask' || !predicts(layer, m, method)) return null;
      const low = line(layer, m, method, 0), high = line(layer, m, method, 1), at = (1 - low) / (high - low);
      return high > low && at > 0 && at <= 1 ? at : null;
    }

    // ---- what was measured
    const own = (layer, m) => layer.rows.filter((r) => r.shape === m.shape && r.batch === m.batch && r.mask === m.mask).sort((a, b) => a.share - b.share || a.density - b.density);
    function seen(rows, method) {       // [share, ratio], one for each share
      const found = new Map();
      for (const r of rows) if (!r.void && method in r.ratios) found.set(r.share, [...(found.get(r.share) ?? []), r.ratios[method][0]]);
      return [...found].map(([share, values]) => [share, values.reduce((a, b) => a + b) / values.length]);
    }
    function between(points, share) {
      for (const [i, [x, y]] of points.entries()) {
        if (Math.abs(x - share) < 0.005) return y;
        const next = points[i + 1];
        if (next && x < share && share < next[0]) return y + ((share - x) / (next[0] - x)) * (next[1] - y);
      }
      return null;
    }
    function crossing(points) {
      for (const [i, [x, y]] of points.entries()) {
        const next = points[i + 1];
        if (next && y < 1 && next[1] >= 1) return x + ((1 - y) / (next[1] - y)) * (next[0] - x);
      }
      return null;
    }

    // ---- state <-> address. Inside a notebook's page the address is not ours.
    const ours = !box.closest('.jp-OutputArea, .jp-Notebook, .output_subarea');
    const maps = (layer) => unique(layer.rows.map((r) => r.shape));
    const reach = (layer, name) => [Math.min(...layer.rows.map((r) => r[name])), Math.max(...layer.rows.map((r) => r[name]))];
    const batches = (layer) => { const known = unique(layer.rows.map((r) => r.batch)), most = Math.max(...known);
      return layer.fit && known.length > 1 ? unique([...known, ...[1, 2, 4, 8, 16, 32, 64].filter((b) => b > Math.min(...known) && b < most)]).sort((a, b) => a - b) : known; };
    let state;
    function settle(wish) {             // the nearest state that exists
      const layer = layers.find((l) => l.part === wish.layer) ?? layers[0], kinds = unique(layer.rows.map((r) => r.mask)), known = batches(layer);
      let { side, channels } = wish, shape = maps(layer).includes(wish.shape) ? wish.shape : null;
      const clamp = (v, name) => { const [low, high] = reach(layer, name); return Math.min(high, Math.max(low, Math.round(Number(v)) || low)); };
      if (!shape && layer.fit && side && channels) {
        side = clamp(side, 'side'); channels = clamp(channels, 'channels');
        shape = layer.rows.find((r) => r.side === side && r.channels === channels)?.shape ?? null;
      } else if (!shape) shape = maps(layer)[0];
      if (shape) ({ side, channels } = layer.rows.find((r) => r.shape === shape));
      state = { layer: layer.part, shape, side, channels, free: Boolean(layer.fit && (wish.free || !shape)), mask: kinds.includes(wish.mask) ? wish.mask : kinds[0],
        batch: known.includes(wish.batch) ? wish.batch : known[0], density: Math.min(1, Math.max(0.01, wish.density || 0.25)) };
    }
    function read() {
      const query = new URLSearchParams(ours ? location.search : ''), map = query.get('map') ?? '', free = /^(\d{1,5})x(\d{1,5})$/.exec(map);
      settle({ layer: query.get('layer'), shape: map, side: free && +free[1], channels: free && +free[2], mask: query.get('mask'), batch: Number(query.get('batch')), density: Number(query.get('density')) / 100 });
    }
    function write() {
      if (!ours) return;
      const query = new URLSearchParams({ layer: state.layer, map: state.shape ?? `${state.side}x${state.channels}`, mask: state.mask, batch: state.batch, density: Math.round(100 * state.density) });
      try { history.replaceState(null, '', `${location.pathname}?${query}${location.hash}`); } catch { /* a page that has no address of its own */ }
    }
    function change(more) { settle({ ...state, ...more }); write(); draw(); }

    // ---- the frame
    const select = (name, pick) => { const e = el('select', { id: `${id}-${name}`, onchange: () => pick(e.value) }); return e; };
    const field = (text, control) => el('div', { class: 'be-field' }, el('label', { for: control.id }, text), control);
    const options = (e, pairs, value) => { e.replaceChildren(...pairs.map(([v, text]) => el('option', { value: v }, text))); e.value = value; };
    function radios(legend, name, pick) {
      const e = el('fieldset', { class: 'be-radios' });
      return [e, (pairs, value) => {
        const focus = e.contains(document.activeElement);
        e.replaceChildren(el('legend', {}, legend), ...pairs.map(([v, text]) => el('label', {}, el('input', { type: 'radio', name: `${id}-${name}`, value: v, onchange: () => pick(v) }), el('span', {}, text))));
        for (const input of e.querySelectorAll('input')) { input.checked = input.value === String(value); if (focus && input.checked) input.focus(); }
      }];
    }
    const layerBox = select('layer', (v) => change({ layer: v }));
    const mapBox = select('map', (v) => change(v ? { shape: v, free: false } : { shape: null, free: true }));
    const side = el('input', { type: 'number', id: `${id}-side`, step: 1, onchange: () => change({ shape: null, free: true, side: side.value }) });
    const channels = el('input', { type: 'number', id: `${id}-channels`, step: 1, onchange: () => change({ shape: null, free: true, channels: channels.value }) });
    const sideField = field('side', side), channelField = field('channels', channels);
    const [maskBox, setMask] = radios('mask', 'mask', (v) => change({ mask: v }));
    const [batchBox, setBatch] = radios('batch', 'batch', (v) => change({ batch: Number(v) }));
    const density = el('input', { type: 'range', id: `${id}-density`, min: 1, max: 100, step: 1, oninput: () => change({ density: density.value / 100 }) });
    const told = el('output', { for: density.id });
    const says = el('p', { class: 'be-says', role: 'status' });
    const chart = el('div', { class: 'be-plot' });
    const legend = el('ul', { class: 'be-legend' });
    const about = el('p', { class: 'be-small be-about', id: `${id}-about` });
    const numbers = el('div', { class: 'be-scroll', tabindex: 0, role: 'region', 'aria-label': 'Predicted and measured' });
    const facts = el('dl', { class: 'be-facts' });
    const worth = el('p', { class: 'be-small' });
    const rows = el('div', { class: 'be-scroll', tabindex: 0, role: 'region', 'aria-label': 'All measured rows of this map' });
    const more = el('details', {}, el('summary', {}, 'All measured rows of this choice'), rows);
    box.querySelector('.be-plain').hidden = true;
    box.append(el('div', { class: 'be-controls' }, field('layer', layerBox), field('map', mapBox), sideField, channelField, maskBox, batchBox,
      el('div', { class: 'be-density' }, el('label', { for: density.id }, 'pixels on'), density, told)), says, chart, legend, about, numbers, facts, worth, more);

    // ---- who is fastest at which share
    function runs(value, from = 0.01, to = 1) { // [[method, first share, last share]]; value: (method, share) -> ratio or null
      const found = [];
      for (let s = Math.ceil(from * 200 - 1e-9); s <= Math.floor(to * 200 + 1e-9); s++) {
        const share = s / 200, best = ['dense', ...all].map((m) => [m === 'dense' ? 1 : value(m, share), m]).filter(([v]) => v != null).sort((a, b) => a[0] - b[0])[0][1];
        if (found.at(-1)?.[0] === best) found.at(-1)[2] = share; else found.push([best, share, share]);
      }
      return found;
    }
    const winners = (list) => list.map(([m, a, b]) => `${label(m)} ${percent(a)} to ${percent(b)}`).join(', ');
    function strips(layer, m, here) {
      const found = [];
      if (layer.fit) {
        found.push(['predicted', runs((method, s) => predicted(layer, m, method, s))]);
        if (predicts(layer, m, 'torch')) found.push(['predicted, no compiler', runs((method, s) => (method === 'ours' ? null : predicted(layer, m, method, s)))]);
      }
      const lines = Object.fromEntries(all.map((method) => [method, seen(here, method)])), shares = lines.ours.map((p) => p[0]);
      if (shares.length > 1) found.push(['measured', runs((method, s) => between(lines[method], s), shares[0], shares.at(-1))]);
      return found;
    }

    // ---- the plot, drawn for the width that it has
    function plot(layer, m, here) {
      const W = Math.max(280, Math.floor(chart.clientWidth)), bands = strips(layer, m, here), left = 40, right = W - 12, top = 26, bottom = top + Math.round(Math.min(330, Math.max(210, W * 0.45))), H = bottom + 44 + bands.length * 28;
      const drawn = all.filter((method) => predicts(layer, m, method) || here.some((r) => method in r.ratios));
      const values = [...here.flatMap((r) => Object.values(r.ratios).map((v) => v[0])), ...drawn.map((method) => predicted(layer, m, method, 1) ?? 1)];
      const high = Math.min(2.5, Math.max(1.2, ...values) * 1.05), step = high > 1.6 ? 0.5 : 0.25;
      const X = (v) => +(left + v * (right - left)).toFixed(1), Y = (v) => +(bottom - (v / high) * (bottom - top)).toFixed(1);
      const path = (points) => points.map(([x, y], i) => `${i ? 'L' : 'M'}${X(x)},${Y(y)}`).join(''), marks = [];
      for (let v = 0; v <= high; v += step) marks.push(el('path', { class: 'be-rule', d: `M${left},${Y(v)}H${right}` }), el('text', { class: 'be-axis', x: left - 6, y: Y(v) + 4, 'text-anchor': 'end' }, digits(v)));
      for (const v of W < 480 ? [0, 0.25, 0.5, 0.75, 1] : [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]) marks.push(el('path', { class: 'be-rule', d: `M${X(v)},${top}V${bottom}` }), el('text', { class: 'be-axis', x: X(v), y: bottom + 16, 'text-anchor': v === 1 ? 'end' : 'middle' }, percent(v)));
      marks.push(el('text', { class: 'be-axis', x: 0, y: 14 }, 'time over the best dense form'), el('text', { class: 'be-axis', x: right, y: bottom + 34, 'text-anchor': 'end' }, 'pixels on'),
        el('path', { class: 'be-one', d: `M${left},${Y(1)}H${right}` }), el('path', { class: 'be-ideal', d: path([[0, 0], [1, 1]]) }));
      const lines = el('g', { 'clip-path': `url(#${id}-clip)` }), off = new Set();
      marks.push(el('defs', {}, el('clipPath', { id: `${id}-clip` }, el('rect', { x: left, y: top, width: right - left, height: bottom - top }))), lines);
      for (const method of drawn) {
        const g = el('g', { 'data-method': method }), under = el('g', { 'data-method': method }), even = meets(layer, m, method);
        lines.append(under);
        if (predicts(layer, m, method)) under.append(el('path', { class: 'be-line', d: path(Array.from({ length: 201 }, (_, i) => [i / 200, predicted(layer, m, method, i / 200)])) }));
        under.append(el('path', { class: 'be-seen', d: path(seen(here, method)) }));
        for (const r of here.filter((x) => method in x.ratios)) {
          const [mid, low, up] = r.ratios[method];
          under.append(el('path', { class: 'be-whisker', d: `M${X(r.share)},${Y(low)}V${Y(up)}` }));
          if (mid > high) off.add(label(method));
          else g.append(
            el('path', { class: 'be-point' + (r.void ? ' be-void' : ''), transform: `translate(${X(r.share)},${Y(mid)})`, d: MARKS[method] },
              el('title', {}, `${label(method)} at ${percent(r.share)}: ${digits(mid)} (${digits(low)} to ${digits(up)}), A/A ${ratio(r.noise)}${r.void ? ', void' : ''}`)));
        }
        if (even != null) g.append(el('path', { class: 'be-even', transform: `translate(${X(even)},${Y(1)})`, d: 'M0,-6L6,0L0,6L-6,0Z', 'data-even': even.toFixed(4) }, el('title', {}, `${label(method)} breaks even at ${percent(even)}`)));
        marks.push(g);
      }
      marks.push(el('path', { class: 'be-here', d: `M${X(state.density)},${top}V${bottom + 22}` }));
      bands.forEach(([name, list], i) => {
        const y = bottom + 44 + i * 28;
        marks.push(el('text', { class: 'be-axis', x: left, y: y + 9 }, `fastest, ${name}`),
          ...list.map(([method, a, b]) => el('rect', { class: 'be-won', 'data-method': method, x: X(a - 0.0025), y: y + 13, width: Math.max(1, X(b + 0.0025) - X(a - 0.0025)).toFixed(1), height: 7 }, el('title', {}, `${label(method)}: ${percent(a)} to ${percent(b)}`))));
      });
      const svg = el('svg', { width: W, height: H, viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': `Time over the best dense form against the share of pixels that are on: ${drawn.map(label).join(', ')}. ${bands.map(([name, list]) => `Fastest, ${name}: ${winners(list)}.`).join(' ')} The tables below hold the figures.`,
        onclick: (event) => { const at = (event.clientX - svg.getBoundingClientRect().left - left) / (right - left); if (at > -0.02 && at < 1.02) change({ density: Math.max(0.01, Math.round(100 * at) / 100) }); } }, ...marks);
      chart.replaceChildren(svg);
      const key = (method, ...inner) => el('li', { 'data-method': method }, el('svg', { width: 26, height: 14, viewBox: '0 0 26 14', 'aria-hidden': 'true' }, ...inner), label(method));
      const whole = (name) => el('path', { class: name, d: 'M0,7H26' });
      legend.replaceChildren(...drawn.map((method) => key(method, whole(predicts(layer, m, method) ? 'be-line' : 'be-seen'), el('path', { class: 'be-point', transform: 'translate(13,7)', d: MARKS[method] }))), key('dense', whole('be-one')),
        el('li', {}, el('svg', { width: 26, height: 14, viewBox: '0 0 26 14', 'aria-hidden': 'true' }, whole('be-ideal')), 'as much time as MACs'),
        ...(off.size ? [el('li', {}, `↑ off the scale, in the table below: ${[...off].join(', ')}`)] : []),
        ...(here.some((r) => r.void) ? [el('li', { 'data-method': 'ours' }, el('svg', { width: 14, height: 14, viewBox: '-7 -7 14 14', 'aria-hidden': 'true' }, el('path', { class: 'be-point be-void', d: MARKS.ours })), 'void: the machine was not quiet')] : []));
    }

    // ---- in numbers
    function draw() {
      const layer = layers.find((l) => l.part === state.layer), m = { ...state }, here = state.shape ? own(layer, m) : [], s = state.density;
      const kinds = unique(layer.rows.map((r) => r.mask)), [low, high] = reach(layer, 'side'), [thin, wide] = reach(layer, 'channels');
      options(layerBox, layers.map((l) => [l.part, l.label]), state.layer);
      options(mapBox, [...maps(layer).map((shape) => [shape, layer.fit ? shape.replace('x', ' side, ') + ' channels' : shape]), ...(layer.fit ? [['', 'another map …']] : [])], state.free ? '' : state.shape);
      sideField.hidden = channelField.hidden = !state.free;
      Object.assign(side, { min: low, max: high, value: state.side }); Object.assign(channels, { min: thin, max: wide, value: state.channels });
      setMask(kinds.map((k) => [k, masks[k] ?? k]), state.mask); setBatch(batches(layer).map((b) => [b, b]), state.batch);
      density.value = Math.round(100 * s); told.textContent = percent(s); density.setAttribute('aria-valuetext', `${percent(s)} of the pixels`);
      plot(layer, m, here);

      const lines = Object.fromEntries(all.map((method) => [method, seen(here, method)])), list = all.filter((method) => predicts(layer, m, method) || here.some((r) => method in r.ratios));
      const exact = (method) => here.filter((r) => !r.void && Math.abs(r.share - s) < 0.005 && method in r.ratios).map((r) => r.ratios[method]);
      const body = [...list, 'dense'].map((method) => {
        const isDense = method === 'dense', q = isDense ? [] : exact(method), p = isDense ? (layer.fit ? 1 : null) : predicted(layer, m, method, s), v = isDense ? (here.length ? 1 : null) : between(lines[method], s), best = v ?? p;
        const saved = best == null ? null : 1 - best, whole = method === 'ours' || method === 'torch';
        const even = whole ? meets(layer, m, method) : null, met = whole ? crossing(lines[method]) : null;
        return el('tr', { 'data-method': method }, el('th', { scope: 'row' }, label(method)), el('td', { 'data-what': 'predicted' }, ratio(p)),
          el('td', { 'data-what': 'measured' }, v == null ? '–' : ratio(v) + (isDense ? '' : q.length > 1 ? ` (mean of ${q.length} rows)` : q.length ? ` (${ratio(q[0][1])} to ${ratio(q[0][2])})` : ' between')), el('td', { 'data-what': 'saved' }, percent(saved)),
          el('td', { class: 'be-wide' }, el('div', { class: 'be-pair', 'aria-hidden': 'true' }, el('div', { class: 'be-bar', style: { '--share': whole ? 1 - s : 0, '--own': 'var(--be-muted)' } }, el('i')), el('div', { class: 'be-bar', style: { '--share': Math.max(0, saved ?? 0) } }, el('i')))),
          el('td', {}, layer.fit && whole && saved != null && s < 1 ? (saved > 0 ? percent(saved / (1 - s)) : 'none') : '–'), el('td', { 'data-what': 'even' }, percent(even)), el('td', {}, percent(met)));
      });
      about.textContent = `At ${percent(s)} of the pixels, ${percent(1 - s)} of ${state.layer === 'blocks' ? 'the last layer’s' : 'the'} MACs are saved. Time over the best dense form; a measured ratio has its quartiles, “between” stands between two densities that were measured.`;
      numbers.replaceChildren(el('table', { class: 'be-table', 'aria-describedby': about.id },
        el('thead', {}, el('tr', {}, ...['form', 'predicted', 'measured', 'time saved'].map((t) => el('th', { scope: 'col' }, t)), el('th', { scope: 'col', class: 'be-wide' }, 'MACs, time'), ...['of the saved MACs', 'breaks even at, predicted', 'measured'].map((t) => el('th', { scope: 'col' }, t)))), el('tbody', {}, ...body)));

      // in a sentence
      const p = predicted(layer, m, 'ours', s), v = between(lines.ours, s), now = v ?? p, even = meets(layer, m, 'ours'), met = crossing(lines.ours);
      const only = !here.length ? el('span', { class: 'be-only' }, 'Predicted only: this map was not measured. ') : v == null && p != null ? el('span', { class: 'be-only' }, 'Predicted only at this density. ') : null;
      const rest = now == null ? 'Not measured at this density, and not predicted.' : `${percent(1 - s)} of the MACs saved, ${now < 1 ? `${percent(1 - now)} of the time` : `no time (${ratio(now)} of dense)`}, ${v == null ? 'predicted' : 'measured'}. ` +
        (even == null && met == null ? (now < 1 ? 'No share of pixels was found where it is slower than dense.' : 'It is not faster than dense.')
          : `It breaks even at ${[even != null && `${percent(even)} of the pixels as predicted`, met != null && `${percent(met)} where the measured points are joined`].filter(Boolean).join(', ')}.`);
      says.replaceChildren(...[only, el('b', {}, `${label('ours').replace(/^./, (c) => c.toUpperCase())}: `), rest].filter(Boolean));

      // under which circumstances
      const near = here.toSorted((a, b) => Math.abs(a.share - s) - Math.abs(b.share - s))[0], pair = (name, value) => el('div', {}, el('dt', {}, name), el('dd', {}, value));
      facts.replaceChildren(pair('processor', machine.machine), pair('kernels for', machine.instructions), pair('torch', machine.torch), pair('measured on', machine.date),
        ...(near ? [pair('dense form beaten', `${near.base} (${near.operator})`), pair('its speed', near.base_gflops ? `${digits(near.base_gflops)} GF/s` : '–'), pair('its time', seconds(near.base_seconds)), pair('its MACs', amount(near.macs)),
          pair(`A/A of the row at ${percent(near.share)}`, ratio(near.noise) + (near.void ? ', void' : ''))] : [pair('side measured', `${low} to ${high}`), pair('channels measured', `${thin} to ${wide}`)]));
      const e = layer.errors;
      worth.textContent = !layer.fit ? 'Nothing is predicted for whole blocks: their first layers run on a wider mask, and how much wider depends on its shape. Lines join what was measured.' :
        'What a prediction is worth, |predicted / measured − 1|: ' + list.filter((method) => e[method]).map((method) => `${label(method)} ${percent(e[method].median)} in the median and ${percent(e[method].worst)} at worst over ${e[method].rows} rows` +
          (e[method].left_median == null ? '' : `; ${percent(e[method].left_median)} and ${percent(e[method].left_worst)} for a map that the fit has not seen`)).join('. ') + '.';
      more.hidden = !here.length;
      rows.replaceChildren(el('table', { class: 'be-table' }, el('thead', {}, el('tr', {}, ...['pixels on', ...list.map(label), 'dense form', 'GF/s', 'A/A'].map((t) => el('th', { scope: 'col' }, t)))),
        el('tbody', {}, ...here.map((r) => el('tr', {}, el('th', { scope: 'row' }, `${(100 * r.share).toFixed(1)} %`), ...list.map((method) => el('td', {}, r.ratios[method] ? `${digits(r.ratios[method][0])} (${digits(r.ratios[method][1])} to ${digits(r.ratios[method][2])})` : '–')),
          el('td', {}, `${r.base}`), el('td', {}, digits(r.base_gflops)), el('td', {}, ratio(r.noise) + (r.void ? ', void' : '')))))));
    }
    let before = 0;
    new ResizeObserver(() => { if (chart.clientWidth && chart.clientWidth !== before) { before = chart.clientWidth; draw(); } }).observe(chart);
    if (ours) addEventListener('popstate', () => { read(); draw(); });
    read(); draw();
    before = chart.clientWidth;
    box.dataset.ready = 'yes';
  }
  for (const box of document.querySelectorAll('.dyn-breakeven:not([data-ready])')) start(box);
})();
