// Two network namespaces joined by a veth card of several queues, for tests of real traffic. Needs root.

import { execFileSync, spawn, type ChildProcess } from "node:child_process";

let made = 0;

/** Why the tests of this kind cannot run here; null when they can. */
export function cannotRun(): string | null {
  if (process.getuid?.() !== 0) return "needs root to make network namespaces";
  try {
    execFileSync("ip", ["-V"], { stdio: "ignore" });
    return null;
  } catch {
    return "needs ip (package iproute2)";
  }
}

/** What a client saw. */
export interface Answers {
  readonly sent: number;
  readonly answered: number;
}

/** The two ends: `card` is split, `peer` has the clients. */
export class VethPair {
  /** Namespace of the card. */
  readonly netns: string;
  readonly peerNetns: string;
  readonly card = "card0";
  readonly peer = "peer0";
  readonly address = "10.91.0.1";
  private readonly children = new Set<ChildProcess>();
  private readonly others: string[] = [];

  /** @param queues Receive queues of the card. */
  constructor(queues = 2) {
    const name = `bfapi${process.pid}n${made++}`;
    this.netns = `${name}a`;
    this.peerNetns = `${name}b`;
    const many = ["numrxqueues", `${queues}`, "numtxqueues", `${queues}`];
    ip("netns", "add", this.netns);
    ip("netns", "add", this.peerNetns);
    const end = ["type", "veth", "peer", "name", this.peer, "netns", this.peerNetns, ...many];
    ip("link", "add", this.card, "netns", this.netns, ...many, ...end);
    ip("-n", this.netns, "address", "add", `${this.address}/24`, "dev", this.card);
    ip("-n", this.peerNetns, "address", "add", "10.91.0.2/24", "dev", this.peer);
    ip("-n", this.netns, "link", "set", this.card, "up");
    ip("-n", this.peerNetns, "link", "set", this.peer, "up");
    this.settle();
  }

  /**
   * Waits until both ends carry: the kernel tells of a carrier, and gives the queues their discipline, in a work item of
   * its own (net/core/link_watch.c). Until then the settings are not those of a card that is up, and what is sent is lost.
   */
  settle(): void {
    for (const [netns, name] of [
      [this.netns, this.card],
      [this.peerNetns, this.peer],
    ] as const) {
      const end = Date.now() + 60_000;
      while (!/ state UP /.test(ip("-n", netns, "-o", "link", "show", "dev", name))) {
        if (Date.now() > end) throw new Error(`${name} has no carrier`);
      }
    }
  }

  /**
   * A second card `card1` in the card's namespace, of one queue, whose far end is the only card of a namespace made for
   * it, with an address of the same network.
   */
  behind(): { readonly card: string; readonly netns: string; readonly address: string } {
    const [card, netns, address] = ["card1", `${this.netns}behind`, "10.91.0.3"];
    ip("netns", "add", netns);
    this.others.push(netns);
    ip("link", "add", card, "netns", this.netns, "type", "veth", "peer", "name", "peer1", "netns", netns);
    ip("-n", netns, "address", "add", `${address}/24`, "dev", "peer1");
    ip("-n", this.netns, "link", "set", card, "up");
    ip("-n", netns, "link", "set", "peer1", "up");
    return { card, netns, address };
  }

  /** Everything that `ip -d link` says of the card, without counters. */
  settings(): string {
    return ip("-n", this.netns, "-d", "-j", "link", "show", "dev", this.card);
  }

  /**
   * Sends UDP datagrams one by one and counts those that come back as they were sent. One that has not come back after
   * two seconds holds the next no longer, and counts all the same when it comes: a busy machine is not a loss.
   * @param patience How long the last ones may take, ms: less where no answer is to come, which says that none has.
   */
  async ask(port: number, count: number, address = this.address, patience = 60_000): Promise<Answers> {
    const out = await this.node(
      this.peerNetns,
      `const socket = require("node:dgram").createSocket("udp4");
       let answered = 0, sent = 0, timer, last = "";
       const open = new Set();
       const end = () => { console.log(JSON.stringify({ sent, answered })); process.exit(0); };
       const next = () => {
         clearTimeout(timer);
         if (sent === ${count} && open.size === 0) return end();
         if (sent === ${count}) return (timer = setTimeout(end, ${patience}));
         open.add(last = "question " + sent++);
         timer = setTimeout(next, ${Math.min(patience, 2000)});
         socket.send(last, ${port}, "${address}");
       };
       socket.on("message", (answer) => {
         const text = String(answer);
         if (!open.delete(text)) return;
         answered++;
         if (text === last) next();
         else if (sent === ${count} && open.size === 0) end();
       });
       next();`,
    );
    return JSON.parse(out) as Answers;
  }

  /** Sends UDP datagrams to which no answer comes; how many came all the same. */
  async tell(port: number, count: number): Promise<number> {
    return (await this.ask(port, count, this.address, 1000)).answered;
  }

  /**
   * Waits until an address answers there: the kernel gives up a neighbour that has not answered for three seconds, and
   * what was to be sent to it (arp(7)); whoever stands between may take longer than that to come up.
   */
  async reach(port: number, address: string): Promise<void> {
    for (const end = Date.now() + 100_000; Date.now() < end;) {
      if ((await this.ask(port, 1, address, 2000)).answered === 1) return;
    }
    throw new Error(`nobody answers at ${address}, port ${port}`);
  }

  /**
   * Sends one datagram of that text and gives the ports from which answers came: soon after the first, or when the patience,
   * in ms, is over.
   */
  async answersFrom(port: number, text: string, patience: number): Promise<number[]> {
    const out = await this.node(
      this.peerNetns,
      `const socket = require("node:dgram").createSocket("udp4");
       const from = [];
       const end = () => { console.log(JSON.stringify(from)); process.exit(0); };
       socket.on("message", (_, { port }) => { from.push(port); setTimeout(end, 50); });
       socket.bind(0, () => socket.send("${text}", ${port}, "${this.address}"));
       setTimeout(end, ${patience});`,
    );
    return JSON.parse(out) as number[];
  }

  /** Sends lines over one TCP connection, and counts those that come back; the next may take a minute at most. */
  async askTcp(port: number, count: number): Promise<Answers> {
    const out = await this.node(
      this.peerNetns,
      `const socket = require("node:net").connect(${port}, "${this.address}");
       let answered = 0, sent = 0;
       const end = () => { console.log(JSON.stringify({ sent, answered })); process.exit(0); };
       const idle = setTimeout(end, 60000);
       const next = () => { sent++; socket.write("line"); idle.refresh(); };
       socket.on("connect", next);
       socket.on("data", () => { answered++; if (sent === ${count}) end(); else next(); });
       socket.on("error", end);`,
    );
    return JSON.parse(out) as Answers;
  }

  /** Echo servers of the kernel's own sockets in the card's namespace; resolves when they listen. */
  serve(port: number, netns = this.netns): Promise<void> {
    return new Promise((resolve, reject) => {
      const child = this.spawn(
        netns,
        `const udp = require("node:dgram").createSocket("udp4");
         udp.on("message", (text, from) => udp.send(text, from.port, from.address));
         require("node:net").createServer((socket) => { socket.on("error", () => {}); socket.pipe(socket); })
           .listen(${port}, () => udp.bind(${port}, () => console.log("ready")));`,
      );
      child.stdout!.once("data", () => resolve());
      child.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
    });
  }

  /** Ends the children and deletes the namespaces, and the card with them. */
  remove(): void {
    for (const child of this.children) child.kill("SIGKILL");
    for (const name of [this.netns, this.peerNetns, ...this.others]) {
      try {
        ip("netns", "delete", name);
      } catch {
        // It may be gone already.
      }
    }
  }

  /** Runs a script in a namespace; what it prints. */
  node(netns: string, script: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const child = this.spawn(netns, script);
      let out = "";
      child.stdout!.on("data", (chunk) => (out += String(chunk)));
      // Not at its exit: what it printed may come after that.
      child.once("close", (code) =>
        code === 0 ? resolve(out) : reject(new Error(`ended with ${code}: ${out}`)),
      );
    });
  }

  private spawn(netns: string, script: string): ChildProcess {
    const args = ["netns", "exec", netns, process.execPath, "-e", script];
    const child = spawn("ip", args, { stdio: ["ignore", "pipe", "inherit"] });
    this.children.add(child);
    child.once("exit", () => this.children.delete(child));
    return child;
  }
}

/** Runs ip(8); what it prints. */
export function ip(...args: string[]): string {
  return execFileSync("ip", args, { encoding: "utf8" });
}
