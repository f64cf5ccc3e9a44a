// The words that open() takes: what they mean, and every way to get them wrong.

import { BifurcateError } from "@bifurcate/control";
import { describe, expect, it } from "vitest";
import { isSpec, parseSpec } from "./spec.js";

describe("a spec", () => {
  it("of the device's end has defaults that a guest can live with", () => {
    expect(parseSpec("vhost-user:/run/vm0.sock")).toEqual({
      device: "vhost-user",
      path: "/run/vm0.sock",
      server: false,
      queues: 1,
      frames: 4096,
      frameSize: 2048,
      jumboFrames: 48,
      ringSize: 256,
      layout: null,
      busyPoll: false,
    });
  });

  it("takes a flag and keys in any order, and the pool grows with queues and rings", () => {
    expect(parseSpec("vhost-user:a b=c.sock,queues=4,server,layout=split,jumboFrames=0")).toMatchObject({
      path: "a b=c.sock",
      server: true,
      queues: 4,
      frames: 16_384,
      jumboFrames: 0,
      layout: "split",
    });
    const large = parseSpec("virtio-user:d.sock,queues=2,ringSize=4096,frameSize=4096");
    expect(large).toMatchObject({ frames: 32_768, frameSize: 4096, ringSize: 4096 });
  });

  it("is told from an interface", () => {
    const words = [
      "loopback",
      "loopback:queues=2",
      "vhost-user:x",
      "virtio-user:",
      "vhost-user",
      "lo",
      "eth0:1",
    ];
    expect(words.filter(isSpec)).toEqual(["loopback", "loopback:queues=2", "vhost-user:x", "virtio-user:"]);
  });

  const wrong: [string, string][] = [
    ["vhostuser:/run/x", "there is no device named 'vhostuser'"],
    ["vhost-user", "the path of the socket is missing"],
    ["vhost-user:,server", "the path of the socket is missing"],
    ["vhost-user:a\0b", "holds a zero byte"],
    [`vhost-user:/${"x".repeat(107)}`, "at most 107 bytes, this one 108"],
    [`vhost-user:/${"ü".repeat(54)}`, "at most 107 bytes, this one 109"],
    ["vhost-user:/x,listen", "'listen' is not a key"],
    ["vhost-user:/x,server=on", "server takes no value"],
    ["vhost-user:/x,queues=0", "queues is 1 to 127"],
    ["vhost-user:/x,queues=128", "queues is 1 to 127"],
    ["vhost-user:/x,queues=two", "queues is a whole number"],
    ["vhost-user:/x,queues", "queues is a whole number"],
    ["vhost-user:/x,queues=1,queues=2", "queues is given twice"],
    ["vhost-user:/x,ringSize=256", "'ringSize' is not a key"],
    ["virtio-user:/x,ringSize=100", "ringSize is a power of two"],
    ["virtio-user:/x,ringSize=65536", "ringSize is 2 to 32768"],
    ["virtio-user:/x,frames=511", "frames is at least 512: so many stand in 2 rings of 256"],
    ["vhost-user:/x,frames=1048576", "less than 2 GiB"],
    ["vhost-user:/x,frames=63", "at least 64"],
    ["vhost-user:/x,layout=both", "layout is packed or split"],
    ["vhost-user:/x,frameSize=1500", "frameSize is 2048 or 4096"],
    ["loopback:server", "'server' is not a key"],
    ["loopback:length=13", "length is 14 to 1792"],
    ["", "there is no device named ''"],
  ];
  for (const [spec, why] of wrong) {
    it(`'${spec.slice(0, 40)}' is refused: ${why}`, () => {
      let thrown: unknown;
      try {
        parseSpec(spec);
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toBeInstanceOf(BifurcateError);
      expect(thrown).toMatchObject({ code: "E_BAD_OPTION", why: expect.stringContaining(why) as string });
      expect((thrown as BifurcateError).next).toMatch(/^Write for example /);
    });
  }
});
