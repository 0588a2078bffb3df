'use strict';

// The trajectory reader: one sampled answer at a time, token by token.
// Text is only ever added as text nodes, so model output is never parsed as markup.

const count = (number) => number.toLocaleString('en-US');

const make = (name, properties, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

// Text that may be written from right to left, kept from reordering its neighbours.
const isolated = (text) => make('bdi', {}, text);

const labelled = (label, value) => make('span', {}, `${label} `, make('b', {}, isolated(value)));

// j and k page everywhere in the section, arrows only where they have no other meaning.
const PAGE_KEYS = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1 };

// JSON that is compressed with gzip and encoded in base64.
const readData = (encoded) => {
  const bytes = Uint8Array.from(atob(encoded), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Response(stream).json();
};

const startReader = (root, data) => {
  // The elements that this script fills, by their data-is attribute.
  const elements = [...root.querySelectorAll('[data-is]')];
  const slots = Object.fromEntries(elements.map((element) => [element.dataset.is, element]));
  let filter = 'all';
  let entries = []; // the answers that match the filter
  let entry = 0; // the index of the one on show
  let answer = null; // the answer on show
  let matching = []; // its steps that match the filter
  let pinned = 0; // the step that the panel returns to after hovering

  // Each list of an answer has one entry per step. A step is one generated token.
  const stepsOf = (item) => {
    const columns = Object.entries(item).filter(([, value]) => Array.isArray(value));
    return item.token.map((_, index) => ({
      index,
      isWrong: item.correct === false,
      ...Object.fromEntries(columns.map(([name, values]) => [name, values[index]])),
    }));
  };
  const answers = data.answers.map((item) => ({ ...item, steps: stepsOf(item) }));

  const tests = {
    all: () => true,
    kept: (step) => step.kept === 1,
    moving: (step) => step.moving === 1, // the label prefers another token than the expert
    differ: (step) => step.same_top1 === 0,
    wrong: (step) => step.isWrong,
  };
  const entriesOf = (name) => answers.filter((item) => item.steps.some(tests[name]));

  // ── texts ──

  // Visible signs for white space: in token names everywhere, in the answer only for blank tokens.
  const GLYPHS = { ' ': '␣', '\n': '⏎', '\t': '⇥' };
  const visible = (text) => text.replace(/[ \n\t]/g, (sign) => GLYPHS[sign]) || '∅';
  const nats = (value) => (value === null ? 'not scored' : `${value.toFixed(3)} nats`);
  const share = (value) => {
    if (value === null) return '–';
    return value < 0.0005 ? '< 0.001' : value.toFixed(3); // the file's precision
  };

  // ── the answer ──

  const shadeOf = ({ kl }) => {
    if (!data.scored) return 's0'; // if nothing was scored, no step is marked as unscored
    return kl === null ? 'unscored' : `s${data.shades.filter((edge) => kl >= edge).length}`;
  };

  const marksOf = (step) => `${step.kept ? 'kept' : ''} ${step.moving ? 'moving' : ''}`;

  const tokenElement = (step) => {
    const text = data.tokens[step.token];
    // A blank token is shown as a sign, but still breaks the line.
    const shown = text.trim() ? text : visible(text).replaceAll('⏎', '⏎\n');
    const looks = ['t', shadeOf(step), marksOf(step), matching.includes(step) ? '' : 'dim'];
    const element = make('span', { className: looks.join(' '), role: 'option', tabIndex: -1 }, shown);
    element.dataset.step = step.index;
    return element;
  };

  // One bar per step, as high as its divergence.
  const fillStrip = () => {
    const highest = Math.max(...answer.steps.map((step) => step.kl), data.beta);
    const bars = answer.steps.map((step) => {
      const bar = make('i', { className: marksOf(step) });
      bar.style.setProperty('--share', highest && step.kl / highest);
      return bar;
    });
    slots.strip.replaceChildren(...bars);
    slots.strip.style.setProperty('--beta', highest && data.beta / highest);
    slots.highest.textContent = nats(highest);
  };

  const showAnswer = () => {
    const hadFocus = slots.tokens.contains(document.activeElement);
    answer = entries[entry];
    matching = answer.steps.filter(tests[filter]);
    slots.question.textContent = answer.question;
    slots.question.scrollTop = slots.verdict.scrollTop = 0;
    const facts = [
      answer.correct !== null &&
        make('span', { className: answer.correct ? 'right' : 'wrong' }, answer.correct ? '✓ right' : '✗ wrong'),
      answer.predicted === null
        ? answer.correct !== null && 'no answer extracted'
        : labelled('extracted answer', answer.predicted),
      answer.finished === false && 'stopped by the length limit',
      answer.reference !== null && labelled('reference', answer.reference),
      isolated(answer.id ?? ''),
    ];
    slots.verdict.replaceChildren(...facts.filter(Boolean).flatMap((fact) => [' · ', fact]).slice(1));
    if (data.scored) fillStrip();
    slots.tokens.replaceChildren(...answer.steps.map(tokenElement));
    const [length, kept, moving, differing] = ['all', 'kept', 'moving', 'differ'].map((name) =>
      count(answer.steps.filter(tests[name]).length),
    );
    const cut = answer.steps.length < answer.tokens_total;
    const total = cut ? ` (the first of ${count(answer.tokens_total)})` : '';
    const top1 = data.amateur ? `, top-1 differs at ${differing}` : '';
    slots.counts.textContent = `${length} tokens${total}, ${kept} kept, ${moving} moving${top1}.`;
    // Start with the step of the largest divergence.
    pin(matching.reduce((best, step) => (step.kl > best.kl ? step : best)).index);
    if (hadFocus) select(pinned);
  };

  // ── the panel ──

  const candidateRow = ([token, expert, amateur, isInMask, label], step) => {
    const name = visible(data.tokens[token]);
    const bar = (kind, value, text = share(value)) => {
      const cell = make('td', { className: `share ${kind}` }, text);
      cell.style.setProperty('--share', value);
      return cell;
    };
    const row = make('tr', { className: data.alpha !== null && !isInMask ? 'outside' : '' });
    const mark = token === step.token ? ' ◂' : '';
    row.append(make('th', { scope: 'row', title: name }, isolated(name), mark));
    row.append(bar('expert', expert));
    if (data.amateur) row.append(bar('amateur', amateur));
    if (data.alpha !== null) row.append(make('td', {}, isInMask ? '✓' : '–'));
    // The label is exactly 0 outside the mask.
    row.append(bar('label', label, label === 0 ? '0' : share(label)));
    return row;
  };

  const showStep = (index) => {
    const step = answer.steps[index];
    slots.token.textContent = visible(data.tokens[step.token]);
    const differs = tests.differ(step) ? ' · top-1 differs' : '';
    const place = `step ${count(index + 1)} of ${count(answer.steps.length)}`;
    slots.place.textContent = `${place} · ${step.kept ? 'kept' : 'not kept'}${step.moving ? ', moving' : ''}${differs}`;
    ['kl', 'expert_entropy', 'amateur_entropy'].forEach((name) => {
      if (slots[name]) slots[name].textContent = nats(step[name]);
    });
    if (slots.mask_size) slots.mask_size.textContent = step.mask_size ?? '–';
    const candidates = step.candidates ?? [];
    slots.candidates.replaceChildren(...candidates.map((one) => candidateRow(one, step)));
    slots.candidates.parentElement.hidden = candidates.length === 0;
    slots.unrecorded.hidden = candidates.length > 0;
  };

  // ── selecting a token ──

  const select = (index) => slots.tokens.children[index]?.focus();

  const pin = (index) => {
    pinned = index;
    [...slots.tokens.children].forEach((element, position) => {
      element.ariaSelected = String(position === pinned);
      element.tabIndex = position === pinned ? 0 : -1;
    });
    showStep(pinned);
  };

  // The matching step that a key leads to; undefined if there is none.
  const moves = {
    Home: () => matching[0],
    End: () => matching.at(-1),
    ArrowRight: () => matching.find((step) => step.index > pinned),
    ArrowLeft: () => matching.findLast((step) => step.index < pinned),
  };
  moves.ArrowDown = moves.ArrowRight;
  moves.ArrowUp = moves.ArrowLeft;

  const onTokenKey = (event) => {
    const { key } = event;
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (key === 'Escape') root.querySelector('button').focus({ preventScroll: true });
    if (!moves[key]) return;
    event.preventDefault();
    select(moves[key]()?.index);
  };

  // ── filtering and paging ──

  const render = () => {
    slots.entry.hidden = entries.length === 0;
    slots.empty.hidden = entries.length > 0;
    slots.position.textContent = `${entries.length && count(entry + 1)} of ${count(entries.length)}`;
    root.querySelectorAll('[data-go]').forEach((button) => {
      button.disabled = !entries[entry + Number(button.dataset.go)];
    });
    if (entries.length > 0) showAnswer();
  };

  // Keeps the current answer if it matches the new filter.
  const choose = (chosen) => {
    filter = chosen;
    entries = entriesOf(filter);
    entry = Math.max(0, entries.indexOf(answer));
    root.querySelectorAll('[data-filter]').forEach((button) => {
      button.ariaPressed = String(button.dataset.filter === filter);
    });
    render();
  };

  const go = (offset) => {
    if (!entries[entry + offset]) return;
    entry += offset;
    render();
  };

  root.addEventListener('click', ({ target }) => {
    const button = target.closest('button')?.dataset ?? {};
    if (button.filter) choose(button.filter);
    if (button.go) go(Number(button.go));
  });
  document.addEventListener('keydown', (event) => {
    const { key, target } = event;
    if (!PAGE_KEYS[key] || event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    if (key.startsWith('Arrow') && target.closest('.scroll, .frame')) return;
    const isTop = target === document.body || target.id === 'content';
    if (!isTop && !root.closest('section').contains(target)) return;
    event.preventDefault();
    go(PAGE_KEYS[key]);
  });
  slots.tokens.addEventListener('focusin', ({ target }) => {
    pin(Number(target.dataset.step));
    // On a narrow screen the panel covers the lower edge; the style sheet sets the margin.
    target.scrollIntoView({ block: 'nearest' });
  });
  slots.tokens.addEventListener('keydown', onTokenKey);
  slots.tokens.addEventListener('click', ({ target }) => select(target.dataset.step));
  slots.tokens.addEventListener('pointerover', ({ target }) => showStep(Number(target.dataset.step ?? pinned)));
  slots.tokens.addEventListener('pointerleave', () => showStep(pinned));
  // Safari does not move the focus to a clicked button.
  root.querySelector('.close').addEventListener('click', () => document.activeElement.blur());
  slots.strip?.addEventListener('click', ({ target }) =>
    select([...slots.strip.children].indexOf(target)),
  );

  root.querySelectorAll('[data-count]').forEach((element) => {
    const test = element.dataset.count;
    const steps = answers.flatMap((item) => item.steps.filter(tests[test]));
    element.textContent = `${count(entriesOf(test).length)} · ${count(steps.length)} steps`;
  });
  choose(filter);
  slots.unstarted.hidden = true;
};

document.querySelectorAll('#the-reader').forEach(async (root) => {
  startReader(root, await readData(document.getElementById('reader-data').textContent));
});
