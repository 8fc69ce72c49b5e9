"use strict";
// The map of cells. Data are columns over the cells, in an order that is random, so that no class covers another.
(() => {
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const byId = (id) => document.getElementById(id);
  const plot = byId("map"), overlay = byId("map-overlay"), legend = byId("map-legend"), card = byId("map-card");
  const KINDS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array };

  function array(packed) {
    const text = atob(packed.base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new KINDS[packed.kind](bytes.buffer);
  }

  // Coordinates of every cell; NaN for those that a map does not place.
  function spread(packed, cells) {
    const values = array(packed);
    if (!cells) return values;
    const all = new Float32Array(data.n).fill(NaN);
    array(cells).forEach((cell, i) => { all[cell] = values[i]; });
    return all;
  }

  const columns = data.columns.map((column) => ({ ...column, values: array(column.values) }));
  const views = data.views.map((view) => ({ ...view, x: spread(view.x, view.cells), y: spread(view.y, view.cells) }));
  const heldOut = array(data.held_out), track = array(data.track), parent = array(data.parent);
  const drawnTracks = array(data.drawn_tracks), imageOf = new Map();
  array(data.images.cells).forEach((cell, number) => imageOf.set(cell, number));
  const sheets = data.images.sheets.map(() => null);

  const choice = { view: 0, column: 0, tracks: "some", hidden: new Set() };
  let shown = [[], []];       // cells of the two traces of points
  let path = null;            // the track that is followed
  let pinned = false;

  // Cells of a track stand together in `members`, in the order of time.
  const members = new Map();
  array(data.by_track).forEach((cell) => {
    if (!members.has(track[cell])) members.set(track[cell], []);
    members.get(track[cell]).push(cell);
  });

  function lineOf(number) {
    const view = views[choice.view], cells = [];
    const ancestors = [];
    for (let one = number; one >= 0 && !ancestors.includes(one); one = parent[one]) ancestors.unshift(one);
    for (const one of ancestors) for (const cell of members.get(one) || []) {
      if (!Number.isNaN(view.x[cell])) cells.push(cell);
    }
    return cells;
  }

  function pointTraces() {
    const view = views[choice.view], column = columns[choice.column], classes = column.classes;
    shown = [[], []];
    for (let cell = 0; cell < data.n; cell++) {
      if (Number.isNaN(view.x[cell])) continue;
      if (classes && choice.hidden.has(column.values[cell])) continue;
      shown[heldOut[cell]].push(cell);
    }
    const n = shown[0].length + shown[1].length, size = n > 50000 ? 3 : n > 15000 ? 4 : 6;
    return shown.map((cells, held) => ({
      type: "scattergl", mode: "markers", hoverinfo: "none", showlegend: false,
      name: held ? "held out" : "other",
      x: Float32Array.from(cells, (cell) => view.x[cell]),
      y: Float32Array.from(cells, (cell) => view.y[cell]),
      marker: {
        size: held ? size + 2 : size, symbol: held ? "triangle-up" : "circle", opacity: 0.75, line: { width: 0 },
        color: cells.map((cell) => column.values[cell]), ...scaleOf(column),
      },
    }));
  }

  function scaleOf(column) {
    if (!column.classes) {
      const last = data.gradient.length - 1;
      return { cmin: column.low, cmax: column.high, colorscale: data.gradient.map((color, i) => [i / last, color]) };
    }
    const n = column.classes.length, steps = [];
    column.classes.forEach((entry, i) => steps.push([i / n, entry.color], [(i + 1) / n, entry.color]));
    return { cmin: -0.5, cmax: n - 0.5, colorscale: steps };
  }

  function trackTrace() {
    const view = views[choice.view], x = [], y = [];
    const chosen = { none: [], some: drawnTracks, all: [...members.keys()] }[choice.tracks];
    for (const number of chosen) {
      const cells = lineOf(number);
      if (cells.length < 2) continue;
      for (const cell of cells) { x.push(view.x[cell]); y.push(view.y[cell]); }
      x.push(null); y.push(null);
    }
    return {
      type: "scattergl", mode: "lines", x, y, hoverinfo: "skip", showlegend: false, name: "tracks", connectgaps: false,
      line: { color: choice.tracks === "all" ? "rgba(30,35,45,0.16)" : "rgba(30,35,45,0.5)", width: 1 },
    };
  }

  function draw() {
    const view = views[choice.view];
    path = null; pinned = false; hideCard();
    const axis = (title) => ({
      title: { text: title, font: { size: 12 } }, showticklabels: false, showgrid: false, zeroline: false, showline: true,
      mirror: true, linecolor: "#d7dbe2", ticks: "",
    });
    const layout = {
      margin: { l: 34, r: 12, t: 12, b: 34 }, paper_bgcolor: "#fff", plot_bgcolor: "#fff", dragmode: "pan",
      hovermode: "closest", hoverdistance: 12, showlegend: false, uirevision: choice.view, font: { family: data.font },
      xaxis: axis(view.axes[0]), yaxis: axis(view.axes[1]),
    };
    const config = {
      responsive: true, scrollZoom: true, displaylogo: false,
      modeBarButtons: [["toImage", "pan2d", "zoom2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
      toImageButtonOptions: { filename: "embedding_map", scale: 2 },
    };
    byId("map-words").textContent = view.words;
    drawLegend();
    return Plotly.react(plot, [...pointTraces(), trackTrace()], layout, config);
  }

  function element(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function drawLegend() {
    const column = columns[choice.column];
    legend.replaceChildren(element("h3", column.title));
    if (column.classes) {
      column.classes.forEach((entry, code) => {
        const button = element("button", undefined, "class");
        const mark = element("span", entry.held_out ? "▲" : "●", "mark");
        mark.style.color = entry.color;
        button.append(mark, element("span", entry.name, "name"), element("span", entry.count, "count"));
        button.setAttribute("aria-pressed", String(!choice.hidden.has(code)));
        button.title = "click: show or hide; double click: only this one";
        button.onclick = () => toggle(code);
        button.ondblclick = () => only(code, column.classes.length);
        legend.append(button);
      });
    } else {
      const bar = element("div", undefined, "gradient");
      bar.style.background = `linear-gradient(to right, ${data.gradient.join(",")})`;
      const ends = element("div", undefined, "ends");
      ends.append(element("span", column.low_text), element("span", column.high_text));
      legend.append(bar, ends);
    }
    if (data.held_out_names.length) {
      legend.append(element("p", `▲ held out: ${data.held_out_names.join(", ")}`, "note"));
    }
    if (column.note) legend.append(element("p", column.note, "note"));
  }

  function toggle(code) {
    if (!choice.hidden.delete(code)) choice.hidden.add(code);
    draw();
  }

  function only(code, n) {
    choice.hidden = new Set([...Array(n).keys()].filter((other) => other !== code));
    draw();
  }

  // The followed track is drawn above the points by hand: to redraw all points at each move would be slow.
  function drawPath() {
    const ratio = window.devicePixelRatio || 1, box = plot.getBoundingClientRect();
    overlay.width = box.width * ratio; overlay.height = box.height * ratio;
    overlay.style.width = `${box.width}px`; overlay.style.height = `${box.height}px`;
    const pen = overlay.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, box.width, box.height);
    if (path === null || !plot._fullLayout) return;
    const { xaxis, yaxis } = plot._fullLayout, view = views[choice.view];
    pen.beginPath(); pen.rect(xaxis._offset, yaxis._offset, xaxis._length, yaxis._length); pen.clip();
    const points = path.cells.map((cell) => [
      xaxis._offset + xaxis.d2p(view.x[cell]), yaxis._offset + yaxis.d2p(view.y[cell]),
    ]);
    for (const [color, width] of [["#fff", 5], ["#16181d", 2]]) {
      pen.strokeStyle = color; pen.lineWidth = width; pen.beginPath();
      points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.stroke();
    }
    points.forEach(([x, y], i) => {
      const own = path.cells[i] === path.cell;
      pen.beginPath(); pen.arc(x, y, own ? 6 : 2.5, 0, 7);
      pen.fillStyle = own ? "#e4572e" : i ? "#16181d" : "#fff"; pen.fill();
      pen.strokeStyle = own ? "#fff" : "#16181d"; pen.lineWidth = own ? 2 : 1; pen.stroke();
    });
  }

  function follow(cell) {
    path = cell === null ? null : { cell, cells: lineOf(track[cell]) };
    drawPath();
  }

  function fillCard(cell) {
    card.replaceChildren();
    const number = imageOf.get(cell);
    if (number !== undefined) card.append(picture(number));
    else card.append(element("p", data.images.missing, "note"));
    const list = element("dl");
    for (const column of columns) {
      const value = column.values[cell];
      const text = column.classes ? column.classes[value].name : Number.isNaN(value) ? "not known" : format(value);
      list.append(element("dt", column.title), element("dd", text));
    }
    list.append(element("dt", "cell"), element("dd", nameOf(cell)));
    card.append(list);
  }

  const names = { fov: data.cells.fov_names, fovs: array(data.cells.fov), ids: array(data.cells.track_id), t: array(data.cells.t) };
  const nameOf = (cell) => `${names.fov[names.fovs[cell]]}, track ${names.ids[cell]}, frame ${names.t[cell]}`;
  const format = (value) => String(Math.round(value * 1000) / 1000);

  function picture(number) {
    const images = data.images, perSheet = images.columns * images.columns;
    const sheet = Math.floor(number / perSheet), place = number % perSheet;
    const width = images.width * images.channels.length, scale = Math.max(1, Math.floor(240 / width));
    const made = element("div", undefined, "cell-image");
    made.style.width = `${width * scale}px`;
    const canvas = element("canvas");
    canvas.width = width; canvas.height = images.height;
    canvas.style.width = `${width * scale}px`; canvas.style.height = `${images.height * scale}px`;
    if (!sheets[sheet]) { sheets[sheet] = new Image(); sheets[sheet].src = images.sheets[sheet]; }
    const left = (place % images.columns) * width, top = Math.floor(place / images.columns) * images.height;
    const paint = () => canvas.getContext("2d").drawImage(
      sheets[sheet], left, top, width, images.height, 0, 0, width, images.height);
    sheets[sheet].decode().then(paint, () => {});
    const captions = element("div", undefined, "captions");
    for (const channel of images.channels) captions.append(element("span", channel));
    made.append(canvas, captions);
    return made;
  }

  function showCard(cell, event) {
    fillCard(cell);
    card.hidden = false;
    const frame = byId("map-frame").getBoundingClientRect();
    const x = event.clientX - frame.left, y = event.clientY - frame.top;
    const left = x + 18 + card.offsetWidth < frame.width ? x + 18 : x - 18 - card.offsetWidth;
    card.style.left = `${Math.max(0, left)}px`;
    card.style.top = `${Math.max(0, Math.min(y - 20, frame.height - card.offsetHeight))}px`;
  }

  function hideCard() {
    card.hidden = true;
    follow(null);
  }

  function cellOf(event) {
    const [point] = event.points;
    return point.curveNumber < 2 ? shown[point.curveNumber][point.pointNumber] : null;
  }

  function fill(select, entries) {
    entries.forEach(([value, text]) => select.append(new Option(text, value)));
  }

  fill(byId("map-view"), views.map((view, i) => [i, view.name]));
  fill(byId("map-color"), columns.map((column, i) => [i, column.title]));
  fill(byId("map-tracks"), [["some", `${drawnTracks.length} tracks`], ["none", "only the one pointed at"], ["all", "all tracks"]]);
  byId("map-view").onchange = (event) => { choice.view = Number(event.target.value); draw(); };
  byId("map-color").onchange = (event) => { choice.column = Number(event.target.value); choice.hidden = new Set(); draw(); };
  byId("map-tracks").onchange = (event) => { choice.tracks = event.target.value; draw(); };

  draw().then(() => {
    plot.on("plotly_hover", (event) => {
      const cell = cellOf(event);
      if (cell === null || pinned) return;
      follow(cell); showCard(cell, event.event);
    });
    plot.on("plotly_unhover", () => { if (!pinned) hideCard(); });
    plot.on("plotly_click", (event) => {
      const cell = cellOf(event);
      if (cell === null) return;
      pinned = !(pinned && path && path.cell === cell);
      if (pinned) { follow(cell); showCard(cell, event.event); } else hideCard();
    });
    plot.on("plotly_relayouting", drawPath);
    plot.on("plotly_afterplot", drawPath);
    document.body.dataset.drawn = "true";
  });
})();
