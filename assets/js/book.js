// Small things on every page: copy buttons for BibTeX, and names for parts of the theme that have none.
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
  for (const box of document.querySelectorAll('.dyn-bibtex')) {
    const button = box.querySelector('button'), label = button.textContent;
    button.hidden = false;
    button.setAttribute('aria-live', 'polite');
    button.addEventListener('click', async () => {
      try {
        await copy(box.querySelector('pre').textContent + '\n');
        button.textContent = 'Copied';
      } catch {
        getSelection().selectAllChildren(box.querySelector('pre'));
        button.textContent = 'Selected: press Ctrl+C';
      }
      setTimeout(() => { button.textContent = label; }, 2000);
    });
  }
})();
