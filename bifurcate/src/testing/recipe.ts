// For tests: the commands by which docs/vhost-user.md serves a VM, with this machine's names in the place of the page's.

import { readFileSync } from "node:fs";

const PAGE = readFileSync(new URL("../../../docs/vhost-user.md", import.meta.url), "utf8");

/** What the page calls things, and what they are called here. */
export interface Names {
  /** The card, `eth0` on the page: the host's, and the guest's. */
  readonly card: string;
  /** `/run/vm0.sock`. */
  readonly socket?: string;
  readonly mac?: string;
  /** The VM's address. */
  readonly address: string;
  /** Whom the VM asks first. */
  readonly peer?: string;
}

/** The recipe: commands of the host and of the VM, one a line, and what undoes the host's. */
export interface Recipe {
  readonly host: readonly string[];
  readonly vm: readonly string[];
  readonly undo: string;
}

export function recipe(names: Names): Recipe {
  const [, section] = /^## A VM served by a split flow of the host's card$(.*?)^##/ms.exec(PAGE)!;
  const here = (text: string): string =>
    [
      ["eth0", names.card],
      ["/run/vm0.sock", names.socket],
      ["52:54:00:12:34:56", names.mac],
      ["192.0.2.7", names.address],
      ["192.0.2.1", names.peer],
    ].reduce((all, [theirs, ours]) => (ours === undefined ? all : all.replaceAll(theirs!, ours)), text);
  const blocks = [...section!.matchAll(/^```sh\n(.*?)^```$/gms)].map((match) =>
    here(match[1]!)
      .replaceAll(/ *\\\n */g, " ")
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#")),
  );
  const [, undo] = /is undone by hand:\s`([^`]+)`/.exec(section!)!;
  return { host: blocks[0]!, vm: blocks[2]!, undo: here(undo!) };
}

/** Splits a line as a shell would; the page uses single quotes only. */
export function words(line: string): string[] {
  return [...line.matchAll(/(?:[^\s']|'[^']*')+/g)].map(([word]) => word.replaceAll("'", ""));
}
