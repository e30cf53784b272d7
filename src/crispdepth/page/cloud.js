// A binary glTF mesh that turns: plain WebGL, no library. Reads what formats/glb.py writes: one mesh of triangles.
"use strict";

const SHADERS = [
  `attribute vec3 place; attribute vec3 normal; attribute vec4 colour;
   uniform mat4 view; uniform float size; uniform float painted; varying vec3 shade;
   void main() {
     gl_Position = view * vec4(place, 1.0);
     gl_PointSize = size;
     float light = 0.35 + 0.65 * abs(normal.z);
     vec3 plain = vec3(0.72, 0.78, 0.86) * light;
     shade = painted > 0.5 ? pow(colour.rgb, vec3(1.0 / 2.2)) : plain;
   }`,
  `precision mediump float; varying vec3 shade; void main() { gl_FragColor = vec4(shade, 1.0); }`,
];

// The parts of a .glb by name: typed arrays over its binary chunk.
function readGlb(buffer) {
  const words = new DataView(buffer);
  if (words.getUint32(0, true) !== 0x46546c67) throw new Error("not a .glb");
  const textLength = words.getUint32(12, true);
  const scene = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, textLength)));
  const start = 20 + textLength + 8;
  const kinds = { 5126: Float32Array, 5125: Uint32Array, 5123: Uint16Array };
  const widths = { SCALAR: 1, VEC3: 3, VEC4: 4 };
  const part = (index) => {
    const accessor = scene.accessors[index];
    const offset = start + scene.bufferViews[accessor.bufferView].byteOffset;
    return new kinds[accessor.componentType](buffer, offset, accessor.count * widths[accessor.type]);
  };
  const surface = scene.meshes[0].primitives[0];
  const { POSITION, NORMAL, COLOR_0 } = surface.attributes;
  return {
    places: part(POSITION), normals: part(NORMAL), triangles: part(surface.indices),
    colours: COLOR_0 === undefined ? null : part(COLOR_0),
  };
}

class Cloud {
  constructor(canvas) {
    this.canvas = canvas;
    this.mode = "surface";
    this.gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
    if (this.gl) {
      this.gl.getExtension("OES_element_index_uint");
      this.program = this.compiled();
    }
    this.home();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  compiled() {
    const gl = this.gl, program = gl.createProgram();
    [gl.VERTEX_SHADER, gl.FRAGMENT_SHADER].forEach((kind, i) => {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, SHADERS[i]);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(program, shader);
    });
    gl.linkProgram(program);
    gl.useProgram(program);
    return program;
  }

  home() { this.turn = 0.25; this.tilt = 0.1; this.near = 1; this.shift = [0, 0]; }

  show(buffer) {
    const gl = this.gl, mesh = readGlb(buffer);
    this.count = mesh.triangles.length;
    this.points = mesh.places.length / 3;
    [["place", mesh.places, 3], ["normal", mesh.normals, 3], ["colour", mesh.colours, 4]].forEach(([name, data, width]) => {
      const at = gl.getAttribLocation(this.program, name);
      if (at < 0) return;
      if (data === null) { gl.disableVertexAttribArray(at); return; }
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(at);
      const small = data instanceof Uint16Array;
      gl.vertexAttribPointer(at, width, small ? gl.UNSIGNED_SHORT : gl.FLOAT, small, 0, 0);
    });
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.triangles, gl.STATIC_DRAW);
    this.painted = mesh.colours !== null;
    this.measure(mesh.places);
    this.draw();
  }

  // The pivot is the median depth on the axis; the field is what the camera saw, so that the start looks familiar.
  measure(places) {
    const step = Math.max(1, Math.floor(places.length / 3 / 20000));
    const zs = [];
    let spread = 0;
    for (let i = 0; i < places.length; i += 3 * step) {
      zs.push(-places[i + 2]);
      spread = Math.max(spread, Math.abs(places[i] / places[i + 2]), Math.abs(places[i + 1] / places[i + 2]));
    }
    zs.sort((a, b) => a - b);
    this.middle = zs[zs.length >> 1];
    this.end = zs[zs.length - 1];
    this.spread = spread;
  }

  clear() { this.count = 0; this.draw(); }

  matrix(aspect) {
    const d = this.middle / this.near * 1.4, f = 1 / (this.spread * 1.02) * (aspect > 1 ? 1 : aspect);
    const [c, s, ct, st] = [Math.cos(this.turn), Math.sin(this.turn), Math.cos(this.tilt), Math.sin(this.tilt)];
    // rotate about (0, 0, -middle), then step back by d
    const r = [[c, 0, s], [st * s, ct, -st * c], [-ct * s, st, ct * c]];
    const t = [0, 1, 2].map((i) => r[i][2] * this.middle);
    t[0] += this.shift[0]; t[1] += this.shift[1]; t[2] -= d;
    const near = d / 100, far = d + 4 * (this.end + this.middle);
    const a = (far + near) / (near - far), b = 2 * far * near / (near - far);
    const rows = [
      [r[0][0] * f, r[0][1] * f, r[0][2] * f, t[0] * f],
      [r[1][0] * f * aspect, r[1][1] * f * aspect, r[1][2] * f * aspect, t[1] * f * aspect],
      [r[2][0] * a, r[2][1] * a, r[2][2] * a, t[2] * a + b],
      [-r[2][0], -r[2][1], -r[2][2], -t[2]],
    ];
    return new Float32Array([0, 1, 2, 3].flatMap((column) => rows.map((row) => row[column])));
  }

  draw() {
    const gl = this.gl, canvas = this.canvas;
    if (!gl) return;
    const dense = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * dense));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * dense));
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0.063, 0.067, 0.078, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    if (!this.count) return;
    gl.enable(gl.DEPTH_TEST);
    gl.uniformMatrix4fv(gl.getUniformLocation(this.program, "view"), false, this.matrix(canvas.width / canvas.height));
    gl.uniform1f(gl.getUniformLocation(this.program, "painted"), this.painted ? 1 : 0);
    gl.uniform1f(gl.getUniformLocation(this.program, "size"), 1.5 * dense * Math.max(1, Math.min(3, this.near)));
    if (this.mode === "points") gl.drawArrays(gl.POINTS, 0, this.points);
    else gl.drawElements(gl.TRIANGLES, this.count, gl.UNSIGNED_INT, 0);
  }

  listen() {
    const canvas = this.canvas;
    let last = null;
    canvas.addEventListener("pointerdown", (event) => {
      last = [event.clientX, event.clientY];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      const [x, y] = [event.clientX - last[0], event.clientY - last[1]];
      last = [event.clientX, event.clientY];
      if (event.shiftKey) {
        const scale = 2 * this.spread * this.middle / canvas.clientWidth;
        this.shift = [this.shift[0] + x * scale, this.shift[1] - y * scale];
      } else this.rotate(x * 0.008, y * 0.008);
      this.draw();
    });
    canvas.addEventListener("pointerup", () => { last = null; });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.near = Math.min(20, Math.max(0.2, this.near * Math.exp(-event.deltaY * 0.001)));
      this.draw();
    }, { passive: false });
    canvas.addEventListener("dblclick", () => { this.home(); this.draw(); });
    canvas.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.rotate(...steps[event.key]);
      this.draw();
    });
  }

  rotate(turn, tilt) {
    this.turn += turn;
    this.tilt = Math.min(1.5, Math.max(-1.5, this.tilt + tilt));
  }
}
