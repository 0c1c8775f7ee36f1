// The map of the field: a zoomable tree, a unit x decision matrix and a list of papers, all of them one filter.
// No library. Every control is a native one, the state lives in the address, and the plain list stays if this never runs.
(() => {
  const box = document.getElementById('dyn-map');
  if (!box) return;
  const { papers, nodes, facets } = JSON.parse(box.querySelector('script[type="application/json"]').textContent);
  const names = Object.keys(facets);
  const title = { kind: 'Kind', adapts: 'Adapts to', unit: 'What is skipped', decision: 'Who decides', training: 'How it is learned',
    executes: 'Where it was faster', modality: 'Data', tasks: 'Tasks' };
  const byId = new Map(nodes.map((n) => [n.id, n]));
  const parent = (id) => id.slice(0, Math.max(0, id.lastIndexOf('/')));
  const children = (id) => nodes.filter((n) => parent(n.id) === id);
  const years = papers.map((p) => p.year), first = Math.min(...years), last = Math.max(...years);
  const fold = (s) => s.normalize('NFKD').replace(/[\u0300-\u036f]/g, '').toLowerCase();
  for (const p of papers) p.text = fold([p.title, p.method, ...p.aka, ...p.authors, p.venue, p.tldr, p.key].join(' '));

  // ---- state <-> address
  const empty = () => ({ q: '', taxon: '', from: first, to: last, implemented: false, sort: 'new', view: 'tree',
    ...Object.fromEntries(names.map((f) => [f, new Set()])) });
  let state = read(), limit = 40;       // papers listed before a button asks for the rest
  function read() {
    const s = empty(), query = new URLSearchParams(location.search);
    s.q = query.get('q') || '';
    s.taxon = byId.has(query.get('taxon')) ? query.get('taxon') : '';
    const year = (name, otherwise) => Math.min(last, Math.max(first, parseInt(query.get(name), 10) || otherwise));
    s.from = year('from', first); s.to = year('to', last);
    s.implemented = query.get('implemented') === '1';
    s.sort = ['new', 'old', 'name'].includes(query.get('sort')) ? query.get('sort') : 'new';
    s.view = query.get('view') === 'matrix' ? 'matrix' : 'tree';
    for (const f of names) for (const word of (query.get(f) || '').split(',')) if (Object.hasOwn(facets[f], word)) s[f].add(word);
    return s;
  }
  function write() {
    const query = new URLSearchParams();
    if (state.q) query.set('q', state.q);
    if (state.taxon) query.set('taxon', state.taxon);
    if (state.from !== first) query.set('from', state.from);
    if (state.to !== last) query.set('to', state.to);
    for (const f of names) if (state[f].size) query.set(f, [...state[f]].join(','));
    if (state.implemented) query.set('implemented', '1');
    if (state.sort !== 'new') query.set('sort', state.sort);
    if (state.view !== 'tree') query.set('view', state.view);
    const text = query.toString().replaceAll('%2C', ',').replaceAll('%2F', '/');
    history.replaceState(null, '', location.pathname + (text ? '?' + text : '') + location.hash);
  }

  // ---- the filter; `but` leaves out some facets, so that a facet's counts show what choosing another word would give
  const inside = (p, id) => !id || p.places.some((place) => place === id || place.startsWith(id + '/'));
  function matches(p, but = []) {
    return (but.includes('taxon') || inside(p, state.taxon)) && p.year >= state.from && p.year <= state.to
      && (!state.implemented || p.implemented)
      && fold(state.q).split(/\s+/).every((word) => p.text.includes(word))
      && names.every((f) => but.includes(f) || !state[f].size || p.facets[f].some((word) => state[f].has(word)));
  }

  // ---- small DOM help: text is always set as text
  function el(tag, attributes = {}, ...inner) {
    const e = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
      else if (name === 'style') for (const [k, v] of Object.entries(value)) e.style.setProperty(k, v);
      else if (value === true) e.setAttribute(name, '');
      else if (value !== false && value != null) e.setAttribute(name, value);
    }
    e.append(...inner.filter((x) => x != null));
    return e;
  }
  const plural = (n) => `${n} paper${n === 1 ? '' : 's'}`;
  function change(more) {               // set, redraw, and keep the keyboard where it was
    Object.assign(state, more);
    const at = document.activeElement?.dataset?.at;
    limit = 40;
    write(); draw();
    if (at) box.querySelector(`[data-at="${CSS.escape(at)}"]`)?.focus({ preventScroll: true });
  }
  const toggle = (f, word) => { const set = new Set(state[f]); set.has(word) ? set.delete(word) : set.add(word); change({ [f]: set }); };

  // ---- the frame, built once
  const search = el('input', { type: 'search', id: 'dyn-q', placeholder: 'title, method, author, idea', autocomplete: 'off',
    oninput: () => change({ q: search.value }) });
  const yearBox = (name, label) => el('input', { type: 'number', id: 'dyn-' + name, min: first, max: last, 'aria-label': label,
    onchange: (e) => {
      const value = Math.min(last, Math.max(first, parseInt(e.target.value, 10) || (name === 'from' ? first : last)));
      const more = { [name]: value };
      if (name === 'from' && value > state.to) more.to = value;
      if (name === 'to' && value < state.from) more.from = value;
      change(more);
    } });
  const from = yearBox('from', 'First year'), to = yearBox('to', 'Last year');
  const only = el('input', { type: 'checkbox', onchange: () => change({ implemented: only.checked }) });
  const groups = {};
  const panel = el('details', { class: 'dyn-filters', open: matchMedia('(min-width: 60rem)').matches },
    el('summary', {}, 'Filters'),
    el('div', { class: 'dyn-field' }, el('label', { for: 'dyn-q' }, 'Search'), search),
    el('div', { class: 'dyn-field dyn-years' }, el('span', {}, 'Years'), from, el('span', { 'aria-hidden': 'true' }, '–'), to),
    el('label', { class: 'dyn-word' }, only, el('span', {}, 'implemented here'), el('b', { 'data-count': 'implemented' })),
    ...names.map((f) => {
      const rows = Object.entries(facets[f]).map(([word, about]) => {
        const input = el('input', { type: 'checkbox', value: word, 'data-facet': f, onchange: () => toggle(f, word) });
        return el('label', { class: 'dyn-word', title: about }, input, el('span', {}, word), el('b', { 'data-count': f + '=' + word }));
      });
      return groups[f] = el('details', { class: 'dyn-group', open: f === 'unit' || f === 'decision' || state[f].size > 0 },
        el('summary', {}, title[f] || f), el('div', { role: 'group', 'aria-label': title[f] || f }, ...rows));
    }));
  const status = el('p', { class: 'dyn-status', role: 'status' });
  const chosen = el('div', { class: 'dyn-chosen' });
  const views = ['tree', 'matrix'].map((view) => el('label', {}, el('input', { type: 'radio', name: 'dyn-view', value: view,
    onchange: () => change({ view }) }), el('span', {}, view === 'tree' ? 'Taxonomy' : 'Unit × decision')));
  const drawing = el('div', { class: 'dyn-drawing' });
  const sort = el('select', { id: 'dyn-sort', onchange: () => change({ sort: sort.value }) },
    el('option', { value: 'new' }, 'newest first'), el('option', { value: 'old' }, 'oldest first'), el('option', { value: 'name' }, 'by method'));
  const list = el('ul', { class: 'dyn-results' });
  box.querySelector('.dyn-map-plain').hidden = true;
  box.append(el('div', { class: 'dyn-app' }, panel, el('div', { class: 'dyn-main' },
    el('div', { class: 'dyn-bar' }, status, el('fieldset', { class: 'dyn-views' }, el('legend', {}, 'View'), ...views)),
    chosen, drawing,
    el('div', { class: 'dyn-bar' }, el('h2', { class: 'dyn-h' }, 'Papers'), el('div', { class: 'dyn-field dyn-sort' }, el('label', { for: 'dyn-sort' }, 'Order'), sort)),
    list)));

  // ---- the tree: a left-to-right icicle of native buttons; a click filters and zooms, a second click steps back
  const hues = new Map(children('').map((n, i, all) => [n.id, Math.round(205 + (360 / all.length) * i) % 360]));
  function tree() {
    const found = papers.filter((p) => matches(p, ['taxon']));
    const count = (id) => found.reduce((n, p) => n + inside(p, id), 0);
    const total = (id) => papers.reduce((n, p) => n + inside(p, id), 0);
    const top = state.taxon && !children(state.taxon).length ? parent(state.taxon) : state.taxon;
    function branch(node, depth) {
      const below = depth ? children(node.id).filter((c) => total(c.id)) : [], n = count(node.id);
      const button = el('button', { type: 'button', class: 'dyn-node', 'data-at': 'node:' + node.id, 'data-node': node.id,
        'aria-pressed': String(state.taxon === node.id), title: [node.about, node.survey && 'survey section ' + node.survey].filter(Boolean).join(' · '),
        'aria-label': `${node.label}, ${plural(n)}`,
        style: { '--share': Math.sqrt(n / Math.max(1, papers.length)).toFixed(3), '--hue': hues.get(node.id.split('/')[0]) },
        onclick: () => change({ taxon: state.taxon === node.id ? parent(node.id) : node.id }) },
        el('span', { class: 'dyn-node-name' }, node.label, node.zh ? el('small', { lang: 'zh' }, node.zh) : null), el('b', {}, String(n)));
      if (!n) button.classList.add('dyn-none');
      return el('li', {}, button, below.length ? el('ul', {}, ...below.map((c) => branch(c, depth - 1))) : null);
    }
    const path = [];
    for (let id = top; id; id = parent(id)) path.unshift(id);
    const crumbs = el('nav', { class: 'dyn-crumbs', 'aria-label': 'Branch of the taxonomy' },
      el('button', { type: 'button', 'data-at': 'crumb:', disabled: !state.taxon, onclick: () => change({ taxon: '' }) }, 'All'),
      ...path.flatMap((id) => [el('span', { 'aria-hidden': 'true' }, '›'),
        el('button', { type: 'button', 'data-at': 'crumb:' + id, disabled: id === state.taxon, onclick: () => change({ taxon: id }) }, byId.get(id)?.label ?? id)]));
    const roots = top ? [byId.get(top)] : children('').filter((n) => total(n.id));
    return [crumbs, el('ul', { class: 'dyn-tree' }, ...roots.map((n) => branch(n, top ? 2 : 1)))];
  }

  // ---- the matrix: what is skipped against who decides; a cell sets both facets
  function matrix() {
    const found = papers.filter((p) => matches(p, ['unit', 'decision']));
    const units = Object.keys(facets.unit), decisions = Object.keys(facets.decision);
    const cell = (u, d) => found.filter((p) => p.facets.unit.includes(u) && p.facets.decision.includes(d)).length;
    const most = Math.max(1, ...units.flatMap((u) => decisions.map((d) => cell(u, d))));
    const on = (u, d) => state.unit.size === 1 && state.decision.size === 1 && state.unit.has(u) && state.decision.has(d);
    const rows = units.map((u) => el('tr', {}, el('th', { scope: 'row', title: facets.unit[u] }, u), ...decisions.map((d) => {
      const n = cell(u, d);
      return el('td', {}, n || on(u, d) ? el('button', { type: 'button', 'data-at': `cell:${u}:${d}`, 'aria-pressed': String(on(u, d)),
        'aria-label': `${u} decided by ${d}: ${plural(n)}`, style: { '--share': (n / most).toFixed(3) },
        onclick: () => change(on(u, d) ? { unit: new Set(), decision: new Set() } : { unit: new Set([u]), decision: new Set([d]) }) }, String(n)) : null);
    })));
    return [el('div', { class: 'dyn-scroll', tabindex: '0', role: 'region', 'aria-label': 'Unit by decision' },
      el('table', { class: 'dyn-matrix' }, el('caption', {}, 'Rows: what is skipped. Columns: who decides. An empty cell is an idea that no paper of this book has tried.'),
        el('thead', {}, el('tr', {}, el('td', {}), ...decisions.map((d) => el('th', { scope: 'col', title: facets.decision[d] }, d)))),
        el('tbody', {}, ...rows)))];
  }

  function card(p) {
    const who = p.authors.length > 3 ? p.authors[0] + ' et al.' : p.authors.join(', ');
    const chips = ['unit', 'decision', 'training'].flatMap((f) => p.facets[f].filter((w) => w !== 'none').map((word) =>
      el('button', { type: 'button', class: 'dyn-chip', 'data-at': `chip:${p.key}:${f}:${word}`, 'aria-pressed': String(state[f].has(word)),
        title: `${title[f]}: ${facets[f][word]}`, onclick: () => toggle(f, word) }, word)));
    return el('li', { 'data-key': p.key },
      el('p', { class: 'dyn-card-head' }, el('a', { href: p.url }, p.method), p.implemented ? el('span', { class: 'dyn-badge dyn-yes' }, 'implemented') : null,
        el('span', { class: 'dyn-muted' }, [who, p.venue, p.year].filter(Boolean).join(' · '))),
      el('p', { class: 'dyn-card-title' }, p.title), p.tldr ? el('p', { class: 'dyn-card-text' }, p.tldr) : null, el('p', { class: 'dyn-chips' }, ...chips));
  }

  function draw() {
    const shown = papers.filter((p) => matches(p));
    const order = { new: (a, b) => b.year - a.year || a.method.localeCompare(b.method), old: (a, b) => a.year - b.year || a.method.localeCompare(b.method),
      name: (a, b) => a.method.localeCompare(b.method) }[state.sort];
    status.textContent = shown.length === papers.length ? `All ${plural(papers.length)}` : `${shown.length} of ${plural(papers.length)}`;
    if (search.value !== state.q) search.value = state.q;
    from.value = state.from; to.value = state.to; only.checked = state.implemented; sort.value = state.sort;
    for (const label of views) label.firstChild.checked = label.firstChild.value === state.view;
    for (const f of names) {
      const others = papers.filter((p) => matches(p, [f]));
      for (const input of groups[f].querySelectorAll('input')) {
        input.checked = state[f].has(input.value);
        const n = others.filter((p) => p.facets[f].includes(input.value)).length;
        input.closest('label').querySelector('b').textContent = n;
        input.closest('label').classList.toggle('dyn-none', !n);
      }
      groups[f].classList.toggle('dyn-active', state[f].size > 0);
    }
    panel.querySelector('[data-count="implemented"]').textContent = shown.filter((p) => p.implemented).length;

    const tags = [];
    const tag = (text, off) => tags.push(el('button', { type: 'button', class: 'dyn-chip dyn-tag', 'aria-label': `Remove filter ${text}`, onclick: off }, text + ' ×'));
    if (state.q) tag(`“${state.q}”`, () => change({ q: '' }));
    if (state.taxon) tag(byId.get(state.taxon).label, () => change({ taxon: '' }));
    if (state.from !== first || state.to !== last) tag(`${state.from}–${state.to}`, () => change({ from: first, to: last }));
    if (state.implemented) tag('implemented', () => change({ implemented: false }));
    for (const f of names) for (const word of state[f]) tag(`${f}: ${word}`, () => toggle(f, word));
    if (tags.length) tags.push(el('button', { type: 'button', class: 'dyn-reset', onclick: () => change({ ...empty(), view: state.view, sort: state.sort }) }, 'Clear all'));
    chosen.replaceChildren(...tags);

    drawing.replaceChildren(...(state.view === 'tree' ? tree() : matrix()));
    const page = shown.sort(order).slice(0, limit);
    list.replaceChildren(...(shown.length ? page.map(card) : [el('li', { class: 'dyn-note' }, 'No paper matches all of this. Remove a filter above.')]));
    const rest = shown.length - page.length;
    if (rest > 0) list.append(el('li', {}, el('button', { type: 'button', class: 'dyn-more', onclick: () => {
      limit = Infinity; draw(); list.children[page.length].querySelector('a').focus();
    } }, `Show ${rest} more`)));
  }
  addEventListener('popstate', () => { state = read(); draw(); });
  draw();
  box.dataset.ready = 'yes';
})();
