// Who builds on whom: a column per year, a line from each paper to what it builds on. Choose one to see its lineage.
(() => {
  const { el, plural, begin, address, rove, reveal, hues, fold } = drawing;
  const found = begin('dyn-lineage');
  if (!found) return;
  const [box, { papers, edges, kinds, descent, roots }] = found;
  const BOX = 126, COLUMN = 172, LINE = 9, HEAD = 26;
  const byKey = new Map(papers.map((p, i) => [p.key, i]));
  const hue = hues(roots);
  const verb = (kind) => kinds[kind].read[0].toLowerCase();
  const says = (e) => `${papers[e.from].method} ${verb(e.kind)} ${papers[e.to].method}${e.where ? ': ' + e.where : ''}`;

  // ---- state <-> address
  let state, on, older, newer;
  function read() {
    const query = new URLSearchParams(location.search);
    const asked = (query.get('kinds') || '').split(',').filter((k) => Object.hasOwn(kinds, k));
    set({ paper: byKey.get(query.get('paper')) ?? -1, only: query.get('only') === '1',
      kinds: new Set(asked.length ? asked : descent.filter((k) => Object.hasOwn(kinds, k))) });
  }
  function set(more) {
    state = { ...state, ...more };
    on = edges.filter((e) => state.kinds.has(e.kind));
    older = papers.map(() => []); newer = papers.map(() => []);
    for (const e of on) { older[e.from].push(e.to); newer[e.to].push(e.from); }
  }
  function change(more, step = false) {
    set(more);
    const usual = Object.keys(kinds).every((k) => state.kinds.has(k) === descent.includes(k));
    address({ paper: papers[state.paper]?.key, kinds: usual ? '' : [...state.kinds].join(','), only: state.only && '1' }, step);
    draw();
  }
  const choose = (i) => { change({ paper: i }, true); if (i >= 0) show(i); };
  function reach(start, next) {
    const seen = new Set(), stack = [start];
    while (stack.length) for (const i of next[stack.pop()]) if (!seen.has(i) && i !== start) { seen.add(i); stack.push(i); }
    return seen;
  }

  // ---- the frame, built once
  const names = new Map();
  for (const [i, p] of papers.entries()) for (const name of [p.method, p.key]) if (!names.has(fold(name))) names.set(fold(name), i);
  const list = el('datalist', { id: 'dyn-lineage-names' }, ...papers.map((p) => el('option', { value: p.method }, `${p.title} (${p.year})`)));
  const search = el('input', { id: 'dyn-lineage-q', type: 'search', list: 'dyn-lineage-names', autocomplete: 'off', placeholder: 'method or title',
    oninput: () => { const i = names.get(fold(search.value.trim())); if (i !== undefined && i !== state.paper) choose(i); if (!search.value) choose(-1); },
    onkeydown: (event) => { if (event.key === 'Enter') { event.preventDefault(); look(); } } });
  function look() {                     // Enter: the first paper whose name, or else title, begins with or holds the words
    const words = fold(search.value.trim());
    if (!words) return;
    const at = (test) => papers.findIndex(test);
    const i = names.get(words) ?? [at((p) => fold(p.method).startsWith(words)), at((p) => fold(p.method + ' ' + p.title).includes(words))].find((n) => n >= 0);
    if (i === undefined) status.textContent = `No paper with a relation is called “${search.value.trim()}”.`;
    else choose(i);
  }
  const only = el('input', { type: 'checkbox', onchange: () => { change({ only: only.checked }); if (state.paper >= 0) show(state.paper); } });
  const boxes = Object.fromEntries(Object.keys(kinds).map((kind) => [kind, el('input', { type: 'checkbox', value: kind, onchange: () => {
    const set = new Set(state.kinds);
    set.has(kind) ? set.delete(kind) : set.add(kind);
    change({ kinds: set });
  } })]));
  const sample = (kind) => el('svg', { class: 'dyn-sample', width: 26, height: 8, 'aria-hidden': 'true' }, el('path', { class: 'dyn-edge dyn-edge-' + kind, d: 'M1,4H25' }));
  const status = el('p', { class: 'dyn-sum', role: 'status' });
  const note = el('p', { class: 'dyn-hint', 'aria-hidden': 'true' });
  const scroll = el('div', { class: 'dyn-scroll dyn-canvas', role: 'region', 'aria-label': 'Papers by year' });
  const detail = el('section', { class: 'dyn-detail', 'aria-label': 'Lineage of the chosen paper' });
  box.append(el('div', { class: 'dyn-tools' },
    el('div', { class: 'dyn-ask' }, el('label', { for: 'dyn-lineage-q' }, 'Paper'), search, list),
    el('label', { class: 'dyn-tick' }, only, el('span', {}, 'only its lineage')),
    el('fieldset', { class: 'dyn-kinds' }, el('legend', {}, 'Lines'), ...Object.entries(boxes).map(([kind, input]) =>
      el('label', { class: 'dyn-tick', title: kinds[kind].about }, input, sample(kind), el('span', {}, verb(kind)), el('b', {}, String(edges.filter((e) => e.kind === kind).length)))))),
  status, scroll, note,
  el('ul', { class: 'dyn-legend' }, ...roots.filter((r) => papers.some((p) => p.root === r.id)).map((r) =>
    el('li', {}, el('i', { style: { '--hue': hue.get(r.id) } }), r.label)), el('li', {}, el('i', { class: 'dyn-dashed' }), 'static ancestor')), detail);

  // ---- the picture
  let nodes = new Map(), paths = [], corner = new Map();
  const stop = rove(scroll, '.dyn-paper', (e, key) => {
    const i = Number(e.dataset.i), [x, y] = corner.get(i), shown = (n) => nodes.has(n);
    const near = (some) => some.filter(shown).sort((a, b) => Math.abs(corner.get(a)[1] - y) - Math.abs(corner.get(b)[1] - y))[0];
    const column = [...nodes.keys()].filter((n) => corner.get(n)[0] === x).sort((a, b) => corner.get(a)[1] - corner.get(b)[1]);
    const next = { ArrowLeft: () => near(older[i]), ArrowRight: () => near(newer[i]),
      ArrowUp: () => column[column.indexOf(i) - 1], ArrowDown: () => column[column.indexOf(i) + 1] }[key]();
    return nodes.get(next);
  });
  function draw() {
    const held = document.activeElement?.closest?.('.dyn-paper')?.dataset.i;
    const up = state.paper < 0 ? new Set() : reach(state.paper, older), down = state.paper < 0 ? new Set() : reach(state.paper, newer);
    const lit = new Set([...up, ...down, ...(state.paper < 0 ? [] : [state.paper])]);
    const hide = state.only && state.paper >= 0;
    const shown = papers.map((_, i) => i).filter((i) => i === state.paper || (hide ? lit.has(i) : older[i].length + newer[i].length));
    const which = [...state.kinds].every((k) => descent.includes(k)) ? 0 : 1;
    // columns and lines that nothing shown stands on fall away; a paper takes three lines, a track one
    const rank = (values) => new Map([...new Set(values)].sort((a, b) => a - b).map((value, i) => [value, i]));
    const columns = rank(shown.map((i) => papers[i].year)), visible = new Set(shown);
    const line = (i, year) => papers[i].lines[which][year], own = (i) => line(i, papers[i].year);
    const drawn = on.filter((e) => visible.has(e.from) && visible.has(e.to)).map((e) => ({ ...e,
      way: [...columns.keys()].filter((year) => year > papers[e.to].year && year < papers[e.from].year && line(e.to, year) !== undefined) }));
    const lines = rank([...shown.flatMap((i) => [own(i) - 1, own(i), own(i) + 1]), ...drawn.flatMap((e) => e.way.map((year) => line(e.to, year)))]);
    const middle = (i, year) => [2 + columns.get(year) * COLUMN, HEAD + lines.get(line(i, year)) * LINE];
    corner = new Map(shown.map((i) => [i, middle(i, papers[i].year)]));
    const width = Math.max(1, columns.size) * COLUMN - (COLUMN - BOX) + 30, height = HEAD + lines.size * LINE + 2;

    paths = drawn.map((e) => {
      let [x, y] = corner.get(e.to);
      x += BOX;
      let d = `M${x},${y}`;
      for (const [i, [x1, y1]] of [...e.way.map((year) => middle(e.to, year)), corner.get(e.from)].entries()) {
        const mid = (x + x1) / 2;
        d += x1 < x ? `C${x + 24},${y} ${x + 24},${y1} ${x},${y1}` : `C${mid},${y} ${mid},${y1} ${x1},${y1}`;
        if (i < e.way.length) d += `H${x1 + BOX}`;
        x = x1 + BOX; y = y1;
      }
      const path = el('path', { class: `dyn-edge dyn-edge-${e.kind}`, d });
      path.classList.toggle('dyn-lit', lit.has(e.from) && lit.has(e.to));
      const reach = el('path', { class: 'dyn-reach', d, onpointerenter: () => hint([e]), onpointerleave: () => hint([]) });  // a thin line is hard to hit
      return { ...e, path, reach };
    });
    nodes = new Map(shown.map((i) => {
      const p = papers[i], [x, y] = corner.get(i), mine = () => hint(paths.filter((e) => e.from === i || e.to === i), i);
      const name = p.method.length > 16 ? p.method.slice(0, 15).trimEnd() + '…' : p.method;
      const label = `${p.method}, ${p.year}${p.static ? ', static ancestor' : ''}: builds on ${older[i].length}, built on by ${newer[i].length}`;
      const g = el('g', { class: 'dyn-paper', role: 'button', tabindex: '-1', 'data-i': i, 'data-key': p.key, 'aria-pressed': String(i === state.paper), 'aria-label': label,
        transform: `translate(${x},${y - 11})`, style: { '--hue': hue.get(p.root) ?? 0 }, onclick: () => choose(i === state.paper ? -1 : i), onpointerenter: mine, onpointerleave: () => hint([]), onfocus: mine,
        onkeydown: (event) => {
          if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); choose(i); }
          if (event.key === 'Escape') choose(-1);
        } },
      el('rect', { width: BOX, height: 22, rx: 5 }), el('rect', { class: 'dyn-root', width: 4, height: 22, rx: 2 }), el('text', { x: 10, y: 15 }, name));
      if (p.static) g.classList.add('dyn-static');
      if (lit.has(i)) g.classList.add('dyn-lit');
      return [i, g];
    }));
    const heads = [...columns].map(([year, c]) => el('text', { class: 'dyn-year', x: 2 + c * COLUMN, y: 14 }, String(year)));
    const order = [...nodes].sort(([a], [b]) => papers[a].year - papers[b].year || corner.get(a)[1] - corner.get(b)[1]).map(([, g]) => g);
    const svg = el('svg', { class: 'dyn-lines', width, height, viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': 'Papers by year, lines to what they build on' },
      ...heads, ...paths.flatMap((e) => [e.path, e.reach]), ...order);
    svg.classList.toggle('dyn-chosen-one', state.paper >= 0);
    scroll.replaceChildren(...(shown.length ? [svg] : [el('p', { class: 'dyn-note' }, 'No line is switched on.')]));
    const first = nodes.get(state.paper) || order[0];
    if (first) stop(nodes.get(Number(held)) || first);
    if (held !== undefined) (nodes.get(Number(held)) || first)?.focus({ preventScroll: true });

    only.checked = state.only; only.disabled = state.paper < 0;
    for (const [kind, input] of Object.entries(boxes)) input.checked = state.kinds.has(kind);
    if (state.paper >= 0 && names.get(fold(search.value.trim())) !== state.paper) search.value = papers[state.paper].method;
    if (state.paper < 0 && document.activeElement !== search) search.value = '';
    status.textContent = state.paper < 0 ? `${plural(shown.length)}, ${plural(paths.length, 'line')}`
      : `${papers[state.paper].method}: ${plural(up.size, 'ancestor')}, ${plural(down.size, 'descendant')}`;
    hint([]);
    describe();
  }
  function hint(some, i) {              // what a line, or a paper's lines, say, and where they say it
    for (const e of paths) e.path.classList.toggle('dyn-near', some.some((s) => s.from === e.from && s.to === e.to && s.kind === e.kind));
    const own = some.filter((e) => i === undefined || e.from === i || e.from === state.paper);  // its own words, and those of the chosen
    const text = [i === undefined ? '' : `${papers[i].title} (${papers[i].year}).`, own.map(says).join(' · ')].filter(Boolean).join(' ');
    note.textContent = text || 'Point at a paper or a line to see where the relation is stated.';
  }
  function show(i) {                    // bring a paper into the middle of its window, and out from under its description
    const at = corner.get(i);
    if (!at) return;
    scroll.scrollLeft = at[0] + BOX / 2 - scroll.clientWidth / 2;
    if (state.paper >= 0) reveal(nodes.get(i), detail);
  }

  // ---- the chosen paper in words; a name in it leads on
  function go(i) { return el('button', { type: 'button', class: 'dyn-go', onclick: () => { choose(i); detail.querySelector('h2')?.focus(); } }, `${papers[i].method} (${papers[i].year})`); }
  function describe() {
    detail.classList.toggle('dyn-held', state.paper >= 0);
    if (state.paper < 0) {
      const most = papers.map((_, i) => [i, reach(i, newer).size]).sort((a, b) => b[1] - a[1]).filter(([, n]) => n).slice(0, 8);
      detail.replaceChildren(el('h2', { class: 'dyn-name', tabindex: '-1' }, 'Most is built on'), el('ul', { class: 'dyn-ways' }, ...most.map(([i, n]) => el('li', {}, go(i), ` ${plural(n, 'descendant')}`))));
      return;
    }
    const p = papers[state.paper];
    const group = (title, some, end) => some.length ? el('div', {}, el('h3', {}, title), el('ul', { class: 'dyn-ways' }, ...some.map((e) => {
      const item = el('li', {}, go(e[end]), el('span', { class: 'dyn-muted' }, e.where ? ' ' + e.where : ''));
      for (const event of ['focusin', 'pointerenter']) item.addEventListener(event, () => hint([e]));
      for (const event of ['focusout', 'pointerleave']) item.addEventListener(event, () => hint([]));
      return item;
    }))) : null;
    const groups = Object.keys(kinds).flatMap((kind) => [
      group(kinds[kind].read[0], on.filter((e) => e.kind === kind && e.from === state.paper), 'to'),
      group(kinds[kind].read[1], on.filter((e) => e.kind === kind && e.to === state.paper), 'from')]).filter(Boolean);
    detail.replaceChildren(el('h2', { class: 'dyn-name', tabindex: '-1' }, `${p.method} (${p.year})`), el('p', { class: 'dyn-titled' }, p.title), p.tldr ? el('p', {}, p.tldr) : '',
      el('p', {}, p.url ? el('a', { class: 'dyn-out', href: p.url, ...(p.static ? { rel: 'external noopener' } : {}) }, p.static ? 'Read the paper' : 'Open its page') : '', ' ',
        el('button', { type: 'button', class: 'dyn-clear', onclick: () => { choose(-1); search.focus(); } }, 'Choose none')),
      el('div', { class: 'dyn-groups' }, ...(groups.length ? groups : [el('p', { class: 'dyn-note' }, 'None of the lines switched on leads to or from it.')])));
  }

  addEventListener('popstate', () => { read(); draw(); if (state.paper >= 0) show(state.paper); });
  read(); draw();
  const degree = papers.map((_, i) => older[i].length + newer[i].length);
  show(state.paper >= 0 ? state.paper : degree.indexOf(Math.max(...degree)));
  box.dataset.ready = 'yes';
})();
