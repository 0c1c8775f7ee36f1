// Papers over the years: a row per venue, a mark per paper, coloured by the root of the taxonomy it hangs on.
(() => {
  const { el, plural, begin, address, rove, hues } = drawing;
  const found = begin('dyn-timeline');
  if (!found) return;
  const [box, { papers, years, rows, nodes, events, roots }] = found;
  const hue = hues(roots), root = (p) => p.places[0].split('/')[0];
  const inside = (p, id) => !id || p.places.some((place) => place === id || place.startsWith(id + '/'));
  const where = (id) => nodes.find((n) => n.id === id)?.label ?? id;
  let taxon = '';
  const read = () => { const asked = new URLSearchParams(location.search).get('taxon'); taxon = nodes.some((n) => n.id === asked) ? asked : ''; };

  const select = el('select', { id: 'dyn-timeline-node', onchange: () => { taxon = select.value; address({ taxon }, true); draw(); } },
    el('option', { value: '' }, 'the whole field'), ...nodes.map((n) => el('option', { value: n.id }, '\u2003'.repeat(n.id.split('/').length - 1) + n.label)));
  const status = el('p', { class: 'dyn-sum', role: 'status' });
  const scroll = el('div', { class: 'dyn-scroll', role: 'region', 'aria-label': 'Papers by venue and year' });
  const idle = 'Point at a mark to see the paper; open it with a click or Enter. Arrow keys go from mark to mark.';
  const hint = el('p', { class: 'dyn-hint', 'aria-hidden': 'true' }, idle);
  box.append(el('div', { class: 'dyn-tools' }, el('div', { class: 'dyn-ask' }, el('label', { for: 'dyn-timeline-node' }, 'Show'), select), status), scroll, hint,
    el('ul', { class: 'dyn-legend' }, ...roots.filter((r) => papers.some((p) => root(p) === r.id)).map((r) => el('li', {}, el('i', { style: { '--hue': hue.get(r.id) } }), r.label)),
      events.length ? el('li', {}, el('i', { class: 'dyn-event' }), 'event') : null));

  const stop = rove(scroll, '.dyn-mark', (e, key) => {
    const marks = [...e.closest('tr').querySelectorAll('.dyn-mark')];
    if (key === 'ArrowLeft' || key === 'ArrowRight') return marks[marks.indexOf(e) + (key === 'ArrowLeft' ? -1 : 1)];
    const lines = [...scroll.querySelectorAll('tbody tr')], x = e.getBoundingClientRect().x;
    const others = key === 'ArrowUp' ? lines.slice(0, lines.indexOf(e.closest('tr'))).reverse() : lines.slice(lines.indexOf(e.closest('tr')) + 1);
    const off = (m) => Math.abs(m.getBoundingClientRect().x - x);
    return [...others.find((tr) => tr.querySelector('.dyn-mark'))?.querySelectorAll('.dyn-mark') ?? []].sort((a, b) => off(a) - off(b))[0];
  });
  function mark(url, label, text, attributes) {
    const tell = () => { hint.textContent = text; }, hush = () => { hint.textContent = idle; };
    return el(url ? 'a' : 'span', { class: 'dyn-mark', href: url || null, role: url ? null : 'img', tabindex: '-1', 'aria-label': label,
      onpointerenter: tell, onfocus: tell, onpointerleave: hush, onblur: hush, ...attributes });
  }
  function draw() {
    const shown = papers.filter((p) => inside(p, taxon));
    const most = Math.max(1, ...years.map((y) => shown.filter((p) => p.year === y).length));
    const gap = (i) => (i && years[i] > years[i - 1] + 1 ? 'dyn-gap' : null);
    const head = el('tr', {}, el('td', {}), ...years.map((y, i) => {
      const n = shown.filter((p) => p.year === y).length;
      return el('th', { scope: 'col', class: gap(i) }, el('b', {}, n ? String(n) : ''), el('i', { class: 'dyn-bar-up', style: { '--share': (n / most).toFixed(3) } }), el('span', {}, String(y)));
    }));
    const line = (name, cells) => el('tr', {}, el('th', { scope: 'row' }, name), ...years.map((y, i) => el('td', { class: gap(i) }, ...cells(y))));
    const body = rows.filter((row) => shown.some((p) => p.row === row)).map((row) => line(`${row} ${shown.filter((p) => p.row === row).length}`, (y) => shown.filter((p) => p.row === row && p.year === y).map((p) =>
      mark(p.url, `${p.method}, ${row} ${p.year}`, `${p.method}: ${p.title}. ${[p.venue, p.year].filter(Boolean).join(', ')}. ${p.places.map(where).join(', ')}.`,
        { 'data-key': p.key, style: { '--hue': hue.get(root(p)) ?? 0 } }))));
    if (events.length && !taxon) body.unshift(line('Events', (y) => events.filter((e) => e.year === y).map((e) =>
      mark(e.url, `${e.name}, ${e.year}`, `${e.year}: ${e.name}. ${e.about}`, { class: 'dyn-mark dyn-event' }))));
    scroll.replaceChildren(el('table', { class: 'dyn-years-table' }, el('caption', {}, 'Papers by venue (rows) and year (columns); the bars count the papers of a year.'), el('thead', {}, head), el('tbody', {}, ...body)));
    const first = scroll.querySelector('.dyn-mark');
    if (first) stop(first);
    select.value = taxon;
    status.textContent = shown.length === papers.length ? `All ${plural(papers.length)}` : `${shown.length} of ${plural(papers.length)}`;
  }
  addEventListener('popstate', () => { read(); draw(); });
  read(); draw();
  scroll.scrollLeft = scroll.scrollWidth;          // the recent years are the crowded ones
  box.dataset.ready = 'yes';
})();
