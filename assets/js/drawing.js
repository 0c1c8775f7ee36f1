// What the drawings share: elements whose text is set as text, one tab stop among many, the address as their state.
globalThis.drawing = (() => {
  const SVG = new Set(['svg', 'g', 'path', 'rect', 'text', 'title']);
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
  const plural = (n, word = 'paper') => `${n} ${word}${n === 1 ? '' : 's'}`;

  // The part of the page and its data; the plain form makes room. Null where the page has no such drawing.
  function begin(id) {
    const box = document.getElementById(id);
    if (!box) return null;
    box.querySelector('.dyn-plain').hidden = true;
    return [box, JSON.parse(box.querySelector('script[type="application/json"]').textContent)];
  }
  // Put the state into the address, empty values left out; `step` makes a step that Back undoes.
  function address(state, step = false) {
    const query = new URLSearchParams(Object.entries(state).filter(([, value]) => value));
    const text = query.toString().replaceAll('%2C', ',').replaceAll('%2F', '/').replaceAll('%3A', ':');
    const url = location.pathname + (text ? '?' + text : '') + location.hash;
    if (url !== location.pathname + location.search + location.hash) history[step ? 'pushState' : 'replaceState'](null, '', url);
  }
  // Of all elements that `all` finds only one is a tab stop; `move(element, key)` says where an arrow leads.
  function rove(box, all, move) {
    const stop = (e) => { for (const other of box.querySelectorAll(all)) other.setAttribute('tabindex', other === e ? '0' : '-1'); };
    box.addEventListener('focusin', (event) => { const e = event.target.closest(all); if (e) stop(e); });
    box.addEventListener('keydown', (event) => {
      const e = event.target.closest(all);
      if (!e || !event.key.startsWith('Arrow')) return;
      event.preventDefault();
      move(e, event.key)?.focus();
    });
    return stop;
  }
  // Scroll the page so that an element comes out from under the description at the bottom.
  function reveal(e, cover) {
    const under = e.getBoundingClientRect().bottom - cover.getBoundingClientRect().top;
    if (under > -20) scrollBy(0, under + 60);
  }
  // The hues that the map of the field gives the roots of the taxonomy.
  const hues = (roots) => new Map(roots.map((r, i) => [r.id, Math.round(205 + (360 / roots.length) * i) % 360]));
  const fold = (s) => s.normalize('NFKD').replace(/[\u0300-\u036f]/g, '').toLowerCase();
  return { el, plural, begin, address, rove, reveal, hues, fold };
})();
