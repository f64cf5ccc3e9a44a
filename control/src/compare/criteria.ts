// The seven criteria that mechanisms are compared by: those that were asked for on the dpdk-dev list in 2014.

/** The criteria in the order of the table, with their headings. */
export const CRITERIA = {
  upstream: "upstream status",
  kernelNetdev: "usable with the kernel netdev",
  vm: "usable in a VM",
  ethernet: "usable for Ethernet",
  hardware: "hardware requirements",
  security: "security protection",
  performance: "performance",
} as const;

/** One of them. */
export type Criterion = keyof typeof CRITERIA;

/** All of them, in order. */
export const CRITERION_NAMES = Object.keys(CRITERIA) as Criterion[];
