/* What the house uses of three.js; README.md says how three.js beside this file is made from it. */
export {
  Box3, DoubleSide, Group, MeshBasicMaterial, MeshNormalMaterial, MeshStandardMaterial, NeutralToneMapping,
  PerspectiveCamera, PMREMGenerator, Scene, Texture, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
export { RoomEnvironment } from "three/addons/environments/RoomEnvironment.js";
export { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
