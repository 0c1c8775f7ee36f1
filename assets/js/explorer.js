// The explorer: the taxonomy as an icicle (or a unit x decision matrix) beside a table, filtered by chips and words.
// No library. What is chosen lives in the address; a plain list stands there if this never runs.
// Everything is built once; a change moves, hides and rewrites what differs, so that it is seen at once.
(() => {
  const box = document.getElementById('dyn-explorer');
  if (!box) return;
  const { papers, nodes, facets } = JSON.parse(box.querySelector('script[type="application/json"]').textContent);

  // ---- words: English is the key, so what has no Chinese stays English
  const ABOUT = { unit: ['Unit', 'what is skipped'], decision: ['Decision', 'who decides'], training: ['Training', 'how it is learned'],
    executes: ['Executes', 'where it was faster'], adapts: ['Adapts', 'what follows what'], kind: ['Kind', 'of publication'],
    modality: ['Modality', 'kind of data'], tasks: ['Tasks', 'what it solves'], lists: ['List', 'that it stands on'] };
  const MAIN = 4;                     // so many facets stand open, the rest behind "More filters"
  const CHINESE = {
    'Search': '搜索', 'title, method, author, idea': '标题、方法、作者、思路', 'Years': '年份', 'First year': '起始年份', 'Last year': '截止年份',
    'Filters': '筛选', 'More filters': '更多筛选', 'View': '视图', 'Taxonomy': '分类树', 'Unit × decision': '单元 × 决策',
    'A click takes only the papers with a word, a second leaves them out, a third lets go. Arrow keys move along a row.':
      '点击一次只看含该词的论文，再点一次排除它们，第三次取消。方向键在一行内移动。',
    'All': '全部', 'Branch of the taxonomy': '分类树中的位置', 'Clear all': '全部清除', 'Remove filter': '移除筛选条件', 'not': '非',
    'Download CSV': '下载 CSV', 'Shell and Python': '命令行与 Python', 'Copy': '复制', 'Copied': '已复制', 'Shell': '命令行',
    'No paper matches all of this. Remove a filter above.': '没有论文满足全部条件。请移除上面的某个条件。', 'Papers': '论文',
    'Rows: what is skipped. Columns: who decides. An empty cell is an idea that no paper of this book has tried.':
      '行：跳过什么。列：由谁决定。空格表示本书中尚无论文尝试过的组合。',
    'Unit by decision': '单元与决策', 'decided by': '由其决定：',
    'Method': '方法', 'Title': '标题', 'Year': '年份', 'Venue': '发表于', 'Status': '状态',
    'implemented': '已实现', 'planned': '计划中', 'reference': '参考',
    'Unit': '单元', 'what is skipped': '跳过什么', 'Decision': '决策', 'who decides': '由谁决定', 'Training': '训练', 'how it is learned': '如何学习',
    'Executes': '执行', 'where it was faster': '在哪里更快', 'Adapts': '适应', 'what follows what': '什么随什么变化', 'Kind': '类型',
    'of publication': '文献类型', 'Modality': '模态', 'kind of data': '数据类型', 'Tasks': '任务', 'what it solves': '解决什么', 'List': '清单',
    'that it stands on': '收录它的清单' };
  const CHINESE_WORDS = {
    kind: { method: '方法', survey: '综述', system: '系统', technique: '技术', application: '应用', background: '背景' },
    adapts: { input: '输入', place: '位置', weights: '权重', budget: '预算', schedule: '日程', none: '无' },
    unit: { model: '模型', layer: '层', exit: '出口', channel: '通道', neuron: '神经元', expert: '专家', branch: '分支', weights: '权重', pixel: '像素',
      block: '块', region: '区域', resolution: '分辨率', token: '词元', frame: '帧', step: '步', precision: '精度' },
    decision: { confidence: '置信度', 'halting-score': '停机分数', gating: '门控', policy: '策略网络', saliency: '显著性', magnitude: '特征幅值',
      threshold: '学习的阈值', user: '用户', none: '无' },
    training: { reinforcement: '强化学习', 'gumbel-softmax': 'Gumbel-Softmax', 'straight-through': '直通估计', soft: '软决策', distillation: '蒸馏',
      custom: '专门规则', none: '无' },
    executes: { gpu: 'GPU', cpu: 'CPU', accelerator: '加速器', theoretical: '仅理论', unknown: '未知' },
    modality: { image: '图像', video: '视频', text: '文本', audio: '音频', sensor: '传感器', '3d': '三维', any: '不限' },
    tasks: { classification: '分类', detection: '检测', segmentation: '分割', 'dense-prediction': '密集预测', pose: '姿态', restoration: '图像复原',
      saliency: '显著性', 'video-recognition': '视频识别', 'video-prediction': '视频预测', translation: '翻译', 'language-modelling': '语言建模',
      'language-understanding': '语言理解', 'multi-task': '多任务', sequence: '序列', 'activity-recognition': '行为识别', speech: '语音', control: '控制',
      graph: '图', any: '不限' },
    lists: {} };
  const chinese = (text) => /[\u3400-\u9fff]/.test(text);
  const t = (english) => (state.lang === 'zh' && Object.hasOwn(CHINESE, english) ? CHINESE[english] : english);
  const wordOf = (f, word) => (state.lang === 'zh' && CHINESE_WORDS[f]?.[word] || word);
  const nodeLabel = (id) => { const n = byId.get(id); return state.lang === 'zh' && n.zh || n.label; };
  const plural = (n) => (state.lang === 'zh' ? `${n} 篇论文` : `${n} paper${n === 1 ? '' : 's'}`);

  // ---- small DOM help: text is always set as text, and says its language
  function el(tag, attributes = {}, ...inner) {
    const e = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
      else if (name === 'style') for (const [k, v] of Object.entries(value)) e.style.setProperty(k, v);
      else if (value === true) e.setAttribute(name, '');
      else if (value !== false && value != null) e.setAttribute(name, value);
    }
    e.append(...inner);
    return e;
  }
  function put(node, text, attribute) {
    if (attribute) { if (node.getAttribute(attribute) === text) return; node.setAttribute(attribute, text); }
    else { if (node.textContent === text) return; node.textContent = text; }
    node.lang = chinese(text) ? 'zh' : 'en';
  }
  const write = (node, value) => { if (node.textContent !== String(value)) node.textContent = value; };
  const spoken = [];                  // what a change of language says anew
  function say(node, words, attribute) {
    const now = () => put(node, typeof words === 'string' ? t(words) : words(), attribute);
    spoken.push(now); now();
    return node;
  }
  const set = (e, name, value) => { if (e.getAttribute(name) !== value) e.setAttribute(name, value); };
  const hide = (e, hidden) => { if (e.hidden !== hidden) e.hidden = hidden; };

  // ---- state <-> address
  const names = Object.keys(ABOUT).filter((f) => Object.keys(facets[f] ?? {}).length);
  const byId = new Map(nodes.map((n) => [n.id, n]));
  const parent = (id) => id.slice(0, Math.max(0, id.lastIndexOf('/')));
  const years = papers.map((p) => p.year), first = Math.min(...years), last = Math.max(...years);
  const columns = ['method', 'title', 'year', 'venue', 'unit', 'decision', 'training', 'executes', 'status'];
  const heads = { method: 'Method', title: 'Title', year: 'Year', venue: 'Venue', status: 'Status' };
  const empty = () => ({ q: '', taxon: '', from: first, to: last, implemented: 0, ...Object.fromEntries(names.map((f) => [f, new Map()])) });
  let state = { lang: remembered() };
  state = read();
  function remembered() { try { return localStorage.getItem('dynnotes.lang') === 'zh' ? 'zh' : 'en'; } catch { return 'en'; } }
  function read() {
    const query = new URLSearchParams(location.search), s = empty();
    s.q = query.get('q') || '';
    s.taxon = byId.has(query.get('taxon')) ? query.get('taxon') : '';
    const year = (name, otherwise) => Math.min(last, Math.max(first, parseInt(query.get(name), 10) || otherwise));
    s.from = year('from', first); s.to = year('to', last);
    s.implemented = { 1: 1, 0: -1 }[query.get('implemented')] ?? 0;
    for (const f of names) {
      for (const signed of (query.get(f) || '').split(',')) {
        const word = signed.replace(/^-/, '');
        if (Object.hasOwn(facets[f], word)) s[f].set(word, signed === word ? 1 : -1);
      }
    }
    const sort = query.get('sort') || '';
    s.down = sort ? sort.startsWith('-') : true;
    s.sort = columns.includes(sort.replace(/^-/, '')) ? sort.replace(/^-/, '') : (s.down = true, 'year');
    s.view = query.get('view') === 'matrix' ? 'matrix' : 'tree';
    s.lang = ['en', 'zh'].includes(query.get('lang')) ? query.get('lang') : state.lang;
    return s;
  }
  const signed = (f) => [...state[f]].map(([word, sign]) => (sign < 0 ? '-' : '') + word);
  function address() {
    const query = new URLSearchParams();
    if (state.q) query.set('q', state.q);
    if (state.taxon) query.set('taxon', state.taxon);
    if (state.from !== first) query.set('from', state.from);
    if (state.to !== last) query.set('to', state.to);
    for (const f of names) if (state[f].size) query.set(f, signed(f).join(','));
    if (state.implemented) query.set('implemented', state.implemented > 0 ? 1 : 0);
    if (state.sort !== 'year' || !state.down) query.set('sort', (state.down ? '-' : '') + state.sort);
    if (state.view !== 'tree') query.set('view', state.view);
    if (state.lang !== 'en') query.set('lang', state.lang);
    const text = query.toString().replaceAll('%2C', ',').replaceAll('%2F', '/');
    return location.pathname + (text ? '?' + text : '') + location.hash;
  }
  let typing = false;                 // the letters of one search are one step back, and so is everything else
  function change(more, typed = false) {
    Object.assign(state, more);
    const to = address(), same = to === location.pathname + location.search + location.hash;
    if (!same) history[typed && typing || 'lang' in more ? 'replaceState' : 'pushState'](null, '', to);
    typing = typed;
    if (!('lang' in more)) scroll.scrollTop = 0;
    draw();
  }
  const turn = (f, word) => {         // off, only, not, off
    const words = new Map(state[f]), sign = words.get(word);
    sign === 1 ? words.set(word, -1) : sign ? words.delete(word) : words.set(word, 1);
    change({ [f]: words });
  };

  // ---- the filter: which conditions a paper fails, one bit each; a facet's counts ask for those that fail it at most
  const fold = (s) => s.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase();
  for (const p of papers) {
    p.text = fold([p.key, p.title, p.method, ...p.aka, ...p.authors, p.venue, p.tldr, p.year, p.eprint].join('\n'));
    p.within = new Set(p.places.flatMap((place) => place.split('/').map((_, i, parts) => parts.slice(0, i + 1).join('/'))));
    p.short = p.venue.replace(/^.*\(([^()]+)\)/, '$1');    // what the venue itself gives in brackets: CVPR
  }
  const TAXON = 1, YEARS = 2, WORDS = 4, HERE = 8, bit = Object.fromEntries(names.map((f, i) => [f, 16 << i]));
  function judge() {
    const words = fold(state.q).split(/\s+/);
    for (const p of papers) {
      p.fails = (state.taxon && !p.within.has(state.taxon) ? TAXON : 0) | (p.year < state.from || p.year > state.to ? YEARS : 0)
        | (words.every((w) => p.text.includes(w)) ? 0 : WORDS)
        | (state.implemented && (p.status === 'implemented') !== (state.implemented > 0) ? HERE : 0);
      for (const f of names) {
        let asked = false, has = false, not = false;
        for (const [word, sign] of state[f]) {
          if (sign > 0) asked = true;
          if (p.facets[f].includes(word)) sign > 0 ? has = true : not = true;
        }
        if (not || asked && !has) p.fails |= bit[f];
      }
    }
  }
  const failing = (bits) => papers.filter((p) => !(p.fails & ~bits));

  // ---- chips of three states; a row of them is one stop of the Tab key
  const chips = [];
  function chip(label, title, sign, press, at) {
    const not = say(el('span', { class: 'dyn-not' }), 'not'), name = say(el('span'), label), count = el('b');
    const button = el('button', { type: 'button', class: 'dyn-chip dyn-word', title, lang: 'en', onclick: press, ...at }, not, ' ', name, ' ', count);
    chips.push({ button, not, count, sign });
    return button;
  }
  function draw_chips() {
    const counts = { '': failing(HERE).filter((p) => p.status === 'implemented').length };
    for (const f of names) {
      for (const p of failing(bit[f])) {
        for (const word of p.facets[f]) {
          if (p.facets[f].every((other) => other === word || state[f].get(other) !== -1)) counts[f + '=' + word] = (counts[f + '=' + word] ?? 0) + 1;
        }
      }
    }
    for (const { button, not, count, sign } of chips) {
      const now = sign(), n = counts[button.dataset.facet ? button.dataset.facet + '=' + button.dataset.word : ''] ?? 0;
      write(count, n);
      set(button, 'aria-pressed', String(now !== 0));
      set(button, 'data-sign', ['not', 'off', 'only'][now + 1]);
      hide(not, now >= 0);
      button.classList.toggle('dyn-none', !n);
    }
  }
  function rove(place, selector) {    // of all these only the last one visited is reached by Tab; arrow keys lead on
    place.addEventListener('focusin', (e) => {
      const one = e.target.closest(selector);
      if (one) for (const other of place.querySelectorAll(selector)) other.tabIndex = other === one ? 0 : -1;
    });
  }
  function arrows(place, selector, go) {
    place.addEventListener('keydown', (e) => {
      const all = [...place.querySelectorAll(selector)], i = all.indexOf(e.target.closest(selector));
      if (i < 0 || e.altKey || e.ctrlKey || e.metaKey) return;
      const to = e.key === 'Home' ? all[0] : e.key === 'End' ? all.at(-1) : go(e.key, all, i);
      if (!to) return;
      e.preventDefault(); to.focus();
    });
  }
  const line = (key, all, i) => all[i + ({ ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key] ?? NaN)];
  function row(f) {
    const words = Object.entries(facets[f]).map(([word, about]) => chip(() => wordOf(f, word), about, () => state[f].get(word) ?? 0,
      () => turn(f, word), { 'data-facet': f, 'data-word': word }));
    words.forEach((w, i) => { w.tabIndex = i ? -1 : 0; });
    const bar = say(el('div', { class: 'dyn-words', role: 'toolbar' }, ...words), ABOUT[f][0], 'aria-label');
    rove(bar, 'button');
    arrows(bar, 'button', line);
    return el('div', { class: 'dyn-facet' }, el('p', {}, say(el('strong'), ABOUT[f][0]), ' ', say(el('small'), ABOUT[f][1])), bar);
  }

  // ---- the frame
  const roomy = matchMedia('(min-width: 60rem)').matches;
  const search = say(el('input', { type: 'search', id: 'dyn-q', autocomplete: 'off', oninput: () => change({ q: search.value }, true) }),
    'title, method, author, idea', 'placeholder');
  const yearBox = (name, label) => say(el('input', { type: 'number', id: 'dyn-' + name, min: first, max: last, onchange: (e) => {
    const value = Math.min(last, Math.max(first, parseInt(e.target.value, 10) || (name === 'from' ? first : last)));
    const more = { [name]: value };
    if (name === 'from' && value > state.to) more.to = value;
    if (name === 'to' && value < state.from) more.from = value;
    change(more);
  } }), label, 'aria-label');
  const from = yearBox('from', 'First year'), to = yearBox('to', 'Last year');
  const here = chip('implemented', 'its code runs in this repository', () => state.implemented,
    () => change({ implemented: { 0: 1, 1: -1, [-1]: 0 }[state.implemented] }), { 'data-here': true });
  const views = ['tree', 'matrix'].map((view) => el('label', {}, el('input', { type: 'radio', name: 'dyn-view', value: view,
    onchange: () => change({ view }) }), say(el('span'), view === 'tree' ? 'Taxonomy' : 'Unit × decision')));
  const language = el('button', { type: 'button', class: 'dyn-press dyn-language', onclick: () => {
    const lang = state.lang === 'zh' ? 'en' : 'zh';
    try { localStorage.setItem('dynnotes.lang', lang); } catch { /* not allowed here: the address still keeps it */ }
    change({ lang });
  } });
  const facetRows = names.map(row);
  const rest = el('details', { class: 'dyn-rest', open: names.slice(MAIN).some((f) => state[f].size) }, say(el('summary'), 'More filters'), ...facetRows.slice(MAIN));
  const panel = el('details', { class: 'dyn-filters', open: roomy }, say(el('summary'), 'Filters'),
    say(el('p', { class: 'dyn-muted dyn-advice' }), 'A click takes only the papers with a word, a second leaves them out, a third lets go. Arrow keys move along a row.'),
    ...facetRows.slice(0, MAIN), rest);
  const status = el('p', { class: 'dyn-status', role: 'status' });
  const chosen = el('div', { class: 'dyn-chosen' });
  const command = (name) => {
    const pre = el('pre', { tabindex: 0, lang: 'en' });
    const copy = say(el('button', { type: 'button', class: 'dyn-copy' }), 'Copy');
    say(copy, 'Copied', 'data-done');
    return { pre, part: el('div', { class: 'dyn-copied' }, say(el('span', { class: 'dyn-muted dyn-small' }), name), copy, pre) };
  };
  const shell = command('Shell'), python = command('Python');
  const crumbs = say(el('nav', { class: 'dyn-crumbs' }), 'Branch of the taxonomy', 'aria-label');
  const icicle = el('ul', { class: 'dyn-tree' });
  const taxonomy = el('details', { class: 'dyn-taxonomy', open: roomy }, say(el('summary'), 'Taxonomy'), crumbs, icicle);
  const body = el('tbody', { role: 'rowgroup', lang: state.lang });
  const table = el('table', { class: 'dyn-papers', role: 'table' });
  const scroll = say(el('div', { class: 'dyn-table-box', tabindex: 0, role: 'region' }, table), 'Papers', 'aria-label');
  const nothing = say(el('p', { class: 'dyn-note' }), 'No paper matches all of this. Remove a filter above.');

  // ---- the table: one row per paper, made once; the title opens authors and summary. The roles are said because the
  // style lays rows out as grids, and some readers then no longer take them for rows.
  const titleOf = (column) => heads[column] ?? ABOUT[column][0];
  const headers = columns.map((column) => el('th', { scope: 'col', role: 'columnheader' }, el('button', { type: 'button', 'data-sort': column,
    onclick: () => change({ sort: column, down: state.sort === column && !state.down }) }, say(el('span'), titleOf(column)))));
  const shownText = (p, column) => (column === 'status' ? t(p.status) : facets[column] ? p.facets[column].map((w) => wordOf(column, w)).join(', ')
    : column === 'venue' ? p.short : String(p[column]));
  const cell = (attributes, ...inner) => el('td', { role: 'cell', ...attributes }, ...inner);
  function labels(p, column) {        // their language is said once, for all rows
    const inside = document.createTextNode(''), now = () => { const text = shownText(p, column); if (inside.data !== text) inside.data = text; };
    spoken.push(now); now();
    return cell({ class: column === 'status' ? 'dyn-is-' + p.status : null }, inside);
  }
  for (const p of papers) {
    p.more = null;                    // the row below with its authors and summary, while it is open
    const open = el('button', { type: 'button', class: 'dyn-open', 'aria-expanded': 'false', lang: 'en', onclick: () => {
      if (p.more) p.more = p.more.remove() ?? null;
      else p.row.after(p.more = el('tr', { class: 'dyn-more', role: 'row' }, el('td', { colspan: columns.length, role: 'cell', lang: 'en' },
        el('div', {}, el('p', { class: 'dyn-muted' }, [p.authors.join(', '), p.venue].filter(Boolean).join('. ')), el('p', {}, p.tldr)))));
      set(open, 'aria-expanded', String(p.more !== null));
    } }, p.title);
    p.row = el('tr', { 'data-key': p.key, role: 'row' }, el('th', { scope: 'row', role: 'rowheader', lang: 'en' }, el('a', { href: p.url }, p.method)),
      cell({}, open), cell({}, String(p.year)), cell({ lang: 'en', title: p.short === p.venue ? null : p.venue }, p.short),
      ...columns.slice(4).map((column) => labels(p, column)));
  }
  const column = (key, all, i) => all[i + ({ ArrowDown: 1, ArrowUp: -1 }[key] ?? NaN)];
  for (const inRow of ['a', '.dyn-open']) arrows(body, 'tr:not([hidden]) ' + inRow, column);
  table.append(el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...headers)), body);

  let order = [], asked = '';         // the papers as the rows stand, and the sort that put them so
  const rank = { implemented: 0, planned: 1, reference: 2 };
  function sorted() {
    const collator = new Intl.Collator(state.lang, { numeric: true, sensitivity: 'base' });
    const value = (p) => (state.sort === 'year' ? p.year : state.sort === 'status' ? rank[p.status] : shownText(p, state.sort));
    const keyed = papers.map((p) => [value(p), p]), way = state.down ? -1 : 1;
    keyed.sort(([a, p], [b, q]) => way * (typeof a === 'number' ? a - b : collator.compare(a, b)) || q.year - p.year || collator.compare(p.method, q.method));
    return keyed.map(([, p]) => p);
  }
  function draw_table() {
    const now = [state.sort, state.down, state.lang].join();
    if (now !== asked) {
      asked = now;
      const wanted = sorted();
      if (wanted.some((p, i) => p !== order[i])) body.append(...wanted.flatMap((p) => (p.more ? [p.row, p.more] : [p.row])));
      order = wanted;
    }
    for (const [i, column] of columns.entries()) {
      const way = column === state.sort ? (state.down ? 'descending' : 'ascending') : 'none';
      set(headers[i], 'aria-sort', way);
    }
    for (const p of papers) {
      hide(p.row, p.fails !== 0);
      if (p.more) hide(p.more, p.fails !== 0);
    }
  }

  // ---- the icicle: a node and what lies below it, a click filters and goes deeper, a second click steps back
  const total = new Map(nodes.map((n) => [n.id, papers.filter((p) => p.within.has(n.id)).length]));
  const children = (id) => nodes.filter((n) => parent(n.id) === id && total.get(n.id));
  const hues = new Map(children('').map((n, i, all) => [n.id, Math.round(205 + (360 / all.length) * i) % 360]));
  const boxes = new Map(nodes.map((n) => {
    const count = el('b');
    const button = el('button', { type: 'button', class: 'dyn-node', 'data-node': n.id, lang: 'en', title: [n.about, n.survey && 'survey section ' + n.survey].filter(Boolean).join(' · '),
      style: { '--hue': hues.get(n.id.split('/')[0]) ?? 0 }, onclick: () => change({ taxon: state.taxon === n.id ? parent(n.id) : n.id }) },
    say(el('span', { class: 'dyn-node-name' }), () => nodeLabel(n.id)), ' ', count);
    return [n.id, { button, count }];
  }));
  let top = null;                     // the node that the icicle starts at
  const branch = (node, deeper) => el('li', { style: { '--total': total.get(node.id) } }, boxes.get(node.id).button,
    ...(deeper && children(node.id).length ? [el('ul', {}, ...children(node.id).map((c) => branch(c, false)))] : []));
  function draw_tree() {
    const start = state.taxon && !children(state.taxon).length ? parent(state.taxon) : state.taxon;
    if (start !== top) {
      top = start;
      icicle.replaceChildren(...(top ? [byId.get(top)] : children('')).map((n) => branch(n, true)));
      for (const [id, { button }] of boxes) {
        button.tabIndex = -1;
        button.classList.toggle('dyn-deeper', id !== top && children(id).length > 0 && (top !== '' || id.includes('/')));
      }
    }
    const reach = icicle.querySelector('[tabindex="0"]') ?? boxes.get(state.taxon)?.button ?? icicle.querySelector('button');
    if (reach) reach.tabIndex = 0;
    const counts = new Map();
    for (const p of failing(TAXON)) for (const id of p.within) counts.set(id, (counts.get(id) ?? 0) + 1);
    for (const [id, { button, count }] of boxes) {
      const n = counts.get(id) ?? 0, share = (n / Math.max(1, total.get(id))).toFixed(3);
      write(count, n);
      set(button, 'aria-pressed', String(state.taxon === id));
      if (button.style.getPropertyValue('--share') !== share) button.style.setProperty('--share', share);
      button.classList.toggle('dyn-none', !n);
    }
    hide(crumbs, !state.taxon);
    const path = [''];
    for (let at = state.taxon; at; at = parent(at)) path.splice(1, 0, at);
    crumbs.replaceChildren(...path.flatMap((id, i) => {
      const button = el('button', { type: 'button', disabled: id === state.taxon, onclick: () => {
        change({ taxon: id });
        icicle.querySelector('button').focus({ preventScroll: true });   // where it stood is gone
      } });
      put(button, id ? nodeLabel(id) : t('All'));
      return i ? [el('span', { 'aria-hidden': 'true' }, '›'), button] : [button];
    }));
  }
  rove(icicle, 'button');
  arrows(icicle, 'button', (key, all, i) => {
    const item = all[i].parentNode;
    if (key === 'ArrowRight') return item.querySelector(':scope > ul button');
    if (key === 'ArrowLeft') return item.parentNode.closest('li')?.querySelector('button');
    return line(key, all, i);
  });

  // ---- the matrix: what is skipped against who decides; a cell sets both facets
  const cells = [];
  const heading = (f, word, scope) => el('th', { scope, title: facets[f][word], lang: 'en' }, say(el('span'), () => wordOf(f, word)));
  const one = (f, word) => state[f].size === 1 && state[f].get(word) === 1;
  const matrix = () => el('table', { class: 'dyn-matrix' },
    say(el('caption'), 'Rows: what is skipped. Columns: who decides. An empty cell is an idea that no paper of this book has tried.'),
    el('thead', {}, el('tr', {}, el('td'), ...Object.keys(facets.decision).map((d) => heading('decision', d, 'col')))),
    el('tbody', {}, ...Object.keys(facets.unit).map((u) => el('tr', {}, heading('unit', u, 'row'), ...Object.keys(facets.decision).map((d) => {
      const button = el('button', { type: 'button', 'data-cell': `${u}:${d}`, onclick: () => (one('unit', u) && one('decision', d)
        ? change({ unit: new Map(), decision: new Map() }) : change({ unit: new Map([[u, 1]]), decision: new Map([[d, 1]]) })) });
      cells.push({ u, d, button });
      return el('td', {}, button);
    })))));
  const grid = say(el('div', { class: 'dyn-scroll dyn-grid', tabindex: 0, role: 'region' }, ...(names.includes('unit') && names.includes('decision') ? [matrix()] : [])),
    'Unit by decision', 'aria-label');
  function draw_matrix() {
    const counts = {};
    for (const p of failing(bit.unit | bit.decision)) for (const u of p.facets.unit) for (const d of p.facets.decision) counts[u + ':' + d] = (counts[u + ':' + d] ?? 0) + 1;
    const most = Math.max(1, ...Object.values(counts));
    for (const { u, d, button } of cells) {
      const n = counts[u + ':' + d] ?? 0, on = one('unit', u) && one('decision', d);
      write(button, n);
      put(button, `${wordOf('unit', u)} ${t('decided by')} ${wordOf('decision', d)}: ${plural(n)}`, 'aria-label');
      set(button, 'aria-pressed', String(on));
      button.style.setProperty('--share', (n / most).toFixed(3));
      hide(button, !n && !on);
    }
  }

  // ---- the same question to the shell and to Python, and the answer as CSV
  const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
  function draw_commands() {
    const options = [], keywords = [], words = state.q.split(/\s+/).filter(Boolean);
    const add = (option, keyword, values) => {
      options.push(`--${option}=${quoted(values.join(','))}`);
      keywords.push(`${keyword}=${values.length > 1 ? `[${values.map((v) => JSON.stringify(v)).join(', ')}]` : JSON.stringify(values[0])}`);
    };
    if (state.taxon) add('taxon', 'taxon', [state.taxon]);
    if (state.from !== first) add('since', 'since', [state.from]);
    if (state.to !== last) add('until', 'until', [state.to]);
    for (const f of names) if (state[f].size) add(f === 'lists' ? 'list' : f, f, signed(f));
    if (state.implemented) {
      options.push(state.implemented > 0 ? '--implemented' : '--no-implemented');
      keywords.push(`implemented=${state.implemented > 0 ? 'True' : 'False'}`);
    }
    if (words.length) {               // words that look like options stand behind --
      options.push(...(words.some((w) => w.startsWith('-')) ? ['--'] : []), ...words.map(quoted));
      keywords.push(`words=${JSON.stringify(words.join(' '))}`);
    }
    put(shell.pre, ['dynnotes find', ...options].join(' '));
    put(python.pre, `dynnotes.load().papers(${keywords.join(', ')})`);
    for (const { pre } of [shell, python]) pre.lang = 'en';
  }
  function csv() {
    const table = [['key', 'method', 'title', 'authors', 'year', 'venue', 'taxon', 'unit', 'decision', 'training', 'executes', 'status', 'tldr']];
    for (const p of order.filter((p) => !p.fails)) {
      table.push([p.key, p.method, p.title, p.authors.join('; '), p.year, p.venue, p.places.join('; '),
        ...columns.slice(4, 8).map((f) => p.facets[f].join('; ')), p.status, p.tldr]);
    }
    const field = (value) => `"${String(value).replace(/^\s*[=+@-]|^[\t\r\n]/, "'$&").replaceAll('"', '""')}"`;  // no spreadsheet takes it for a formula
    return '\ufeff' + table.map((row) => row.map(field).join(',') + '\r\n').join('');                          // the mark tells spreadsheets it is UTF-8
  }
  const download = say(el('button', { type: 'button', class: 'dyn-press', onclick: () => {
    const url = URL.createObjectURL(new Blob([csv()], { type: 'text/csv;charset=utf-8' }));
    el('a', { href: url, download: 'dynnotes.csv' }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  } }), 'Download CSV');

  // ---- all together
  function draw_chosen() {
    const tags = [];
    const tag = (text, more) => {
      const button = el('button', { type: 'button', class: 'dyn-chip dyn-tag', onclick: () => change(more) });
      put(button, text + ' ×');
      put(button, `${t('Remove filter')} ${text}`, 'aria-label');
      tags.push(button);
    };
    if (state.q) tag(`“${state.q}”`, { q: '' });
    if (state.taxon) tag(nodeLabel(state.taxon), { taxon: '' });
    if (state.from !== first || state.to !== last) tag(`${state.from}–${state.to}`, { from: first, to: last });
    const not = (sign) => (sign < 0 ? t('not') + ' ' : '');
    if (state.implemented) tag(not(state.implemented) + t('implemented'), { implemented: 0 });
    for (const f of names) {
      for (const [word, sign] of state[f]) {
        const others = new Map(state[f]);
        others.delete(word);
        tag(`${t(ABOUT[f][0])}: ${not(sign)}${wordOf(f, word)}`, { [f]: others });
      }
    }
    if (tags.length) {
      const reset = el('button', { type: 'button', class: 'dyn-reset', onclick: () => change(empty()) });
      put(reset, t('Clear all'));
      tags.push(reset);
    }
    chosen.replaceChildren(...tags);
  }
  function draw() {
    const focus = document.activeElement;
    if (body.lang !== state.lang) { body.lang = state.lang; spoken.forEach((now) => now()); }
    judge();
    const shown = failing(0).length, all = papers.length;
    put(status, shown === all ? (state.lang === 'zh' ? `全部 ${plural(all)}` : `All ${plural(all)}`)
      : state.lang === 'zh' ? `${shown} / ${plural(all)}` : `${shown} of ${plural(all)}`);
    if (search.value !== state.q) search.value = state.q;
    from.value = state.from; to.value = state.to;
    for (const label of views) label.firstChild.checked = label.firstChild.value === state.view;
    put(language, state.lang === 'zh' ? 'English' : '中文');
    hide(taxonomy, state.view !== 'tree'); hide(grid, state.view !== 'matrix');
    hide(nothing, shown > 0); hide(scroll, shown === 0);
    beside.classList.toggle('dyn-with-tree', state.view === 'tree');
    draw_chips();
    draw_chosen();
    if (state.view === 'tree') draw_tree(); else draw_matrix();
    draw_table();
    draw_commands();
    if (focus !== document.activeElement && box.contains(focus)) focus.focus({ preventScroll: true });   // it was moved
    else if (focus && !focus.isConnected) (chosen.querySelector('button') ?? search).focus({ preventScroll: true });  // it is gone
  }
  const beside = el('div', { class: 'dyn-beside' }, taxonomy, grid, el('div', { class: 'dyn-list' }, nothing, scroll));
  box.querySelector('.dyn-explorer-plain').hidden = true;
  box.append(el('div', { class: 'dyn-app' },
    el('div', { class: 'dyn-bar' },
      el('div', { class: 'dyn-field dyn-find' }, say(el('label', { for: 'dyn-q' }), 'Search'), search),
      el('div', { class: 'dyn-field dyn-years' }, say(el('span'), 'Years'), from, el('span', { 'aria-hidden': 'true' }, '–'), to), here,
      el('fieldset', { class: 'dyn-views' }, say(el('legend'), 'View'), ...views), language),
    panel,
    el('div', { class: 'dyn-bar dyn-answer' }, status, chosen, download),
    el('details', { class: 'dyn-commands' }, say(el('summary'), 'Shell and Python'), shell.part, python.part),
    beside));
  addEventListener('popstate', () => { state = read(); typing = false; draw(); });
  draw();
  box.dataset.ready = 'yes';
})();
