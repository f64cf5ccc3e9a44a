// What the commands use of the comparison.
export type { Kind, Statement } from "./cell.js";
export { compare, micro, percent, rate, type ComparedMechanism, type Comparison } from "./compare.js";
export { CRITERIA, CRITERION_NAMES, type Criterion } from "./criteria.js";
export { BASELINE, KNOWN } from "./known/index.js";
export { combine, labelOf, type Combined, type CombinedMechanism, type StatementOn } from "./combine.js";
export type { KernelEffect, KernelTraffic, Measurement, NoKernelTraffic, Outcome } from "./measurement.js";
export { CLAIMS, CLAIMS_FROM, type Claim, type Verdict } from "./thread-2014.js";
