// Small things on every page: copy buttons, and names for parts of the theme that have none.
(() => {
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {                                     // no permission, or a page opened as a file: the old way
      const box = document.createElement('textarea');
      box.value = text;
      box.style.position = 'fixed';
      document.body.append(box);
      box.select();
      const done = document.execCommand('copy');
      box.remove();
      if (!done) throw new Error('copying is not allowed here');
    }
  }
  for (const button of document.querySelectorAll('.dyn-copy')) button.hidden = false;
  document.addEventListener('click', async (event) => {   // of the page and of what scripts add to it
    const button = event.target.closest('.dyn-copy');
    if (!button || button.dataset.label) return;
    const pre = button.parentNode.querySelector('pre');
    button.dataset.label = button.textContent;
    button.setAttribute('aria-live', 'polite');
    try {
      await copy(pre.textContent);
      button.textContent = button.dataset.done ?? 'Copied';
    } catch {
      getSelection().selectAllChildren(pre);
      button.textContent = 'Selected: press Ctrl+C';
    }
    setTimeout(() => { button.textContent = button.dataset.label; delete button.dataset.label; }, 2000);
  });
})();
