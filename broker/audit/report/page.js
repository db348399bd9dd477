"use strict";
// The table of entries. What entries say comes to the page as text nodes alone.
(() => {
  const element = id => document.getElementById(id);
  const { rows, texts } = JSON.parse(element("data").textContent);
  const [SEQ, TIME, PID, EVENT, OUTCOME, PROFILE, ROLE, KEY, PROGRAM, SESSION, ACCESS, LEASE, WHY, STRIDE] = Array(14).keys();
  const COUNT = rows.length / STRIDE, PAGE = 100;
  const inputs = ["text", "event", "profile", "outcome", "order"].map(element);
  const [text, event, profile, outcome, order] = inputs;
  const body = element("table").tBodies[0];

  let lower; // texts, for the search; made when it is first needed
  let found = []; // rows, in the order of the table
  let page = 0;

  // search finds the rows that have everything that was asked for.
  function search() {
    const chosen = [[EVENT, event], [PROFILE, profile], [OUTCOME, outcome]]
      .filter(([, select]) => select.value !== "")
      .map(([column, select]) => [column, Number(select.selectedOptions[0].dataset.place)]);
    const words = text.value.toLowerCase().split(/\s+/).filter(word => word !== "").map(word => {
      lower ??= texts.map(t => t.toLowerCase());
      return { has: lower.map(t => t.includes(word)), number: /^#?\d+$/.test(word) ? Number(word.replace("#", "")) : -1 };
    });
    found = [];
    next: for (let i = 0; i < COUNT; i++) {
      const at = i * STRIDE;
      for (const [column, place] of chosen) {
        if (rows[at + column] !== place) continue next;
      }
      words: for (const { has, number } of words) {
        if (rows[at + SEQ] === number || rows[at + PID] === number) continue;
        for (let column = EVENT; column < STRIDE; column++) {
          if (has[rows[at + column]]) continue words;
        }
        continue next;
      }
      found.push(i);
    }
    if (order.value === "oldest") found.reverse();
  }

  function cell(row, label, value, more, name) {
    const td = row.appendChild(document.createElement(label === "entry" ? "th" : "td"));
    if (label === "entry") td.scope = "row";
    td.dataset.label = label;
    if (name) td.className = name;
    td.textContent = value;
    for (const line of more ?? []) {
      if (line !== "") td.appendChild(document.createElement("small")).textContent = line;
    }
  }

  function show() {
    const from = page * PAGE, to = Math.min(found.length, from + PAGE);
    const lines = document.createDocumentFragment();
    for (let n = from; n < to; n++) {
      const at = found[n] * STRIDE, value = column => texts[rows[at + column]];
      const row = lines.appendChild(document.createElement("tr"));
      cell(row, "entry", rows[at + SEQ]);
      cell(row, "time", new Date(rows[at + TIME]).toISOString().slice(0, 19).replace("T", " "));
      cell(row, "event", value(EVENT));
      cell(row, "outcome", value(OUTCOME), [], ["denied", "failed"].find(o => o === value(OUTCOME)));
      cell(row, "profile", value(PROFILE));
      cell(row, "role, key", value(ROLE), [value(KEY)]);
      cell(row, "program", value(PROGRAM), [rows[at + PID] ? `pid ${rows[at + PID]}` : ""]);
      cell(row, "session, lease", value(SESSION), [value(ACCESS), value(LEASE)]);
      cell(row, "reason or error", value(WHY), [], "why");
    }
    body.replaceChildren(lines);
    const number = n => n.toLocaleString("en");
    element("shown").textContent = found.length === 0 ? `None of ${number(COUNT)} entries match.`
      : `${number(from + 1)} to ${number(to)} of ${number(found.length)} ${found.length === COUNT ? "entries" : `that match, of ${number(COUNT)} entries`}`;
    element("first").disabled = element("previous").disabled = page === 0;
    element("next").disabled = element("last").disabled = to === found.length;
  }

  function turn(to) {
    page = Math.max(0, Math.min(to, Math.ceil(found.length / PAGE) - 1));
    show();
    element("table").parentElement.scrollTop = 0;
  }

  // The address keeps what is looked for, so that it can be passed on.
  function remember() {
    const state = new URLSearchParams(inputs.filter(i => i.value !== "").map(i => [i.id, i.value]));
    history.replaceState(null, "", `#${state}`);
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const input of inputs) {
      input.value = state.get(input.id) ?? "";
      if (input.selectedIndex === -1) input.value = ""; // there is no such choice
    }
    search();
    turn(0);
  }

  function choices(select, column) {
    const places = new Set();
    for (let at = column; at < rows.length; at += STRIDE) places.add(rows[at]);
    places.delete(0); // ""
    for (const place of [...places].sort((a, b) => texts[a] < texts[b] ? -1 : 1)) {
      const option = select.appendChild(document.createElement("option"));
      option.value = option.textContent = texts[place];
      option.dataset.place = place;
    }
  }

  choices(event, EVENT);
  choices(profile, PROFILE);
  choices(outcome, OUTCOME);
  for (const input of inputs) {
    input.addEventListener("input", () => { search(); turn(0); remember(); });
  }
  element("reset").addEventListener("click", () => {
    for (const input of inputs) input.value = "";
    search(); turn(0); remember(); text.focus();
  });
  element("first").addEventListener("click", () => turn(0));
  element("previous").addEventListener("click", () => turn(page - 1));
  element("next").addEventListener("click", () => turn(page + 1));
  element("last").addEventListener("click", () => turn(Infinity));
  addEventListener("hashchange", recall);
  addEventListener("keydown", e => {
    if (e.key === "/" && !e.ctrlKey && !e.metaKey && !e.altKey && !/^(INPUT|SELECT)$/.test(document.activeElement.tagName)) {
      e.preventDefault();
      text.focus();
      text.select();
    }
  });
  element("filters").hidden = element("pages").hidden = false;
  recall();
})();
