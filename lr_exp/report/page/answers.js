// Answers before and after, one question at a time.

const startAnswers = () => {
  const root = document.getElementById('the-pairs');
  const data = readData('answers-data');
  if (!root || !data) return;
  const places = placesOf(root);

  const chosenBenchmark = () => places.benchmark.value;
  const passes = (pair) => chosenBenchmark() === '' || pair.benchmark === chosenBenchmark();
  const entriesOf = (outcome) =>
    data.pairs.filter((pair) => pair.outcome === outcome && passes(pair));

  // How much of both texts is the same from the beginning on; whole code points, not halves.
  const sameLength = (one, other) => {
    let length = 0;
    while (length < one.length && one[length] === other[length]) length += 1;
    return length > 0 && /[\ud800-\udbff]/.test(one[length - 1]) ? length - 1 : length;
  };

  const fillOutput = (element, side, same) => {
    const text = side.output ?? '';
    const parts = [make('span', 'same', text.slice(0, same))];
    if (same < text.length) parts.push(make('span', 'differs', text.slice(same)));
    if (side.cut) parts.push(make('span', 'note', ' … (cut here for this page)'));
    fill(element, ...parts);
  };

  const fillSide = (key, pair, same) => {
    const side = pair[key];
    const found = side.extracted === null ? 'no answer was found' : 'read as ';
    fill(
      places[`${key}-outcome`],
      outcomeOf(side.correct),
      ` · ${found}`,
      side.extracted === null ? null : make('b', '', isolated(side.extracted)),
      side.finished ? null : ' · ended by the length limit',
    );
    fillOutput(places[`${key}-output`], side, same);
  };

  const show = (pair) => {
    fillBounded(places.question, pair.question ?? '');
    fill(
      places.verdict,
      'reference ',
      make('b', '', isolated(pair.reference ?? 'not known')),
      ` · ${data.labels[pair.benchmark]} · `,
      isolated(pair.id),
    );
    const same = sameLength(pair.before.output ?? '', pair.after.output ?? '');
    fillSide('before', pair, same);
    fillSide('after', pair, same);
  };

  const fillCounts = () => {
    root.querySelectorAll('[data-count]').forEach((element) => {
      const outcome = element.dataset.count;
      const all = Object.entries(data.counts)
        .filter(([name]) => chosenBenchmark() === '' || name === chosenBenchmark())
        .reduce((sum, [, counts]) => sum + counts[outcome], 0);
      const shown = entriesOf(outcome).length;
      element.textContent = shown < all ? `${count(shown)} of ${count(all)}` : count(all);
    });
  };

  const browser = new Browser(root, entriesOf, show);
  places.benchmark.addEventListener('change', () => {
    fillCounts();
    browser.choose(browser.filter);
  });
  fillCounts();
  // On what there is to see.
  browser.choose(browser.filters.find((one) => entriesOf(one).length > 0) ?? browser.filter);
  pageByKeys(browser);
};

startAnswers();
