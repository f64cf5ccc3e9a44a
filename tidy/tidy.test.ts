// The rules of the house (ARCHITECTURE.md): which arrows may exist, where `unsafe` may stand, what no file may hold.
import { describe, expect, it } from "vitest";
import { exists, files, imports } from "./tree.js";

const rust = files(/\.rs$/);
const typescript = files(/\.ts$/).filter((file) => !file.path.endsWith(".d.ts"));
const sources = typescript.filter((file) => /^(control|bifurcate|lab|bench|examples)\//.test(file.path));

/** Rust source without comments and strings, so that a word in a sentence is not taken for code. */
function code(text: string): string {
  return text.replace(/\/\/.*$/gm, "").replace(/"(?:\\.|[^"\\])*"/g, '""');
}

describe("arrows between the Rust crates", () => {
  const allowed: Record<string, string[]> = {
    linux: [],
    datapath: ["bifurcate-linux"],
    client: ["bifurcate-linux", "bifurcate-datapath"],
    addon: ["bifurcate-linux", "bifurcate-datapath"],
  };
  for (const manifest of files(/^[a-z]+\/Cargo\.toml$/)) {
    const crate = manifest.path.split("/")[0]!;
    it(`${crate} depends on nothing above it`, () => {
      const ours = [...manifest.text.matchAll(/^(bifurcate-[a-z]+)\s*=/gm)].map((match) => match[1]!);
      expect(allowed[crate], `${crate} is not in the design`).toBeDefined();
      // Its tests may name the crate itself, with features that only they need.
      const others = ours.filter((name) => name !== `bifurcate-${crate}`);
      expect(others.filter((name) => !allowed[crate]!.includes(name))).toEqual([]);
    });
  }

  it("no device imports another device", () => {
    // No device: what our own drivers stand on, and share.
    const ground = "pmd";
    const devices = [
      ...new Set(rust.map((file) => /^datapath\/src\/device\/(\w+)\//.exec(file.path)?.[1])),
    ].filter((device) => device !== ground);
    const broken = rust.flatMap((file) => {
      const own = /^datapath\/src\/device\/(\w+)\//.exec(file.path)?.[1];
      if (own === undefined) return [];
      return devices
        .filter((other) => other !== undefined && other !== own)
        .filter((other) =>
          new RegExp(`\\bdevice::${other}\\b|super::super::${other}\\b`).test(code(file.text)),
        )
        .map((other) => `${file.path} -> ${other}`);
    });
    expect(devices.length).toBeGreaterThan(1);
    expect(broken).toEqual([]);
  });
});

describe("unsafe", () => {
  const home = /^(linux\/|addon\/|datapath\/src\/(ring|frame|device)\/)/;

  it("stands only where the design allows it", () => {
    const elsewhere = rust.filter(
      (file) =>
        !home.test(file.path) &&
        !/\/(tests|examples|benches|fuzz)\//.test(file.path) &&
        /\bunsafe\b/.test(code(file.text)),
    );
    expect(elsewhere.map((file) => file.path)).toEqual([]);
  });

  it("system calls are made by linux alone", () => {
    const broken = files(/^(datapath|client|addon)\/Cargo\.toml$/).filter((file) => {
      const shipped = file.text.split(/^\[dev-dependencies\]/m)[0]!;
      return /^(libc|rustix|nix)\b/m.test(shipped);
    });
    expect(broken.map((file) => file.path)).toEqual([]);
  });
});

describe("arrows between the TypeScript packages", () => {
  const packages: Record<string, RegExp> = {
    control: /^(@bifurcate\/control|control\/)/,
    addon: /^(@bifurcate\/addon|addon\/)/,
    bifurcate: /^(bifurcate$|bifurcate\/)/,
    lab: /^(@bifurcate\/lab|lab\/)/,
    bench: /^(@bifurcate\/bench|bench\/)/,
  };
  const allowed: Record<string, string[]> = {
    control: ["addon"],
    bifurcate: ["control", "addon", "lab"],
    lab: ["control"],
    bench: ["addon", "control", "bifurcate", "lab"],
    examples: ["bifurcate"],
  };
  for (const [from, targets] of Object.entries(allowed)) {
    it(`${from} imports only ${targets.join(", ")}`, () => {
      const broken = sources
        .filter((file) => file.path.startsWith(`${from}/`) && !file.path.endsWith(".test.ts"))
        .flatMap((file) =>
          imports(file).flatMap((name) => {
            const target = Object.keys(packages).find((key) => packages[key]!.test(name));
            return target === undefined || target === from || targets.includes(target)
              ? []
              : [`${file.path} -> ${name}`];
          }),
        );
      expect(broken).toEqual([]);
    });
  }

  it("control never touches a frame", () => {
    const broken = sources.filter(
      (file) =>
        file.path.startsWith("control/") &&
        /\b(NativeQueue|takeQueue|openAfXdp|openAfPacket|openLoopback)\b/.test(file.text),
    );
    expect(broken.map((file) => file.path)).toEqual([]);
  });
});

describe("the broker", () => {
  /** Modules outside of the tree that these files import, directly or through others; types are no imports. */
  function outside(start: RegExp): { seen: Set<string>; modules: Set<string> } {
    const shipped = new Map(sources.map((file) => [file.path, file]));
    const [seen, modules] = [new Set<string>(), new Set<string>()];
    const left = [...shipped.keys()].filter(
      (path) => start.test(path) && !/\.test\.ts$|\/testing\//.test(path),
    );
    for (let path = left.pop(); path !== undefined; path = left.pop()) {
      if (seen.has(path)) continue;
      seen.add(path);
      const { text } = shipped.get(path)!;
      for (const name of imports({ path, text: text.replace(/^(import|export) type [^;]*;/gm, "") })) {
        const next = name.replace(/\.js$/, ".ts");
        if (shipped.has(next)) left.push(next);
        else modules.add(name);
      }
    }
    return { seen, modules };
  }
  const starting = (modules: Set<string>): string[] =>
    [...modules].filter((name) => /^(node:)?(child_process|cluster)$/.test(name));

  it("starts no process, and nothing that it is made of does", () => {
    const { seen, modules } = outside(/^control\/src\/broker\//);
    expect(seen.size).toBeGreaterThan(50);
    expect(starting(modules)).toEqual([]);
    // The guardian's is a process, and is found.
    expect(starting(outside(/^control\/src\/guardian\//).modules)).toEqual(["node:child_process"]);
  });
});

describe("every file", () => {
  it("opens with one line that says what it is about", () => {
    const silent = [...rust, ...typescript].filter((file) => !/^(#!.*\n)?\/(\/|\*)/.test(file.text));
    expect(silent.map((file) => file.path)).toEqual([]);
  });

  it("is about one thing: no source file over 600 lines", () => {
    const long = [...rust, ...typescript].map((file) => [file.path, file.text.split("\n").length] as const);
    expect(long.filter(([, lines]) => lines > 600)).toEqual([]);
  });

  it("names no path of a developer's machine and no package registry", () => {
    const banned = new RegExp(
      [
        `/${"work"}/(main|shared)`,
        `/${"root"}/`,
        `registry\\.${"npmjs"}`,
        `static\\.${"crates"}\\.io`,
        `deb\\.${"debian"}\\.org`,
      ].join("|"),
    );
    const all = files(/\.(rs|ts|mjs|js|json|md|toml|yml|sh|html)$|^\.ci\/run$/);
    expect(all.filter((file) => banned.test(file.text)).map((file) => file.path)).toEqual([]);
  });

  it("leaves nothing undone or switched off", () => {
    const inRust = new RegExp([`\\b${"todo"}!`, `\\b${"unimplemented"}!`, `#\\[${"ignore"}\\b`].join("|"));
    const inTypeScript = new RegExp(
      [
        `\\b(it|test|describe)\\.(${"only|todo|skip"})\\b`,
        `@ts-${"ignore"}`,
        // The cast, not two words of a sentence.
        `\\b${"as any"}\\b(?! [a-z])`,
      ].join("|"),
    );
    const undone = [
      ...rust.filter((file) => inRust.test(code(file.text))),
      ...typescript.filter((file) => !file.path.startsWith("tidy/") && inTypeScript.test(file.text)),
    ];
    expect(undone.map((file) => file.path)).toEqual([]);
  });

  it("installs nothing behind the user's back: no package has an install script", () => {
    const hooks = files(/(^|\/)package\.json$/).filter((file) => {
      const scripts = (JSON.parse(file.text) as { scripts?: Record<string, string> }).scripts ?? {};
      return ["preinstall", "install", "postinstall", "prepare", "prepublish"].some(
        (name) => name in scripts,
      );
    });
    expect(hooks.map((file) => file.path)).toEqual([]);
  });
});

describe("ARCHITECTURE.md", () => {
  const page = files(/^ARCHITECTURE\.md$/)[0]!.text;
  const house = page.split("\n## The house\n")[1]!.split("\n## ")[0]!;
  const folders = (pattern: RegExp): string[] => [
    ...new Set(files(pattern).map((file) => pattern.exec(file.path)![1]!)),
  ];

  it("has every device, and every part of control, in the house", () => {
    const parts = [
      ...folders(/^datapath\/src\/device\/(\w+)\//),
      ...folders(/^control\/src\/(\w+)\//),
      ...folders(/^([a-z]+)\/(?:package\.json|Cargo\.toml)$/),
    ];
    expect(parts.length).toBeGreaterThan(30);
    expect(parts.filter((part) => !new RegExp(`\\b${part}\\b`).test(house))).toEqual([]);
  });
});

describe("pages", () => {
  it("link to what is there", () => {
    const broken = files(/\.md$/).flatMap((page) =>
      [...page.text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)]
        .map((match) => match[1]!)
        .filter((target) => !/^[a-z]+:/.test(target) && !exists(page.path, target))
        .map((target) => `${page.path}: ${target}`),
    );
    expect(broken).toEqual([]);
  });
});

describe("decisions", () => {
  it("are numbered once each and titled", () => {
    const pages = files(/^docs\/decisions\/.*\.md$/);
    const numbers = pages.map((file) => /\/(\d{4})-[a-z0-9-]+\.md$/.exec(file.path)?.[1] ?? file.path);
    expect(new Set(numbers).size).toBe(pages.length);
    expect(pages.filter((file) => !file.text.startsWith("# ")).map((file) => file.path)).toEqual([]);
  });
});
