// The page: files in, a run, what came of it. Everything is asked of the server that sent this page, nothing else.
"use strict";

const $ = (id) => document.getElementById(id);
const ROLES = [
  ["low", "Depth", "16-bit PNG, TIFF, EXR, PFM, npy, npz, HEIC"],
  ["rgb", "Colour picture", "JPEG, PNG, TIFF, WebP, BMP, HEIC of the same view"],
  ["truth", "True depth (if known)", "to see the error; same unit"],
  ["confidence", "Confidence (if any)", "the sensor's own: ARKit's 0 1 2, or 0..255"],
  ["intrinsics", "Intrinsics (if known)", ".json .yaml .pincam calib.txt"],
];
const VIEWS = { low: "depth as it came", bicubic: "bicubic", depth: "", rgb: "colour picture", classes: "classes", truth: "truth", error: "error" };
const called = (view) => VIEWS[view] || shown.facts.model;
const files = {}; // role: {token, name}
let about = null, cloud = null;
let run = null; // token of the run that is going on
let shown = null; // {token, facts} of the result on the page
let clicked = []; // pixels of the result
let asked = 0; // counts runs: an answer to an older one is dropped

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the viewer does not answer: is the command still running?");
  }
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

const post = (path, data = {}) => ask(path, { method: "POST", body: JSON.stringify(data) });

function complain(error) {
  $("error").textContent = error ? error.message : "";
  $("error").hidden = !error;
}

function option(select, value, text) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  select.append(made);
}

// ------------------------------------------------------------------------------- files

function makeDrops() {
  for (const [role, title, hint] of ROLES) {
    const drop = document.createElement("div");
    drop.className = "drop";
    drop.id = `drop-${role}`;
    const name = document.createElement("span"), note = document.createElement("small");
    const input = document.createElement("input"), clear = document.createElement("button");
    name.textContent = title;
    note.textContent = note.title = hint;
    input.type = "file";
    input.id = `file-${role}`;
    input.setAttribute("aria-label", title);
    clear.type = "button";
    clear.textContent = "×";
    clear.title = "take this file away";
    clear.hidden = true;
    drop.append(name, note, input, clear);
    input.addEventListener("change", () => input.files.length && take(role, input.files[0]));
    clear.addEventListener("click", () => setFile(role, null));
    drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      drop.classList.remove("over");
      if (event.dataTransfer.files.length !== 1) return; // several are told apart
      event.preventDefault();
      event.stopPropagation();
      take(role, event.dataTransfer.files[0]);
    });
    $("drops").append(drop);
  }
  // A file dropped anywhere else must not make the browser leave the page.
  const carries = (event) => event.dataTransfer.types.includes("Files");
  window.addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
  window.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    takeAll([...event.dataTransfer.files]);
  });
}

const upload = (file) => ask(`api/files?name=${encodeURIComponent(file.name)}`, { method: "PUT", body: file });

async function take(role, file) {
  complain(null);
  const note = $(`drop-${role}`).querySelector("small");
  note.textContent = `reading ${file.name} …`;
  try {
    setFile(role, await upload(file));
  } catch (error) {
    setFile(role, null);
    complain(error);
  }
}

// Files without a place of their own: what each is, the server tells by what it holds.
async function takeAll(dropped) {
  complain(null);
  $("stage").textContent = "reading the files …";
  try {
    const tokens = [];
    for (const file of dropped) tokens.push((await upload(file)).token);
    const found = await post("api/roles", { tokens, low: Boolean(files.low) });
    for (const [role, file] of Object.entries(found)) setFile(role, file);
  } catch (error) {
    complain(error);
  }
  $("stage").textContent = "";
}

function setFile(role, file) {
  if (file) files[role] = file;
  else delete files[role];
  const drop = $(`drop-${role}`), note = drop.querySelector("small");
  drop.classList.toggle("full", Boolean(file));
  note.textContent = file ? file.name : note.title;
  drop.querySelector("button").hidden = !file;
  if (!file) drop.querySelector("input").value = "";
  if (role === "intrinsics") $("intrinsics").value = "";
  chooseModels();
}

// What is about depth that was measured is hidden where a picture is all there is.
function chooseRows() {
  const alone = Boolean(files.rgb && !files.low);
  $("unit-row").hidden = alone && !files.truth;
  $("realsense-row").hidden = $("unit-row").hidden || !$("unit").value.startsWith("realsense");
  $("scale-row").hidden = $("more").hidden = alone;
  $("drop-confidence").hidden = alone && !files.confidence;
}

// Only models whose inputs are all there, and that look at the depth if it is, can be chosen; what is chosen stays.
function chooseModels() {
  chooseRows();
  const select = $("model"), before = select.value;
  select.replaceChildren();
  const looks = (model) => model.inputs.includes("low") === Boolean(files.low);
  const known = about.models.filter((model) => looks(model) && model.inputs.every((role) => files[role]));
  for (const model of known) option(select, model.name, model.name);
  const names = known.map((model) => model.name);
  const usual = about.defaults[["low", "rgb"].filter((role) => files[role]).join("+")];
  const wanted = about.own.find((name) => names.includes(name)) || usual;
  const keep = names.includes(before) && select.dataset.chosen === "yes";
  select.value = keep ? before : names.includes(wanted) ? wanted : names[0] || "";
  $("task").textContent = known.length ? about.models.find((m) => m.name === select.value).task : "choose the files first";
  if (!known.length) option(select, "", "–");
  $("scale").placeholder = files.rgb ? "the picture's size" : "such as 4";
  if (!files.rgb && !$("scale").value) $("scale").value = "4";
  if (files.rgb && $("scale").value === "4") $("scale").value = "";
  $("go").disabled = !known.length || run !== null;
}

// ------------------------------------------------------------------------------- a run

function unit() {
  const chosen = $("unit").value;
  return chosen.startsWith("realsense") ? `realsense:${$("realsense").value.trim()}` : chosen;
}

function wishes() {
  const wanted = { model: $("model").value, files: {}, ...lens(!files.low) };
  for (const role of Object.keys(files)) wanted.files[role] = files[role].token;
  if (!$("unit-row").hidden) wanted.unit = unit();
  if (files.low) {
    for (const name of ["scale", "min_confidence", "confidence_max"]) wanted[name] = $(name).value;
    for (const name of ["keep_holes", "nan_holes", "align"]) wanted[name] = $(name).checked;
  }
  return wanted;
}

// The camera; the focal length alone is for depth from a picture alone.
function lens(alone) {
  return { fov_deg: $("fov").value, intrinsics: $("intrinsics").value, focal: alone ? $("focal").value : "" };
}

function busy(on) {
  $("cancel").hidden = !on;
  $("progress").hidden = !on;
  $("progress").value = 0;
  if (!on) $("stage").textContent = "";
  $("go").disabled = on || !$("model").value;
  $("set-camera").disabled = on;
}

// A run from its beginning to its result; ``begin`` asks for it.
async function pursue(begin) {
  complain(null);
  $("lines").hidden = true;
  const mine = ++asked;
  try {
    run = (await begin()).run;
    busy(true);
    const done = await follow(run, mine);
    if (done && mine === asked) await show(run, done);
  } catch (error) {
    if (mine === asked) { complain(error); $("result").classList.add("stale"); }
  } finally {
    if (mine === asked) { run = null; busy(false); }
  }
}

async function follow(token, mine) {
  const begun = performance.now();
  for (;;) {
    const told = await ask(`api/runs/${token}`);
    if (mine !== asked) return null;
    if (told.state === "done") return told;
    if (told.state === "failed") throw new Error(told.error);
    if (told.state === "cancelled") { $("stage").textContent = ""; throw new Error("cancelled"); }
    const seconds = Math.round((performance.now() - begun) / 1000);
    $("stage").textContent = told.before ? `waiting for ${told.before} before you` : `${told.stage}, ${seconds} s`;
    $("progress").value = told.share;
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
}

// ------------------------------------------------------------------------------- the result

async function show(token, facts) {
  shown = { token, facts };
  $("result").classList.remove("stale");
  clicked = [];
  $("lines").textContent = facts.lines.join("\n");
  $("lines").hidden = false;
  $("empty").hidden = true;
  $("shown").hidden = $("below").hidden = false;
  for (const [id, first] of [["left", ["low", "rgb"]], ["right", ["depth"]]]) {
    const select = $(id), before = select.value;
    select.replaceChildren();
    for (const view of Object.keys(VIEWS)) if (facts.views.includes(view)) option(select, view, called(view));
    select.value = facts.views.includes(before) ? before : first.find((view) => facts.views.includes(view));
  }
  legend("depth-legend", ...facts.range);
  $("error-legend").hidden = facts.worst === null;
  if (facts.worst !== null) legend("error-legend", 0, facts.worst, "error ");
  if (facts.known_camera) $("fov").value = "";
  else if (!$("fov").value) $("fov").value = "60";
  $("focal-row").hidden = !facts.alone;
  $("download-error").hidden = true;
  for (const item of $("downloads").children) item.hidden = !facts.downloads.includes(item.dataset.name);
  $("out-unit-row").hidden = facts.unit !== "m";
  nameClasses(facts.classes);
  chooseViews();
  resize();
  split(50);
  mark(null);
  histogram(facts.histogram);
  await space(facts);
}

function legend(id, low, high, word = "") {
  const sign = shown.facts.unit;
  const [from, to] = [low, high].map((v) => v.toPrecision(3));
  $(id).querySelector("figcaption").replaceChildren(...[`${word}${from}`, `${to} ${sign}`].map((text) => {
    const made = document.createElement("span");
    made.textContent = text;
    return made;
  }));
}

function chooseViews() {
  for (const [id, image, tag] of [["left", "before", "left-tag"], ["right", "after", "right-tag"]]) {
    const view = $(id).value;
    $(image).src = `api/runs/${shown.token}/images/${view}`;
    $(image).classList.toggle("coarse", view === "low" || $("zoom").value !== "fit");
    $(tag).textContent = called(view);
  }
  $("class-legend").hidden = ![$("left").value, $("right").value].includes("classes");
}

function nameClasses(classes) {
  $("class-legend").replaceChildren(...classes.map(([name, colour]) => {
    const made = document.createElement("span"), key = document.createElement("span");
    key.className = "key";
    key.style.background = colour;
    made.append(key, ` ${name}`);
    return made;
  }));
}

// The picture as wide as its place allows, or so many screen pixels for each of its own.
function resize() {
  if (!shown) return;
  const { width, height } = shown.facts, zoom = $("zoom").value, room = $("frame").clientWidth;
  const high = Math.max(300, window.innerHeight * 0.72);
  const scale = zoom === "fit" ? Math.min(room / width, high / height) : Number(zoom);
  $("compare").style.width = `${width * scale}px`;
  $("compare").style.height = `${height * scale}px`;
  mark(null, true);
}

function split(percent) {
  const at = Math.min(100, Math.max(0, percent));
  $("handle").style.left = `${at}%`;
  $("handle").setAttribute("aria-valuenow", Math.round(at));
  $("before").style.clipPath = `inset(0 ${100 - at}% 0 0)`;
}

function slide() {
  const handle = $("handle");
  let held = false;
  handle.addEventListener("pointerdown", (event) => { held = true; handle.setPointerCapture(event.pointerId); });
  handle.addEventListener("pointermove", (event) => {
    if (!held) return;
    const box = $("compare").getBoundingClientRect();
    split(100 * (event.clientX - box.left) / box.width);
  });
  handle.addEventListener("pointerup", () => { held = false; });
  handle.addEventListener("click", (event) => event.stopPropagation());
  handle.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -2, ArrowRight: 2 }[event.key];
    if (step) { event.preventDefault(); split(Number(handle.getAttribute("aria-valuenow")) + step); }
  });
}

// ------------------------------------------------------------------------------- measuring

async function click(event) {
  const box = $("compare").getBoundingClientRect(), { width, height } = shown.facts;
  const at = (part, whole, count) => Math.min(count - 1, Math.max(0, Math.floor(part / whole * count)));
  if (clicked.length === 2) clicked = [];
  clicked.push([at(event.clientX - box.left, box.width, width), at(event.clientY - box.top, box.height, height)]);
  await remeasure();
}

async function remeasure() {
  if (!clicked.length) return;
  const token = shown.token, now = clicked.join(";");
  try {
    const told = await ask(`api/runs/${token}/point?at=${now}`);
    if (shown.token === token && clicked.join(";") === now) mark(told);
  } catch (error) {
    complain(error);
  }
}

const length = (value, sign) => sign !== "m" ? `${value.toPrecision(5)} ${sign}` : value < 1 ? `${(value * 100).toFixed(1)} cm` : `${value.toFixed(3)} m`;

let measured = null;
function mark(told, again = false) {
  if (!again) measured = told;
  const svg = $("marks"), box = $("compare").getBoundingClientRect();
  svg.replaceChildren();
  if (!measured || !shown) {
    if (!again) $("measured").textContent = "Click a point for its depth; click a second one for the distance between them.";
    return;
  }
  const draw = (kind, values, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
    made.textContent = text;
    svg.append(made);
  };
  const { width, height } = shown.facts, sign = measured.unit;
  const spots = measured.points.map((p) => [(p.u + 0.5) / width * box.width, (p.v + 0.5) / height * box.height]);
  if (spots.length === 2) {
    const [[x1, y1], [x2, y2]] = spots;
    draw("line", { x1, y1, x2, y2 });
    if (measured.distance !== null) draw("text", { x: (x1 + x2) / 2 + 8, y: (y1 + y2) / 2 - 8 }, length(measured.distance, "m"));
  }
  spots.forEach(([cx, cy], i) => {
    draw("circle", { cx, cy, r: 5 });
    const { depth } = measured.points[i];
    const left = cx > box.width - 90;
    draw("text", { x: left ? cx - 10 : cx + 10, y: cy + 18, "text-anchor": left ? "end" : "start" }, depth === null ? "hole" : length(depth, sign));
  });
  if (!again) $("measured").textContent = said(measured);
}

function said({ points, distance, unit: sign }) {
  const words = points.map(({ u, v, depth, measured: real, xyz }) => {
    if (depth === null) return `(${u}, ${v}): a hole`;
    const place = xyz ? `, at x ${xyz[0].toFixed(3)}, y ${xyz[1].toFixed(3)}, z ${xyz[2].toFixed(3)} m` : "";
    const exact = sign === "m" ? `${depth.toFixed(3)} m` : length(depth, sign);
    return `pixel (${u}, ${v}): depth ${exact}${place}${real ? "" : " (filled: nothing was measured nearby)"}`;
  });
  if (points.length < 2) return words[0];
  const apart = distance === null ? "no distance: both points need depth in metres" : `distance ${distance.toFixed(3)} m`;
  return [apart, ...words].join("\n");
}

// ------------------------------------------------------------------------------- in space

async function space(facts) {
  const token = shown.token;
  $("space-note").textContent = facts.surface || facts.camera;
  if (!cloud.gl) {
    $("space-note").textContent = "This browser shows no WebGL: download mesh.glb or cloud.ply instead.";
    return;
  }
  if (facts.surface) { cloud.clear(); return; }
  const answer = await fetch(`api/runs/${token}/images/surface`);
  if (answer.ok && shown.token === token) cloud.show(await answer.arrayBuffer());
}

async function setCamera() {
  complain(null);
  const token = shown.token;
  try {
    const facts = await post(`api/runs/${token}/camera`, lens(shown.facts.alone));
    if (shown.token !== token) return;
    if (facts.run) { await pursue(() => facts); return; } // how far all is depends on the camera: a run of its own
    await space(facts);
    await remeasure();
  } catch (error) {
    $("space-note").textContent = error.message;
  }
}

// ------------------------------------------------------------------------------- histogram and downloads

function histogram({ start, end, depth, low }) {
  const svg = $("histogram"), most = Math.max(...(depth || [0]), ...(low || [0]), 1e-9);
  const [width, floor, high] = [400, 145, 130];
  svg.replaceChildren();
  const draw = (kind, values, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
    made.textContent = text;
    svg.append(made);
  };
  const outline = (shares) => shares.flatMap((share, i) => {
    const y = floor - share / most * high;
    return [`${10 + i / shares.length * (width - 20)},${y}`, `${10 + (i + 1) / shares.length * (width - 20)},${y}`];
  }).join(" ");
  if (depth) draw("polygon", { class: "ours", points: `10,${floor} ${outline(depth)} ${width - 10},${floor}` });
  if (low) draw("polyline", { class: "theirs", points: outline(low) });
  draw("line", { x1: 10, x2: width - 10, y1: floor, y2: floor });
  const sign = shown.facts.unit;
  for (const [share, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
    const text = `${(start + share * (end - start)).toPrecision(3)} ${sign}`;
    draw("text", { x: 10 + share * (width - 20), y: 162, "text-anchor": anchor }, text);
  }
}

async function download(name) {
  $("download-error").hidden = true;
  const unitWord = name === "sharp.png" && shown.facts.unit === "m" ? `?out_unit=${$("out-unit").value}` : "";
  try {
    const answer = await fetch(`api/runs/${shown.token}/files/${name}${unitWord}`);
    if (!answer.ok) throw new Error((await answer.json()).error);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  } catch (error) {
    $("download-error").textContent = error.message;
    $("download-error").hidden = false;
  }
}

function makeDownloads() {
  for (const { name, what } of about.downloads) {
    const item = document.createElement("li"), link = document.createElement("a"), text = document.createElement("span");
    item.dataset.name = name;
    link.href = `#${name}`;
    link.textContent = name;
    link.addEventListener("click", (event) => { event.preventDefault(); download(name); });
    text.textContent = what;
    item.append(link, text);
    $("downloads").append(item);
  }
  for (const name of about.out_units) option($("out-unit"), name, name);
}

// ------------------------------------------------------------------------------- start

async function begin() {
  makeDrops();
  slide();
  about = await ask("api/about");
  for (const row of about.units) option($("unit"), row.name, `${row.name}: ${row.text}`);
  for (const name of about.examples) option($("example"), name, name);
  makeDownloads();
  cloud = new Cloud($("cloud"));
  for (const [role, file] of Object.entries(about.given)) setFile(role, file);
  chooseModels();
  $("form").addEventListener("submit", (event) => { event.preventDefault(); pursue(() => post("api/runs", wishes())); });
  $("cancel").addEventListener("click", () => run && post(`api/runs/${run}/cancel`));
  $("model").addEventListener("change", () => { $("model").dataset.chosen = "yes"; chooseModels(); });
  $("unit").addEventListener("change", chooseRows);
  $("example").addEventListener("change", takeExample);
  for (const id of ["left", "right"]) $(id).addEventListener("change", chooseViews);
  $("zoom").addEventListener("change", () => { chooseViews(); resize(); });
  $("compare").addEventListener("click", click);
  $("set-camera").addEventListener("click", setCamera);
  for (const radio of document.querySelectorAll("input[name=mode]")) {
    radio.addEventListener("change", () => { cloud.mode = radio.value; cloud.draw(); });
  }
  window.addEventListener("resize", resize);
}

async function takeExample() {
  const name = $("example").value;
  if (!name) return;
  complain(null);
  $("stage").textContent = "making the scene …";
  try {
    const found = await post("api/examples", { name });
    for (const [role] of ROLES) setFile(role, found[role] || null);
    $("unit").value = "mm";
    chooseRows();
    $("stage").textContent = "";
    $("form").requestSubmit();
  } catch (error) {
    $("stage").textContent = "";
    complain(error);
  }
  $("example").value = "";
}

begin().catch(complain);
