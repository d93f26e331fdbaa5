/* Objects in three dimensions under one camera, each drawn into a canvas of its own.
 *
 * Knows three.js, canvases and files, no buttons. One renderer draws all of them one after the other, so that a wall of
 * objects needs one graphics context. Every object is moved to the origin and scaled to the unit ball, in its own
 * orientation: what differs between two canvases is the object, not the way it is looked at. Nothing is drawn unless
 * something has changed.
 */
import {
  Box3, DoubleSide, GLTFLoader, Group, MeshBasicMaterial, MeshNormalMaterial, MeshStandardMaterial, NeutralToneMapping,
  OrbitControls, PerspectiveCamera, PMREMGenerator, RoomEnvironment, Scene, Texture, Vector3, WebGLRenderer,
} from "./three/three.js";

const FIELD_OF_VIEW = 32;  // degrees
const HOME = { azimuth: 30, height: 18, distance: 4.1 };  // where the camera stands at first: degrees, object radii
const CLOSEST = 1.2, FARTHEST = 20;
const TURN_SPEED = 4;  // of OrbitControls: 15 s a round
const LIGHT = 0.65;  // so that a texture's colours come out as they are where light falls on them
const LONGEST_STEP_MS = 100;
const DENSITY = 2;  // canvas pixels a CSS pixel at most

export class Stage {
  constructor(canvases, moved) {
    this.moved = moved;  // called after everything has been drawn
    this.visible = true;  // what nobody sees does not turn by itself
    this.then = 0;
    this.renderer = new WebGLRenderer({ antialias: true, alpha: true });  // throws where there is no WebGL
    this.renderer.toneMapping = NeutralToneMapping;
    this.camera = new PerspectiveCamera(FIELD_OF_VIEW, 1, 0.02, 100);
    this.centre = new Vector3();
    this.materials = [false, true].map((flatShading) => ({  // the second for meshes without normals of their own
      Colours: null,
      Shape: new MeshStandardMaterial({ color: 0xb9b9b9, roughness: 0.9, side: DoubleSide, flatShading }),
      Normals: new MeshNormalMaterial({ side: DoubleSide, flatShading }),
      Wireframe: new MeshBasicMaterial({ color: 0x3b6f8f, wireframe: true }),
    }));
    this.look = "Colours";
    const room = new PMREMGenerator(this.renderer);
    this.light = room.fromScene(new RoomEnvironment(), 0.04).texture;  // so that metal has something to mirror
    room.dispose();
    this.views = canvases.map((canvas) => this.view(canvas));
    this.home();
  }

  view(canvas) {
    const scene = new Scene();
    scene.environment = this.light;
    scene.environmentIntensity = LIGHT;
    // The page scrolls under the wheel and under a finger that moves up or down; Ctrl + wheel and two fingers zoom.
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey && !document.fullscreenElement) event.stopImmediatePropagation();
    }, { capture: true });
    const controls = new OrbitControls(this.camera, canvas);
    canvas.style.touchAction = "pan-y";
    Object.assign(controls, { target: this.centre, minDistance: CLOSEST, maxDistance: FARTHEST,
      autoRotateSpeed: TURN_SPEED });
    controls.addEventListener("change", () => this.redraw());
    return { canvas, pen: canvas.getContext("2d"), scene, controls };
  }

  /* Shows the GLB file at `url` in one canvas and tells how large it is. */
  async load(index, url) {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${answer.status}`);
    const loader = new GLTFLoader().register((parser) => new Textures(parser));
    const { scene: object } = await loader.parseAsync(await answer.arrayBuffer(), "");
    if (this.closed) return null;
    const { centre, radius, ...facts } = measured(object);
    object.position.sub(centre);
    const holder = new Group();
    holder.scale.setScalar(1 / (radius || 1));
    holder.add(object);
    this.views[index].scene.add(holder);
    this.views[index].flat = facts.flat;
    this.redraw();
    return facts;
  }

  home() {
    const [azimuth, height] = [HOME.azimuth, HOME.height].map((degrees) => degrees * Math.PI / 180);
    this.centre.set(0, 0, 0);
    this.camera.position.setFromSphericalCoords(HOME.distance, Math.PI / 2 - height, azimuth);
    this.views[0].controls.update();
    this.redraw();
  }

  /* By so many degrees: the objects to the right, the camera upwards. */
  turn(right, up) {
    this.views[0].controls.rotateLeft(right * Math.PI / 180);
    this.views[0].controls.rotateUp(up * Math.PI / 180);
  }

  zoom(factor) { this.views[0].controls.dollyIn(1 / factor); }

  /* Where the camera stands: degrees around, degrees above the horizon, object radii away. */
  get stand() {
    const from = this.camera.position.clone().sub(this.centre), distance = from.length(), degrees = 180 / Math.PI;
    return [Math.atan2(from.x, from.z) * degrees, Math.asin(from.y / distance) * degrees, distance];
  }

  setLook(look) {
    this.look = look;
    this.redraw();
  }

  setTurning(on) {
    this.turning = on;
    this.views[0].controls.autoRotate = on;
    this.redraw();
  }

  redraw() { this.due ??= requestAnimationFrame((now) => this.draw(now)); }

  draw(now) {
    this.due = undefined;
    if (this.closed) return;
    if (this.turning && this.visible) {
      this.views[0].controls.update(Math.min(now - this.then, LONGEST_STEP_MS) / 1000);
      this.redraw();
    }
    this.then = now;
    for (const view of this.views) this.paint(view);
    this.moved();
  }

  paint({ canvas, pen, scene, flat }) {
    const density = Math.min(window.devicePixelRatio || 1, DENSITY);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * density));
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    scene.overrideMaterial = this.materials[flat ? 1 : 0][this.look];
    this.renderer.render(scene, this.camera);
    pen.clearRect(0, 0, width, height);
    pen.drawImage(this.renderer.domElement, 0, 0);
  }

  close() {
    this.closed = true;
    for (const { controls } of this.views) controls.dispose();
    this.renderer.dispose();
    this.renderer.forceContextLoss();
  }
}

/* Pictures inside a GLB, decoded from its own bytes: nothing is fetched, neither from blob addresses, which the pages'
 * policy forbids, nor from addresses that a file names. */
class Textures {
  constructor(parser) {
    this.name = "atelier_textures";
    parser.loadImageSource = (index) => decoded(parser, parser.json.images[index]);
  }
}

async function decoded(parser, source) {
  if (source.bufferView === undefined) throw new Error("a picture outside the file");
  const bytes = await parser.getDependency("bufferView", source.bufferView);
  const picture = await createImageBitmap(new Blob([bytes], { type: source.mimeType }), { colorSpaceConversion: "none" });
  return Object.assign(new Texture(picture), { needsUpdate: true });
}

/* The middle of an object and how far it reaches from there, and what can be said of it. */
function measured(object) {
  const centre = new Box3().setFromObject(object).getCenter(new Vector3()), point = new Vector3();
  let reach = 0, triangles = 0, texture = 0, flat = false;
  object.traverse(({ geometry, material, matrixWorld }) => {
    const places = geometry?.attributes?.position;
    if (!places) return;
    for (let at = 0; at < places.count; at++) {
      point.fromBufferAttribute(places, at).applyMatrix4(matrixWorld);
      reach = Math.max(reach, point.distanceToSquared(centre));
    }
    triangles += (geometry.index ?? places).count / 3;
    texture = Math.max(texture, material?.map?.image?.width ?? 0);
    flat ||= !geometry.attributes.normal;
  });
  return { centre, radius: Math.sqrt(reach), triangles: Math.round(triangles), texture, flat };
}
