"use strict";
// Draws the figures when they come near the screen, follows the colour scheme, and fills the list of prompts.
// Texts of a run enter the page through textContent only.
(() => {
  const data = (id) => JSON.parse(document.getElementById(id).textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const finger = matchMedia("(pointer: coarse)"); // dragging scrolls the page there

  // --- figures ---------------------------------------------------------------------------------------------------
  const figures = data("figures");
  const templates = data("templates");

  // Plotly hands out a template's styles in order, whatever their names: here each trace gets the one that it names.
  function styled(traces, { layout, data }) {
    const styles = {};
    for (const { type, meta } of traces) (styles[type] ??= []).push(data[type].find((style) => style.meta === meta));
    return { layout, data: styles };
  }

  function draw(canvas) {
    const figure = figures[canvas.id.slice("plot-".length)];
    const scheme = dark.matches ? "dark" : "light";
    const layout = {
      ...figure.layout, template: styled(figure.data, templates[scheme]), height: Number(canvas.dataset.height),
      autosize: true, font: { family: getComputedStyle(document.body).fontFamily },
      dragmode: finger.matches ? false : "zoom",
    };
    const config = { responsive: true, displaylogo: false, displayModeBar: false };
    canvas.dataset.drawn = scheme;
    return Plotly.react(canvas, structuredClone(figure.data), layout, config);
  }

  const canvases = [...document.querySelectorAll(".canvas")];
  const waiting = new Set(canvases);
  const drawOnce = (canvas) => { if (waiting.delete(canvas)) draw(canvas); };
  const near = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => drawOnce(entry.target)),
    { rootMargin: "400px" },
  );
  // Plotly, by far the longest script, stands behind this one: the page can be read and searched before it is there.
  addEventListener("DOMContentLoaded", () => canvases.forEach((canvas) => near.observe(canvas)));
  dark.addEventListener("change", () => canvases.filter((canvas) => !waiting.has(canvas)).forEach(draw));
  addEventListener("beforeprint", () => [...waiting].forEach(drawOnce));

  // --- prompts ---------------------------------------------------------------------------------------------------
  const browser = document.getElementById("browser");
  const PAGE = 5;

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const number = (value) => (value === null ? "–" : value.toFixed(3));
  const whole = (text, cut) => (cut ? `${text} … (${cut.toLocaleString("en")} more characters)` : text);

  function responseOf(response) {
    const made = element("div", `response ${response.role}`);
    made.append(element("p", "", whole(response.text, response.cut) || "(empty)"));
    const facts = element("p", "facts");
    if (response.role) facts.append(element("b", "", response.role), " · ");
    facts.append(`score ${number(response.score)} · win rate ${number(response.win_rate)}`);
    if (!response.finished) facts.append(" · cut at the token limit");
    made.append(facts);
    return made;
  }

  function promptOf(prompt) {
    const made = element("article", "prompt");
    made.append(element("h3", "", whole(prompt.text, prompt.cut)));
    const outcome = prompt.dropped
      ? `no pair: ${prompt.dropped.replaceAll("_", " ")}`
      : prompt.similarity === null
        ? "pairs are not built yet"
        : `similarity ${number(prompt.similarity)} · chosen ${number(prompt.p_chosen)} → ${number(prompt.target_chosen)}` +
          ` · rejected ${number(prompt.p_rejected)} → ${number(prompt.target_rejected)}`;
    made.append(element("p", "facts", `iteration ${prompt.iteration} · ${outcome} · ${prompt.prompt_id}`));
    prompt.responses.forEach((response) => made.append(responseOf(response)));
    return made;
  }

  const ORDERS = {
    similarity: (prompt) => prompt.similarity,
    margin: (prompt) => prompt.p_chosen - prompt.p_rejected,
    moved: (prompt) => prompt.p_chosen - prompt.target_chosen,
  };

  function browse() {
    const prompts = data("samples");
    const texts = prompts.map((p) => [p.text, ...p.responses.map((r) => r.text)].join("\n").toLowerCase());
    const form = browser.querySelector("form");
    const iterations = [...new Set(prompts.map((prompt) => prompt.iteration))];
    form.iteration.append(...iterations.map((iteration) => new Option(String(iteration), String(iteration))));
    let first = 0;

    function found() {
      const wanted = form.text.value.trim().toLowerCase();
      const rows = prompts.filter((prompt, index) =>
        (!wanted || texts[index].includes(wanted)) &&
        (!form.iteration.value || String(prompt.iteration) === form.iteration.value) &&
        (!form.kind.value || (form.kind.value === "dropped") === Boolean(prompt.dropped)));
      const key = ORDERS[form.order.value];
      return key ? rows.filter((p) => p.similarity !== null).sort((a, b) => key(b) - key(a)) : rows;
    }

    function show() {
      const rows = found();
      first = Math.min(first, Math.max(0, Math.floor((rows.length - 1) / PAGE) * PAGE));
      const shown = rows.slice(first, first + PAGE);
      browser.querySelector(".prompts").replaceChildren(...shown.map(promptOf));
      browser.querySelector(".found").textContent = `${rows.length} found.`;
      browser.querySelector(".position").textContent =
        rows.length ? `${first + 1} to ${first + shown.length} of ${rows.length}` : "none";
      browser.querySelector("[name=back]").disabled = first === 0;
      browser.querySelector("[name=on]").disabled = first + PAGE >= rows.length;
    }

    form.addEventListener("input", () => { first = 0; show(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    browser.querySelector("[name=back]").addEventListener("click", () => { first -= PAGE; show(); });
    browser.querySelector("[name=on]").addEventListener("click", () => { first += PAGE; show(); });
    show();
  }

  if (browser) browse();
  addEventListener("DOMContentLoaded", () => {
    document.documentElement.dataset.ready = String(Math.round(performance.now())); // milliseconds, for tests
  });
})();
