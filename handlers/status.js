// Keeps the page up to date with what the server streams: see handlers/status_page.c for the
// attributes by which the two know each other, and handlers/status_stream.c for the events.
(() => {
  "use strict";
  const WINDOW_MS = 60000;
  const main = document.querySelector("main");
  const live = document.getElementById("live");
  const past = new Map(); // by a listener's name: what it said in the last minute, the newest last
  let source = null;
  let again = 0;

  // --- figures, as status_page.c writes them

  const count = (n) => (n < 10000 ? String(n) : String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f"));

  function us(n) {
    if (n < 1000) return `${n} µs`;
    if (n < 10000) return `${Math.floor(n / 1000)}.${Math.floor((n % 1000) / 100)} ms`;
    if (n < 1000000) return `${Math.floor(n / 1000)} ms`;
    if (n < 100000000) return `${Math.floor(n / 1000000)}.${Math.floor((n % 1000000) / 100000)} s`;
    return `${Math.floor(n / 1000000)} s`;
  }

  function age(ms) {
    const s = Math.max(0, Math.floor(ms / 1000));
    const two = (n) => String(n).padStart(2, "0");
    const days = s >= 86400 ? `${Math.floor(s / 86400)} d ` : "";
    return `${days}${two(Math.floor(s / 3600) % 24)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
  }

  const units = (now) => ({ n: count, us, ms: age, age: (t) => age(t ? now - t : 0), text: String });
  const look = (from, path) => path.split(".").reduce((at, key) => at?.[key], from);

  function put(element, text) {
    if (element && element.textContent !== text) element.textContent = text;
  }

  function renew(root, key, from, unit) {
    for (const element of root.querySelectorAll(`[data-${key}]`)) {
      const value = look(from, element.dataset[key]);
      if (value !== undefined && value !== null) put(element, unit[element.dataset.u](value));
    }
  }

  function share(from, paths) {
    const [part, whole] = paths.split(" ").map((path) => look(from, path) ?? 0);
    return whole ? Math.min(1, part / whole) : 0;
  }

  // --- what needs more than the newest figures

  function remember(listener, now) {
    const said = past.get(listener.name) ?? [];
    past.set(listener.name, said);
    const { total } = listener.requests;
    if (said.length && said[said.length - 1].total > total) said.length = 0; // another server
    said.push({ now, total, buckets: listener.requests.latency_us.buckets });
    while (said[0].now < now - WINDOW_MS) said.shift();
    return said;
  }

  const rate = (a, b) => ((b.total - a.total) * 1000) / Math.max(1, b.now - a.now);

  function showRate(section, said) {
    const rates = said.slice(1).map((one, i) => rate(said[i], one));
    if (!rates.length) return;
    const most = Math.max(1, ...rates);
    const newest = rates[rates.length - 1];
    const from = 60 - rates.length + 1;
    const points = rates.map((r, i) => `${from + i - 1},${(19 - (r / most) * 18).toFixed(1)}`);
    put(section.querySelector("[data-rate]"), newest < 100 ? newest.toFixed(1) : count(Math.round(newest)));
    put(section.querySelector("[data-when]"), "now");
    section.querySelector(".spark path").setAttribute("d", `M${points.join("L")}`);
  }

  // The time within which that share of the answers came, as if they lay evenly in their bucket.
  function within(buckets, bounds, part, most) {
    const wanted = part * buckets.reduce((sum, n) => sum + n, 0);
    let seen = 0;
    for (let i = 0; i < bounds.length; i++) {
      const from = i ? bounds[i - 1] : 0;
      if (buckets[i] && seen + buckets[i] >= wanted) {
        const to = Math.min(bounds[i], most);
        return Math.round(from + ((to - from) * (wanted - seen)) / buckets[i]);
      }
      seen += buckets[i];
    }
    return most;
  }

  function showTimes(section, listener, said, bounds) {
    const times = listener.requests.latency_us;
    const recent = times.buckets.map((n, i) => n - said[0].buckets[i]);
    const is_recent = recent.some((n) => n > 0);
    const shown = is_recent ? recent : times.buckets;
    const whole = { 0.5: times.p50, 0.9: times.p90, 0.99: times.p99 };
    const most = Math.max(1, ...shown);
    const seconds = Math.round((said[said.length - 1].now - said[0].now) / 1000);
    put(section.querySelector("[data-window]"), is_recent ? `In the last ${seconds} s` : "Since the start");
    for (const element of section.querySelectorAll("[data-q]")) {
      const part = element.dataset.q;
      put(element, us(is_recent ? within(recent, bounds, Number(part), times.max) : whole[part]));
    }
    section.querySelectorAll(".bars rect").forEach((rect, i) => {
      const height = (shown[i] * 98) / most + (shown[i] ? 2 : 0);
      rect.setAttribute("y", (100 - height).toFixed(1));
      rect.setAttribute("height", height.toFixed(1));
    });
    section.querySelectorAll(".buckets dd").forEach((dd, i) => put(dd, count(shown[i])));
  }

  function showListener(section, listener, status, unit) {
    const said = remember(listener, status.now_ms);
    renew(section, "f", listener, unit);
    for (const element of section.querySelectorAll("[data-share]"))
      put(element, `${Math.floor(share(listener, element.dataset.share) * 100)} %`);
    for (const element of section.querySelectorAll("[data-bar]"))
      element.setAttribute("width", Math.round(share(listener, element.dataset.bar) * 1000));
    showRate(section, said);
    showTimes(section, listener, said, status.bucket_bounds_us);
  }

  function show(status) {
    const unit = units(status.now_ms);
    renew(main, "s", status, unit);
    for (const section of main.querySelectorAll("section")) {
      const listener = status.listeners[Number(section.dataset.l)];
      if (listener) showListener(section, listener, status, unit);
    }
  }

  // --- another shape: what somebody has opened or chosen stays

  const listenerOf = (form) => form.elements.listener.value;

  function showPage(html) {
    const open = [...main.querySelectorAll("details[open][id]")].map((d) => d.id);
    const focused = main.contains(document.activeElement) ? document.activeElement.form : null;
    const chosen = focused && { listener: listenerOf(focused), model: focused.elements.model.value };
    main.innerHTML = html; // of our own making, with all of other people's text escaped
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    for (const form of chosen ? main.querySelectorAll("form") : [])
      if (listenerOf(form) === chosen.listener) {
        form.elements.model.value = chosen.model;
        form.elements.model.focus({ preventScroll: true });
      }
  }

  // --- the stream

  function tell(state, text) {
    live.className = state;
    put(live, text);
  }

  function stop() {
    clearTimeout(again);
    source?.close();
    source = null;
  }

  function listen() {
    stop();
    source = new EventSource(`?format=stream&shape=${main.dataset.shape}`);
    source.addEventListener("page", (event) => showPage(event.data));
    source.onmessage = (event) => {
      tell("on", "live");
      show(JSON.parse(event.data));
    };
    source.onerror = () => {
      tell("off", "no connection; trying again");
      if (source.readyState === EventSource.CLOSED) again = setTimeout(listen, 2000);
    };
  }

  // A page that nobody sees needs no connection.
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : listen()));

  // --- switching

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    const button = form.querySelector("button");
    const output = form.querySelector("output");
    event.preventDefault();
    button.disabled = true;
    put(output, "asking …");
    try {
      const answer = await fetch("?", { method: "POST", body: new URLSearchParams(new FormData(form)) });
      put(output, answer.ok ? "asked; it takes a moment" : await answer.text());
    } catch {
      put(output, "the server does not answer");
    }
    button.disabled = false;
  });

  listen();
})();
