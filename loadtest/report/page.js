// Draws the charts with uPlot, in the page's colours.
{
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const digits = (v) => v.toLocaleString('en', { maximumSignificantDigits: Math.abs(v) < 1000 ? 3 : 15, maximumFractionDigits: 2 });
  // scaled formats v in the largest unit that it reaches, or in the last one.
  const scaled = (units) => (v) => {
    const [size, name] = v === 0 ? [1, ''] : units.find(([least], i) => Math.abs(v) >= least * 0.9995 || i === units.length - 1);
    return `${digits(v / size)} ${name}`.trim();
  };
  const units = {
    s: scaled([[1, 's'], [1e-3, 'ms'], [1e-6, 'µs'], [1e-9, 'ns']]),
    B: scaled([[2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB'], [1, 'B']]),
    '/s': digits,
    cores: digits,
    '': digits,
  };
  const share = (nines) => `${(100 * (1 - 10 ** -nines)).toFixed(Math.max(0, Math.ceil(nines - 1e-9) - 2))} %`;

  // The x axes. For quantiles each further nine has the same width.
  const kinds = {
    time: { label: 'seconds', says: (x) => `${x.toFixed(1)} s` },
    connections: { label: 'open connections', says: digits, points: true },
    percentiles: {
      label: 'percentile',
      says: share,
      from: (q) => -Math.log10(1 - q),
      splits: (u, axis, least, most) => [0, Math.log10(2), 1, 2, 3, 4, 5, 6, 7].filter((x) => x >= least && x <= most),
      logarithmic: true,
    },
  };

  // nearest returns the point to show for a line without a point at the cursor.
  const nearest = (u, series, i, x) => {
    const [xs, ys] = [u.data[0], u.data[series]];
    if (series === 0 || ys[i] != null) return i;
    let [before, after] = [i, i];
    while (before >= 0 && ys[before] == null) before--;
    while (after < xs.length && ys[after] == null) after++;
    if (before < 0) return after;
    return after < xs.length && xs[after] - x < x - xs[before] ? after : before;
  };

  const draw = (plot) => {
    const chart = JSON.parse(plot.querySelector('script').textContent);
    const kind = kinds[chart.kind];
    const says = units[chart.unit];
    const axis = { stroke: color('--soft'), grid: { stroke: color('--grid'), width: 1 }, ticks: { stroke: color('--grid'), width: 1 }, font: '12px system-ui, sans-serif' };
    const data = uPlot.join(chart.series.map((s) => [kind.from ? s.x.map(kind.from) : s.x, s.y]));
    return new uPlot({
      width: plot.clientWidth,
      height: 250,
      cursor: { dataIdx: nearest, y: false },
      scales: { x: { time: false }, y: kind.logarithmic ? { distr: 3 } : { range: (u, least, most) => [0, most > 0 ? most * 1.06 : 1] } },
      axes: [
        { ...axis, label: kind.label, labelFont: '12px system-ui, sans-serif', labelSize: 18, size: 32, grid: { show: false }, splits: kind.splits, values: (u, splits) => splits.map(kind.from ? kind.says : digits) },
        { ...axis, size: 68, values: (u, splits) => splits.map((v) => (v == null ? '' : says(v))), ...(chart.unit === 'B' && { incrs: Array.from({ length: 50 }, (_, i) => 2 ** i) }) },
      ],
      series: [
        { label: 'at', value: (u, x) => (x == null ? '' : kind.says(x)) },
        ...chart.series.map((s) => ({ label: s.name, stroke: color(`--c${s.color}`), width: 2, spanGaps: true, points: { show: Boolean(kind.points) }, value: (u, y) => (y == null ? '' : says(y)) })),
      ],
      legend: { markers: { width: 0, fill: (u, i) => (i > 0 ? color(`--c${chart.series[i - 1].color}`) : null) } },
    }, data, plot);
  };

  for (const plot of document.querySelectorAll('.plot')) {
    let drawn = draw(plot);
    new ResizeObserver(() => drawn.setSize({ width: plot.clientWidth, height: 250 })).observe(plot);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
      drawn.destroy();
      drawn = draw(plot);
    });
  }
}
