'use strict';

// Shared by the readers of trajectories and answers: data, elements, filters, paging.
// Text is only ever added as text nodes, so model output is never parsed as markup.

const readData = (id) => JSON.parse(document.getElementById(id).textContent);

const count = (number) => number.toLocaleString('en-US');

const make = (name, properties, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

// Text that may be written from right to left, kept from reordering its neighbours.
const isolated = (text) => make('bdi', {}, text);

const labelled = (label, value) => make('span', {}, `${label} `, make('b', {}, isolated(value)));

// Fills an element with the facts that are there, as `a · b`.
const fillFacts = (element, ...facts) =>
  element.replaceChildren(...facts.filter(Boolean).flatMap((fact) => [' · ', fact]).slice(1));

const outcomeOf = (correct, extracted, finished) => [
  correct === null
    ? null
    : make('span', { className: correct ? 'right' : 'wrong' }, correct ? '✓ right' : '✗ wrong'),
  extracted === null
    ? correct !== null && 'no answer extracted'
    : labelled('extracted answer', extracted),
  finished === false && 'stopped by the length limit',
];

// Entries to page through, with buttons that filter them. The frame is `browse` in macros.html.
class Browser {
  // `entriesOf(filter)` returns a filter's entries; `show(entry, filter)` fills the frame.
  constructor(root, entriesOf, show) {
    Object.assign(this, { root, entriesOf, show, entries: [], index: 0 });
    this.section = root.closest('section');
    // The elements that scripts fill, by their data-is attribute.
    const slots = [...root.querySelectorAll('[data-is]')];
    this.slots = Object.fromEntries(slots.map((slot) => [slot.dataset.is, slot]));
    root.addEventListener('click', ({ target }) => {
      const { filter, go } = target.closest('button')?.dataset ?? {};
      if (filter) this.choose(filter);
      if (go) this.go(Number(go));
    });
    browsers.push(this);
  }

  fillCounts(textOf) {
    this.root.querySelectorAll('[data-count]').forEach((element) => {
      element.textContent = textOf(element.dataset.count);
    });
  }

  // Keeps the current entry if it matches the new filter.
  choose(filter) {
    const entry = this.entries[this.index];
    this.filter = filter;
    this.entries = this.entriesOf(filter);
    this.index = Math.max(0, this.entries.indexOf(entry));
    this.root.querySelectorAll('[data-filter]').forEach((button) => {
      button.ariaPressed = String(button.dataset.filter === filter);
    });
    this.render();
  }

  go(offset) {
    if (!this.entries[this.index + offset]) return;
    this.index += offset;
    this.render();
  }

  render() {
    const { entries, index, slots } = this;
    slots.entry.hidden = entries.length === 0;
    slots.empty.hidden = entries.length > 0;
    slots.position.textContent = `${entries.length && count(index + 1)} of ${count(entries.length)}`;
    this.root.querySelectorAll('[data-go]').forEach((button) => {
      button.disabled = !entries[index + Number(button.dataset.go)];
    });
    if (entries.length === 0) return;
    this.show(entries[index], this.filter);
    // A long text scrolls in its frame, which then takes keyboard focus.
    for (const frame of [slots.question, slots.verdict]) {
      frame.scrollTop = 0;
      if (frame.scrollHeight > frame.clientHeight + 1) frame.tabIndex = 0;
      else frame.removeAttribute('tabindex');
    }
  }
}

// j and k page everywhere in a section, arrows only where they have no other meaning.
const KEYS = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1 };
const browsers = [];

document.addEventListener('keydown', (event) => {
  const { key, target } = event;
  if (!KEYS[key] || event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
  if (target.closest(key.startsWith('Arrow') ? 'select, .scroll, .frame' : 'select')) return;
  const isTop = target === document.body || target.id === 'content';
  const browser = isTop ? browsers[0] : browsers.find(({ section }) => section.contains(target));
  if (!browser) return;
  event.preventDefault();
  browser.go(KEYS[key]);
});
