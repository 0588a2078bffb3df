// Answers before and after tuning, one question at a time.

const startAnswers = (root) => {
  const data = readData('answers-data');

  const isChosen = (name) => ['', name].includes(browser.slots.benchmark.value);
  const entriesOf = (outcome) =>
    data.pairs.filter((pair) => pair.outcome === outcome && isChosen(pair.benchmark));

  // Length of the common prefix, never splitting a surrogate pair.
  const commonLength = (text, other) => {
    let length = 0;
    while (length < text.length && text[length] === other[length]) length += 1;
    return length > 0 && /[\ud800-\udbff]/.test(text[length - 1]) ? length - 1 : length;
  };

  const fillSide = (key, { output, cut, correct, extracted, finished }, common) => {
    fillFacts(browser.slots[`${key}-outcome`], ...outcomeOf(correct, extracted, finished));
    browser.slots[`${key}-output`].replaceChildren(
      make('span', { className: 'same' }, output.slice(0, common)),
      make('span', { className: 'differs' }, output.slice(common)),
      cut ? make('span', { className: 'note' }, ' … (truncated on this page)') : '',
    );
  };

  const show = (pair) => {
    browser.slots.question.textContent = pair.question;
    fillFacts(
      browser.slots.verdict,
      labelled('reference', pair.reference ?? 'unknown'),
      data.labels[pair.benchmark],
      isolated(pair.id),
    );
    const common = commonLength(pair.before.output, pair.after.output);
    fillSide('before', pair.before, common);
    fillSide('after', pair.after, common);
  };

  const fillCounts = () =>
    browser.fillCounts((outcome) => {
      const counts = Object.entries(data.counts).filter(([name]) => isChosen(name));
      const all = counts.reduce((sum, [, ofBenchmark]) => sum + ofBenchmark[outcome], 0);
      const shown = entriesOf(outcome).length;
      return shown < all ? `${count(shown)} of ${count(all)}` : count(all);
    });

  const browser = new Browser(root, entriesOf, show);
  browser.slots.benchmark.addEventListener('change', () => {
    fillCounts();
    browser.choose(browser.filter);
  });
  fillCounts();
  const outcomes = Object.keys(Object.values(data.counts)[0]); // in the order of the filters
  browser.choose(outcomes.find((outcome) => entriesOf(outcome).length > 0));
};

document.querySelectorAll('#the-pairs').forEach(startAnswers);
