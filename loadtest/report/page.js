// Shows the values under the pointer in each chart. The page is complete without.
for (const plot of document.querySelectorAll('.plot')) {
  const svg = plot.querySelector('svg');
  const tip = plot.querySelector('.tip');
  const cross = svg.querySelector('.cross');
  const series = JSON.parse(plot.querySelector('script').textContent) ?? [];
  const nearest = (at, x) => at.reduce((best, v, i) => (Math.abs(v - x) < Math.abs(at[best] - x) ? i : best), 0);
  const text = (tag, content, className) => Object.assign(document.createElement(tag), { textContent: content, className: className ?? '' });

  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const anchor = series.map((s) => s.at[nearest(s.at, x)]).sort((a, b) => Math.abs(a - x) - Math.abs(b - x))[0];
    if (anchor === undefined) return;
    cross.setAttribute('x1', anchor);
    cross.setAttribute('x2', anchor);
    cross.setAttribute('visibility', 'visible');
    const first = series.find((s) => s.at[nearest(s.at, x)] === anchor);
    tip.replaceChildren(text('b', first.where[nearest(first.at, x)]));
    for (const s of series) {
      const i = nearest(s.at, anchor);
      if (Math.abs(s.at[i] - anchor) > 30) continue;
      const row = document.createElement('div');
      row.append(text('span', '', `dot c${s.color}`), `${s.name}: ${s.says[i]}`);
      tip.append(row);
    }
    tip.hidden = false;
    const left = (anchor / svg.viewBox.baseVal.width) * box.width;
    tip.style.left = `${left + 12 + tip.offsetWidth > box.width ? left - 12 - tip.offsetWidth : left + 12}px`;
  });
  svg.addEventListener('pointerleave', () => {
    tip.hidden = true;
    cross.setAttribute('visibility', 'hidden');
  });
}
