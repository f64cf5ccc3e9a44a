// Networks to try bifurcate on without hardware: namespaces joined by a multi-queue veth card.

export { labDown, labFind, labList, labUp } from "./network.js";
export type { Lab, LabCard, LabEnd, LabOptions, LabState } from "./network.js";
export { inNetns, ip, run, spawnIn, toolEnvironment } from "./tools.js";
export type { Ended } from "./tools.js";
