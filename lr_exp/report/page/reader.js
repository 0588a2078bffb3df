// The trajectory reader: one sampled answer at a time, token by token.

const startReader = () => {
  const root = document.getElementById('the-reader');
  const data = readData('reader-data');
  if (!root || !data) return;
  const slots = slotsOf(root);
  const panel = slots.close.parentElement;
  const { answers, tokens, shades } = data;
  const hasMask = data.alpha !== null; // methods without alpha have no mask
  let answer = null; // the answer on show
  let pinned = 0; // the step that the panel returns to after hovering

  // ── properties of a step, that is of one generated token ──

  const candidatesAt = (item, step) => item.candidates[step] || [];
  const isKept = (item, step) => item.kept[step] === 1;
  const differs = (item, step) => item.same_top1[step] === 0;
  const topOf = (item, step) =>
    Math.max(0, ...candidatesAt(item, step).map((candidate) => candidate[1] ?? 0));
  // In a wrong answer: the expert is confident and the step is not kept, so the method misses it.
  const isBlind = (item, step) =>
    item.correct === false && !isKept(item, step) && topOf(item, step) >= data.confident;

  const countSteps = (item, test) => {
    let steps = 0;
    for (let step = 0; step < item.token.length; step += 1) if (test(item, step)) steps += 1;
    return steps;
  };

  const tests = { kept: isKept, differ: differs };
  const entriesOf = (filter) => {
    if (filter === 'all') return answers;
    if (filter === 'wrong') return answers.filter((item) => item.correct === false);
    return answers.filter((item) => countSteps(item, tests[filter]) > 0);
  };
  const matches = (filter, step) => !tests[filter] || tests[filter](answer, step);

  const shadeOf = (kl) => {
    if (!data.scored) return 's0'; // if nothing was scored, no step is marked as unscored
    if (kl === null) return 'unscored';
    return `s${shades.filter((edge) => kl >= edge).length}`;
  };

  // ── texts ──

  // Visible signs for white space: in token names everywhere, in the answer only for blank tokens.
  const GLYPHS = { ' ': '␣', '\n': '⏎', '\t': '⇥' };
  const visible = (text) => (text === '' ? '∅' : text.replace(/[ \n\t]/g, (sign) => GLYPHS[sign]));
  const nats = (value) => (value === null ? 'not scored' : `${value.toFixed(3)} nats`);
  const share = (value) => {
    if (value === null || value === undefined) return '–';
    return value < 0.0005 ? '< 0.001' : value.toFixed(3); // the file's precision
  };

  // ── the answer ──

  const tokenElement = (step, filter) => {
    const text = tokens[answer.token[step]];
    const classes = ['t', shadeOf(answer.kl[step])];
    if (isKept(answer, step)) classes.push('kept');
    if (filter === 'wrong' && slots.blind.checked && isBlind(answer, step)) classes.push('blind');
    if (!matches(filter, step)) classes.push('dim');
    const isBlank = text.trim() === '';
    const element = make('span', classes.join(' '), isBlank ? visible(text) : text);
    if (isBlank) element.classList.add('glyph');
    element.dataset.step = step;
    element.setAttribute('role', 'option');
    element.setAttribute('aria-selected', String(step === pinned));
    element.tabIndex = step === pinned ? 0 : -1;
    return element;
  };

  // A blank token is shown as a sign, but still breaks the line.
  const breaksAfter = (text) => (text.trim() === '' ? '\n'.repeat(text.split('\n').length - 1) : '');

  const fillTokens = (filter) => {
    const shown = document.createDocumentFragment();
    answer.token.forEach((token, step) => {
      shown.append(tokenElement(step, filter));
      const breaks = breaksAfter(tokens[token]);
      if (breaks) shown.append(breaks);
    });
    fill(slots.tokens, shown);
  };

  const fillVerdict = () => {
    const parts = [];
    const add = (label, value) => {
      if (value !== null) parts.push(`${label} `, make('b', '', isolated(value)), ' · ');
    };
    add('extracted answer', answer.predicted);
    if (answer.predicted === null && answer.correct !== null) parts.push('no answer extracted · ');
    add('reference', answer.reference);
    if (answer.correct !== null) parts.push(outcomeOf(answer.correct), ' · ');
    if (answer.finished === false) parts.push('stopped by the length limit · ');
    parts.push(isolated(answer.id ?? ''));
    fill(slots.verdict, ...parts);
  };

  const fillCounts = () => {
    const kept = countSteps(answer, isKept);
    const differing = countSteps(answer, differs);
    const shown = answer.token.length;
    const cut = shown < answer.tokens_total ? ` (the first of ${count(answer.tokens_total)})` : '';
    const top1 = data.amateur ? `, top-1 differs at ${count(differing)}` : '';
    slots.counts.textContent = `${count(shown)} tokens${cut}, ${count(kept)} kept${top1}.`;
  };

  // ── the strip: one bar per step, as high as its divergence ──

  const svgElement = (name, attributes) => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    return element;
  };

  const barsWhere = (test, highest) =>
    answer.kl
      .map((kl, step) => {
        if (kl === null || !test(step)) return '';
        const height = Math.max(0.15, (10 * kl) / highest); // keeps tiny values visible
        return `M${step + 0.1} 10v${-height}h.8v${height}z`;
      })
      .join('');

  const fillStrip = () => {
    const scored = answer.kl.filter((kl) => kl !== null);
    slots.strip.hidden = scored.length === 0;
    if (scored.length === 0) return;
    const highest = Math.max(...scored, data.beta ?? 0, 1e-6);
    const length = answer.token.length;
    const box = { viewBox: `0 0 ${length} 10`, preserveAspectRatio: 'none' };
    const picture = svgElement('svg', box);
    picture.append(
      svgElement('path', { class: 'passed', d: barsWhere((step) => !isKept(answer, step), highest) }),
      svgElement('path', { class: 'taken', d: barsWhere((step) => isKept(answer, step), highest) }),
    );
    if (data.beta !== null) {
      const y = 10 - (10 * data.beta) / highest;
      picture.append(svgElement('path', { class: 'threshold', d: `M0 ${y}H${length}` }));
    }
    const dashed = data.beta === null ? '' : ', dashed: β';
    fill(
      slots.strip,
      make('span', 'edge', `D up to ${highest.toFixed(2)} nats${dashed}`),
      picture,
      make('span', 'edge', `step 1 to ${count(length)}`),
    );
  };

  const stepUnder = (event) => {
    const box = slots.strip.querySelector('svg').getBoundingClientRect();
    const step = Math.floor(((event.clientX - box.left) / box.width) * answer.token.length);
    return Math.min(answer.token.length - 1, Math.max(0, step));
  };

  // ── the panel ──

  const weight = (value) => (value === 0 ? '0' : share(value)); // exactly 0 outside the mask

  const bar = (value, kind, format) => {
    const inner = make('i', '');
    inner.style.width = `${100 * Math.min(1, value ?? 0)}%`;
    const cell = make('td', `barred ${kind}`, format(value), make('i', '', inner));
    cell.lastChild.setAttribute('aria-hidden', 'true');
    return cell;
  };

  const candidateRow = (candidate, generated, hasLabel) => {
    const [token, expert, amateur, isInMask, label] = candidate;
    const isGenerated = token === generated;
    const name = make('th', '', isolated(visible(tokens[token])), isGenerated ? ' ◂' : null);
    name.scope = 'row';
    name.title = visible(tokens[token]);
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
    if (candidates.length === 0) return make('p', 'hint', 'No probabilities were recorded.');
    const hasLabel = isKept(answer, step) && candidates.some((row) => row[4] !== null);
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
    const rows = candidates.map((row) => candidateRow(row, answer.token[step], hasLabel));
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
    const add = (name, value) => list.append(make('dt', '', name), make('dd', '', value));
    if (data.scored) add('divergence D', nats(answer.kl[step]));
    if (answer.expert_entropy[step] !== null) {
      add('expert entropy', nats(answer.expert_entropy[step]));
      if (data.amateur) add('amateur entropy', nats(answer.amateur_entropy[step]));
    }
    if (answer.mask_size[step] !== null) {
      const size = answer.mask_size[step];
      add('tokens in the mask', `${count(size)}${hasMask ? ` (α = ${data.alpha})` : ''}`);
    }
    return list;
  };

  const badges = (step) => {
    const shown = make('p', 'badges');
    const kept = isKept(answer, step);
    shown.append(make('span', kept ? 'badge is-kept' : 'badge', kept ? 'kept' : 'not kept'));
    if (differs(answer, step)) shown.append(make('span', 'badge', 'top-1 differs'));
    if (isBlind(answer, step)) shown.append(make('span', 'badge', 'confident'));
    return shown;
  };

  const showStep = (step) => {
    fill(
      slots.panel,
      make('p', 'token-name', isolated(visible(tokens[answer.token[step]]))),
      make('p', 'where', `step ${count(step + 1)} of ${count(answer.token.length)}`),
      badges(step),
      facts(step),
      candidateTable(step),
      make('p', 'hint', `◂ generated token${hasMask ? '; grey: outside the mask' : ''}`),
    );
  };

  const announceStep = (step) => {
    const [first] = candidatesAt(answer, step);
    const parts = [
      `Step ${step + 1}, ${visible(tokens[answer.token[step]])}:`,
      data.scored ? `divergence ${nats(answer.kl[step])},` : '',
      isKept(answer, step) ? 'kept.' : 'not kept.',
      first && first[1] !== null
        ? `Expert top-1: ${visible(tokens[first[0]])} with probability ${share(first[1])}` +
          (data.amateur ? `; amateur probability ${share(first[2])}.` : '.')
        : '',
    ];
    slots.spoken.textContent = parts.filter((part) => part !== '').join(' ');
  };

  // ── selecting a token ──

  const elementOf = (step) => slots.tokens.querySelector(`[data-step="${step}"]`);

  const setSelected = (step, isSelected) => {
    const element = elementOf(step);
    if (!element) return;
    element.setAttribute('aria-selected', String(isSelected));
    element.tabIndex = isSelected ? 0 : -1;
  };

  const pin = (step) => {
    setSelected(pinned, false);
    pinned = step;
    setSelected(pinned, true);
    showStep(step);
  };

  // On a narrow screen the panel covers the lower edge: scroll the token out from under it.
  const uncover = (element) => {
    const cover = panel.getBoundingClientRect();
    const box = element.getBoundingClientRect();
    const isBeside = cover.left >= box.right || cover.right <= box.left;
    const overlap = box.bottom + 12 - cover.top;
    if (isBeside || overlap <= 0 || box.top >= cover.bottom) return;
    window.scrollBy({ top: overlap, behavior: 'instant' });
  };

  const onFocus = (event) => {
    const element = event.target.closest('[data-step]');
    if (!element) return;
    pin(Number(element.dataset.step));
    panel.classList.add('is-open');
    announceStep(pinned);
    uncover(element);
  };

  const nextMatch = (from, offset) => {
    const filter = browser.filter;
    for (let step = from + offset; step >= 0 && step < answer.token.length; step += offset) {
      if (matches(filter, step)) return step;
    }
    return from;
  };

  const targetOf = (key) => {
    if (key === 'ArrowRight' || key === 'ArrowDown') return nextMatch(pinned, 1);
    if (key === 'ArrowLeft' || key === 'ArrowUp') return nextMatch(pinned, -1);
    if (key === 'Home') return nextMatch(-1, 1);
    if (key === 'End') return nextMatch(answer.token.length, -1);
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
    const step = targetOf(event.key);
    if (step === null) return;
    event.preventDefault();
    elementOf(step)?.focus();
  };

  const tokenAt = (event) => event.target.closest('[data-step]');

  slots.tokens.addEventListener('focusin', onFocus);
  slots.tokens.addEventListener('keydown', onTokenKey);
  slots.tokens.addEventListener('click', (event) => tokenAt(event)?.focus());
  slots.tokens.addEventListener('pointerover', (event) => {
    if (event.pointerType === 'mouse' && tokenAt(event)) showStep(Number(tokenAt(event).dataset.step));
  });
  slots.tokens.addEventListener('pointerleave', () => showStep(pinned));

  slots.strip.addEventListener('click', (event) => elementOf(stepUnder(event))?.focus());
  slots.close.addEventListener('click', leave);

  // ── the whole answer ──

  // Total variation distance of the label from the expert within the mask, in [0, 1].
  const labelShift = (step) => {
    const inMask = candidatesAt(answer, step).filter((row) => row[3] && row[4] !== null);
    const total = inMask.reduce((sum, row) => sum + (row[1] ?? 0), 0);
    if (total === 0) return 0;
    return inMask.reduce((sum, row) => sum + Math.abs(row[4] - (row[1] ?? 0) / total), 0) / 2;
  };

  // The step to open first: the largest label shift, or else the largest divergence.
  const mostInformative = (filter) => {
    const score = (step) => 100 * labelShift(step) + (answer.kl[step] ?? -1);
    const steps = answer.token.map((_, step) => step).filter((step) => matches(filter, step));
    return steps.reduce((best, step) => (score(step) > score(best) ? step : best), steps[0] ?? 0);
  };

  const showAnswer = (shown, filter) => {
    const hadFocus = slots.tokens.contains(document.activeElement);
    answer = shown;
    pinned = mostInformative(filter);
    fillBounded(slots.question, answer.question ?? '');
    fillVerdict();
    fillStrip();
    fillTokens(filter);
    fillCounts();
    showStep(pinned);
    slots.blind.closest('label').hidden = filter !== 'wrong' || !data.scored;
    if (hadFocus) elementOf(pinned)?.focus({ preventScroll: true });
  };

  const fillFilterCounts = () => {
    root.querySelectorAll('[data-count]').forEach((element) => {
      const key = element.dataset.count;
      if (key === 'blind') {
        const blind = answers.reduce((sum, item) => sum + countSteps(item, isBlind), 0);
        element.textContent = `${count(blind)} steps`;
        return;
      }
      const entries = entriesOf(key);
      const steps = tests[key]
        ? entries.reduce((sum, item) => sum + countSteps(item, tests[key]), 0)
        : null;
      element.textContent =
        steps === null ? count(entries.length) : `${count(entries.length)} · ${count(steps)} steps`;
    });
  };

  const browser = new Browser(root, entriesOf, showAnswer);
  slots.blind.addEventListener('change', () => fillTokens(browser.filter));
  fillFilterCounts();
  browser.choose('all');
  pageByKeys(browser);
};

startReader();
