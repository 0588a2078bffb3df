// The trajectory reader: one sampled answer at a time, token by token.

const startReader = () => {
  const root = document.getElementById('the-reader');
  const data = readData('reader-data');
  if (!root || !data) return;
  const places = placesOf(root);
  const panel = places.close.parentElement;
  const { answers, tokens, shades } = data;
  const hasMask = data.alpha !== null; // some methods read none: then no token is outside it
  let answer = null; // the one that is shown
  let pinned = 0; // its token that the panel returns to

  // ── what is true of a step ──

  const candidatesAt = (one, step) => one.candidates[step] || [];
  const isKept = (one, step) => one.kept[step] === 1;
  const differs = (one, step) => one.same_top1[step] === 0;
  const topOf = (one, step) =>
    Math.max(0, ...candidatesAt(one, step).map((candidate) => candidate[1] ?? 0));
  // Sure of itself and not kept: where the answer is wrong, an error that the method cannot see.
  const isBlind = (one, step) =>
    one.correct === false && !isKept(one, step) && topOf(one, step) >= data.confident;

  const stepsWhere = (one, test) => {
    let found = 0;
    for (let step = 0; step < one.token.length; step += 1) if (test(one, step)) found += 1;
    return found;
  };

  const tests = { kept: isKept, differ: differs };
  const entriesOf = (filter) => {
    if (filter === 'all') return answers;
    if (filter === 'wrong') return answers.filter((one) => one.correct === false);
    return answers.filter((one) => stepsWhere(one, tests[filter]) > 0);
  };
  const stands = (filter, step) => !tests[filter] || tests[filter](answer, step);

  const shadeOf = (kl) => {
    if (!data.scored) return 's0'; // of an answer of which no step was, none stands out
    if (kl === null) return 'unscored';
    return `s${shades.filter((edge) => kl >= edge).length}`;
  };

  // ── words ──

  // White space that a reader should see: all of it in a name, in running text only what stands
  // alone.
  const GLYPHS = { ' ': '␣', '\n': '⏎', '\t': '⇥' };
  const spelt = (text) => (text === '' ? '∅' : text.replace(/[ \n\t]/g, (one) => GLYPHS[one]));
  const nats = (value) => (value === null ? 'not scored' : `${value.toFixed(3)} nats`);
  const share = (value) => {
    if (value === null || value === undefined) return '–';
    return value < 0.0005 ? '< 0.001' : value.toFixed(3); // as far as the file has digits
  };

  // ── the answer ──

  const tokenElement = (step, filter) => {
    const text = tokens[answer.token[step]];
    const classes = ['t', shadeOf(answer.kl[step])];
    if (isKept(answer, step)) classes.push('kept');
    if (filter === 'wrong' && places.blind.checked && isBlind(answer, step)) classes.push('blind');
    if (!stands(filter, step)) classes.push('dim');
    const isBlank = text.trim() === '';
    const element = make('span', classes.join(' '), isBlank ? spelt(text) : text);
    if (isBlank) element.classList.add('glyph');
    element.dataset.step = step;
    element.setAttribute('role', 'option');
    element.setAttribute('aria-selected', String(step === pinned));
    element.tabIndex = step === pinned ? 0 : -1;
    return element;
  };

  // A token of white space is a sign, and still does what it does: it breaks lines.
  const breaksAfter = (text) => (text.trim() === '' ? '\n'.repeat(text.split('\n').length - 1) : '');

  const fillTokens = (filter) => {
    const shown = document.createDocumentFragment();
    answer.token.forEach((token, step) => {
      shown.append(tokenElement(step, filter));
      const breaks = breaksAfter(tokens[token]);
      if (breaks) shown.append(breaks);
    });
    fill(places.tokens, shown);
  };

  const fillVerdict = () => {
    const words = [];
    const say = (label, value) => {
      if (value !== null) words.push(`${label} `, make('b', '', isolated(value)), ' · ');
    };
    say('read from the answer', answer.predicted);
    if (answer.predicted === null && answer.correct !== null) words.push('no answer was found · ');
    say('reference', answer.reference);
    if (answer.correct !== null) words.push(outcomeOf(answer.correct), ' · ');
    if (answer.finished === false) words.push('ended by the length limit · ');
    words.push(isolated(answer.id ?? ''));
    fill(places.verdict, ...words);
  };

  const fillCounts = () => {
    const kept = stepsWhere(answer, isKept);
    const other = stepsWhere(answer, differs);
    const shown = answer.token.length;
    const cut = shown < answer.tokens_total ? ` (the first of ${count(answer.tokens_total)})` : '';
    const differing = data.amateur ? `, top-1 differ at ${count(other)}` : '';
    places.counts.textContent = `${count(shown)} tokens${cut}, ${count(kept)} kept${differing}.`;
  };

  // ── the strip: every step of the answer as a bar, as high as its divergence ──

  const drawn = (name, attributes) => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    return element;
  };

  const barsWhere = (test, highest) =>
    answer.kl
      .map((kl, step) => {
        if (kl === null || !test(step)) return '';
        const height = Math.max(0.15, (10 * kl) / highest); // what is almost nothing is seen, too
        return `M${step + 0.1} 10v${-height}h.8v${height}z`;
      })
      .join('');

  const fillStrip = () => {
    const scored = answer.kl.filter((kl) => kl !== null);
    places.strip.hidden = scored.length === 0;
    if (scored.length === 0) return;
    const highest = Math.max(...scored, data.beta ?? 0, 1e-6);
    const length = answer.token.length;
    const box = { viewBox: `0 0 ${length} 10`, preserveAspectRatio: 'none' };
    const picture = drawn('svg', box);
    picture.append(
      drawn('path', { class: 'passed', d: barsWhere((step) => !isKept(answer, step), highest) }),
      drawn('path', { class: 'taken', d: barsWhere((step) => isKept(answer, step), highest) }),
    );
    if (data.beta !== null) {
      const y = 10 - (10 * data.beta) / highest;
      picture.append(drawn('path', { class: 'threshold', d: `M0 ${y}H${length}` }));
    }
    const dashed = data.beta === null ? '' : ', dashed: β';
    fill(
      places.strip,
      make('span', 'edge', `D up to ${highest.toFixed(2)} nats${dashed}`),
      picture,
      make('span', 'edge', `step 1 to ${count(length)}`),
    );
  };

  const stepUnder = (event) => {
    const box = places.strip.querySelector('svg').getBoundingClientRect();
    const place = Math.floor(((event.clientX - box.left) / box.width) * answer.token.length);
    return Math.min(answer.token.length - 1, Math.max(0, place));
  };

  // ── the panel ──

  const weight = (value) => (value === 0 ? '0' : share(value)); // off the mask it is nothing at all

  const bar = (value, kind, word) => {
    const inner = make('i', '');
    inner.style.width = `${100 * Math.min(1, value ?? 0)}%`;
    const cell = make('td', `barred ${kind}`, word(value), make('i', '', inner));
    cell.lastChild.setAttribute('aria-hidden', 'true');
    return cell;
  };

  const candidateRow = (candidate, generated, hasLabel) => {
    const [token, expert, amateur, isInMask, label] = candidate;
    const isGenerated = token === generated;
    const name = make('th', '', isolated(spelt(tokens[token])), isGenerated ? ' ◂' : null);
    name.scope = 'row';
    name.title = spelt(tokens[token]);
    return make(
      'tr',
      `${isGenerated ? 'generated' : ''} ${isInMask || !hasMask ? '' : 'outside'}`.trim(),
      name,
      bar(expert, 'expert', share),
      data.amateur ? bar(amateur, 'amateur', share) : null,
      hasMask ? make('td', '', isInMask ? '✓' : '–') : null,
      hasLabel ? bar(label, 'label', weight) : null,
    );
  };

  const candidateTable = (step) => {
    const candidates = candidatesAt(answer, step);
    if (candidates.length === 0) return make('p', 'hint', 'No probabilities were recorded here.');
    const hasLabel = isKept(answer, step) && candidates.some((one) => one[4] !== null);
    const titles = data.amateur ? ['token', 'expert', 'amateur'] : ['token', 'expert'];
    if (hasMask) titles.push('mask');
    if (hasLabel) titles.push('label');
    const head = titles.map((title) => {
      const cell = make('th', '', title);
      cell.scope = 'col';
      return cell;
    });
    const whose = data.amateur ? "Both models'" : "The expert's";
    const caption = make('caption', 'unseen', `${whose} top tokens with their probabilities`);
    const rows = candidates.map((one) => candidateRow(one, answer.token[step], hasLabel));
    return make(
      'table',
      '',
      caption,
      make('thead', '', make('tr', '', ...head)),
      make('tbody', '', ...rows),
    );
  };

  const facts = (step) => {
    const list = make('dl', '');
    const say = (name, value) => list.append(make('dt', '', name), make('dd', '', value));
    if (data.scored) say('divergence D', nats(answer.kl[step]));
    if (answer.expert_entropy[step] !== null) {
      say('entropy of the expert', nats(answer.expert_entropy[step]));
      if (data.amateur) say('entropy of the amateur', nats(answer.amateur_entropy[step]));
    }
    if (answer.mask_size[step] !== null) {
      const size = answer.mask_size[step];
      say('tokens in the mask', `${count(size)}${hasMask ? ` (α = ${data.alpha})` : ''}`);
    }
    return list;
  };

  const badges = (step) => {
    const shown = make('p', 'badges');
    const kept = isKept(answer, step);
    shown.append(make('span', kept ? 'badge is-kept' : 'badge', kept ? 'kept' : 'not kept'));
    if (differs(answer, step)) shown.append(make('span', 'badge', 'top-1 differ'));
    if (isBlind(answer, step)) shown.append(make('span', 'badge', 'confident'));
    return shown;
  };

  const showStep = (step) => {
    fill(
      places.panel,
      make('p', 'token-name', isolated(spelt(tokens[answer.token[step]]))),
      make('p', 'where', `step ${count(step + 1)} of ${count(answer.token.length)}`),
      badges(step),
      facts(step),
      candidateTable(step),
      make('p', 'hint', `◂ was generated${hasMask ? '; grey: outside the mask' : ''}`),
    );
  };

  const sayStep = (step) => {
    const [first] = candidatesAt(answer, step);
    const words = [
      `Step ${step + 1}, ${spelt(tokens[answer.token[step]])}:`,
      data.scored ? `divergence ${nats(answer.kl[step])},` : '',
      isKept(answer, step) ? 'kept.' : 'not kept.',
      first && first[1] !== null
        ? `The expert's first choice is ${spelt(tokens[first[0]])} with ${share(first[1])}` +
          (data.amateur ? `; the amateur gives it ${share(first[2])}.` : '.')
        : '',
    ];
    places.spoken.textContent = words.filter((word) => word !== '').join(' ');
  };

  // ── choosing a token ──

  const elementOf = (step) => places.tokens.querySelector(`[data-step="${step}"]`);

  const select = (step, isChosen) => {
    const element = elementOf(step);
    if (!element) return;
    element.setAttribute('aria-selected', String(isChosen));
    element.tabIndex = isChosen ? 0 : -1;
  };

  const pin = (step) => {
    select(pinned, false);
    pinned = step;
    select(pinned, true);
    showStep(step);
  };

  // On a narrow screen the panel lies at the lower edge: the token is moved out from under it.
  const uncover = (element) => {
    const over = panel.getBoundingClientRect();
    const box = element.getBoundingClientRect();
    const isBeside = over.left >= box.right || over.right <= box.left;
    const under = box.bottom + 12 - over.top;
    if (isBeside || under <= 0 || box.top >= over.bottom) return;
    window.scrollBy({ top: under, behavior: 'instant' });
  };

  const onFocus = (event) => {
    const element = event.target.closest('[data-step]');
    if (!element) return;
    pin(Number(element.dataset.step));
    panel.classList.add('is-open');
    sayStep(pinned);
    uncover(element);
  };

  const stepFrom = (from, by) => {
    const filter = browser.filter;
    for (let step = from + by; step >= 0 && step < answer.token.length; step += by) {
      if (stands(filter, step)) return step;
    }
    return from;
  };

  const target = (key) => {
    if (key === 'ArrowRight' || key === 'ArrowDown') return stepFrom(pinned, 1);
    if (key === 'ArrowLeft' || key === 'ArrowUp') return stepFrom(pinned, -1);
    if (key === 'Home') return stepFrom(-1, 1);
    if (key === 'End') return stepFrom(answer.token.length, -1);
    return null;
  };

  const leave = () => {
    panel.classList.remove('is-open');
    root.querySelector('[data-go="1"]:not(:disabled), [data-go]:not(:disabled), button').focus({
      preventScroll: true,
    });
  };

  const onTokenKey = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === 'Escape') leave();
    const step = target(event.key);
    if (step === null) return;
    event.preventDefault();
    elementOf(step)?.focus();
  };

  const hovered = (event) => event.target.closest('[data-step]');

  places.tokens.addEventListener('focusin', onFocus);
  places.tokens.addEventListener('keydown', onTokenKey);
  places.tokens.addEventListener('click', (event) => hovered(event)?.focus());
  places.tokens.addEventListener('pointerover', (event) => {
    if (event.pointerType === 'mouse' && hovered(event)) showStep(Number(hovered(event).dataset.step));
  });
  places.tokens.addEventListener('pointerleave', () => showStep(pinned));

  places.strip.addEventListener('click', (event) => elementOf(stepUnder(event))?.focus());
  places.close.addEventListener('click', leave);

  // ── the whole ──

  // How much probability the soft label moves within the mask, in [0, 1].
  const moved = (step) => {
    const inMask = candidatesAt(answer, step).filter((one) => one[3] && one[4] !== null);
    const total = inMask.reduce((sum, one) => sum + (one[1] ?? 0), 0);
    if (total === 0) return 0;
    return inMask.reduce((sum, one) => sum + Math.abs(one[4] - (one[1] ?? 0) / total), 0) / 2;
  };

  // What a reader came for is open already: the step at which the label says most that is new;
  // where none says anything, the one with the largest divergence.
  const first = (filter) => {
    const news = (step) => 100 * moved(step) + (answer.kl[step] ?? -1);
    const open = answer.token.map((_, step) => step).filter((step) => stands(filter, step));
    return open.reduce((best, step) => (news(step) > news(best) ? step : best), open[0] ?? 0);
  };

  const showAnswer = (one, filter) => {
    const hadFocus = places.tokens.contains(document.activeElement);
    answer = one;
    pinned = first(filter);
    fillBounded(places.question, answer.question ?? '');
    fillVerdict();
    fillStrip();
    fillTokens(filter);
    fillCounts();
    showStep(pinned);
    places.blind.closest('label').hidden = filter !== 'wrong' || !data.scored;
    if (hadFocus) elementOf(pinned)?.focus({ preventScroll: true });
  };

  const fillFilterCounts = () => {
    root.querySelectorAll('[data-count]').forEach((element) => {
      const key = element.dataset.count;
      if (key === 'blind') {
        const blind = answers.reduce((sum, one) => sum + stepsWhere(one, isBlind), 0);
        element.textContent = `${count(blind)} steps`;
        return;
      }
      const entries = entriesOf(key);
      const steps = tests[key]
        ? entries.reduce((sum, one) => sum + stepsWhere(one, tests[key]), 0)
        : null;
      element.textContent =
        steps === null ? count(entries.length) : `${count(entries.length)} · ${count(steps)} steps`;
    });
  };

  const browser = new Browser(root, entriesOf, showAnswer);
  places.blind.addEventListener('change', () => fillTokens(browser.filter));
  fillFilterCounts();
  browser.choose('all');
  pageByKeys(browser);
};

startReader();
