// Shared by all parts of the page: data, elements, filters, paging.
// Text is only ever added as text nodes, so model output is never parsed as markup.

const readData = (id) => JSON.parse(document.getElementById(id).textContent);

const count = (number) => number.toLocaleString('en-US');

// Replaces an element's children by texts and elements; null is skipped.
const fill = (element, ...children) =>
  element.replaceChildren(...children.filter((child) => child !== null));

const make = (name, className, ...children) => {
  const element = document.createElement(name);
  element.className = className;
  fill(element, ...children);
  return element;
};

const headingOf = (scope, ...children) => {
  const cell = make('th', '', ...children);
  cell.scope = scope;
  return cell;
};

// Text that may be written from right to left, kept from reordering its neighbours.
const isolated = (text) => make('bdi', '', text);

// The elements that scripts fill, by their data-is attribute.
const slotsOf = (root) =>
  Object.fromEntries([...root.querySelectorAll('[data-is]')].map((one) => [one.dataset.is, one]));

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
class EntryPager {
  // `entriesOf(filter)` returns a filter's entries; `show(entry, filter)` fills the frame.
  constructor(root, entriesOf, show) {
    this.slots = slotsOf(root);
    this.section = root.closest('section');
    this.entriesOf = entriesOf;
    this.show = show;
    this.entries = [];
    this.index = 0;
    this.filterButtons = [...root.querySelectorAll('[data-filter]')];
    this.pagerButtons = [...root.querySelectorAll('[data-go]')];
    this.filters = this.filterButtons.map((button) => button.dataset.filter);
    this.filterButtons.forEach((button) => {
      button.addEventListener('click', () => this.choose(button.dataset.filter));
    });
    this.pagerButtons.forEach((button) => {
      button.addEventListener('click', () => this.go(Number(button.dataset.go)));
    });
    pagers.push(this);
  }

  // Keeps the current entry if it matches the new filter.
  choose(filter) {
    const entry = this.entries[this.index];
    this.filter = filter;
    this.filterButtons.forEach((button) => {
      button.setAttribute('aria-pressed', String(button.dataset.filter === filter));
    });
    this.entries = this.entriesOf(filter);
    this.index = Math.max(0, this.entries.indexOf(entry));
    this.render();
  }

  canGo(offset) {
    return this.entries[this.index + offset] !== undefined;
  }

  go(offset) {
    if (!this.canGo(offset)) return;
    this.index += offset;
    this.render();
  }

  render() {
    const { entries, index, slots } = this;
    const isEmpty = entries.length === 0;
    slots.columns.hidden = isEmpty;
    slots.empty.hidden = !isEmpty;
    slots.empty.textContent = isEmpty ? 'No entries match this filter.' : '';
    slots.position.textContent = `${isEmpty ? 0 : count(index + 1)} of ${count(entries.length)}`;
    this.pagerButtons.forEach((button) => {
      button.disabled = !this.canGo(Number(button.dataset.go));
    });
    if (!isEmpty) this.show(entries[index], this.filter);
  }
}

// j and k page everywhere in a section, arrows only where they have no other meaning.
const KEYS = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1 };
const pagers = [];

document.addEventListener('keydown', (event) => {
  const offset = KEYS[event.key];
  const { target } = event;
  if (!offset || event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
  if (target.closest('input, select, textarea')) return;
  if (event.key.startsWith('Arrow') && target.closest('.scroll, .frame')) return;
  const own = pagers.find((pager) => pager.section.contains(target));
  const isTop = target === document.body || target.id === 'content';
  const pager = own || (isTop ? pagers[0] : null);
  if (!pager) return;
  event.preventDefault();
  pager.go(offset);
});
