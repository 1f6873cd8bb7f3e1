// What a report can do with a script: show the architecture that is pointed at, sort and filter tables, and
// print what is folded away. Without it everything else still stands.
(function () {
  "use strict";
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((details) => { details.open = true; });
  });

  // A table that is wider than its place says so.
  const watch = new ResizeObserver((entries) => {
    entries.forEach(({ target }) => {
      const isCut = target.scrollWidth > target.clientWidth + 1;
      target.classList.toggle("cut", isCut);
      target.toggleAttribute("tabindex", isCut);
    });
  });
  document.querySelectorAll(".scroll").forEach((place) => watch.observe(place));

  // -- tables: sorted by any column, devices shown or hidden --------------------------------------------

  document.querySelectorAll("table[data-sortable]").forEach((table) => {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sortBy(table, heads, column));
    });
  });

  function valueOf(row, column) {
    const cell = row.cells[column];
    return cell.dataset.value ?? cell.textContent;
  }

  function sortBy(table, heads, column) {
    const down = heads[column].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    Array.from(body.rows)
      .map((row) => ({ row, value: valueOf(row, column) }))
      .sort((a, b) => {
        if (a.value === "" || b.value === "") return (a.value === "") - (b.value === ""); // not known: last
        const [x, y] = [Number(a.value), Number(b.value)];
        const order = Number.isNaN(x - y) ? a.value.localeCompare(b.value) : x - y;
        return down ? -order : order;
      })
      .forEach(({ row }) => body.append(row));
  }

  document.querySelectorAll("[data-filter]").forEach((filter) => {
    const boxes = Array.from(filter.querySelectorAll("input"));
    filter.hidden = false;
    filter.addEventListener("change", () => {
      const shown = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
      document.querySelectorAll("[data-device]").forEach((part) => { part.hidden = !shown.has(part.dataset.device); });
      document.querySelectorAll("[data-devices]").forEach((row) => {
        row.hidden = !row.dataset.devices.split(" ").some((device) => shown.has(device));
      });
    });
  });

  // A link to something folded away unfolds it.
  const unfold = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
  };
  window.addEventListener("hashchange", unfold);
  unfold();

  // -- architectures ------------------------------------------------------------------------------------

  const source = document.getElementById("path-data");
  const explorer = document.querySelector("[data-explorer]");
  if (!source || !explorer) return;
  const data = JSON.parse(source.textContent);
  const slider = explorer.querySelector("input");
  const output = explorer.querySelector("output");
  const drawings = Array.from(explorer.querySelectorAll("svg.drawing"));
  const charts = Array.from(document.querySelectorAll("svg.chart")).filter((svg) => svg.querySelector("[data-point]"));
  const positionOf = new Map(data.points.map((point, position) => [point.id, position]));

  // Bit i of a mask (hexadecimal, lowest digit last) says whether edge i is alive.
  const isAlive = (mask, edge) => {
    const digit = mask.length - 1 - (edge >> 2);
    return digit >= 0 && ((parseInt(mask[digit], 16) >> (edge & 3)) & 1) === 1;
  };

  function draw(svg, mask) {
    const alive = new Set();
    svg.querySelectorAll("[data-edge]").forEach((path) => {
      const edge = Number(path.dataset.edge);
      const on = isAlive(mask, edge);
      path.classList.toggle("off", !on);
      if (on) alive.add(data.edges[edge][1]);
    });
    svg.querySelectorAll("[data-node]").forEach((box) => box.classList.toggle("off", !alive.has(Number(box.dataset.node))));
    svg.querySelectorAll("[data-part=merge]").forEach((part) => part.classList.toggle("off", !alive.has(data.output)));
  }

  function select(position) {
    const point = data.points[position];
    slider.value = String(position);
    slider.setAttribute("aria-valuetext", point.text);
    output.textContent = point.text;
    drawings.forEach((svg, block) => draw(svg, point.blocks[block]));
    charts.forEach((svg) => highlight(svg, point.id));
    document.querySelectorAll("[data-select]").forEach((row) => {
      row.classList.toggle("selected", Number(row.dataset.select) === point.id);
    });
  }

  function highlight(svg, id) {
    const dot = svg.querySelector('[data-point="' + id + '"]');
    const halo = svg.querySelector(".halo");
    halo.toggleAttribute("hidden", !dot);
    if (!dot) return;
    svg.querySelectorAll("[data-point][tabindex='0']").forEach((other) => other.setAttribute("tabindex", "-1"));
    halo.setAttribute("cx", dot.getAttribute("x"));
    halo.setAttribute("cy", dot.getAttribute("y"));
    dot.setAttribute("tabindex", "0");
  }

  function enhanceChart(svg) {
    const first = new Map();
    svg.querySelectorAll("[data-point]").forEach((dot) => {
      const id = Number(dot.dataset.point);
      if (first.has(id) || !positionOf.has(id)) return;
      first.set(id, dot);
      dot.setAttribute("tabindex", "-1");
      dot.setAttribute("role", "img");
      dot.setAttribute("aria-label", data.points[positionOf.get(id)].text);
      dot.addEventListener("focus", () => select(positionOf.get(id)));
    });
    const dots = Array.from(first.values()).sort((a, b) => a.x.baseVal.value - b.x.baseVal.value);
    dots[0].setAttribute("tabindex", "0");
    const halo = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    halo.setAttribute("class", "halo");
    halo.setAttribute("r", "6.5");
    svg.append(halo);
    svg.setAttribute("role", "group");
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      const here = dots.indexOf(document.activeElement);
      if (!step || here < 0) return;
      event.preventDefault();
      dots[Math.min(dots.length - 1, Math.max(0, here + step))].focus();
    });
    const toDot = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let nearest = null;
      let least = 30 * 30;
      dots.forEach((dot) => {
        const distance = (dot.x.baseVal.value - at.x) ** 2 + (dot.y.baseVal.value - at.y) ** 2;
        if (distance < least) [nearest, least] = [dot, distance];
      });
      if (nearest) select(positionOf.get(Number(nearest.dataset.point)));
    };
    svg.addEventListener("pointermove", toDot);
    svg.addEventListener("pointerdown", toDot);
  }

  document.querySelectorAll("[data-select]").forEach((row) => {
    const show = () => select(positionOf.get(Number(row.dataset.select)));
    row.addEventListener("pointerenter", show);
    row.addEventListener("focusin", show);
  });
  charts.forEach(enhanceChart);
  slider.max = String(data.points.length - 1);
  slider.addEventListener("input", () => select(Number(slider.value)));
  explorer.hidden = false;
  select(data.start);
})();
