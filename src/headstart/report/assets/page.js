// The page's only script of our own: charts (uPlot), filters, copying, the switch of light and dark, and the refreshing of a served page.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, className = "", text = "") => Object.assign(document.createElement(tag), { className, textContent: text });
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const AXES = { step: "step", tokens: "tokens", flops: "FLOPs", wall_s: "seconds" };
  let data = JSON.parse($("#data").textContent);

  // --- figures as text --------------------------------------------------------------------------------------------------------------

  function short(value) {
    if (value == null || !isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size >= 1e15) return value.toExponential(1).replace("e+", "e");
    for (const [limit, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]])
      if (size >= limit) return +(value / (limit === 1e4 ? 1e3 : limit)).toPrecision(3) + " " + unit;
    if (size !== 0 && size < 1e-3) return value.toExponential(1);
    return String(+value.toPrecision(4));
  }

  // --- the data of a chart ------------------------------------------------------------------------------------------------------------

  function cumulated(differences) { let sum = 0; return differences.map((d) => (sum += d)); }

  function between(axis, step) { // linear between the kept points
    const { xs, ys } = axis;
    let low = 0, high = xs.length - 1;
    if (step <= xs[0]) return ys[0] * (xs[0] > 0 ? step / xs[0] : 1); // the first log step is not the first step
    if (step >= xs[high]) return ys[high];
    while (high - low > 1) { const middle = (low + high) >> 1; if (xs[middle] <= step) low = middle; else high = middle; }
    return ys[low] + ((ys[high] - ys[low]) * (step - xs[low])) / (xs[high] - xs[low]);
  }

  function axisOf(owner, name) {
    const axis = name === "step" ? null : data[owner].axes && data[owner].axes[name];
    return axis ? { xs: cumulated(axis.x), ys: axis.y } : null;
  }

  function specOf(owner, index) { // {title, plateau, series: [{label, x, y}], x in steps or in what the points are measured against}
    const of = data[owner];
    if (!of) return null;
    if (of.together) {
      const series = of.together.flatMap((anchor, i) => {
        const chart = data[anchor] && data[anchor].charts[0];
        if (!chart) return [];
        const one = chart.series.find((s) => s.label === "held out") || chart.series[0];
        return [{ label: of.names[i], x: cumulated(one.x), y: one.y, owner: anchor }];
      });
      const first = data[of.together[0]];
      return { title: of.metric, series, plateau: first ? first.charts[0].plateau : null };
    }
    const chart = of.charts[index];
    return chart && { ...chart, series: chart.series.map((s) => ({ label: s.label, x: s.at || cumulated(s.x), y: s.y, owner })) };
  }

  function tables(spec, state) {
    return spec.series.map((series) => {
      const axis = spec.points ? null : axisOf(series.owner, state.axis);
      const xs = [], ys = [];
      series.x.forEach((step, i) => {
        const x = axis ? between(axis, step) : step;
        if ((state.logX && !(x > 0)) || (xs.length && x <= xs[xs.length - 1])) return;
        xs.push(x);
        ys.push(state.logY && !(series.y[i] > 0) ? null : series.y[i]);
      });
      return [xs, ys];
    });
  }

  function joined(spec, state) {
    const all = tables(spec, state);
    return all.length ? (all.length === 1 ? all[0] : uPlot.join(all)) : [[]];
  }

  // --- drawing ------------------------------------------------------------------------------------------------------------------------

  const states = new Map(); // owner -> what the reader chose
  const built = new Set(); // figures that have a chart
  const stateOf = (owner) => states.get(owner) || states.set(owner, { axis: "step", logX: false, logY: false, zoom: null, hidden: new Set() }).get(owner);

  function marks(owner, state) { // phases shaded, spikes and restarts marked
    const of = data[owner];
    const axis = axisOf(owner, state.axis);
    const place = (step) => (axis ? between(axis, step) : step);
    return {
      under(u) {
        const { ctx, bbox } = u;
        (of.phases || []).forEach(([name, first, last], i) => {
          const x0 = Math.max(bbox.left, i ? u.valToPos(place(first), "x", true) : bbox.left);
          const next = of.phases[i + 1];
          const x1 = Math.min(bbox.left + bbox.width, next ? u.valToPos(place(next[1]), "x", true) : bbox.left + bbox.width);
          if (!(x1 > x0)) return;
          ctx.save();
          if (i % 2) { ctx.fillStyle = colour("--band"); ctx.fillRect(x0, bbox.top, x1 - x0, bbox.height); }
          ctx.fillStyle = colour("--soft");
          ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
          ctx.textBaseline = "bottom";
          if (x1 - x0 > 8 * devicePixelRatio * name.length) ctx.fillText(name, x0 + 6 * devicePixelRatio, bbox.top + bbox.height - 4 * devicePixelRatio);
          ctx.restore();
        });
      },
      over(u, spec) {
        const { ctx, bbox } = u;
        const px = devicePixelRatio;
        ctx.save();
        ctx.beginPath(); ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height); ctx.clip();
        if (spec.plateau != null) {
          const y = u.valToPos(spec.plateau, "y", true);
          ctx.strokeStyle = ctx.fillStyle = colour("--soft");
          ctx.setLineDash([5 * px, 4 * px]); ctx.lineWidth = px;
          ctx.beginPath(); ctx.moveTo(bbox.left, y); ctx.lineTo(bbox.left + bbox.width, y); ctx.stroke();
          ctx.font = `${11 * px}px system-ui, sans-serif`; ctx.textAlign = "right"; ctx.textBaseline = "bottom";
          ctx.fillText(`plateau: unigram entropy ${short(spec.plateau)}`, bbox.left + bbox.width - 6 * px, y - 3 * px);
        }
        ctx.setLineDash([2 * px, 3 * px]); ctx.lineWidth = px; ctx.strokeStyle = colour("--soft");
        for (const step of of.restarts || []) {
          const x = u.valToPos(place(step), "x", true);
          ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
        }
        ctx.fillStyle = colour("--bad"); ctx.setLineDash([]);
        for (const step of of.spikes || []) {
          const x = u.valToPos(place(step), "x", true), y = bbox.top + px;
          ctx.beginPath(); ctx.moveTo(x - 5 * px, y); ctx.lineTo(x + 5 * px, y); ctx.lineTo(x, y + 8 * px); ctx.fill();
        }
        ctx.restore();
      },
    };
  }

  function rangeLogX(u, low, high) { // as it is: whole decades would leave half the chart empty
    return low == null ? [1, 10] : low === high ? [low / 2, high * 2] : [low, high];
  }

  function rangeY(spec, state) {
    return (u, low, high) => {
      if (low == null || high == null) return state.logY ? [1, 10] : [0, 1];
      if (spec.plateau != null && (!state.logY || spec.plateau > 0)) { low = Math.min(low, spec.plateau); high = Math.max(high, spec.plateau); }
      if (state.logY) return low === high ? [low / 2, high * 2] : [low / Math.pow(high / low, 0.05), high * Math.pow(high / low, 0.07)];
      const room = (high - low || Math.abs(high) || 1) * 0.07;
      return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
    };
  }

  function draw(figure) {
    const owner = figure.closest("[data-owner]").dataset.owner, index = +figure.dataset.chart;
    const state = stateOf(owner), spec = specOf(owner, index), host = $(".plot", figure);
    if (figure.chart) figure.chart.destroy();
    if (!spec || !host.clientWidth) return;
    const values = joined(spec, state), mark = marks(owner, state);
    const axis = (more) => ({
      stroke: () => colour("--soft"), grid: { stroke: () => colour("--grid"), width: 1 }, ticks: { show: false },
      font: "12px system-ui, sans-serif", values: (u, splits) => splits.map((v) => (v == null ? "" : short(v))), ...more,
    });
    const chart = new uPlot({
      width: host.clientWidth, height: host.clientHeight, legend: { show: false }, padding: [8, 18, 0, 0],
      scales: { x: { time: false, distr: state.logX ? 3 : 1, ...(state.logX ? { range: rangeLogX } : {}) }, y: { distr: state.logY ? 3 : 1, range: rangeY(spec, state) } },
      axes: [axis({ size: 28, space: 64 }), axis({ size: 52, space: 32 })],
      cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false, setScale: true }, ...(data[owner].together || spec.points ? {} : { sync: { key: owner, scales: ["x", null] } }) },
      series: [{}, ...spec.series.map((series, i) => ({
        label: series.label, width: 1.75, stroke: () => colour(`--s${(i % 8) + 1}`), ...(series.label === "held out" ? { dash: [6, 4] } : {}),
        points: { show: !!spec.points || undefined, size: spec.points ? 7 : 5 }, show: !state.hidden.has(`${index} ${i}`),
      }))],
      hooks: {
        drawClear: [(u) => mark.under(u)],
        draw: [(u) => mark.over(u, spec)],
        setCursor: [(u) => readOut(figure, u)],
        setScale: [(u, key) => { if (key === "x" && u.status === 1 && !spec.points) state.zoom = isWhole(u) ? null : [u.scales.x.min, u.scales.x.max]; }],
      },
    }, values, host);
    figure.chart = chart; figure.spec = spec;
    built.add(figure);
    legend(figure, owner, index, spec);
    if (state.zoom && !spec.points) chart.setScale("x", { min: state.zoom[0], max: state.zoom[1] });
    $(".plot", figure).dataset.ready = "1";
  }

  const isWhole = (u) => { const xs = u.data[0]; return !xs.length || (u.scales.x.min <= xs[0] && u.scales.x.max >= xs[xs.length - 1]); };

  function legend(figure, owner, index, spec) {
    const place = $(".legend", figure), state = stateOf(owner);
    place.replaceChildren(...spec.series.map((series, i) => {
      const button = make("button", `c${(i % 8) + 1}`);
      button.type = "button";
      button.setAttribute("aria-pressed", String(!state.hidden.has(`${index} ${i}`)));
      button.title = "Show or hide";
      const line = make("i", (series.label === "held out" ? "dash " : "") + `c${(i % 8) + 1}`);
      button.append(line, make("span", "ink", series.label), make("output"));
      button.addEventListener("click", () => {
        const key = `${index} ${i}`, shown = state.hidden.has(key);
        state.hidden[shown ? "delete" : "add"](key);
        figure.chart.setSeries(i + 1, { show: shown });
        button.setAttribute("aria-pressed", String(shown));
      });
      return button;
    }), make("span", "at"));
    readOut(figure, figure.chart);
  }

  function valueAt(u, series, index) { // the newest value at or before an index: curves with other log steps are joined
    for (let i = index; i >= 0; i--) if (u.data[series][i] !== undefined) return u.data[series][i];
    return null;
  }

  function readOut(figure, u) {
    const index = u.cursor.idx;
    const at = index == null ? u.data[0].length - 1 : index;
    const state = stateOf(figure.closest("[data-owner]").dataset.owner);
    $$("output", figure).forEach((place, i) => { place.textContent = short(valueAt(u, i + 1, at)); });
    const name = figure.spec ? figure.spec.x_label || AXES[state.axis] : "";
    $(".at", figure).textContent = at < 0 ? "" : `${index == null ? "at the end, " : "at "}${name} ${short(u.data[0][at])}`;
  }

  const say = make("div", "sr");
  say.setAttribute("aria-live", "polite");
  document.body.append(say);

  function onKey(event) {
    const figure = event.currentTarget.closest(".chart"), u = figure.chart;
    if (!u || event.ctrlKey || event.metaKey || event.altKey) return;
    const xs = u.data[0], { min, max } = u.scales.x;
    let at = u.cursor.idx == null ? xs.length - 1 : u.cursor.idx;
    const centre = xs[at], factor = { "+": 0.5, "=": 0.5, "-": 2 }[event.key];
    if (event.key === "ArrowLeft") at--; else if (event.key === "ArrowRight") at++;
    else if (event.key === "Home") at = 0; else if (event.key === "End") at = xs.length - 1;
    else if (factor) {
      const low = centre - (centre - min) * factor, high = centre + (max - centre) * factor;
      zoom(figure, [Math.max(low, xs[0]), Math.min(high, xs[xs.length - 1])]);
      return event.preventDefault();
    } else if (event.key === "0" || event.key === "Escape") { zoom(figure, null); return event.preventDefault(); } else return;
    event.preventDefault();
    at = Math.min(Math.max(at, 0), xs.length - 1);
    if (xs[at] < min || xs[at] > max) u.setScale("x", { min: min + xs[at] - centre, max: max + xs[at] - centre });
    u.setCursor({ left: u.valToPos(xs[at], "x"), top: 10 });
    say.textContent = $(".at", figure).textContent + ": " + $$(".legend button", figure).map((b) => b.textContent.replace(/([^ ]*)$/, " $1")).join(", ");
  }

  function zoom(figure, range) {
    const together = figure.closest("[data-owner]");
    const alone = figure.spec && figure.spec.points; // each has an x of its own
    for (const other of alone ? [figure] : $$(".chart", together)) {
      if (!other.chart) continue;
      const xs = other.chart.data[0];
      if (xs.length) other.chart.setScale("x", range ? { min: range[0], max: range[1] } : { min: xs[0], max: xs[xs.length - 1] });
    }
    if (!alone) stateOf(together.dataset.owner).zoom = range;
  }

  // --- tables behind charts -------------------------------------------------------------------------------------------------------------

  function fillTable(figure) {
    const owner = figure.closest("[data-owner]").dataset.owner, state = stateOf(owner);
    const spec = specOf(owner, +figure.dataset.chart);
    const values = joined(spec, { ...state, logX: false, logY: false });
    const n = values[0].length, rows = Math.min(n, 60), table = make("table");
    const head = table.createTHead().insertRow();
    for (const label of [spec.x_label || AXES[state.axis], ...spec.series.map((s) => s.label)]) head.append(Object.assign(make("th", "num", label), { scope: "col" }));
    const body = table.createTBody();
    for (let r = 0; r < rows; r++) {
      const i = rows < 2 ? 0 : Math.round((r * (n - 1)) / (rows - 1)), row = body.insertRow();
      row.append(Object.assign(make("th", "num", short(values[0][i])), { scope: "row" }));
      for (let s = 1; s < values.length; s++) row.append(make("td", "num", values[s][i] === undefined ? "" : short(values[s][i])));
    }
    $(".data > .scroll", figure).replaceChildren(table);
  }

  // --- wiring -----------------------------------------------------------------------------------------------------------------------------

  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => { if (entry.isIntersecting && !entry.target.chart) draw(entry.target); }), { rootMargin: "400px" });
  const sized = new ResizeObserver((entries) => entries.forEach(({ target, contentRect }) => {
    const figure = target.closest(".chart");
    if (figure.chart && contentRect.width && Math.abs(figure.chart.width - contentRect.width) > 1) figure.chart.setSize({ width: contentRect.width, height: contentRect.height });
  }));

  function wire(root) {
    for (const figure of $$(".chart", root)) {
      seen.observe(figure);
      sized.observe($(".plot", figure));
      $(".plot", figure).addEventListener("keydown", onKey);
      $("details.data", figure).addEventListener("toggle", (event) => { if (event.target.open) fillTable(figure); });
    }
    for (const tools of $$(".tools", root)) {
      const charts = tools.parentElement.querySelector(".charts"), owner = charts.dataset.owner, state = stateOf(owner);
      const again = () => { state.zoom = null; $$(".chart", charts).forEach((f) => { if (f.chart) draw(f); if ($("details.data", f).open) fillTable(f); }); };
      const axis = $("[data-axis]", tools); // measured points have one
      if (axis) axis.addEventListener("change", () => { state.axis = axis.value; again(); });
      for (const button of $$("[data-log]", tools)) button.addEventListener("click", () => {
        const key = button.dataset.log === "x" ? "logX" : "logY";
        state[key] = !state[key];
        button.setAttribute("aria-pressed", String(state[key]));
        again();
      });
      $("[data-reset]", tools).addEventListener("click", () => { for (const figure of $$(".chart", charts)) zoom(figure, null); });
    }
    for (const details of $$("details.settings", root)) details.addEventListener("toggle", () => {
      if (!details.open) return;
      const rows = data[details.closest("details.run").id].settings, width = Math.max(...rows.map(([name]) => name.length));
      $("pre", details).textContent = rows.map(([name, value]) => name.padEnd(width + 2) + value).join("\n");
    });
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const pre = button.parentElement.querySelector("pre");
    try { await navigator.clipboard.writeText(pre.textContent); button.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(pre); button.textContent = "Selected"; }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });

  function openTarget() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", openTarget);

  const filters = $("#filters");
  function filter() {
    const wanted = Object.fromEntries(new FormData(filters)), words = wanted.words.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const card of $$(".card")) {
      const text = card.textContent.toLowerCase();
      const fits = (!wanted.family || card.dataset.family === wanted.family) && (!wanted.data || card.dataset.kinds.split("|").includes(wanted.data))
        && (!wanted.runs || card.dataset.runs === "1") && (!wanted.measured || card.dataset.measured === "1") && words.every((w) => text.includes(w));
      card.hidden = !fits;
      shown += fits;
    }
    $("#filtered").textContent = `${shown} shown`;
  }
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());

  const keep = { get() { try { return localStorage.getItem("headstart-theme"); } catch { return null; } }, set(value) { try { localStorage.setItem("headstart-theme", value); } catch { /* a file without storage */ } } };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  function repaint() { for (const figure of built) if (figure.chart) figure.chart.redraw(false, true); $("#theme").setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"}`); }
  if (["light", "dark"].includes(keep.get())) document.documentElement.dataset.theme = keep.get();
  $("#theme").addEventListener("click", () => { const next = isDark() ? "light" : "dark"; document.documentElement.dataset.theme = next; keep.set(next); repaint(); });
  dark.addEventListener("change", repaint);

  // --- a served page asks for itself again ------------------------------------------------------------------------------------------------

  let tag = null;
  function replaceLive(now) {
    for (const fresh of $$("[data-live]", now)) {
      const old = document.getElementById(fresh.id);
      if (!old || old.innerHTML === fresh.innerHTML) continue;
      const reached = $$("a, button, summary", old).indexOf(document.activeElement), open = $$("details", old).map((d) => d.open);
      old.innerHTML = fresh.innerHTML;
      $$("details", old).forEach((d, i) => { d.open = !!open[i]; });
      if (reached >= 0) ($$("a, button, summary", old)[reached] || old).focus({ preventScroll: true });
    }
  }

  function addNew(now, selector, placeOf) { // what is not here yet, before what follows it there
    for (const fresh of $$(selector, now)) {
      if (document.getElementById(fresh.id)) continue;
      let next = fresh.nextElementSibling;
      while (next && !(next.id && document.getElementById(next.id))) next = next.nextElementSibling;
      const added = document.importNode(fresh, true);
      placeOf(fresh).insertBefore(added, next && document.getElementById(next.id));
      wire(added);
    }
  }

  function replaceSections(now) { // results and runs that are new, and charts of metrics that are new
    addNew(now, "main > section", () => $("#main"));
    addNew(now, ".section[id]", (fresh) => document.getElementById(fresh.parentElement.id));
    addNew(now, "details.run", () => $("#run-sections"));
    for (const fresh of $$("details.run", now)) {
      const old = document.getElementById(fresh.id), charts = $(".charts", fresh), had = $(".charts", old);
      if (charts && !had) {
        const added = document.importNode(fresh, true);
        added.open = old.open;
        old.replaceWith(added);
        wire(added);
      } else if (charts && charts.children.length !== had.children.length) {
        for (const figure of $$(".chart", had)) if (figure.chart) { figure.chart.destroy(); built.delete(figure); }
        had.innerHTML = charts.innerHTML;
        wire(had);
      }
    }
  }

  async function refresh() {
    try {
      const answer = await fetch(location.pathname, { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
      $("#live-note").textContent = "live";
      if (answer.status === 304 || !answer.ok) return;
      tag = answer.headers.get("ETag");
      const now = new DOMParser().parseFromString(await answer.text(), "text/html");
      const before = data;
      data = JSON.parse($("#data", now).textContent);
      replaceLive(now);
      replaceSections(now);
      for (const figure of built) {
        if (!figure.isConnected) { built.delete(figure); continue; }
        const owner = figure.closest("[data-owner]").dataset.owner, parts = [owner, ...((data[owner] || {}).together || [])];
        if (parts.every((part) => JSON.stringify(before[part]) === JSON.stringify(data[part]))) continue;
        const spec = specOf(owner, +figure.dataset.chart), state = stateOf(owner);
        if (!spec || !figure.spec || spec.series.length !== figure.spec.series.length) { draw(figure); continue; }
        const values = joined(spec, state), kept = state.zoom;
        Object.assign(figure.spec, spec);
        figure.chart.setData(values);
        if (kept) figure.chart.setScale("x", { min: kept[0], max: kept[1] });
        if ($("details.data", figure).open) fillTable(figure);
        readOut(figure, figure.chart);
      }
    } catch { $("#live-note").textContent = "the server is gone"; }
  }

  wire(document);
  filter();
  repaint();
  openTarget();
  if ("served" in document.documentElement.dataset) setInterval(refresh, 2000);
})();
