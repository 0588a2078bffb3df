// Shared by all parts of the page: data, elements, filters, paging.
// Text is only ever added as text nodes, so model output is never parsed as markup.

const readData = (id) => {
  const element = document.getElementById(id);
  return element ? JSON.parse(element.textContent) : null;
};

const count = (number) => number.toLocaleString('en-US');

// An element with a class and children (texts or elements); null and undefined are skipped.
const make = (name, className, ...children) => {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};

// Text that may be written from right to left, kept from reordering its neighbours.
const isolated = (text, className) => make('bdi', className, text);

// The elements that scripts fill, by their data-is attribute.
const slotsOf = (root) => {
  const slots = {};
  root.querySelectorAll('[data-is]').forEach((element) => {
    slots[element.dataset.is] = element;
  });
  return slots;
};

const fill = (element, ...children) => {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
};

// Fills a scrolling element with text that may be long; it takes keyboard focus only if it overflows.
// The element must be visible already, or it has no height.
const fillBounded = (element, text) => {
  element.textContent = text;
  element.scrollTop = 0;
  if (element.scrollHeight > element.clientHeight + 1) element.tabIndex = 0;
  else element.removeAttribute('tabindex');
};

const outcomeOf = (correct) =>
  make('span', correct ? 'right' : 'wrong', correct ? '✓ right' : '✗ wrong');

// A row of filter buttons, one of them pressed, and a list of entries to page through.
class Browser {
  // `matches(filter)` returns a filter's entries; `show(entry, filter)` fills the frame.
  constructor(root, matches, show) {
    this.root = root;
    this.slots = slotsOf(root);
    this.matches = matches;
    this.show = show;
    this.buttons = [...root.querySelectorAll('[data-filter]')];
    this.pagerButtons = [...root.querySelectorAll('[data-go]')];
    this.filters = this.buttons.map((button) => button.dataset.filter);
    [this.filter] = this.filters;
    this.index = 0;
    this.buttons.forEach((button) => {
      button.addEventListener('click', () => this.choose(button.dataset.filter));
    });
    this.pagerButtons.forEach((button) => {
      button.addEventListener('click', () => this.go(Number(button.dataset.go)));
    });
  }

  // Keeps the current entry if it matches the new filter.
  choose(filter) {
    const entry = this.entries ? this.entries[this.index] : undefined;
    this.filter = filter;
    this.buttons.forEach((button) => {
      button.setAttribute('aria-pressed', String(button.dataset.filter === filter));
    });
    this.entries = this.matches(filter);
    this.index = Math.max(0, this.entries.indexOf(entry));
    this.render();
  }

  go(offset) {
    const next = this.index + offset;
    if (next < 0 || next >= this.entries.length) return;
    this.index = next;
    this.render();
  }

  render() {
    const { entries, index, slots } = this;
    const isEmpty = entries.length === 0;
    slots.columns.hidden = isEmpty;
    slots.empty.hidden = !isEmpty;
    slots.empty.textContent = isEmpty ? 'No entries match this filter.' : '';
    slots.position.textContent = isEmpty
      ? '0 of 0'
      : `${count(index + 1)} of ${count(entries.length)}`;
    this.pagerButtons.forEach((button) => {
      const next = index + Number(button.dataset.go);
      button.disabled = next < 0 || next >= entries.length;
    });
    if (!isEmpty) this.show(entries[index], this.filter);
  }
}

// j and k page everywhere in a section, arrows only where they have no other meaning.
const KEYS = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1 };
const browsers = [];

const pageByKeys = (browser) => browsers.push(browser);

const onPagingKey = (event) => {
  const offset = KEYS[event.key];
  const target = event.target;
  if (!offset || event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
  if (target.closest('input, select, textarea')) return;
  if (event.key.startsWith('Arrow') && target.closest('.scroll, .frame')) return;
  const own = browsers.find((browser) => browser.root.closest('section').contains(target));
  const isTop = target === document.body || target.id === 'content';
  const browser = own || (isTop ? browsers[0] : null);
  if (!browser) return;
  event.preventDefault();
  browser.go(offset);
};

document.addEventListener('keydown', onPagingKey);
