"use strict";
// Draws the time line of an lmk report. What is drawn and what it is compared with was decided by lmk/report/html_model.py.
(async () => {
  const $ = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === false || value == null) continue;
      if (name === "class") node.className = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child != null));
    return node;
  };

  const model = await (async () => {
    const packed = Uint8Array.from(atob($("#data").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  })();
  const word = (number) => model.words[number];
  const root = document.documentElement;
  const color = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const narrow = matchMedia("(max-width: 640px)");
  const side = matchMedia("(min-width: 1100px)");
  const gutter = () => (narrow.matches ? 44 : 56);
  const margin = () => (narrow.matches ? 8 : 12);

  // ---- theme

  const themes = ["auto", "light", "dark"];
  const system = matchMedia("(prefers-color-scheme: dark)");
  const names = { auto: "◐ Auto", light: "○ Light", dark: "● Dark" };
  let theme = "auto";
  const charts = [];
  const applyTheme = () => {
    root.dataset.theme = theme === "auto" ? (system.matches ? "dark" : "light") : theme;
    const button = $("#theme");
    button.textContent = names[theme];
    button.setAttribute("aria-label", `Colours: ${theme === "auto" ? "as the system says" : theme}`);
    for (const chart of charts) chart.redraw(false, true);
  };
  $("#theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    applyTheme();
  });
  system.addEventListener("change", applyTheme);

  // ---- time

  const clock = (seconds, step = 0) => {
    const long = model.extent[1] - model.extent[0] > 7200;
    if (!long) return `${seconds.toFixed(step && step < 1 ? 1 : 0)}`;
    const minutes = Math.floor(Math.abs(seconds) / 60);
    const text = `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}`;
    const rest = step && step < 60 ? `:${String(Math.floor(Math.abs(seconds) % 60)).padStart(2, "0")}` : "";
    return (seconds < 0 ? "−" : "") + text + rest;
  };
  const exact = (seconds) => (model.extent[1] - model.extent[0] > 7200 ? clock(seconds, 1) : `${seconds.toFixed(2)} s`);
  let view = [...model.extent];
  const setView = (low, high) => {
    const [first, last] = model.extent;
    const least = Math.min(0.5, last - first);
    if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2];
    view = [Math.max(first, low), Math.min(last, high)];
    for (const chart of charts) chart.setScale("x", { min: view[0], max: view[1] });
    placeKills();
  };
  const zoom = (factor) => {
    const middle = selected ? kill(selected).t : (view[0] + view[1]) / 2;
    const half = ((view[1] - view[0]) / 2) * factor;
    setView(middle - half, middle + half);
  };
  $("#zoom-in").addEventListener("click", () => zoom(0.5));
  $("#zoom-out").addEventListener("click", () => zoom(2));
  $("#zoom-all").addEventListener("click", () => setView(...model.extent));

  // ---- kills

  let selected = null; // [run, index]
  const kill = ([run, index]) => model.runs[run].kills[index];
  const same = (a, b) => a && b && a[0] === b[0] && a[1] === b[1];
  const buttons = model.runs.map(() => []);
  const strips = all(".strip");

  const buildStrip = (strip, run) => {
    if (model.runs.length > 1) strip.append(make("i", { class: `run run${run}` }, String.fromCharCode(65 + run)));
    const kills = model.runs[run].kills;
    if (!kills.length) strip.append(make("div", { class: "none" }, make("span", {}, "no kills")));
    kills.forEach((one, index) => {
      const button = make("button", {
        type: "button",
        class: `t-${one.group}${one.kernel ? " kernel" : ""}${one.dry ? " dry" : ""}`,
        tabindex: index ? "-1" : "0",
        "aria-pressed": "false",
        "aria-label": `Kill ${one.n} at ${exact(one.t)}: ${one.name}, ${one.tier} ${one.adj ?? ""}, ${one.reason}`,
        onclick: () => select([run, index]),
        onfocus: (event) => event.target.matches(":focus-visible") && select([run, index]),
        onmouseenter: (event) => { show([run, index]); tip(event, `#${one.n} ${one.name}\n${one.tier} ${one.adj ?? ""} · ${one.reason}`); },
        onmouseleave: () => { hideTip(); show(selected); },
      });
      buttons[run].push(button);
      strip.append(button);
    });
    strip.addEventListener("keydown", (event) => {
      const here = buttons[run].indexOf(document.activeElement);
      const last = kills.length - 1;
      const to = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: last }[event.key];
      if (event.key === "Escape") select(null);
      if (here < 0 || to === undefined) return;
      event.preventDefault();
      const index = Math.max(0, Math.min(last, to));
      select([run, index]);
      buttons[run][index].focus();
    });
  };

  const placeKills = () => {
    const [low, high] = view;
    model.runs.forEach((run, number) => {
      // Kills in quick succession go into rows below each other, so that a storm looks like one.
      const width = strips[number].clientWidth || 600;
      const visible = run.kills.filter((one) => one.t >= low && one.t <= high).length;
      const dense = visible > (3 * width) / 14;
      strips[number].classList.toggle("dense", dense);
      const taken = [-99, -99, -99];
      run.kills.forEach((one, index) => {
        const place = (one.t - low) / (high - low);
        const x = place * width;
        const free = taken.findIndex((last) => x - last >= (dense ? 6 : 13));
        const row = free < 0 ? taken.indexOf(Math.min(...taken)) : free;
        taken[row] = x;
        const button = buttons[number][index];
        button.style.left = `${place * 100}%`;
        button.style.top = `${row * 14 + 3}px`;
        button.style.visibility = place < -0.001 || place > 1.001 ? "hidden" : "";
      });
    });
  };

  const select = (which) => {
    selected = which;
    buttons.forEach((row, run) => row.forEach((button, index) => {
      const on = same(which, [run, index]);
      button.setAttribute("aria-pressed", String(on));
      button.tabIndex = on || ((!which || which[0] !== run) && index === 0) ? 0 : -1;
    }));
    all(".kills tbody tr").forEach((row) => row.classList.toggle("on", same(which, [+row.dataset.run, +row.dataset.kill])));
    if (which && (kill(which).t < view[0] || kill(which).t > view[1])) {
      const half = (view[1] - view[0]) / 2;
      setView(kill(which).t - half, kill(which).t + half);
    }
    show(which);
    $("#inspector").classList.toggle("open", Boolean(which));
    for (const chart of charts) chart.redraw(false, true);
    for (const update of updates) update(null);
  };

  const inspector = $("#inspector");
  let shown;
  const show = (which) => {
    if (shown !== undefined && (shown === which || same(shown, which))) return;
    shown = which;
    inspector.replaceChildren(...(which ? explanation(which) : nothing()));
    inspector.scrollTop = 0;
  };
  const nothing = () => {
    const count = model.runs.reduce((sum, run) => sum + run.kills.length, 0);
    if (!count) return [make("h3", {}, "No kills"), make("p", { class: "when" }, "No process was killed, so there is nothing to explain. The charts show how near the thresholds came.")];
    return [make("h3", {}, "Why did it die?"), make("p", { class: "when" }, "Point at a kill above the charts, or select it, to read which rule fired, what it compared, and what would have changed it.")];
  };
  const explanation = (which) => {
    const [run, index] = which;
    const one = kill(which);
    const kills = model.runs[run].kills;
    const why = one.why;
    const step = (to, name, label) => make("button", { type: "button", "aria-label": label, disabled: to < 0 || to >= kills.length, onclick: () => select([run, to]) }, name);
    const close = make("button", { type: "button", class: "sheet-close", "aria-label": "Close", onclick: () => select(null) }, "✕");
    const fired = why.rules.filter((rule) => word(rule.outcome) === "fired");
    const whose = model.runs.length > 1 ? `${model.runs[run].label} · ` : "";
    const what = one.dry ? "would have been killed" : one.by ? `killed by ${one.by}` : "killed";
    const nodes = [
      make("nav", {}, step(index - 1, "‹", "Previous kill"), step(index + 1, "›", "Next kill"), close),
      make("h3", {}, one.name),
      make("p", { class: "when" }, `${whose}kill ${one.n} at ${exact(one.t)} · ${what}`),
      make("p", {}, make("span", { class: `chip t-${one.group}` }, `${one.tier} ${one.adj ?? ""}`)),
      make("p", {}, word(why.head)),
      ...fired.map(ruleNode),
    ];
    if (why.changes.length) nodes.push(make("h4", {}, "What would have changed it"), ...why.changes.map((change) => make("p", {}, word(change))));
    const facts = one.facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
    nodes.push(make("h4", {}, "The kill"), make("dl", { class: "facts" }, ...facts));
    if (why.rules.length) nodes.push(make("h4", {}, "Every rule, in lmkd’s order"), ...why.rules.map(ruleNode));
    if (why.log.length) nodes.push(make("h4", {}, "What the log says"), ...why.log.map((line) => make("p", {}, make("code", {}, word(line)))));
    const text = why.text.map(word).join("\n");
    nodes.push(make("button", { type: "button", class: "copy", onclick: (event) => copy(event.target, text) }, "Copy as text"));
    return nodes;
  };
  const ruleNode = (rule) => {
    const outcome = word(rule.outcome);
    const off = outcome === "not reached" || outcome === "not in this release";
    const items = rule.conditions.map(([text, holds, gap]) =>
      make("li", { class: holds ? "yes" : "no" }, make("span", {}, word(text)), word(gap) ? make("em", {}, ` (${word(gap)})`) : null));
    return make("div", { class: `rule${outcome === "fired" ? " fired" : ""}${off ? " off" : ""}` },
      make("b", {}, word(rule.name)), make("span", {}, outcome), make("ul", {}, ...items));
  };
  const copy = async (button, text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea", { "aria-hidden": "true" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
  };

  const tipNode = make("div", { id: "tip", role: "presentation" });
  document.body.append(tipNode);
  const tip = (event, text) => {
    tipNode.innerText = text;
    tipNode.style.visibility = "visible";
    const x = Math.min(event.clientX + 14, innerWidth - tipNode.offsetWidth - 8);
    const y = event.clientY + 18 + tipNode.offsetHeight > innerHeight ? event.clientY - tipNode.offsetHeight - 12 : event.clientY + 18;
    tipNode.style.left = `${Math.max(8, x)}px`;
    tipNode.style.top = `${y}px`;
  };
  const hideTip = () => { tipNode.style.visibility = "hidden"; };

  // ---- charts

  const sync = uPlot.sync("lmk");
  const updates = [];
  const font = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';
  const alpha = (value, share) => `color-mix(in srgb, ${value} ${share}%, transparent)`;
  const xAxis = (top = false) => ({
    side: top ? 0 : 2, size: 26, gap: 4, font, stroke: () => color("muted"), space: 70,
    grid: { stroke: () => color("grid"), width: 1 }, ticks: { show: false },
    incrs: model.extent[1] - model.extent[0] > 7200 ? [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 14400, 21600] : undefined,
    values: (_, splits) => splits.map((split, i) => clock(split, i ? split - splits[i - 1] : splits[1] - split) + (i === 0 && model.extent[1] - model.extent[0] <= 7200 ? " s" : "")),
  });
  const common = (height) => ({
    width: 300, height, pxAlign: true, legend: { show: false },
    padding: [8, margin(), 0, 0],
    cursor: { sync: { key: sync.key, setSeries: false }, drag: { x: true, y: false, setScale: false }, points: { size: 6 }, y: false },
  });
  const LINES_MAX = 120;
  const killLines = (chart) => {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    const visible = model.runs[0].kills.filter((one) => one.t >= view[0] && one.t <= view[1]).length;
    const few = model.runs.length === 1 && visible <= LINES_MAX; // more would hide the charts
    model.runs.forEach((run, number) => run.kills.forEach((one, index) => {
      const on = same(selected, [number, index]);
      if (!on && !few) return;
      const x = Math.round(chart.valToPos(one.t, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) return;
      ctx.strokeStyle = on ? color("text") : alpha(color(`t-${one.group}`), 50);
      ctx.lineWidth = (on ? 1.5 : 1) * devicePixelRatio;
      ctx.setLineDash(on ? [] : [2 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }));
    ctx.restore();
  };
  const limitLines = (chart, limits) => {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.font = `${11 * devicePixelRatio}px system-ui, "DejaVu Sans", sans-serif`;
    ctx.textAlign = "right";
    for (const limit of limits) {
      const y = Math.round(chart.valToPos(limit.value, "y", true));
      if (y < bbox.top || y > bbox.top + bbox.height) continue;
      ctx.strokeStyle = ctx.fillStyle = color(limit.color);
      ctx.lineWidth = 1.5 * devicePixelRatio;
      ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      const above = y - bbox.top > 18 * devicePixelRatio;
      const right = bbox.left + bbox.width - 6 * devicePixelRatio;
      const base = y + (above ? -5 : 14) * devicePixelRatio;
      const wide = ctx.measureText(limit.label).width;
      ctx.fillStyle = alpha(color("card"), 80);
      ctx.fillRect(right - wide - 4 * devicePixelRatio, base - 11 * devicePixelRatio, wide + 8 * devicePixelRatio, 14 * devicePixelRatio);
      ctx.fillStyle = color(limit.color);
      ctx.fillText(limit.label, right, base);
    }
    ctx.restore();
  };
  const zoomTo = (chart) => {
    const { left, width } = chart.select;
    if (width < 4) return;
    const [low, high] = [chart.posToVal(left, "x"), chart.posToVal(left + width, "x")];
    for (const other of charts) other.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    setView(low, high);
  };
  const number = (value) => value == null ? "–" : Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(1);
  // A chart's own rows, looked up by time: the joined table has holes where another line has a row.
  const valueAt = (times, values, t, step) => {
    if (!times.length || t < times[0]) return null;
    let low = 0;
    let high = times.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (times[middle] <= t) low = middle; else high = middle - 1;
    }
    const next = Math.min(low + 1, times.length - 1);
    const near = !step && Math.abs(times[next] - t) < Math.abs(times[low] - t) ? next : low;
    return values[near];
  };

  const logSplits = (low, high) => {
    const steps = [];
    for (let decade = 1; decade < high; decade *= 10) steps.push(...[1, 3].map((step) => step * decade));
    return steps.filter((step) => step > low && step < high);
  };

  const buildPanel = (panel) => {
    const flat = panel.tables.flatMap((table) => table.slice(1).map((values) => ({ times: table[0], values })));
    const node = make("div", { class: "panel", id: `panel-${panel.id}` });
    const shows = panel.lines.map(() => make("b", {}, "–"));
    const values = make("div", { class: "values" }, ...panel.lines.map((line, index) => {
      const mark = line.points ? `dot${line.hollow ? " hollow" : ""}` : line.step ? "dash" : "";
      return make("span", {}, make("i", { class: mark, style: `--c: var(--${line.color})` }), line.label, shows[index]);
    }));
    const plot = make("div", { class: "plot", role: "img", "aria-label": describe(panel, flat) });
    node.append(make("h3", {}, panel.title, make("small", {}, `${panel.unit}${panel.hint ? ` · ${panel.hint}` : ""}`)), values, plot);
    $("#panels").append(node);
    const greatest = Math.max(0, ...flat.flatMap(({ values: some }) => some.reduce((most, value) => Math.max(most, value ?? 0), 0)), ...panel.limits.map((limit) => limit.value * 1.1));
    const top = Math.max(1, greatest * 1.05);
    const bottom = panel.logFrom ? Math.min(panel.logFrom, top / 10) : 0;
    const empty = panel.tables.filter((table) => table[0].length);
    const joined = empty.length ? uPlot.join(panel.tables.map((table) => table), panel.tables.map((table) => table.slice(1).map(() => 0)).map((modes) => [0, ...modes])) : [[]];
    const options = {
      ...common(panel.height),
      scales: { x: { time: false, range: () => view }, y: { distr: panel.logFrom ? 3 : 1, range: () => [bottom, top] } },
      axes: [xAxis(), {
        size: gutter(), gap: 6, font, stroke: () => color("muted"), grid: { stroke: () => color("grid"), width: 1 }, ticks: { show: false }, space: 34,
        ...(panel.logFrom ? { splits: () => logSplits(bottom, top), filter: (_, splits) => splits } : {}),
      }],
      series: [{}, ...panel.lines.map((line) => ({
        label: line.label,
        stroke: () => color(line.color),
        width: line.points ? 0 : line.width ?? 1.25,
        dash: line.step ? [6, 4] : undefined,
        spanGaps: true,
        fill: line.fill ? () => alpha(color(line.color), 12) : undefined,
        paths: line.points ? () => null : line.step ? uPlot.paths.stepped({ align: 1 }) : uPlot.paths.linear(),
        points: { show: Boolean(line.points), size: 5, width: 1.25, fill: () => color(line.hollow ? "card" : line.color), stroke: () => color(line.color) },
      }))],
      hooks: {
        drawClear: [killLines],
        draw: [(chart) => limitLines(chart, panel.limits)],
        setSelect: [zoomTo],
        setCursor: [(chart) => update(chart.cursor.left >= 0 ? chart.posToVal(chart.cursor.left, "x") : null)],
      },
    };
    const chart = new uPlot(options, joined, plot);
    const update = (t) => {
      const at = t ?? (selected ? kill(selected).t : null);
      panel.lines.forEach((line, index) => {
        shows[index].textContent = at == null ? "–" : number(valueAt(flat[index].times, flat[index].values, at, line.step));
      });
    };
    updates.push(update);
    register(chart, plot);
  };
  const describe = (panel, flat) => `${panel.title}. ` + panel.lines.map((line, index) => {
    const known = flat[index].values.filter((value) => value != null);
    if (!known.length) return `${line.label}: not recorded`;
    const [low, high] = known.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    return `${line.label}: ${number(low)} to ${number(high)} ${panel.unit}`;
  }).join("; ");

  const observer = new ResizeObserver((entries) => {
    for (const entry of entries) {
      const width = Math.floor(entry.contentRect.width);
      const chart = entry.target.chart;
      if (width > 0 && chart.width !== width) chart.setSize({ width, height: chart.height });
    }
    placeKills();
  });
  const register = (chart, holder) => {
    charts.push(chart);
    sync.sub(chart);
    holder.chart = chart;
    chart.setSize({ width: Math.max(120, Math.floor(holder.clientWidth)), height: chart.height });
    observer.observe(holder);
    // A click near a kill's line selects it.
    chart.over.addEventListener("click", (event) => {
      const t = chart.posToVal(event.offsetX, "x");
      const reach = ((view[1] - view[0]) / chart.over.clientWidth) * 6;
      let best = null;
      model.runs.forEach((run, number) => run.kills.forEach((one, index) => {
        const away = Math.abs(one.t - t);
        if (away <= reach && (!best || away < Math.abs(kill(best).t - t))) best = [number, index];
      }));
      if (best) select(best);
    });
    chart.over.addEventListener("dblclick", () => setView(...model.extent));
  };

  // ---- processes

  const ROW = 30;
  const buildLanes = (run, holder) => {
    const draw = (lanes, plot) => {
      const height = lanes.length * ROW + 30;
      const options = {
        ...common(height),
        scales: { x: { time: false, range: () => view }, y: { range: () => [lanes.length, 0] } },
        axes: [xAxis(true), { show: false, size: gutter() }],
        series: [{}, { paths: () => null, points: { show: false } }],
        padding: [0, margin(), 4, gutter()],
        hooks: {
          drawClear: [killLines],
          draw: [(chart) => drawLanes(chart, lanes)],
          setSelect: [zoomTo],
        },
      };
      const chart = new uPlot(options, [[...model.extent], [null, null]], plot);
      register(chart, plot);
      chart.over.addEventListener("mousemove", (event) => {
        const found = barAt(chart, lanes, event);
        found ? tip(event, found) : hideTip();
      });
      chart.over.addEventListener("mouseleave", hideTip);
      return chart;
    };
    const lanes = model.runs[run].lanes;
    const apps = lanes.filter((lane) => !lane.system);
    const box = make("input", { type: "checkbox" });
    const title = make("div", { class: "lanes-title" },
      make("h3", { style: "margin:0" }, model.runs.length > 1 ? make("i", { class: `run run${run}` }, String.fromCharCode(65 + run)) : null, "Processes"),
      apps.length < lanes.length ? make("label", {}, box, `show ${lanes.length - apps.length} that nobody may kill`) : null);
    const plot = make("div", { class: "plot", role: "img", "aria-label": `Processes over time: ${apps.map((lane) => `${lane.name}, ${lane.starts} times started, ${lane.kills} killed`).join("; ")}` });
    holder.append(title, make("div", { class: "lanes" }, plot));
    let chart = null;
    const again = () => {
      if (chart) {
        charts.splice(charts.indexOf(chart), 1);
        sync.unsub(chart);
        observer.unobserve(plot);
        chart.destroy();
      }
      chart = draw(box.checked ? lanes : apps, plot);
    };
    box.addEventListener("change", again);
    if (!lanes.length) return holder.append(make("p", { class: "empty" }, "This record names no processes."));
    if (!apps.length) box.checked = true;
    return again();
  };
  const drawLanes = (chart, lanes) => {
    const { ctx, bbox } = chart;
    const px = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left - 4 * px, bbox.top, bbox.width + 8 * px, bbox.height);
    ctx.clip();
    ctx.textBaseline = "alphabetic";
    ctx.textAlign = "left";
    const palette = new Map();
    const paint = (group) => palette.get(group) ?? palette.set(group, color(`t-${group}`)).get(group);
    const ink = color("text");
    const faint = color("muted");
    lanes.forEach((lane, row) => {
      const top = chart.valToPos(row, "y", true);
      const y = top + 17 * px;
      const high = 9 * px;
      for (const bar of lane.bars) {
        for (const [begin, end, , group] of bar.spans) {
          const left = Math.max(bbox.left, chart.valToPos(begin, "x", true));
          const right = Math.min(bbox.left + bbox.width, chart.valToPos(end, "x", true));
          if (right < bbox.left || left > bbox.left + bbox.width) continue;
          ctx.fillStyle = paint(group);
          ctx.fillRect(left, y, Math.max(px, right - left), high);
        }
        const last = bar.spans.at(-1);
        const x = last && chart.valToPos(last[1], "x", true);
        if (bar.ended === "killed" && x >= bbox.left && x <= bbox.left + bbox.width) {
          ctx.fillStyle = ink;
          ctx.fillRect(x - px, y - 2 * px, 2 * px, high + 4 * px);
        }
      }
      ctx.font = `${11.5 * px}px system-ui, "DejaVu Sans", sans-serif`;
      ctx.fillStyle = ink;
      ctx.fillText(lane.name, bbox.left, top + 13 * px);
      const wide = ctx.measureText(lane.name).width;
      const notes = [lane.starts > 1 ? `${lane.starts} starts` : "", lane.kills ? `${lane.kills} killed` : ""].filter(Boolean).join(", ");
      ctx.fillStyle = faint;
      ctx.fillText(notes, bbox.left + wide + 10 * px, top + 13 * px);
    });
    ctx.restore();
  };
  const barAt = (chart, lanes, event) => {
    const lane = lanes[Math.floor(event.offsetY / (chart.over.clientHeight / lanes.length))];
    const t = chart.posToVal(event.offsetX, "x");
    for (const bar of lane?.bars ?? []) {
      const span = bar.spans.find(([begin, end]) => begin <= t && t <= end);
      if (!span) continue;
      const adj = span[2] == null ? "adj not recorded" : `adj ${span[2]}, ${span[3]}`;
      const end = bar.ended ? `; ${bar.ended} at ${exact(bar.spans.at(-1)[1])}` : "";
      return `${lane.name} (pid ${bar.pid})\n${adj} from ${exact(span[0])} to ${exact(span[1])}${end}`;
    }
    return null;
  };

  // ---- all of it

  root.dataset.theme = system.matches ? "dark" : "light";
  strips.forEach((strip, run) => buildStrip(strip, run));
  for (const panel of model.panels) buildPanel(panel);
  if (!model.panels.length) $("#panels").append(make("p", { class: "empty" }, "This record holds no samples, so there is nothing to draw over time."));
  model.runs.forEach((_, run) => buildLanes(run, $("#lanes")));
  all(".kills tbody tr").forEach((row) => row.addEventListener("click", () => select([+row.dataset.run, +row.dataset.kill])));
  placeKills();
  applyTheme();
  show(null);
  const asked = /^#kill-(\d+)$/.exec(location.hash);
  const place = asked ? model.runs[0].kills.findIndex((one) => one.n === Number(asked[1])) : -1;
  if (place >= 0) select([0, place]);
  side.addEventListener("change", () => select(selected));
  root.dataset.ready = "true";
})();
