// Tells from a refused call that the kernel's verifier refused a program, and not a right or an argument.

/**
 * Whether the verifier refused: it says EACCES, EINVAL and more, of which none is about rights. Its words stand at the end
 * of the call's arguments.
 */
export function verifierRefused(thrown: unknown): boolean {
  if (!(thrown instanceof Error) || !("args" in thrown)) return false;
  return typeof thrown.args === "string" && thrown.args.includes("; the verifier says:\n");
}
