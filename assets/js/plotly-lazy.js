// Draws the figures of a page when they come near the screen; loads plotly.min.js once, on the first of them.
(() => {
  const root = new URL('../', document.currentScript.src).href;
  let library;
  const load = () => library ||= new Promise((done, fail) => {
    const script = document.createElement('script');
    script.src = root + 'dynnotes/plotly.min.js';
    script.onload = () => done(window.Plotly);
    script.onerror = () => fail(new Error('plotly.min.js could not be loaded'));
    document.head.append(script);
  });
  const colours = () => {
    const style = getComputedStyle(document.body);
    return { text: style.color, line: style.getPropertyValue('--pst-color-border').trim() || '#8888' };
  };
  // Every axis and legend follows the theme; the figure's own background is dropped.
  function themed(layout) {
    const { text, line } = colours();
    const out = { ...layout, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)' };
    out.font = { ...layout.font, color: text, family: 'inherit' };
    for (const name of Object.keys(layout).filter((n) => /^[xy]axis\d*$/.test(n)).concat('xaxis', 'yaxis')) {
      out[name] = { ...layout[name], gridcolor: line, zerolinecolor: line, linecolor: line };
    }
    out.legend = { ...layout.legend, bgcolor: 'rgba(0,0,0,0)' };
    delete out.width;   // the page decides
    return out;
  }
  async function draw(box) {
    const figure = JSON.parse(box.querySelector('script[type="application/json"]').textContent);
    const plotly = await load();
    const place = document.createElement('div');
    box.append(place);
    const options = { responsive: true, displaylogo: false, displayModeBar: 'hover', modeBarButtonsToRemove: ['toImage', 'lasso2d', 'select2d'] };
    await plotly.newPlot(place, figure.data, themed(figure.layout || {}), { ...figure.config, ...options });
    if (figure.frames) await plotly.addFrames(place, figure.frames);
    box.dataset.drawn = 'yes';
    new MutationObserver(() => {
      const now = themed(place.layout);
      delete now.template;
      plotly.relayout(place, now);
    }).observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] });
  }
  const near = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) if (isIntersecting) { near.unobserve(target); draw(target); }
  }, { rootMargin: '300px' });
  document.querySelectorAll('.dyn-plotly').forEach((box) => near.observe(box));
})();
