// Starts what a static page carries, without a kernel and without the network (a classic script, so file:// works too):
// every anywidget in the widget state that myst-nb embeds, and every div.dyn-theatre (theatre.py: static_html).
// theatre.js and theatre.css are looked for beside this file.
(() => {
  const here = document.currentScript.src;
  const beside = (name) => new URL(name, here).href;
  const modules = new Map(); // source -> Promise of the module: one copy of a module per page, however often it is embedded

  function fromSource(source) {
    if (!modules.has(source)) {
      const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
      modules.set(source, import(url).finally(() => URL.revokeObjectURL(url)));
    }
    return modules.get(source);
  }

  function script(src) {
    return new Promise((done, failed) => {
      const node = document.createElement("script");
      node.src = src;
      node.onload = done;
      node.onerror = () => failed(new Error(`${src} could not be loaded`));
      document.head.append(node);
    });
  }

  // Browsers refuse to import a module from file://; there theatre.file.js (written beside by theatre.py: write_assets)
  // carries the same module as a string.
  let theatre = null;
  const loadTheatre = () => (theatre ||= location.protocol === "file:"
    ? script(beside("theatre.file.js")).then(() => fromSource(window.dynnotesTheatreSource))
    : import(beside("theatre.js")));

  function style() {
    const href = beside("theatre.css");
    if ([...document.styleSheets].some((s) => s.href && s.href.split("?")[0] === href)) return Promise.resolve();
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = href;
    return new Promise((done) => {
      link.onload = link.onerror = done;
      document.head.append(link);
    });
  }

  // The part of a widget model that lives without a kernel: state and listeners.
  class Model {
    constructor(state) {
      this.state = { ...state };
      this.listeners = new Map();
    }
    get(key) { return this.state[key]; }
    set(key, value) {
      if (this.state[key] === value) return;
      this.state[key] = value;
      this.emit(`change:${key}`, value);
      this.emit("change", value);
    }
    emit(name, value) { for (const f of [...(this.listeners.get(name) || [])]) f({ changed: this.state }, value); }
    on(name, f) {
      if (!this.listeners.has(name)) this.listeners.set(name, new Set());
      this.listeners.get(name).add(f);
    }
    off(name, f) {
      if (f) this.listeners.get(name)?.delete(f);
      else this.listeners.delete(name);
    }
    save_changes() {}
    send() {}
  }

  function complain(el, error) {
    const note = document.createElement("p");
    note.setAttribute("role", "alert");
    note.textContent = `This interactive part could not start: ${error.message}`;
    el.replaceChildren(note);
    console.error(error);
  }

  async function widgets() {
    const states = {};
    const models = new Map();
    for (const node of document.querySelectorAll('script[type="application/vnd.jupyter.widget-state+json"]'))
      Object.assign(states, JSON.parse(node.textContent).state);
    for (const view of document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]')) {
      const id = JSON.parse(view.textContent).model_id;
      const found = states[id];
      if (!found || found.model_module !== "anywidget") continue;
      const el = document.createElement("div");
      view.after(el);
      try {
        const module = await fromSource(found.state._esm);
        const widget = typeof module.default === "function" ? await module.default() : module.default;
        if (found.state._css) {
          const css = document.createElement("style");
          css.textContent = found.state._css;
          el.before(css);
        }
        if (!models.has(id)) {
          models.set(id, new Model(found.state));
          await widget.initialize?.({ model: models.get(id) });
        }
        await widget.render({ model: models.get(id), el });
      } catch (error) {
        complain(el, error); // one broken widget leaves the others alone
      }
    }
  }

  async function theatres() {
    const places = [...document.querySelectorAll(".dyn-theatre")];
    if (!places.length) return;
    await style();
    for (const el of places) {
      try {
        const trace = JSON.parse(el.querySelector('script[type="application/json"]').textContent);
        (await loadTheatre()).mount(el, trace);
      } catch (error) {
        complain(el, error);
      }
    }
  }

  const start = () => Promise.all([widgets(), theatres()]);
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
})();
