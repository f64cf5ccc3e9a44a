// Turns the lines that napi-derive writes while compiling (one JSON object an item) into a .d.ts file.

/**
 * @param {string} text lines of `{kind, name, js_doc, def}`, in any order
 * @returns {string} the declarations, sorted by name so that the order of compilation does not show
 */
export function declarations(text) {
  const items = text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
  const members = new Map();
  for (const { name, def } of items.filter(({ kind }) => kind === "impl")) {
    members.set(name, [...(members.get(name) ?? []), def]);
  }
  const written = items
    .filter(({ kind }) => kind !== "impl")
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((item) => `${item.js_doc}${declaration(item, members.get(item.name) ?? [])}\n`);
  return `// Generated from addon/src by \`node addon/build.mjs\`: do not edit.\n\n${written.join("\n")}`;
}

function declaration({ kind, name, def }, members) {
  switch (kind) {
    case "struct":
      return `export declare class ${name} {\n${indented([def, ...members].filter(Boolean).join("\n"))}}`;
    case "interface":
      return `export interface ${name} {\n${indented(def)}}`;
    case "type":
      return `export type ${name} = ${def.trim()};`;
    case "fn":
    case "const":
      // A constant comes with its own export.
      return `export declare ${def.trim().replace(/^export |;$/g, "")};`;
    case "enum":
    case "string_enum":
      return `export declare enum ${name} {\n${indented(def)}}`;
    default:
      throw new Error(`napi-derive wrote a ${kind} (${name}), which addon/declarations.mjs does not know`);
  }
}

/** Two spaces before every line; napi-derive leaves a space before methods, where a prefix could stand. */
function indented(body) {
  return body
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => `  ${line.replace(/^ (?=[\w[])/, "")}\n`)
    .join("");
}
