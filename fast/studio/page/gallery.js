// Choosing cards by click, shift-click, ctrl-click and keys. What is chosen is told to the program as numbers.
const chosen = new Set();
let focus = null;
let anchor = null;
const cards = () => [...element.querySelectorAll('.card')];
const number = (card) => Number(card.dataset.index);
const paint = () => cards().forEach((card) => card.classList.toggle('chosen', chosen.has(number(card))));
const tell = () => { paint(); trigger('select', { chosen: [...chosen], focus: focus }); };

const pick = (card, event) => {
  const all = cards();
  if (event.shiftKey && anchor !== null) {
    const places = all.map(number);
    const ends = [places.indexOf(anchor), all.indexOf(card)].sort((a, b) => a - b);
    if (ends[0] >= 0) places.slice(ends[0], ends[1] + 1).forEach((n) => chosen.add(n));
  } else if (event.ctrlKey || event.metaKey) {
    if (chosen.has(number(card))) chosen.delete(number(card)); else chosen.add(number(card));
    anchor = number(card);
  } else {
    chosen.clear();
    chosen.add(number(card));
    anchor = number(card);
  }
  focus = number(card);
  tell();
};

element.addEventListener('click', (event) => {
  const card = event.target.closest('.card');
  if (card) pick(card, event);
});

const press = (name) => document.querySelector('#' + name + ', #' + name + ' button').click();
const typing = (target) => target.closest('input, textarea, select, [contenteditable], [role=listbox]');

document.addEventListener('keydown', (event) => {
  if (!element.offsetParent || typing(event.target) || event.altKey) return;
  const all = cards();
  if ((event.ctrlKey || event.metaKey) && event.key === 'a') {
    all.forEach((card) => chosen.add(number(card)));
    event.preventDefault();
    tell();
    return;
  }
  if (event.ctrlKey || event.metaKey) return;
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step && all.length) {
    const here = all.findIndex((card) => number(card) === focus);
    const next = all[Math.min(all.length - 1, Math.max(0, here + step))];
    next.scrollIntoView({ block: 'nearest' });
    pick(next, event);
    event.preventDefault();
  }
  const button = { a: 'accept', r: 'reject', c: 'clear', u: 'undo' }[event.key];
  if (button) { press(button); event.preventDefault(); }
});

let scrolled = 0;
element.addEventListener('scroll', (event) => { scrolled = event.target.scrollTop; }, true);

// After a decision the cards are new: what is still there stays chosen; where all of it is gone, the next one is.
watch('value', () => {
  const all = cards();
  const grid = element.querySelector('.cards');
  if (grid) grid.scrollTop = scrolled;
  const there = new Set(all.map(number));
  const before = chosen.size;
  [...chosen].forEach((n) => { if (!there.has(n)) chosen.delete(n); });
  if (before && !chosen.size && all.length) {
    const next = all.find((card) => number(card) > (focus ?? -1)) || all[all.length - 1];
    focus = anchor = number(next);
    chosen.add(focus);
    tell();
  } else if (before !== chosen.size) {
    tell();
  } else {
    paint();
  }
});
