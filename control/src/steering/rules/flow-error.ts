// Errors in a filter expression: each points at the characters it is about.
import { BifurcateError } from "../../errors.js";
import type { Span } from "./tree.js";

/** Codes that an expression can fail with. */
export type FlowErrorCode =
  "E_FLOW_SYNTAX" | "E_FLOW_UNSUPPORTED" | "E_FLOW_NAME" | "E_FLOW_TOO_LARGE" | "E_FLOW_NEVER";

/**
 * An error about the characters `span` of `source`. Its message ends with the expression and a caret line; its
 * data has `expression`, `position` and `length` (UTF-16 units) and `caret`, the two lines.
 */
export function flowError(
  code: FlowErrorCode,
  source: string,
  span: Span,
  why: string,
  next?: string,
): BifurcateError {
  const caret = caretLines(source, span);
  return new BifurcateError(code, {
    what: `flow '${source}'`,
    why: `${why} (at character ${span.start + 1})\n${caret}`,
    next,
    data: {
      expression: source,
      position: span.start,
      length: Math.max(0, span.end - span.start),
      caret,
    },
  });
}

/** The expression on one line, and below it a caret under the first character and tildes under the rest. */
export function caretLines(source: string, span: Span): string {
  const line = source.replace(/[\t\r\n]/g, " ");
  const marks = "^" + "~".repeat(Math.max(0, Math.min(span.end, source.length) - span.start - 1));
  return `  ${line}\n  ${" ".repeat(span.start)}${marks}`;
}
