// Answers before and after, one question at a time.

const startAnswers = () => {
  const root = document.getElementById('the-pairs');
  const data = readData('answers-data');
  if (!root || !data) return;
  const slots = slotsOf(root);

  const chosenBenchmark = () => slots.benchmark.value;
  const isChosen = (benchmark) => chosenBenchmark() === '' || benchmark === chosenBenchmark();
  const entriesOf = (outcome) =>
    data.pairs.filter((pair) => pair.outcome === outcome && isChosen(pair.benchmark));

  // Length of the common prefix, never splitting a surrogate pair.
  const commonLength = (text, other) => {
    let length = 0;
    while (length < text.length && text[length] === other[length]) length += 1;
    return length > 0 && /[\ud800-\udbff]/.test(text[length - 1]) ? length - 1 : length;
  };

  const fillOutput = (element, side, common) => {
    const text = side.output ?? '';
    const parts = [make('span', 'same', text.slice(0, common))];
    if (common < text.length) parts.push(make('span', 'differs', text.slice(common)));
    if (side.cut) parts.push(make('span', 'note', ' … (truncated on this page)'));
    fill(element, ...parts);
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
    fillOutput(slots[`${key}-output`], side, common);
  };

  const show = (pair) => {
    fillBounded(slots.question, pair.question ?? '');
    fill(
      slots.verdict,
      'reference ',
      make('b', '', isolated(pair.reference ?? 'unknown')),
      ` · ${data.labels[pair.benchmark]} · `,
      isolated(pair.id),
    );
    const common = commonLength(pair.before.output ?? '', pair.after.output ?? '');
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

  const browser = new Browser(root, entriesOf, show);
  slots.benchmark.addEventListener('change', () => {
    fillCounts();
    browser.choose(browser.filter);
  });
  fillCounts();
  // Start with the first outcome that has entries.
  const outcome = browser.filters.find((name) => entriesOf(name).length > 0);
  browser.choose(outcome ?? browser.filter);
  pageByKeys(browser);
};

startAnswers();
