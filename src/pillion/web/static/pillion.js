// What the pages do beyond HTML: stay up to date, keys, selections, times, charts. Everything works without this file.
"use strict";
(() => {
  const body = document.body, set = body.dataset, root = set.root || "";
  const $ = (query, from = document) => from.querySelector(query);
  const $$ = (query, from = document) => [...from.querySelectorAll(query)];
  const policy = window.trustedTypes ? trustedTypes.createPolicy("pillion", { createHTML: (text) => text }) : { createHTML: (text) => text };
  const parse = (text) => new DOMParser().parseFromString(policy.createHTML(text), "text/html").body.firstElementChild;
  const typing = (target) => target.closest("input, textarea, select, [contenteditable]");
  const later = (seconds, what) => setTimeout(what, seconds * 1000);

  // --- times: relative ones go on, exact ones become local where the reader chose that ------------------------------
  const local = document.documentElement.dataset.zone === "local";
  const lang = document.documentElement.lang;
  const full = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "medium" });
  const short = new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit" });
  const put = (pattern, value) => pattern.replace("{n}", value);
  function span(seconds) {
    const [size, unit] = seconds >= 86400 ? [86400, "d"] : seconds >= 3600 ? [3600, "h"] : seconds >= 60 ? [60, "min"] : [1, "s"];
    return put(set[unit], Math.floor(seconds / size));
  }
  function times() {
    const now = Date.now() / 1000;
    for (const each of $$("time[data-t]")) {
      const apart = now - each.dataset.t;
      each.textContent = Math.abs(apart) < 1.5 ? set.now : put(apart > 0 ? set.ago : set.in, span(Math.abs(apart)));
    }
    if (!local) return;
    for (const each of $$("time:not([data-seen])")) {
      const at = new Date(each.dateTime);
      each.title = full.format(at);
      if ("clock" in each.dataset) each.textContent = short.format(at);
      if ("exact" in each.dataset) each.textContent = full.format(at);
      each.dataset.seen = "";
    }
  }
  times();
  setInterval(times, 10000);

  // --- charts -------------------------------------------------------------------------------------------------------
  const plots = new Map();
  const probe = document.createElement("i");
  probe.hidden = true;
  body.append(probe);
  function colour(name) {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  }
  const faint = (rgb) => rgb.replace(/^rgb\((.*)\)$/, "rgba($1, .14)");
  function plot(figure) {
    if (!window.uPlot || figure.dataset.daily) return;
    const { t, r, f, m } = JSON.parse(figure.dataset.plot);
    const old = plots.get(figure.id);
    if (old && old.root.isConnected) {
      old.marks = m;
      old.setData([t, r, f]);
      return;
    }
    if (t.length < 2) return;
    const ink = colour("ink-3"), grid = colour("grid");
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const tip = document.createElement("div");
    tip.className = "tipbox";
    tip.hidden = true;
    const clock = (at) => new Date(at * 1000).toLocaleTimeString(lang, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: local ? undefined : "UTC" });
    const made = new uPlot({
      width: figure.clientWidth, height: 190, padding: [8, 8, 0, 0],
      scales: { x: { time: true }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.08)] } },
      cursor: { y: false, drag: { x: false, y: false } }, legend: { show: false },
      axes: [{ ...axis, size: 26, grid: { show: false }, values: (_, all) => all.map(clock) }, { ...axis, size: 42, space: 36 }],
      series: [{}, { stroke: colour("run"), fill: faint(colour("run")), width: 1.5, points: { show: false } }, { stroke: colour("fail"), width: 1.5, points: { show: false } }],
      hooks: {
        draw: [(u) => {
          const { ctx, bbox } = u;
          ctx.save();
          ctx.strokeStyle = ink;
          ctx.setLineDash([4, 4]);
          for (const [at] of made.marks || m) {
            const x = Math.round(u.valToPos(at, "x", true));
            if (x < bbox.left) continue;
            ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
          }
          ctx.restore();
        }],
        setCursor: [(u) => {
          const i = u.cursor.idx;
          tip.hidden = i == null || u.cursor.left < 0;
          if (tip.hidden) return;
          const [at, runs, failed] = u.data.map((each) => each[i]);
          const near = (u.marks || m).find(([when]) => Math.abs(u.valToPos(when, "x") - u.cursor.left) < 6);
          tip.textContent = `${clock(at)} · ${figure.dataset.runs} ${runs.toLocaleString(lang)} · ${figure.dataset.failed} ${failed.toLocaleString(lang)}${near ? ` · ${near[1]}` : ""}`;
          tip.style.left = `${Math.min(u.cursor.left + 52, figure.clientWidth - tip.offsetWidth)}px`;
          tip.style.top = "0px";
        }],
      },
    }, [t, r, f], figure);
    $("svg", figure)?.remove();
    figure.append(tip);
    made.marks = m;
    plots.set(figure.id, made);
  }
  const draw = () => $$("[data-plot]").forEach(plot);
  const redraw = () => {
    for (const [id, made] of plots) { made.destroy(); plots.delete(id); }
    draw();
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (width === innerWidth) return;
    width = innerWidth;
    for (const [id, made] of plots) made.setSize({ width: document.getElementById(id)?.clientWidth || 300, height: 190 });
  });

  // --- patches: a section is fetched and morphed in, but never under the hand of somebody ---------------------------
  const held = new Map(), tags = new Map(), due = new Map();
  const busy = (section) => $("[data-freeze]:hover, .pick:checked, details.menu[open], form :focus-visible", section);
  const keep = {
    morphStyle: "outerHTML", ignoreActiveValue: true,
    callbacks: {
      beforeNodeMorphed(before, after) {
        if (before.nodeType !== 1) return true;
        if (before.dataset && before.dataset.plot && plots.has(before.id)) {
          before.dataset.plot = after.dataset.plot;
          plot(before);
          return false;
        }
        if (before.tagName === "DETAILS" && before.open) after.setAttribute("open", "");
        if (before.dataset && "seen" in before.dataset) delete before.dataset.seen;
        return true;
      },
      beforeNodeRemoved: (node) => !(node.classList && node.classList.contains("pill")),
    },
  };
  function morph(section, text) {
    const fresh = parse(text);
    if (!fresh || fresh.id !== section.id) return;
    held.delete(section.id);
    document.getElementById(`held-${section.id}`)?.remove();
    const spoken = $(".verdict p", section)?.firstChild?.textContent;
    const at = $("tr.at", section)?.dataset.id;
    Idiomorph.morph(section, fresh, keep);
    if (at) $(`tr[data-id="${CSS.escape(at)}"]`)?.classList.add("at");
    const said = $(".verdict p")?.firstChild?.textContent;
    if (said && spoken && said !== spoken) say(said);
    prepare();
    times();
    draw();
  }
  function apply(section, text) {
    if (!busy(section)) { morph(section, text); return; }
    held.set(section.id, text);
    if (document.getElementById(`held-${section.id}`)) return;
    const pill = document.createElement("button");
    Object.assign(pill, { id: `held-${section.id}`, type: "button", className: "pill s", textContent: set.held });
    pill.addEventListener("click", () => morph(document.getElementById(section.id), held.get(section.id)));
    section.before(pill);
  }
  document.addEventListener("pointerout", () => later(0.5, () => {
    for (const [id, text] of held) {
      const section = document.getElementById(id);
      if (section && !busy(section)) morph(section, text);
    }
  }));
  let spokenAt = 0;
  function say(text) {
    if (Date.now() - spokenAt < 15000) return;
    spokenAt = Date.now();
    $("#said").textContent = text;
  }
  async function refresh(section) {
    const id = section.id, url = new URL(location.href);
    url.hash = "";
    url.searchParams.set("fragment", id);
    try {
      const answer = await fetch(url, { headers: tags.has(id) ? { "if-none-match": tags.get(id) } : {}, cache: "no-store" });
      if (answer.status === 503) { state("again", true); return; }
      if (!answer.ok) return;
      state(paused ? "off" : "on");
      const tag = answer.headers.get("etag");
      if (tag) tags.set(id, tag);
      const now = document.getElementById(id);
      const text = await answer.text();
      if (now) apply(now, text);
    } catch { state("again", true); }
  }
  // One at a time per section, at most every two seconds.
  function want(section) {
    const id = section.id, kept = due.get(id) || { at: 0, timer: 0, again: false };
    due.set(id, kept);
    if (kept.timer) { kept.again = true; return; }
    kept.timer = later(Math.max(0.05, kept.at / 1000 + 2 - Date.now() / 1000), async () => {
      kept.at = Date.now();
      const now = document.getElementById(id);
      if (now && !document.hidden) await refresh(now);
      kept.timer = 0;
      if (kept.again) { kept.again = false; want(now || section); }
    });
  }

  // --- the stream ---------------------------------------------------------------------------------------------------
  const sections = () => $$("section[data-live], nav[data-live], div[data-live]").filter((each) => each.dataset.live);
  const topicsOf = (section) => section.dataset.live.split(" ");
  const button = $("#live");
  let stream = null, paused = false, poll = 0;
  function state(name, stale = false) {
    if (button) button.dataset.state = name;
    body.classList.toggle("stale", stale);
  }
  function open() {
    close();
    if (paused || document.hidden || !sections().length || $("[data-heal]")) return;
    if (set.live === "poll" || !window.EventSource) {
      state("on");
      poll = setInterval(() => sections().forEach(want), 5000);
      return;
    }
    const topics = [...new Set(sections().flatMap(topicsOf))].join(",");
    const shard = set.shard ? `&shard=${encodeURIComponent(set.shard)}` : "";
    stream = new EventSource(`${root}/events?topics=${topics}${shard}`);
    stream.onopen = () => state("on");
    stream.onerror = () => state("again", body.classList.contains("stale"));
    stream.addEventListener("patch", (event) => {
      if (event.data === "gone") { state("again", true); return; }
      const all = event.data === "back";
      if (all) state("on");
      for (const section of sections()) if (all || topicsOf(section).includes(event.data)) want(section);
    });
  }
  function close() {
    clearInterval(poll);
    if (stream) stream.close();
    stream = null;
  }
  function pause() {
    paused = !paused;
    button.setAttribute("aria-pressed", String(!paused));
    if (paused) { close(); state("off"); } else { open(); sections().forEach(want); }
  }
  if (button && sections().length) {
    button.hidden = false;
    if ($("[data-heal]")) state("again");
    button.addEventListener("click", pause);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) close();
      else { open(); if (!paused) sections().forEach(want); }
    });
    addEventListener("pagehide", close);
    open();
  }
  for (const section of $$("[data-every]")) {
    const again = () => { const now = document.getElementById(section.id); if (now && now.dataset.every) { refresh(now); later(1, again); } };
    later(0.4, again);
  }
  if ($("[data-heal]")) {
    const again = async () => {
      try { if ((await fetch(location.href, { cache: "no-store" })).status !== 503) { location.reload(); return; } } catch { /* not yet */ }
      later(2, again);
    };
    later(2, again);
  }

  // --- lists: marking, the row as a link ----------------------------------------------------------------------------
  function count() {
    const marked = $$(".pick:checked").length;
    for (const each of $$("[data-picked]")) each.textContent = marked ? each.dataset.some.replace("{n}", marked) : each.dataset.none;
    for (const each of $$("[data-marked]")) each.hidden = !marked;
  }
  function prepare() {
    for (const each of $$("[data-all], [data-copy], [data-typed]")) each.hidden = false;
    for (const each of $$("[data-whole]")) each.hidden = true;
    count();
  }
  prepare();
  const here = $("#nav [aria-current]");
  if (here && innerWidth <= 820) $("#nav").scrollLeft += here.getBoundingClientRect().left - innerWidth / 2 + here.offsetWidth / 2;
  document.addEventListener("change", (event) => {
    const target = event.target;
    if (target.closest("[data-all]")) for (const each of $$(".pick")) each.checked = target.checked;
    if ("submit" in target.dataset) target.form.submit();
    count();
  });
  let last = null;
  document.addEventListener("click", async (event) => {
    const target = event.target;
    const copier = target.closest("[data-copy]");
    if (copier) { await copy($("pre", copier.parentNode).textContent); const word = copier.textContent; copier.textContent = set.copied; later(1.5, () => { copier.textContent = word; }); return; }
    if (target.matches(".pick")) {
      const all = $$(".pick");
      if (event.shiftKey && last) for (const each of all.slice(Math.min(all.indexOf(last), all.indexOf(target)), Math.max(all.indexOf(last), all.indexOf(target)))) each.checked = target.checked;
      last = target;
      count();
      return;
    }
    for (const menu of $$("details.menu[open]")) if (!menu.contains(target)) menu.open = false;
    const row = target.closest("tr[data-id], .cause");
    if (!row || target.closest("a, button, input, label, summary, form, details, pre") || String(getSelection())) return;
    const link = $("a[data-open]", row);
    if (link) { if (event.metaKey || event.ctrlKey) window.open(link.href); else location.href = link.href; }
  });
  async function copy(text) {
    try { await navigator.clipboard.writeText(text); } catch { // plain HTTP has no clipboard
      const area = document.createElement("textarea");
      area.value = text;
      body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }

  // --- a form for arguments: its fields become the JSON list that is sent -------------------------------------------
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!("fields" in form.dataset)) return;
    const values = $$("[data-kind]", form).map((field) => {
      const value = field.value, kind = field.dataset.kind;
      field.setCustomValidity("");
      if (kind === "str") return JSON.stringify(value);
      try { JSON.parse(value); } catch { field.setCustomValidity("JSON?"); field.reportValidity(); event.preventDefault(); }
      return value.trim();  // as it was typed: large integers stay exact
    });
    $("[name=args]", form).value = `[${values.join(", ")}]`;
  });

  // --- keys ---------------------------------------------------------------------------------------------------------
  const places = { o: "", q: "queues", j: "jobs", r: "running", f: "failures", s: "scheduled", t: "retries", d: "dead", c: "classes", w: "workers", a: "audit" };
  let went = 0;
  function step(by) {
    const rows = $$("main tr[data-id], main .cause");
    if (!rows.length) return;
    const at = rows.findIndex((row) => row.classList.contains("at"));
    rows[at]?.classList.remove("at");
    const row = rows[Math.min(rows.length - 1, Math.max(0, at + by))];
    row.classList.add("at");
    row.scrollIntoView({ block: "nearest" });
    $("a[data-open]", row)?.focus({ preventScroll: true });
  }
  const keys = {
    "/": () => { $("#search").focus(); $("#search").select(); },
    "?": () => $("#keys").showModal(),
    j: () => step(1), k: () => step(-1), l: () => button && !button.hidden && pause(),
    x: () => { const box = $("tr.at .pick"); if (box) { box.checked = !box.checked; count(); } },
    ".": () => $("tr.at .acts button, .cause.at .acts button, main .acts button, main .bulk summary")?.focus(),
    g: () => { went = Date.now(); },
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && typing(event.target)) { event.target.blur(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || $("dialog[open]")) return;
    if (Date.now() - went < 1500 && event.key in places) {
      went = 0;
      event.preventDefault();
      location.href = `${root}/${places[event.key]}${set.shard ? `?shard=${encodeURIComponent(set.shard)}` : ""}`;
      return;
    }
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });
})();
