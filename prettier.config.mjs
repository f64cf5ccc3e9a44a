// How TypeScript, JSON and Markdown are laid out.
export default { printWidth: 110, proseWrap: "preserve" };
