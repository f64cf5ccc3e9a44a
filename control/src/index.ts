// What the control package offers to the API and the commands.
export * from "./errors.js";
export { verifierRefused } from "./verifier.js";
export type * from "./kernel.js";
export { findLink, readFacts, type Facts, type Listener, type OtherSplit } from "./facts/facts.js";
export { changesOf, settingsOf, type Settings } from "./facts/settings.js";
export { isAlive, ownIdentity, type ProcessIdentity } from "./facts/processes.js";
export type { Session } from "./facts/session.js";
export {
  checkCapabilities,
  netnsPath,
  openNetns,
  prepareSplit,
  type PreparedSplit,
  type PrepareOptions,
} from "./prepare.js";
export { compileFlow } from "./steering/compile-flow.js";
export type { CompileFlow, Flow } from "./steering/flow.js";
export { HINTS, rxMetadata, xdpMetadata, type Hint, type RxMetadata } from "./steering/metadata.js";
export { ownQueueRefusal } from "./steering/ladder.js";
export { makePlan } from "./steering/make-plan.js";
export { verbsRules } from "./steering/verbs-flows.js";
export type * from "./steering/plan.js";
export { stateDirectory } from "./transaction/journal.js";
export { listSplits, type SplitEntry } from "./transaction/registry.js";
export { beginSplit, type BegunSplit } from "./begin.js";
export type { GuardianHandle, GuardianOptions, LaunchGuardian } from "./guardian/launch.js";
export { nativeKernel, watchLinks, type LinkEvent, type LinkWatch } from "./native.js";
export {
  release,
  releaseStale,
  type Released,
  type ReleaseOptions,
  type StaleReport,
} from "./transaction/release.js";
export {
  confirmSplit,
  SplitTransaction,
  type TransactionHooks,
  type TransactionOptions,
} from "./transaction/transaction.js";
export type { UndoReport } from "./transaction/undo.js";
export * from "./compare/index.js";
export { readCard, type Card } from "./doctor/card.js";
export { examine, type Examination, type ExaminedCard } from "./doctor/examine.js";
export { machineFiles, type Files } from "./doctor/files.js";
export { readMachine, type Machine } from "./doctor/machine.js";
export { isLinkLocal, type Lack } from "./doctor/mechanisms/mechanism.js";
export { MECHANISMS, probeMechanisms } from "./doctor/mechanisms/index.js";
export type { Finding, FindingName } from "./doctor/finding.js";
export type { Complaint, ComplaintName } from "./explain/complaint.js";
export { explainPacket, type Explanation } from "./explain/explain.js";
export { readExplainFacts, type Asked, type ExplainFacts } from "./explain/facts.js";
export { watchPackets, type LiveOptions } from "./explain/live/observe.js";
export type { LiveVerdict } from "./explain/live/verdict.js";
export { frameFromFile, isCaptureFile } from "./explain/packet/capture-file.js";
export { parsePacket } from "./explain/packet/line.js";
export { renderChange, renderPath, renderPlan } from "./steering/render.js";
export { decide, type Decision, type Repair, type WatchMemory } from "./watch/decide.js";
export { observe, type Observation, type OwnState } from "./watch/observe.js";
