// The trajectory reader: one sampled answer at a time, token by token.

const startReader = () => {
  const root = document.getElementById('the-reader');
  if (!root) return;
  const data = readData('reader-data');
  const slots = slotsOf(root);
  const panel = slots.close.parentElement;
  const hasMask = data.alpha !== null; // methods without alpha have no mask
  let answer = null; // the answer on show
  let pinned = 0; // the step that the panel returns to after hovering

  // A step is one generated token.
  const stepOf = (item, index) => {
    const step = {
      index,
      token: item.token[index],
      text: data.tokens[item.token[index]],
      kl: item.kl[index],
      isKept: item.kept[index] === 1,
      differs: item.same_top1[index] === 0,
      expertEntropy: item.expert_entropy[index],
      amateurEntropy: item.amateur_entropy[index],
      maskSize: item.mask_size[index],
      candidates: (item.candidates[index] || []).map(([token, expert, amateur, mask, label]) => ({
        token, expert, amateur, isInMask: mask === 1, label,
      })),
    };
    const isConfident = step.candidates.some((candidate) => candidate.expert >= data.confident);
    // In a wrong answer: the expert is confident and the step is not kept, so the method misses it.
    step.isBlind = item.correct === false && !step.isKept && isConfident;
    return step;
  };
  const answers = data.answers.map((item) => ({
    ...item, steps: item.token.map((_, index) => stepOf(item, index)),
  }));

  // ── filters ──

  const tests = { kept: (step) => step.isKept, differ: (step) => step.differs };
  const countSteps = (items, test) =>
    items.reduce((sum, item) => sum + item.steps.filter(test).length, 0);
  const matches = (filter, step) => !tests[filter] || tests[filter](step);
  const entriesOf = (filter) => {
    if (filter === 'all') return answers;
    if (filter === 'wrong') return answers.filter((item) => item.correct === false);
    return answers.filter((item) => item.steps.some(tests[filter]));
  };

  const fillFilterCounts = () => {
    root.querySelectorAll('[data-count]').forEach((element) => {
      const key = element.dataset.count;
      if (key === 'blind') {
        element.textContent = `${count(countSteps(answers, (step) => step.isBlind))} steps`;
        return;
      }
      const steps = tests[key] ? ` · ${count(countSteps(answers, tests[key]))} steps` : '';
      element.textContent = `${count(entriesOf(key).length)}${steps}`;
    });
  };

  // ── texts ──

  // Visible signs for white space: in token names everywhere, in the answer only for blank tokens.
  const GLYPHS = { ' ': '␣', '\n': '⏎', '\t': '⇥' };
  const visible = (text) => (text === '' ? '∅' : text.replace(/[ \n\t]/g, (sign) => GLYPHS[sign]));
  const nats = (value) => (value === null ? 'not scored' : `${value.toFixed(3)} nats`);
  const share = (value) => {
    if (value === null) return '–';
    return value < 0.0005 ? '< 0.001' : value.toFixed(3); // the file's precision
  };

  // ── the answer ──

  const shadeOf = (step) => {
    if (!data.scored) return 's0'; // if nothing was scored, no step is marked as unscored
    if (step.kl === null) return 'unscored';
    return `s${data.shades.filter((edge) => step.kl >= edge).length}`;
  };

  const tokenElement = (step, filter) => {
    const isBlank = step.text.trim() === '';
    const element = make('span', `t ${shadeOf(step)}`, isBlank ? visible(step.text) : step.text);
    element.classList.toggle('kept', step.isKept);
    element.classList.toggle('blind', filter === 'wrong' && slots.blind.checked && step.isBlind);
    element.classList.toggle('dim', !matches(filter, step));
    element.classList.toggle('glyph', isBlank);
    element.dataset.step = step.index;
    element.setAttribute('role', 'option');
    element.setAttribute('aria-selected', String(step.index === pinned));
    element.tabIndex = step.index === pinned ? 0 : -1;
    // A blank token is shown as a sign, but still breaks the line.
    const breaks = isBlank ? '\n'.repeat(step.text.split('\n').length - 1) : '';
    return [element, breaks];
  };

  const fillTokens = (filter) =>
    fill(slots.tokens, ...answer.steps.flatMap((step) => tokenElement(step, filter)));

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
    fill(slots.verdict, ...parts, isolated(answer.id ?? ''));
  };

  const fillCounts = () => {
    const shown = answer.steps.length;
    const cut = shown < answer.tokens_total ? ` (the first of ${count(answer.tokens_total)})` : '';
    const kept = count(countSteps([answer], tests.kept));
    const differing = count(countSteps([answer], tests.differ));
    const top1 = data.amateur ? `, top-1 differs at ${differing}` : '';
    slots.counts.textContent = `${count(shown)} tokens${cut}, ${kept} kept${top1}.`;
  };

  // ── the strip: one bar per step, as high as its divergence ──

  const pathElement = (className, d) => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    element.setAttribute('class', className);
    element.setAttribute('d', d);
    return element;
  };

  const fillStrip = () => {
    const scored = answer.steps.filter((step) => step.kl !== null);
    slots.strip.hidden = scored.length === 0;
    if (scored.length === 0) return;
    const highest = Math.max(...scored.map((step) => step.kl), data.beta ?? 0, 1e-6);
    const bars = (steps) =>
      steps
        .map((step) => {
          const height = Math.max(0.15, (10 * step.kl) / highest); // keeps tiny values visible
          return `M${step.index + 0.1} 10v${-height}h.8v${height}z`;
        })
        .join('');
    const picture = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    picture.setAttribute('viewBox', `0 0 ${answer.steps.length} 10`);
    picture.setAttribute('preserveAspectRatio', 'none');
    picture.append(
      pathElement('not-kept', bars(scored.filter((step) => !step.isKept))),
      pathElement('kept', bars(scored.filter((step) => step.isKept))),
    );
    if (data.beta !== null) {
      const y = 10 - (10 * data.beta) / highest;
      picture.append(pathElement('threshold', `M0 ${y}H${answer.steps.length}`));
    }
    const dashed = data.beta === null ? '' : ', dashed: β';
    fill(
      slots.strip,
      make('span', 'edge', `D up to ${highest.toFixed(2)} nats${dashed}`),
      picture,
      make('span', 'edge', `step 1 to ${count(answer.steps.length)}`),
    );
  };

  const stepUnder = (event) => {
    const box = slots.strip.querySelector('svg').getBoundingClientRect();
    const step = Math.floor(((event.clientX - box.left) / box.width) * answer.steps.length);
    return Math.min(answer.steps.length - 1, Math.max(0, step));
  };

  // ── the panel ──

  const bar = (value, kind, text) => {
    const inner = make('i', '');
    inner.style.width = `${100 * Math.min(1, value ?? 0)}%`;
    const cell = make('td', `barred ${kind}`, text, make('i', '', inner));
    cell.lastChild.setAttribute('aria-hidden', 'true');
    return cell;
  };

  const candidateRow = (candidate, step, hasLabel) => {
    const { expert, amateur, isInMask, label } = candidate;
    const isGenerated = candidate.token === step.token;
    const text = visible(data.tokens[candidate.token]);
    const name = headingOf('row', isolated(text), isGenerated ? ' ◂' : null);
    name.title = text;
    const row = make(
      'tr',
      '',
      name,
      bar(expert, 'expert', share(expert)),
      data.amateur ? bar(amateur, 'amateur', share(amateur)) : null,
      hasMask ? make('td', '', isInMask ? '✓' : '–') : null,
      // The label is exactly 0 outside the mask.
      hasLabel ? bar(label, 'label', label === 0 ? '0' : share(label)) : null,
    );
    row.classList.toggle('generated', isGenerated);
    row.classList.toggle('outside', hasMask && !isInMask);
    return row;
  };

  const candidateTable = (step) => {
    if (step.candidates.length === 0) return make('p', 'hint', 'No probabilities were recorded.');
    const hasLabel = step.isKept && step.candidates.some((candidate) => candidate.label !== null);
    const titles = ['token', 'expert'];
    if (data.amateur) titles.push('amateur');
    if (hasMask) titles.push('mask');
    if (hasLabel) titles.push('label');
    const whose = data.amateur ? "Both models'" : "The expert's";
    return make(
      'table',
      '',
      make('caption', 'unseen', `${whose} top tokens with their probabilities`),
      make('thead', '', make('tr', '', ...titles.map((title) => headingOf('col', title)))),
      make(
        'tbody',
        '',
        ...step.candidates.map((candidate) => candidateRow(candidate, step, hasLabel)),
      ),
    );
  };

  const measures = (step) => {
    const list = make('dl', '');
    const add = (name, value) => list.append(make('dt', '', name), make('dd', '', value));
    if (data.scored) add('divergence D', nats(step.kl));
    if (step.expertEntropy !== null) {
      add('expert entropy', nats(step.expertEntropy));
      if (data.amateur) add('amateur entropy', nats(step.amateurEntropy));
    }
    const alpha = hasMask ? ` (α = ${data.alpha})` : '';
    if (step.maskSize !== null) add('tokens in the mask', `${count(step.maskSize)}${alpha}`);
    return list;
  };

  const showStep = (index) => {
    const step = answer.steps[index];
    fill(
      slots.panel,
      make('p', 'token-name', isolated(visible(step.text))),
      make('p', 'where', `step ${count(index + 1)} of ${count(answer.steps.length)}`),
      make(
        'p',
        'badges',
        step.isKept ? make('span', 'badge is-kept', 'kept') : make('span', 'badge', 'not kept'),
        step.differs ? make('span', 'badge', 'top-1 differs') : null,
        step.isBlind ? make('span', 'badge', 'confident') : null,
      ),
      measures(step),
      candidateTable(step),
      make('p', 'hint', `◂ generated token${hasMask ? '; grey: outside the mask' : ''}`),
    );
  };

  const announceStep = (step) => {
    const parts = [`Step ${step.index + 1}, ${visible(step.text)}:`];
    if (data.scored) parts.push(`divergence ${nats(step.kl)},`);
    parts.push(step.isKept ? 'kept.' : 'not kept.');
    const [first] = step.candidates;
    if (first) {
      const amateur = data.amateur ? `; amateur probability ${share(first.amateur)}` : '';
      const name = visible(data.tokens[first.token]);
      parts.push(`Expert top-1: ${name} with probability ${share(first.expert)}${amateur}.`);
    }
    slots.spoken.textContent = parts.join(' ');
  };

  // ── selecting a token ──

  const elementOf = (index) => slots.tokens.querySelector(`[data-step="${index}"]`);
  const tokenAt = (event) => event.target.closest('[data-step]');

  const pin = (index) => {
    [pinned, index].forEach((one) => {
      elementOf(one).setAttribute('aria-selected', String(one === index));
      elementOf(one).tabIndex = one === index ? 0 : -1;
    });
    pinned = index;
    showStep(index);
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
    const element = tokenAt(event);
    if (!element) return;
    pin(Number(element.dataset.step));
    panel.classList.add('is-open');
    announceStep(answer.steps[pinned]);
    uncover(element);
  };

  // The matching step that a key leads to; undefined if there is none.
  const targetOf = (key) => {
    const matching = answer.steps.filter((step) => matches(pager.filter, step));
    if (key === 'ArrowRight' || key === 'ArrowDown') {
      return matching.find((step) => step.index > pinned);
    }
    if (key === 'ArrowLeft' || key === 'ArrowUp') {
      return matching.findLast((step) => step.index < pinned);
    }
    return matching.at(key === 'Home' ? 0 : -1);
  };

  const leave = () => {
    panel.classList.remove('is-open');
    const button = root.querySelector('[data-go="1"]:not(:disabled), [data-go]:not(:disabled), button');
    button.focus({ preventScroll: true });
  };

  const MOVES = ['ArrowRight', 'ArrowDown', 'ArrowLeft', 'ArrowUp', 'Home', 'End'];
  const onTokenKey = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === 'Escape') leave();
    if (!MOVES.includes(event.key)) return;
    event.preventDefault();
    elementOf(targetOf(event.key)?.index)?.focus();
  };

  slots.tokens.addEventListener('focusin', onFocus);
  slots.tokens.addEventListener('keydown', onTokenKey);
  slots.tokens.addEventListener('click', (event) => tokenAt(event)?.focus());
  slots.tokens.addEventListener('pointerover', (event) => {
    if (event.pointerType === 'mouse' && tokenAt(event)) showStep(Number(tokenAt(event).dataset.step));
  });
  slots.tokens.addEventListener('pointerleave', () => showStep(pinned));
  slots.strip.addEventListener('click', (event) => elementOf(stepUnder(event)).focus());
  slots.close.addEventListener('click', leave);

  // ── the whole answer ──

  // Total variation distance of the label from the expert within the mask, in [0, 1].
  const labelShift = (step) => {
    const inMask = step.candidates.filter((one) => one.isInMask && one.label !== null);
    const total = inMask.reduce((sum, one) => sum + one.expert, 0);
    if (total === 0) return 0;
    return inMask.reduce((sum, one) => sum + Math.abs(one.label - one.expert / total), 0) / 2;
  };

  // The step to open first: the largest label shift, or else the largest divergence.
  const mostInformative = (filter) => {
    const score = (step) => 100 * labelShift(step) + (step.kl ?? -1);
    const [first, ...others] = answer.steps.filter((step) => matches(filter, step));
    return others.reduce((best, step) => (score(step) > score(best) ? step : best), first);
  };

  const showAnswer = (shown, filter) => {
    const hadFocus = slots.tokens.contains(document.activeElement);
    answer = shown;
    pinned = mostInformative(filter).index;
    fillBounded(slots.question, answer.question ?? '');
    fillVerdict();
    fillStrip();
    fillTokens(filter);
    fillCounts();
    showStep(pinned);
    slots.blind.closest('label').hidden = filter !== 'wrong' || !data.scored;
    if (hadFocus) elementOf(pinned).focus({ preventScroll: true });
  };

  const pager = new EntryPager(root, entriesOf, showAnswer);
  slots.blind.addEventListener('change', () => fillTokens(pager.filter));
  fillFilterCounts();
  pager.choose('all');
};

startReader();
