// What the probe of a mechanism takes and gives: facts in, what it lacks out; nothing is asked of the kernel here.
import { protectsMemory, type Mechanism as CardMechanism } from "../../card/mechanism.js";
import type { Card } from "../card.js";
import type { Machine, ModuleName } from "../machine.js";

/** What a probe looks at. */
export interface Probed {
  readonly machine: Machine;
  readonly card: Card;
}

/** One thing that a mechanism needs and this machine or card has not. */
export interface Lack {
  readonly what: string;
  /** The command that mends it, or in words what does; null where nothing can. */
  readonly mend: string | null;
}

/** A way to bring packets into user space. */
export interface Mechanism {
  /** As the comparison names it. */
  readonly name: string;
  /** What it still lacks on this card; empty where it can be used now. */
  readonly probe: (facts: Probed) => readonly Lack[];
}

/** A lack where `missing` holds. */
export function lackIf(missing: boolean, what: string, mend: string | null): Lack[] {
  return missing ? [{ what, mend }] : [];
}

/** What keeps a module of the kernel away. */
export function lacksModule({ machine }: Probed, name: ModuleName): Lack[] {
  switch (machine.modules[name]) {
    case "there":
      return [];
    case "module":
      return [{ what: `the module ${name} is not loaded`, mend: `sudo modprobe ${name}` }];
    case "unknown":
      return [{ what: `whether the kernel has ${name} cannot be seen`, mend: `sudo modprobe ${name}` }];
    case "absent":
      return [{ what: `the kernel was built without ${name}`, mend: `use a kernel that has ${name}` }];
  }
}

/** Memory that a card reaches by its physical address has to stay there: huge pages do. */
export function lacksHugepages({ machine }: Probed): Lack[] {
  return lackIf(
    machine.hugepages.total === 0,
    "there are no huge pages, whose physical address stays",
    "sudo sysctl -w vm.nr_hugepages=64",
  );
}

/** What keeps a card from being taken over whole: it has to be a PCI function that carries nothing now. */
export function lacksSpareFunction({ card }: Probed, via: CardMechanism): Lack[] {
  if (card.pci === null) return [{ what: `${card.facts.link.name} is on no PCI bus`, mend: null }];
  const { name, index } = card.facts.link;
  const used = card.facts.addresses.some((each) => each.ifindex === index && !isLinkLocal(each));
  const functions = card.pci.virtualFunctions.now;
  const other = "use a card that the kernel does not need, or a virtual function";
  return [
    ...lackIf(used, `the kernel has addresses on ${name}, and would lose the card`, other),
    ...card.above.map((what) => ({ what: `${what}, and would lose the card`, mend: other })),
    ...lackIf(
      functions.length > 0,
      `it has virtual functions, which would go with it: ${functions.join(", ")}`,
      `sudo bifurcate take ${functions[0] ?? ""} --via ${via}${protectsMemory(via) ? "" : " --no-memory-protection"}`,
    ),
  ];
}

/** An IPv6 address that only holds on its own wire (fe80::/10): every card that is up has one. */
export function isLinkLocal({
  family,
  address,
}: {
  readonly family: 4 | 6;
  readonly address: string;
}): boolean {
  return family === 6 && /^fe[89ab]/i.test(address);
}

/** CAP names that the process lacks. */
export function lacksCapability({ machine }: Probed, ...names: readonly string[]): Lack[] {
  const missing = names.filter((name) => !machine.capabilities.includes(name));
  return lackIf(missing.length > 0, `the process lacks ${missing.join(", ")}`, "run it as root");
}
