// The map of gaps: two axes as a table, the other two as a small grid in each cell. An empty cell names its neighbours.
(() => {
  const { el, plural, begin, address, rove, reveal } = drawing;
  const found = begin('dyn-gaps');
  if (!found) return;
  const [box, { papers, axes, map }] = found;
  const names = Object.keys(axes);
  const title = { unit: 'what is skipped', decision: 'who decides', training: 'how it is learned', executes: 'where it was faster' };
  const has = (p, where) => Object.entries(where).every(([axis, word]) => p.words[axis].includes(word));

  // ---- state <-> address
  let state;
  function read() {
    const query = new URLSearchParams(location.search), axis = (name, other) => (names.includes(query.get(name)) ? query.get(name) : other);
    const rows = axis('rows', names[0]), asked = axis('columns', names[1]);
    const columns = asked === rows ? names.find((n) => n !== rows) : asked;
    const cell = Object.fromEntries((query.get('cell') || '').split(',').map((part) => part.split(':')).filter(([a, w]) => names.includes(a) && Object.hasOwn(axes[a], w)));
    state = { rows, columns, inside: query.get('inside') !== '0', cell: Object.hasOwn(cell, rows) && Object.hasOwn(cell, columns) ? cell : null };
  }
  const name = (where) => Object.entries(where).map((pair) => pair.join(':')).join(',');
  function change(more, step = false) {
    state = { ...state, ...more };
    address({ rows: state.rows !== names[0] && state.rows, columns: state.columns !== names[1] && state.columns, inside: !state.inside && '0', cell: state.cell && name(state.cell) }, step);
    draw();
  }
  const choose = (where) => change({ cell: where }, true);

  // ---- the frame
  const pick = (which, label) => {
    const select = el('select', { id: 'dyn-gaps-' + which, onchange: () => {
      const other = which === 'rows' ? 'columns' : 'rows';
      change({ [which]: select.value, ...(state[other] === select.value ? { [other]: state[which] } : {}), cell: null });
    } }, ...names.map((n) => el('option', { value: n }, `${n}: ${title[n] ?? ''}`)));
    return [select, el('div', { class: 'dyn-ask' }, el('label', { for: select.id }, label), select)];
  };
  const [rows, rowsField] = pick('rows', 'Rows'), [columns, columnsField] = pick('columns', 'Columns');
  const inside = el('input', { type: 'checkbox', onchange: () => change({ inside: inside.checked, cell: null }) });
  const insideWord = el('span', {});
  const status = el('p', { class: 'dyn-sum', role: 'status' });
  const hint = el('p', { class: 'dyn-hint', 'aria-hidden': 'true' });
  const scroll = el('div', { class: 'dyn-scroll', role: 'region', 'aria-label': 'Combinations' });
  const detail = el('section', { class: 'dyn-detail dyn-held', 'aria-label': 'The chosen combination', 'aria-live': 'polite' });
  const key = el('ul', { class: 'dyn-legend' }, el('li', {}, el('i', { class: 'dyn-empty' }), 'no paper'), ...[0, .5, 1].map((share, i) =>
    el('li', {}, el('i', { class: 'dyn-heat', style: { '--share': share } }), ['one', 'more', 'most'][i])));
  box.append(el('div', { class: 'dyn-tools' }, rowsField, columnsField, el('label', { class: 'dyn-tick' }, inside, insideWord)), status, scroll, hint, key, detail);

  const stop = rove(scroll, '.dyn-cell', (e, arrow) => {
    const cells = [...scroll.querySelectorAll(e.classList.contains('dyn-total') ? '.dyn-total' : '.dyn-cell:not(.dyn-total)')];
    const [x, y] = e.dataset.at.split(',').map(Number), [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[arrow];
    return cells.find((c) => c.dataset.at === `${x + dx},${y + dy}`);
  });

  function draw() {
    const others = names.filter((n) => n !== state.rows && n !== state.columns);
    const [down, along] = [others[1], others[0]];            // inside a cell: the third axis along, the fourth down
    const used = state.inside ? names : [state.rows, state.columns];
    const placed = papers.filter((p) => used.every((n) => p.words[n].length));
    const words = Object.fromEntries(used.map((n) => [n, Object.keys(axes[n]).filter((w) => placed.some((p) => p.words[n].includes(w)))]));
    const counts = new Map();
    const every = (axis, p) => p.words[axis].map((w) => axis + ':' + w);
    const count = (...at) => counts.set(at.join(','), (counts.get(at.join(',')) || 0) + 1);
    for (const p of papers) for (const a of every(state.rows, p)) for (const b of every(state.columns, p)) {
      count(a, b);
      if (state.inside) for (const c of every(along, p)) for (const d of every(down, p)) count(a, b, c, d);
    }
    const full = [...counts.keys()].filter((id) => id.split(',').length === used.length), most = Math.max(1, ...full.map((id) => counts.get(id)));
    const total = used.reduce((n, axis) => n * words[axis].length, 1);
    const chosen = state.cell && name(state.cell);
    function cell(where, at, extra) {
      const id = name(where), n = counts.get(id) || 0, label = `${Object.values(where).join(' × ')}: ${n ? plural(n) : 'no paper'}`;
      const tell = () => { hint.textContent = label; };
      const button = el('button', { type: 'button', class: 'dyn-cell ' + (extra || ''), tabindex: '-1', 'data-cell': id, 'data-at': at.join(','), 'aria-label': label, 'aria-pressed': String(id === chosen),
        style: extra ? {} : { '--share': most > 1 ? ((n - 1) / (most - 1)).toFixed(3) : 1 }, onpointerenter: tell, onfocus: tell, onclick: () => choose(id === chosen ? null : where) });
      if (!n) button.classList.add('dyn-empty');
      if (extra || !state.inside) button.textContent = n || (extra ? '–' : '0');
      return button;
    }
    const body = words[state.rows].map((a, y) => el('tr', {}, el('th', { scope: 'row', title: axes[state.rows][a] }, a), ...words[state.columns].map((b, x) => {
      const where = { [state.rows]: a, [state.columns]: b };
      if (!state.inside) return el('td', {}, cell(where, [x, y]));
      const wide = words[along].length, high = words[down].length;
      return el('td', {}, cell(where, [x, y], 'dyn-total'), el('div', { class: 'dyn-inner', style: { '--wide': wide } },
        ...words[down].flatMap((d, j) => words[along].map((c, i) => cell({ ...where, [along]: c, [down]: d }, [x * wide + i, y * high + j])))));
    })));
    const caption = `Rows: ${title[state.rows]}. Columns: ${title[state.columns]}.` + (state.inside ? ` Inside each cell: ${along} along (${words[along].join(', ')}), ${down} down (${words[down].join(', ')}); the number above counts the cell’s papers.` : '');
    const held = document.activeElement?.closest?.('.dyn-cell')?.dataset.cell;
    scroll.replaceChildren(el('table', { class: 'dyn-gaps-table' + (state.inside ? ' dyn-nested' : '') }, el('caption', {}, caption),
      el('thead', {}, el('tr', {}, el('td', {}), ...words[state.columns].map((w) => el('th', { scope: 'col', title: axes[state.columns][w] }, w)))), el('tbody', {}, ...body)));
    const by = (id) => (id ? scroll.querySelector(`[data-cell="${CSS.escape(id)}"]`) : null);
    const first = by(held) || by(chosen) || scroll.querySelector('.dyn-cell');
    if (first) stop(first);
    by(held)?.focus({ preventScroll: true });
    rows.value = state.rows; columns.value = state.columns; inside.checked = state.inside;
    insideWord.textContent = `${others.join(' × ')} inside each cell`;
    status.textContent = `${total.toLocaleString('en')} combinations, ${(total - full.length).toLocaleString('en')} empty`;
    hint.textContent = 'Point at a cell to read its words. Arrow keys go from cell to cell; Enter lists the papers.';
    describe();
    if (by(chosen)) reveal(by(chosen), detail);
  }

  // ---- the chosen cell in words
  function describe() {
    if (!state.cell) { detail.replaceChildren(); return; }
    const where = state.cell, own = Object.keys(where), inCell = papers.filter((p) => has(p, where));
    const close = el('button', { type: 'button', class: 'dyn-clear', onclick: () => { choose(null); scroll.querySelector('.dyn-cell[tabindex="0"]')?.focus(); } }, 'Choose none');
    const explorer = el('p', {}, el('a', { class: 'dyn-out', href: map + '?' + new URLSearchParams(where) }, 'These filters in the explorer'), ' ', close);
    const head = [el('h2', { class: 'dyn-name' }, `${Object.values(where).join(' × ')}: ${inCell.length ? plural(inCell.length) : 'no paper'}`),
      el('ul', { class: 'dyn-muted dyn-small dyn-ways' }, ...own.map((axis) => el('li', {}, `${axis} ${where[axis]}: ${axes[axis][where[axis]]}`)))];
    if (inCell.length) {
      detail.replaceChildren(...head, el('ul', { class: 'dyn-ways' }, ...inCell.map((p) => el('li', {}, el('a', { href: p.url }, p.method), ` (${p.year}) `, el('span', { class: 'dyn-muted' }, p.title)))), explorer);
      return;
    }
    // the combinations that papers use, nearest first: how many of the words differ
    const near = new Map();
    for (const p of papers) for (const w of own.reduce((some, axis) => some.flatMap((s) => p.words[axis].map((word) => ({ ...s, [axis]: word }))), [{}])) {
      const id = name(w), entry = near.get(id) || { where: w, n: 0, off: own.filter((axis) => w[axis] !== where[axis]) };
      entry.n += 1;
      near.set(id, entry);
    }
    const least = Math.min(...[...near.values()].map((e) => e.off.length));
    const nearest = [...near.values()].filter((e) => e.off.length === least).sort((a, b) => b.n - a.n || name(a.where).localeCompare(name(b.where)));
    detail.replaceChildren(...head, el('p', {}, `No paper of this book combines these. Nearest that are not empty, ${plural(least, 'word')} away:`),
      el('ul', { class: 'dyn-ways' }, ...nearest.map((e) => el('li', {}, el('button', { type: 'button', class: 'dyn-go', onclick: () => choose(e.where) }, Object.values(e.where).join(' × ')),
        ` ${plural(e.n)}, another ${e.off.join(' and ')}`))), explorer);
  }
  addEventListener('popstate', () => { read(); draw(); });
  read(); draw();
  box.dataset.ready = 'yes';
})();
