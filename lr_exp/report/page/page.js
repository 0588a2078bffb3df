// What all parts of the page share: data, elements, filters, paging.
// Text reaches the page as text nodes alone: nothing that a model wrote is ever read as markup.

const readData = (id) => {
  const element = document.getElementById(id);
  return element ? JSON.parse(element.textContent) : null;
};

const count = (number) => number.toLocaleString('en-US');

// An element with a class and children, which are texts or elements; nothing is left out.
const make = (name, className, ...children) => {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};

// Text from elsewhere, which may be written from right to left: it reorders nothing beside it.
const isolated = (text, className) => make('bdi', className, text);

// The places of a frame that scripts fill, by their data-is.
const placesOf = (root) => {
  const places = {};
  root.querySelectorAll('[data-is]').forEach((element) => {
    places[element.dataset.is] = element;
  });
  return places;
};

const fill = (element, ...children) => {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
};

// A text that may be very long, in a place that scrolls: by keys, too, where there is more of it.
// The place must be seen already, or it has no height.
const fillBounded = (element, text) => {
  element.textContent = text;
  element.scrollTop = 0;
  if (element.scrollHeight > element.clientHeight + 1) element.tabIndex = 0;
  else element.removeAttribute('tabindex');
};

const outcomeOf = (correct) =>
  make('span', correct ? 'right' : 'wrong', correct ? '✓ right' : '✗ wrong');

// A row of filters of which one is pressed, and a list through which one pages.
class Browser {
  // `matches(filter)` gives the entries of a filter, `show(entry, filter)` fills the frame.
  constructor(root, matches, show) {
    this.root = root;
    this.places = placesOf(root);
    this.matches = matches;
    this.show = show;
    this.buttons = [...root.querySelectorAll('[data-filter]')];
    this.goers = [...root.querySelectorAll('[data-go]')];
    this.filters = this.buttons.map((button) => button.dataset.filter);
    [this.filter] = this.filters;
    this.place = 0;
    this.buttons.forEach((button) => {
      button.addEventListener('click', () => this.choose(button.dataset.filter));
    });
    this.goers.forEach((button) => {
      button.addEventListener('click', () => this.go(Number(button.dataset.go)));
    });
  }

  // The same entry stays where the new filter has it, too.
  choose(filter) {
    const entry = this.entries ? this.entries[this.place] : undefined;
    this.filter = filter;
    this.buttons.forEach((button) => {
      button.setAttribute('aria-pressed', String(button.dataset.filter === filter));
    });
    this.entries = this.matches(filter);
    this.place = Math.max(0, this.entries.indexOf(entry));
    this.render();
  }

  go(by) {
    const next = this.place + by;
    if (next < 0 || next >= this.entries.length) return;
    this.place = next;
    this.render();
  }

  render() {
    const { entries, place, places } = this;
    const isEmpty = entries.length === 0;
    places.columns.hidden = isEmpty;
    places.empty.hidden = !isEmpty;
    places.empty.textContent = isEmpty ? 'Nothing here passes this filter.' : '';
    places.position.textContent = isEmpty
      ? '0 of 0'
      : `${count(place + 1)} of ${count(entries.length)}`;
    this.goers.forEach((button) => {
      const next = place + Number(button.dataset.go);
      button.disabled = next < 0 || next >= entries.length;
    });
    if (!isEmpty) this.show(entries[place], this.filter);
  }
}

// j and k everywhere in a part, arrows where they do not mean something else already.
const KEYS = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1 };
const pagers = [];

const pageByKeys = (browser) => pagers.push(browser);

const onPagingKey = (event) => {
  const by = KEYS[event.key];
  const target = event.target;
  if (!by || event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
  if (target.closest('input, select, textarea')) return;
  if (event.key.startsWith('Arrow') && target.closest('.scroll, .lr-frame')) return;
  const own = pagers.find((browser) => browser.root.closest('section').contains(target));
  const browser = own || (target === document.body || target.id === 'content' ? pagers[0] : null);
  if (!browser) return;
  event.preventDefault();
  browser.go(by);
};

document.addEventListener('keydown', onPagingKey);
