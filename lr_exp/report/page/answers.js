// Answers before and after, one question at a time.

const startAnswers = () => {
  const root = document.getElementById('the-pairs');
  if (!root) return;
  const data = readData('answers-data');
  const slots = slotsOf(root);

  const isChosen = (name) => slots.benchmark.value === '' || slots.benchmark.value === name;
  const entriesOf = (outcome) =>
    data.pairs.filter((pair) => pair.outcome === outcome && isChosen(pair.benchmark));

  // Length of the common prefix, never splitting a surrogate pair.
  const commonLength = (text, other) => {
    let length = 0;
    while (length < text.length && text[length] === other[length]) length += 1;
    return length > 0 && /[\ud800-\udbff]/.test(text[length - 1]) ? length - 1 : length;
  };

  const fillSide = (key, pair, common) => {
    const side = pair[key];
    fill(
      slots[`${key}-outcome`],
      outcomeOf(side.correct),
      side.extracted === null ? ' · no answer extracted' : ' · extracted answer ',
      side.extracted === null ? null : make('b', '', isolated(side.extracted)),
      side.finished ? null : ' · stopped by the length limit',
    );
    const rest = side.output.slice(common);
    fill(
      slots[`${key}-output`],
      make('span', 'same', side.output.slice(0, common)),
      rest ? make('span', 'differs', rest) : null,
      side.cut ? make('span', 'note', ' … (truncated on this page)') : null,
    );
  };

  const show = (pair) => {
    fillBounded(slots.question, pair.question);
    fill(
      slots.verdict,
      'reference ',
      make('b', '', isolated(pair.reference ?? 'unknown')),
      ` · ${data.labels[pair.benchmark]} · `,
      isolated(pair.id),
    );
    const common = commonLength(pair.before.output, pair.after.output);
    fillSide('before', pair, common);
    fillSide('after', pair, common);
  };

  const fillCounts = () => {
    root.querySelectorAll('[data-count]').forEach((element) => {
      const outcome = element.dataset.count;
      const all = Object.entries(data.counts)
        .filter(([name]) => isChosen(name))
        .reduce((sum, [, counts]) => sum + counts[outcome], 0);
      const shown = entriesOf(outcome).length;
      element.textContent = shown < all ? `${count(shown)} of ${count(all)}` : count(all);
    });
  };

  const pager = new EntryPager(root, entriesOf, show);
  slots.benchmark.addEventListener('change', () => {
    fillCounts();
    pager.choose(pager.filter);
  });
  fillCounts();
  // Start with the first outcome that has entries.
  pager.choose(pager.filters.find((outcome) => entriesOf(outcome).length > 0));
};

startAnswers();
